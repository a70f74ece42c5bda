//! Reads a body, within its limits of size, memory and time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use actix_web::{
    dev::Payload,
    error::PayloadError,
    http::header::{self, HeaderMap},
};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::answer::Refusal;

/// How long a body may be slower than [`RATE_MIN_BYTES_PER_S`].
const RATE_GRACE: Duration = Duration::from_secs(2);
/// The lowest rate of a body, on average since its head.
const RATE_MIN_BYTES_PER_S: u64 = 1024;
/// Memory for a body of unknown length is reserved in steps of this.
const RESERVATION_STEP_BYTES: u64 = 64 * 1024;

/// The limits of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub bytes_max: u64,
    pub deadline: Duration,
}

/// The memory set aside for all bodies that are being read.
#[derive(Debug, Clone)]
pub(super) struct Budget(Arc<AtomicU64>);

/// A part of the [`Budget`], given back when dropped.
#[derive(Debug)]
pub(super) struct Reservation {
    budget: Budget,
    bytes: u64,
}

impl Budget {
    pub fn new(bytes: u64) -> Self {
        Self(Arc::new(AtomicU64::new(bytes)))
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation, Refusal> {
        let mut reservation = Reservation {
            budget: self.clone(),
            bytes: 0,
        };
        reservation.grow(bytes)?;
        Ok(reservation)
    }
}

impl Reservation {
    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.budget
            .0
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |free| free.checked_sub(bytes))
            .map_err(|_| Refusal::BodiesFull)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.0.fetch_add(self.bytes, Ordering::Relaxed);
    }
}

/// Reads the whole of `payload`. Its memory is reserved before it is read, and counts until the reservation is dropped.
pub(super) async fn read(
    headers: &HeaderMap,
    payload: &mut Payload,
    limits: Limits,
    budget: &Budget,
) -> Result<(Bytes, Reservation), Refusal> {
    let length = declared_bytes(headers)?;
    if length.is_some_and(|length| length > limits.bytes_max) {
        return Err(Refusal::TooLarge);
    }
    let mut reservation = budget.reserve(length.unwrap_or(0))?;
    let mut pace = Pace::new(limits.deadline);
    let mut body = Body::default();
    while let Some(chunk) = pace.next(payload, body.len()).await? {
        let bytes = body.len() + chunk.len() as u64;
        if bytes > limits.bytes_max {
            return Err(Refusal::TooLarge);
        }
        if bytes > reservation.bytes {
            reservation.grow((bytes - reservation.bytes).max(RESERVATION_STEP_BYTES))?;
        }
        body.push(chunk, length);
    }
    Ok((body.finish(), reservation))
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

    fn push(&mut self, chunk: Bytes, length: Option<u64>) {
        if self.rest.is_empty() {
            if self.first.is_empty() {
                self.first = chunk;
                return;
            }
            let length = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            self.rest.reserve(length.max(self.first.len() + chunk.len()));
            self.rest.extend_from_slice(&std::mem::take(&mut self.first));
        }
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
    async fn next(&mut self, payload: &mut Payload, read_bytes: u64) -> Result<Option<Bytes>, Refusal> {
        loop {
            let next = timeout_at(self.check, payload.next()).await;
            if Instant::now() >= self.check {
                self.check(read_bytes)?;
            }
            match next {
                Ok(None) => return Ok(None),
                Ok(Some(Ok(chunk))) => return Ok(Some(chunk)),
                Ok(Some(Err(PayloadError::Incomplete(_)))) => return Err(Refusal::Incomplete),
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
    fn a_reservation_comes_back_and_never_exceeds_the_budget() {
        let budget = Budget::new(100);
        let mut first = budget.reserve(60).unwrap();
        assert_eq!(budget.reserve(41).unwrap_err(), Refusal::BodiesFull);
        first.grow(40).unwrap();
        assert_eq!(first.grow(1).unwrap_err(), Refusal::BodiesFull);
        drop(first);
        assert_eq!(budget.reserve(100).unwrap().bytes, 100);
    }

    #[test]
    fn a_body_is_put_together_in_order() {
        for pieces in [vec![], vec!["one"], vec!["one", "two"], vec!["one", "two", "three"]] {
            let mut body = Body::default();
            for piece in &pieces {
                body.push(Bytes::from_static(piece.as_bytes()), None);
            }
            assert_eq!(body.finish(), pieces.concat());
        }
    }
}
