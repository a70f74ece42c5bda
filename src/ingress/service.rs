//! Answers one request.

use std::{
    collections::HashMap,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    dev::Payload,
    http::{
        ConnectionType, Method,
        header::{self, HeaderMap},
    },
};
use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    Endpoint,
    answer::{self, Refusal},
    appends::Appends,
    body::{self, Budget, Limits},
    connections::Entry,
    endpoint::{Served, Told},
    lateness::Lateness,
    other_accounts::OtherAccounts,
    peer,
    seen_ids::SeenIds,
    spans::RequestSpan,
};
use crate::{
    config,
    event::{Content, Event, Time},
    lifecycle::{Lifecycle, Phase},
    provider::{Headers, Unverified, millicast::SIGNATURE},
    spool::{Answer, Class},
    telemetry::{Metrics, Traces},
};

/// From the append to its fsync. A sender's patience is unknown, a sister product's is 3 s; an answer of 503 is counted
/// by the sender as an answer, and too many time-outs disable the webhook.
const ACK_DEADLINE: Duration = Duration::from_millis(2500);

/// What all requests share.
pub(super) struct Service {
    by_path: HashMap<String, Served>,
    no_endpoint: Told,
    limits: Limits,
    budget: Budget,
    lateness: Lateness,
    seen_ids: SeenIds,
    trusted_proxies: Vec<config::Network>,
    lifecycle: Arc<Lifecycle>,
    traces: Traces,
}

impl Service {
    pub fn new(
        config: &config::Server,
        endpoints: Vec<Endpoint>,
        lifecycle: Arc<Lifecycle>,
        metrics: &Metrics,
        traces: Traces,
    ) -> Self {
        let windows = endpoints.iter().map(|endpoint| endpoint.replay_window);
        let window_max = windows.max().unwrap_or_default();
        let served = endpoints.into_iter().map(|endpoint| {
            let counter = metrics.other_account_events.with_label_values(&[&endpoint.name]);
            let served = Served {
                told: Told::new(&endpoint.name, metrics),
                other_accounts: OtherAccounts::new(&endpoint.receiver, counter),
                replay_window: endpoint.replay_window,
                receiver: endpoint.receiver,
                refused: endpoint.refused,
                path: endpoint.path,
            };
            (served.path.clone(), served)
        });
        Self {
            by_path: served.collect(),
            no_endpoint: Told::none(metrics),
            limits: Limits {
                bytes_max: config.body_bytes_max,
                deadline: config.body_deadline,
            },
            budget: Budget::new(config.bodies_bytes_max),
            lateness: Lateness::new(config.streams_max, metrics.streams_remembered.clone()),
            seen_ids: SeenIds::new(config.event_ids_max, window_max, metrics.event_ids_remembered.clone()),
            trusted_proxies: config.trusted_proxies.clone(),
            lifecycle,
            traces,
        }
    }

