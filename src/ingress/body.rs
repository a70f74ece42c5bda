//! Reads a body, within its limits of size, memory and time.

use std::time::Duration;

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{self, HeaderMap},
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::RequestRefusal,
    budget::{BodyBudget, BodyReservation},
};
use crate::http::ConnectionLink;

/// How long a body may be slower than [`RATE_MIN_BYTES_PER_S`].
const RATE_GRACE: Duration = Duration::from_secs(2);
/// The lowest rate of a body, on average since its head.
const RATE_MIN_BYTES_PER_S: u64 = 1024;
/// The first piece of memory for a body that does not come in one chunk. The next ones double what there is, up to
/// [`PIECE_BYTES_MAX`].
const PIECE_BYTES_MIN: u64 = 16 * 1024;
const PIECE_BYTES_MAX: u64 = 64 * 1024;

/// The limits of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub bytes_max: u64,
    pub deadline: Duration,
}

/// Reads the whole of `payload`, which came by `link`. What has come is reserved, until the reservation is dropped.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    link: &ConnectionLink,
    limits: BodyLimits,
    budget: &BodyBudget,
) -> Result<(RequestBody, BodyReservation), RequestRefusal> {
    let length = declared_bytes(headers)?;
    if length.is_some_and(|length| length > limits.bytes_max) {
        return Err(RequestRefusal::TooLarge);
    }
    let reservation = budget.open(link.place().is_verified());
    let body = tokio::select! {
        biased;
        body = read_reserved(length, payload, link, limits, &reservation) => body?,
        () = reservation.given_up() => return Err(RequestRefusal::BodiesFull),
    };
    reservation.complete();
    Ok((body, reservation))
}

async fn read_reserved(
    length: Option<u64>,
    payload: &mut Payload,
    link: &ConnectionLink,
    limits: BodyLimits,
    reservation: &BodyReservation,
) -> Result<RequestBody, RequestRefusal> {
    let mut pace = BodyPace::new(limits.deadline);
    let mut body = RequestBody::default();
    while let Some(chunk) = pace.next(payload, body.len(), link).await? {
        if body.len() + chunk.len() as u64 > limits.bytes_max {
            return Err(RequestRefusal::TooLarge);
        }
        let length_max = length.unwrap_or(limits.bytes_max);
        reservation.set(body.capacity_with(chunk.len(), length_max))?;
        body.push(chunk, length_max);
    }
    Ok(body)
}

/// The length that the head declares; none for a chunked body.
fn declared_bytes(headers: &HeaderMap) -> Result<Option<u64>, RequestRefusal> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| RequestRefusal::Framing)?;
    text.trim().parse().map(Some).map_err(|_| RequestRefusal::Framing)
}

/// What has come of a body. One that came in one chunk, as most do, is not copied; a larger one stays in pieces, for to
/// move megabytes takes longer than a worker's other connections should wait.
#[derive(Default)]
pub(super) struct RequestBody {
    /// The first chunk, until there is a second.
    first: Bytes,
    pieces: Vec<Vec<u8>>,
    /// What the pieces have room for.
    capacity: u64,
    length: u64,
}

impl RequestBody {
    pub fn len(&self) -> u64 {
        self.length
    }

    /// How much memory the body takes with a chunk more: no more than twice what has come, nor than it can become.
    fn capacity_with(&self, chunk_length: usize, length_max: u64) -> u64 {
        let length = self.length + chunk_length as u64;
        if self.length == 0 {
            return length;
        }
        let mut capacity = self.capacity;
        while capacity < length {
            capacity += next_piece_bytes(capacity, length_max);
        }
        capacity
    }

    fn push(&mut self, chunk: Bytes, length_max: u64) {
        let is_first = self.length == 0;
        self.length += chunk.len() as u64;
        if is_first {
            self.first = chunk;
            return;
        }
        let first = std::mem::take(&mut self.first);
        self.copy(&first, length_max);
        self.copy(&chunk, length_max);
    }

