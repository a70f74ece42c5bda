//! Verifies a request, and makes an event of it: small bodies where they came, large ones beside the HTTP workers.
//!
//! A worker serves many connections, and the signature of 16 MiB takes it tens of milliseconds, in which none of them
//! is served. So large bodies are verified one at a time on a thread of their own, and those on connections that
//! carried a verified request before do not stand in one queue with those of strangers, whose thread gets what the
//! others leave of the processors.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use actix_web::{http::header::HeaderMap, rt::task::spawn_blocking};
use bytes::Bytes;
use tokio::{
    sync::{Semaphore, oneshot},
    time::timeout,
};

use super::{answer::RequestRefusal, body::RequestBody, budget::SMALL_BODY_BYTES_MAX, refused::RefusedBody};
use crate::{
    event::{Event, Time},
    senders::{EndpointReceiver, HeaderLookup, UnverifiedRequest},
};

/// How long a large body may wait for its turn.
const TURN_DEADLINE: Duration = Duration::from_secs(10);

/// What the thread for strangers is nicer by than the others: it gets a tenth of a processor that others want.
const STRANGERS_NICE: i32 = 10;

type VerificationTask = Box<dyn FnOnce() + Send>;

/// A request that is no event.
pub(super) struct RejectedRequest {
    pub refusal: RequestRefusal,
    /// Of a request whose signature is refused.
    pub body: Option<RefusedBody>,
}

impl From<RequestRefusal> for RejectedRequest {
    fn from(refusal: RequestRefusal) -> Self {
        Self { refusal, body: None }
    }
}

/// The queues of large bodies.
pub(super) struct Verification {
    of_strangers: Semaphore,
    of_verified: Semaphore,
    strangers: mpsc::Sender<VerificationTask>,
}

impl Verification {
    /// Starts the thread for strangers, which ends with this.
    pub fn start() -> io::Result<Self> {
        let (strangers, tasks) = mpsc::channel::<VerificationTask>();
        let run = move || {
            step_back();
            for task in tasks {
                // Whoever waits for it learns that there is no answer.
                let _ = catch_unwind(AssertUnwindSafe(task));
            }
        };
        thread::Builder::new().name("forebay-strangers".to_owned()).spawn(run)?;
        Ok(Self {
            of_strangers: Semaphore::new(1),
            of_verified: Semaphore::new(1),
            strangers,
        })
    }

    /// Verifies, and only then reads. `verified`: the connection carried a verified request before.
    pub async fn receive(
        &self,
        receiver: &Arc<EndpointReceiver>,
        headers: &HeaderMap,
        body: RequestBody,
        verified: bool,
    ) -> Result<Event, RejectedRequest> {
        if body.len() <= SMALL_BODY_BYTES_MAX {
            return receive(receiver, headers, body.into_bytes());
        }
        let queue = if verified {
            &self.of_verified
        } else {
            &self.of_strangers
        };
        let turn = timeout(TURN_DEADLINE, queue.acquire()).await;
        let _turn = turn.map_err(|_| RequestRefusal::VerifyingFull)?;
        let (receiver, headers) = (Arc::clone(receiver), headers.clone());
        let verify = move || receive(&receiver, &headers, body.into_bytes());
        if verified {
            return spawn_blocking(verify)
                .await
                .unwrap_or(Err(RequestRefusal::Panicked.into()));
        }
        let (answer, answered) = oneshot::channel();
        let job = Box::new(move || drop(answer.send(verify())));
        self.strangers.send(job).map_err(|_| RequestRefusal::Panicked)?;
        answered.await.unwrap_or(Err(RequestRefusal::Panicked.into()))
    }
}

/// Of this thread alone, as Linux has it; elsewhere niceness is the whole process's.
fn step_back() {
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(STRANGERS_NICE);
}

fn receive(receiver: &EndpointReceiver, headers: &HeaderMap, body: Bytes) -> Result<Event, RejectedRequest> {
    let request = UnverifiedRequest {
        headers: &RequestHeaders(headers),
        body: body.clone(),
        received: Time::now(),
    };
    let verified = receiver.verify(request).map_err(|reason| RejectedRequest {
        refusal: RequestRefusal::Signature(reason),
        body: Some(body.into()),
    })?;
    Ok(receiver.event(verified))
}

/// The headers of a request.
pub(super) struct RequestHeaders<'a>(pub &'a HeaderMap);

impl HeaderLookup for RequestHeaders<'_> {
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
