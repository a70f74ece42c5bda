//! Reads a body, within its limits of size, memory and time.

use std::time::Duration;

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{self, HeaderMap},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::{
    answer::Refusal,
    budget::{BodyBudget, Reservation},
};
use crate::http::Link;

/// How long a body may be slower than [`RATE_MIN_BYTES_PER_S`].
const RATE_GRACE: Duration = Duration::from_secs(2);
/// The lowest rate of a body, on average since its head.
const RATE_MIN_BYTES_PER_S: u64 = 1024;
/// A body that does not come in one piece first gets so much memory, and then twice as much each time.
const FIRST_CAPACITY_BYTES: u64 = 16 * 1024;

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
    link: &Link,
    limits: BodyLimits,
    budget: &BodyBudget,
) -> Result<(Bytes, Reservation), Refusal> {
    let length = declared_bytes(headers)?;
    if length.is_some_and(|length| length > limits.bytes_max) {
        return Err(Refusal::TooLarge);
    }
    let reservation = budget.open(link.place().is_verified());
    let body = tokio::select! {
        biased;
        body = read_reserved(length, payload, link, limits, &reservation) => body?,
        () = reservation.given_up() => return Err(Refusal::BodiesFull),
    };
    reservation.complete();
    Ok((body, reservation))
}

async fn read_reserved(
    length: Option<u64>,
    payload: &mut Payload,
    link: &Link,
    limits: BodyLimits,
    reservation: &Reservation,
) -> Result<Bytes, Refusal> {
    let mut pace = Pace::new(limits.deadline);
    let mut body = Body::default();
    while let Some(chunk) = pace.next(payload, body.len(), link).await? {
        if body.len() + chunk.len() as u64 > limits.bytes_max {
            return Err(Refusal::TooLarge);
        }
        let capacity = body.capacity_for(&chunk, length.unwrap_or(limits.bytes_max));
        reservation.set(capacity)?;
        body.push(chunk, capacity);
    }
    Ok(body.finish())
}

/// The length that the head declares; none for a chunked body.
fn declared_bytes(headers: &HeaderMap) -> Result<Option<u64>, Refusal> {
    let Some(value) = headers.get(header::CONTENT_LENGTH) else {
        return Ok(None);
    };
    let text = value.to_str().map_err(|_| Refusal::Framing)?;
    text.trim().parse().map(Some).map_err(|_| Refusal::Framing)
}

/// What has come of a body. One that came in one piece, as most do, is not copied.
#[derive(Default)]
struct Body {
    first: Bytes,
    rest: BytesMut,
}

impl Body {
    fn len(&self) -> u64 {
        (self.first.len() + self.rest.len()) as u64
    }

    /// How much memory the body takes with this chunk: no more than twice what has come, nor than it can become.
    fn capacity_for(&self, chunk: &Bytes, length_max: u64) -> u64 {
        let length = self.len() + chunk.len() as u64;
        if self.len() == 0 {
            return length;
        }
        let mut capacity = (self.rest.capacity() as u64).max(FIRST_CAPACITY_BYTES);
        while capacity < length {
            capacity *= 2;
        }
        capacity.min(length_max).max(length)
    }

    fn push(&mut self, chunk: Bytes, capacity: u64) {
        if self.len() == 0 {
            self.first = chunk;
            return;
        }
        let first = std::mem::take(&mut self.first);
        let more = (capacity as usize).saturating_sub(self.rest.len());
        if self.rest.capacity() < capacity as usize {
            self.rest.reserve(more);
        }
        self.rest.extend_from_slice(&first);
        self.rest.extend_from_slice(&chunk);
    }

    fn finish(self) -> Bytes {
        if self.rest.is_empty() {
            self.first
        } else {
            self.rest.freeze()
        }
    }
}

/// Holds a body to its deadline and to the lowest rate.
struct Pace {
    start: Instant,
    deadline: Instant,
    check: Instant,
}

impl Pace {
    fn new(deadline: Duration) -> Self {
        let start = Instant::now();
        Self {
            start,
            deadline: start + deadline,
            check: start + RATE_GRACE.min(deadline),
        }
    }

    /// The next piece, none at the end of the body.
    async fn next(&mut self, payload: &mut Payload, read_bytes: u64, link: &Link) -> Result<Option<Bytes>, Refusal> {
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
                    return Err(Refusal::Incomplete);
                }
                Ok(Some(Err(_))) => return Err(Refusal::Framing),
                Err(_) => {}
            }
        }
    }

    fn check(&mut self, read_bytes: u64) -> Result<(), Refusal> {
        let now = Instant::now();
        if now >= self.deadline {
            return Err(Refusal::Deadline);
        }
        let elapsed_ms = u64::try_from(now.duration_since(self.start).as_millis()).unwrap_or(u64::MAX);
        if read_bytes.saturating_mul(1000) < elapsed_ms.saturating_mul(RATE_MIN_BYTES_PER_S) {
            return Err(Refusal::TooSlow);
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
        let mut body = Body::default();
        let mut come = 0;
        for piece in [100, 20_000, 1, 50_000, 200_000, 730_000] {
            let chunk = Bytes::from(vec![b'x'; piece]);
            let capacity = body.capacity_for(&chunk, 1_000_000);
            body.push(chunk, capacity);
            come += piece as u64;
            assert_eq!(body.len(), come);
            assert!(
                capacity >= come && capacity <= (2 * come).max(FIRST_CAPACITY_BYTES),
                "{capacity} for {come}"
            );
            assert!(capacity <= 1_000_101, "{capacity} is more than it can become");
        }
        assert_eq!(body.finish().len() as u64, come);
    }

    #[test]
    fn a_body_is_put_together_in_order() {
        for pieces in [vec![], vec!["one"], vec!["one", "two"], vec!["one", "two", "three"]] {
            let mut body = Body::default();
            for piece in &pieces {
                let chunk = Bytes::from_static(piece.as_bytes());
                let capacity = body.capacity_for(&chunk, 100);
                body.push(chunk, capacity);
            }
            assert_eq!(body.finish(), pieces.concat());
        }
    }
}