    fn copy(&mut self, mut bytes: &[u8], length_max: u64) {
        while !bytes.is_empty() {
            let has_room = |piece: &&mut Vec<u8>| piece.len() < piece.capacity();
            let Some(piece) = self.pieces.last_mut().filter(has_room) else {
                let piece = Vec::with_capacity(next_piece_bytes(self.capacity, length_max) as usize);
                self.capacity += piece.capacity() as u64;
                self.pieces.push(piece);
                continue;
            };
            let (part, rest) = bytes.split_at(bytes.len().min(piece.capacity() - piece.len()));
            piece.extend_from_slice(part);
            bytes = rest;
        }
    }

    /// Puts it together. Takes milliseconds for a large one.
    pub fn into_bytes(self) -> Bytes {
        if self.pieces.is_empty() {
            return self.first;
        }
        let mut whole = Vec::with_capacity(self.length as usize);
        for piece in self.pieces {
            whole.extend_from_slice(&piece);
        }
        whole.into()
    }
}

/// The size of the piece that follows those of `capacity` bytes.
fn next_piece_bytes(capacity: u64, length_max: u64) -> u64 {
    let bytes = capacity.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
    match length_max.saturating_sub(capacity) {
        0 => bytes,
        left => bytes.min(left),
    }
}

/// Holds a body to its deadline and to the lowest rate.
struct BodyPace {
    start: Instant,
    deadline: Instant,
    check: Instant,
}

impl BodyPace {
    fn new(deadline: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            deadline: start + deadline,
            check: start + RATE_GRACE.min(deadline),
        }
    }

    /// The next piece, none at the end of the body.
    async fn next(
        &mut self,
        payload: &mut Payload,
        read_bytes: u64,
        link: &ConnectionLink,
    ) -> Result<Option<Bytes>, RequestRefusal> {
        loop {
            let next = timeout_at(self.check, payload.next()).await;
            if Instant::now() >= self.check {
                self.check(read_bytes)?;
            }
            match next {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(chunk))) => return Ok(Some(chunk)),
                // What is no chunk looks to actix-web like a body that ended too early.
                Ok(Some(Err(PayloadError::Incomplete(_)))) if !link.chunks_are_malformed() => {
                    return Err(RequestRefusal::Incomplete);
                }
                Ok(Some(Err(_))) => return Err(RequestRefusal::Framing),
                Err(_) => {}
            }
        }
    }

    fn check(&mut self, read_bytes: u64) -> Result<(), RequestRefusal> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(RequestRefusal::Deadline);
        }
        let elapsed_ms = u64::try_from(now.duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        if read_bytes.saturating_mul(1000) < elapsed_ms.saturating_mul(RATE_MIN_BYTES_PER_S) {
            return Err(RequestRefusal::TooSlow);
        }
        self.check = (now + Duration::from_secs(1)).min(self.deadline);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_takes_no_more_than_twice_what_has_come() {
        let mut body = RequestBody::default();
        let mut come = 0;
        for piece in [100, 20_000, 1, 50_000, 200_000, 730_000] {
            let chunk = Bytes::from(vec![b'x'; piece]);
            let capacity = body.capacity_with(chunk.len(), 1_000_101);
            body.push(chunk, 1_000_101);
            come += piece as u64;
            assert_eq!(body.len(), come);
            assert!(
                capacity >= come && capacity <= (2 * come).max(PIECE_BYTES_MIN),
                "{capacity} for {come}"
            );
            assert!(capacity <= 1_000_101, "{capacity} is more than it can become");
            let held: usize = body.pieces.iter().map(Vec::capacity).sum();
            assert!(
                (held + body.first.len()) as u64 <= capacity,
                "{held} is more than was reserved"
            );
        }
        assert_eq!(body.into_bytes().len() as u64, come);
    }

    #[test]
    fn a_body_is_put_together_in_order() {
        let long: String = (0..40_000).map(|number| format!("{number} ")).collect();
        let chunks = [
            vec![],
            vec!["one"],
            vec!["one", "two"],
            vec!["one", &long, "three", &long, &long],
        ];
        for chunks in chunks {
            let mut body = RequestBody::default();
            for chunk in &chunks {
                body.push(Bytes::copy_from_slice(chunk.as_bytes()), 1_000_000);
            }
            assert_eq!(body.into_bytes(), chunks.concat());
        }
    }
}