    /// Answers a request, whatever it is. `appends` are those of the worker that it came to.
    pub async fn answer(&self, appends: &Rc<Appends>, request: HttpRequest, mut payload: Payload) -> HttpResponse {
        let start = Instant::now();
        let entry = request.conn_data::<Entry>();
        let _busy = entry.map(Entry::busy);
        let served = self.by_path.get(request.uri().path());
        let told = served.map_or(&self.no_endpoint, |served| &served.told);

        let client = || peer::client(&request, &self.trusted_proxies);
        let mut span = RequestSpan::new(&self.traces, &request, served, start);

        let taken = caught(self.take(appends, served, &request, &mut payload, &mut span)).await;
        let mut response = match taken {
            Ok(()) => {
                told.accepted(start.elapsed());
                answer::accepted()
            }
            Err(refusal) => {
                span.refused(refusal);
                told.refused(refusal, client, || span.trace_id());
                refusal.answer(payload)
            }
        };
        span.end(response.status(), client);
        if entry.is_none() || self.lifecycle.phase() >= Phase::Draining {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    /// Takes a webhook in: when this returns `Ok`, it is durable.
    async fn take(
        &self,
        appends: &Rc<Appends>,
        served: Option<&Served>,
        request: &HttpRequest,
        payload: &mut Payload,
        span: &mut RequestSpan<'_>,
    ) -> Result<(), Refusal> {
        let served = served.ok_or(Refusal::Path)?;
        if request.method() != Method::POST {
            return Err(Refusal::Method);
        }
        if request.headers().contains_key(header::UPGRADE) {
            return Err(Refusal::Upgrade);
        }
        if self.lifecycle.phase() == Phase::Stopping {
            return Err(Refusal::Stopping);
        }
        let (body, _reservation) = body::read(request.headers(), payload, self.limits, &self.budget).await?;
        let mut event = receive(served, request.headers(), body.clone()).inspect_err(|refusal| {
            if let Refusal::Signature(reason) = refusal {
                let header = RequestHeaders(request.headers());
                let client = peer::client(request, &self.trusted_proxies);
                served
                    .refused
                    .refused(client, *reason, header.value(SIGNATURE), Some(&body));
            }
        })?;
        self.mark(served, &mut event);
        event.trace = span.verified(&event);
        let durable = served.told.event(&event.kind);
        let record = event.encode();
        let waiting = span.append(record.len());
        let stored = match appends.append(record, class(&event), durable) {
            Ok(append) => settled(append, ACK_DEADLINE).await,
            Err(error) => Err(Refusal::Spool(error)),
        };
        waiting.end(stored);
        if matches!(stored, Err(Refusal::Spool(_))) && !event.is_repeated {
            self.seen_ids.forget(event.id);
        }
        stored.map(drop)
    }

    /// Holds an event against those before it.
    fn mark(&self, served: &Served, event: &mut Event) {
        event.late_by_ms = self.lateness.observe(&event.key, event.time, event.recorded);
        event.is_stale = is_stale(event, served.replay_window);
        event.is_repeated = self.seen_ids.observe(event.id, served.replay_window, Instant::now());
        served.told.marked(event);
        served.other_accounts.observe(event);
    }
}

/// Verifies, and only then reads.
fn receive(served: &Served, headers: &HeaderMap, body: Bytes) -> Result<Event, Refusal> {
    let request = Unverified {
        headers: &RequestHeaders(headers),
        body,
        received: Time::now(),
    };
    let verified = served.receiver.verify(request).map_err(Refusal::Signature)?;
    Ok(served.receiver.event(verified))
}

/// Whether an event was sent longer ago than `window`, by a time that its sender signed. A window of zero is none.
fn is_stale(event: &Event, window: Duration) -> bool {
    let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    let age_ms = event.sent.map_or(0, |sent| event.recorded.0.saturating_sub(sent.0));
    window_ms > 0 && age_ms > window_ms
}

/// Waits for an append for so long as the sender may be expected to.
async fn settled(append: impl Future<Output = Answer>, deadline: Duration) -> Result<u64, Refusal> {
    match tokio::time::timeout(deadline, append).await {
        Ok(result) => result.map_err(Refusal::Spool),
        Err(_) => Err(Refusal::Late),
    }
}

/// A panic refuses the one request that it came from.
async fn caught(taken: impl Future<Output = Result<(), Refusal>>) -> Result<(), Refusal> {
    AssertUnwindSafe(taken)
        .catch_unwind()
        .await
        .unwrap_or(Err(Refusal::Panicked))
}

fn class(event: &Event) -> Class {
    if event.kind == "thumbnail" || event.content == Content::Jpeg {
        Class::Bulk
    } else {
        Class::Ordinary
    }
}

struct RequestHeaders<'a>(&'a HeaderMap);

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

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        assert_eq!(caught(async { panic!("on purpose") }).await, Err(Refusal::Panicked));
        assert_eq!(caught(async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test]
    async fn a_disk_that_is_late_is_not_waited_for() {
        let deadline = Duration::from_millis(5);
        assert_eq!(settled(std::future::pending(), deadline).await, Err(Refusal::Late));
        assert_eq!(settled(std::future::ready(Ok(1)), deadline).await, Ok(1));
    }

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
