//! Verifies a request, and makes an event of it: small bodies where they came, large ones beside the HTTP workers.
//!
//! A worker serves many connections, and the signature of 16 MiB takes it tens of milliseconds, in which none of them is
//! served. So large bodies are verified one at a time on a thread of their own, and those on connections that carried a
//! verified request before do not stand in one queue with those of strangers.

use std::{sync::Arc, time::Duration};

use actix_web::{http::header::HeaderMap, rt::task::spawn_blocking};
use bytes::Bytes;
use tokio::{sync::Semaphore, time::timeout};

use super::{answer::Refusal, budget::SMALL_BODY_BYTES_MAX};
use crate::{
    event::{Event, Time},
    provider::{Headers, Unverified, millicast::Receiver},
};

/// How long a large body may wait for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(10);

/// The queues of large bodies.
pub(super) struct Verification {
    of_strangers: Semaphore,
    of_verified: Semaphore,
}

impl Verification {
    pub fn new() -> Self {
        Self {
            of_strangers: Semaphore::new(1),
            of_verified: Semaphore::new(1),
        }
    }

    /// Verifies, and only then reads. `verified`: the connection carried a verified request before.
    pub async fn receive(
        &self,
        receiver: &Arc<Receiver>,
        headers: &HeaderMap,
        body: Bytes,
        verified: bool,
    ) -> Result<Event, Refusal> {
        if body.len() as u64 <= SMALL_BODY_BYTES_MAX {
            return receive(receiver, headers, body);
        }
        let queue = if verified {
            &self.of_verified
        } else {
            &self.of_strangers
        };
        let turn = timeout(TURN_DEADLINE, queue.acquire()).await;
        let _turn = turn.map_err(|_| Refusal::VerifyingFull)?;
        let (receiver, headers) = (Arc::clone(receiver), headers.clone());
        spawn_blocking(move || receive(&receiver, &headers, body))
            .await
            .unwrap_or(Err(Refusal::Panicked))
    }
}

fn receive(receiver: &Receiver, headers: &HeaderMap, body: Bytes) -> Result<Event, Refusal> {
    let request = Unverified {
        headers: &RequestHeaders(headers),
        body,
        received: Time::now(),
    };
    let verified = receiver.verify(request).map_err(Refusal::Signature)?;
    Ok(receiver.event(verified))
}

/// The headers of a request.
pub(super) struct RequestHeaders<'a>(pub &'a HeaderMap);

impl Headers for RequestHeaders<'_> {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let mut values = self.0.get_all(name);
        let value = values.next()?;
        values.next().is_none().then_some(value.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn a_header_that_is_there_twice_has_no_value() {
        let mut headers = HeaderMap::new();
        let name = HeaderName::from_static("x-millicast-signature");
        headers.append(name.clone(), HeaderValue::from_static("first"));
        assert_eq!(
            RequestHeaders(&headers).value("X-Millicast-Signature"),
            Some(&b"first"[..])
        );
        headers.append(name, HeaderValue::from_static("second"));
        assert_eq!(RequestHeaders(&headers).value("X-Millicast-Signature"), None);
    }
}
