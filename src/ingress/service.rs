//! Answers one request.

use std::{
    collections::HashMap,
    net::IpAddr,
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
use futures_util::FutureExt as _;
use parking_lot::RwLock;

use super::metrics::IngressMetrics;
use super::{
    EventIntake, PublicEndpoint,
    answer::{self, RequestRefusal},
    appends::WorkerAppends,
    body::{self, BodyLimits},
    budget::BodyBudget,
    endpoint::{EndpointMetrics, ServedEndpoint},
    lateness::StreamLateness,
    refused::RefusedBody,
    seen_ids::SeenIds,
    spans::RequestSpan,
    verification::{RequestHeaders, Verification},
};
use crate::{
    config,
    event::Event,
    http::{self, ConnectionLink},
    lifecycle::{ProcessLifecycle, ProcessPhase},
    senders::{self, Sender},
    spool::{AppendReply, RecordClass},
    telemetry::Traces,
};

/// From the append to its fsync. A sender's patience is unknown, a sister product's is 3 s; an answer of 503 is counted
/// by the sender as an answer, and too many time-outs disable the webhook.
const ACK_DEADLINE: Duration = Duration::from_millis(2500);

/// What all requests share.
pub(super) struct WebhookService {
    site: RwLock<Arc<ServiceSite>>,
    no_endpoint: EndpointMetrics,
    lateness: StreamLateness,
    seen_ids: SeenIds,
    parts: ServiceParts,
}

/// What a service is made of, beside its configuration.
pub(super) struct ServiceParts {
    pub intake: EventIntake,
    pub budget: BodyBudget,
    pub verification: Verification,
    pub lifecycle: Arc<ProcessLifecycle>,
    pub metrics: Arc<IngressMetrics>,
    pub traces: Traces,
}

/// What a request finds that comes now; it keeps it to its end.
struct ServiceSite {
    by_path: HashMap<String, Arc<ServedEndpoint>>,
    health_path: Option<String>,
    limits: BodyLimits,
    trusted_proxies: Vec<config::IpNetwork>,
}

impl ServiceSite {
    /// An endpoint that `before` has with the same receiver is the one there.
    fn new(
        config: &config::ServerConfig,
        endpoints: Vec<PublicEndpoint>,
        before: Option<&Self>,
        metrics: &IngressMetrics,
    ) -> Self {
        let served = endpoints.into_iter().map(|endpoint| {
            let before = before.and_then(|site| site.by_path.get(&endpoint.path));
            let same = before.filter(|served| Arc::ptr_eq(&served.receiver, &endpoint.receiver));
            let served = same.cloned();
            let served = served.unwrap_or_else(|| Arc::new(ServedEndpoint::new(endpoint, metrics)));
            (served.path.clone(), served)
        });
        Self {
            by_path: served.collect(),
            health_path: config.health_path.clone(),
            limits: BodyLimits {
                bytes_max: config.body_bytes_max,
                deadline: config.body_deadline,
            },
            trusted_proxies: config.trusted_proxies.clone(),
        }
    }

    fn asks_for_health(&self, request: &HttpRequest) -> bool {
        let is_path = |path: &String| path == request.uri().path();
        self.health_path.as_ref().is_some_and(is_path) && matches!(*request.method(), Method::GET | Method::HEAD)
    }
}

fn longest_window(endpoints: &[PublicEndpoint]) -> Duration {
    let windows = endpoints.iter().map(|endpoint| endpoint.replay_window);
    windows.max().unwrap_or_default()
}

/// A request, and who sent it.
struct ArrivedRequest<'a> {
    request: &'a HttpRequest,
    link: &'a ConnectionLink,
    client: IpAddr,
    served: Option<&'a ServedEndpoint>,
    limits: BodyLimits,
}

impl WebhookService {
    pub fn new(config: &config::ServerConfig, endpoints: Vec<PublicEndpoint>, parts: ServiceParts) -> Self {
        let (window_max, metrics) = (longest_window(&endpoints), &parts.metrics);
        Self {
            site: RwLock::new(Arc::new(ServiceSite::new(config, endpoints, None, metrics))),
            no_endpoint: EndpointMetrics::none(metrics),
            lateness: StreamLateness::new(config.streams_max, metrics.streams_remembered.clone()),
            seen_ids: SeenIds::new(config.event_ids_max, window_max, metrics.event_ids_remembered.clone()),
            parts,
        }
    }

    /// From the next request on these are the endpoints and limits.
    pub fn change(&self, config: &config::ServerConfig, endpoints: Vec<PublicEndpoint>) {
        self.seen_ids.keep_for(longest_window(&endpoints));
        let before = self.site.read().clone();
        let site = ServiceSite::new(config, endpoints, Some(&before), &self.parts.metrics);
        *self.site.write() = Arc::new(site);
    }

    /// Answers a request, whatever it is. `appends` are those of the worker that it came to.
    pub async fn answer(
        &self,
        appends: &Rc<WorkerAppends>,
        request: HttpRequest,
        mut payload: Payload,
    ) -> HttpResponse {
        let start = Instant::now();
        let site = self.site.read().clone();
        if site.asks_for_health(&request) {
            return answer::health(self.parts.lifecycle.phase());
        }
        let link = http::link(&request);
        let arrived = ArrivedRequest {
            request: &request,
            link: &link,
            client: http::client(link.peer(), request.headers(), &site.trusted_proxies),
            served: site.by_path.get(request.uri().path()).map(|served| &**served),
            limits: site.limits,
        };
        let told = arrived.served.map_or(&self.no_endpoint, |served| &served.told);
        let mut span = RequestSpan::new(&self.parts.traces, &request, arrived.served, start);

        let taken = caught(self.accept_event(appends, &arrived, &mut payload, &mut span)).await;
        let mut response = match taken {
            Ok(answer) => {
                told.accepted(start.elapsed());
                answer::accepted(answer)
            }
            Err(refusal) => {
                span.refused(refusal);
                told.refused(refusal, arrived.client, request.uri().path(), || span.trace_id());
                refusal.answer(payload)
            }
        };
        span.end(response.status(), arrived.client);
        if self.parts.lifecycle.phase() >= ProcessPhase::Draining {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
        response
    }

    /// Takes a webhook in: when this returns `Ok`, it is durable, and its sender is to be answered so.
    async fn accept_event(
        &self,
        appends: &Rc<WorkerAppends>,
        arrived: &ArrivedRequest<'_>,
        payload: &mut Payload,
        span: &mut RequestSpan<'_>,
    ) -> Result<senders::SenderAnswer, RequestRefusal> {
        let ArrivedRequest { request, link, .. } = arrived;
        let served = self.admit(arrived)?;
        let headers = request.headers();
        let refused = |reason, body: Option<RefusedBody>| {
            let (client, headers) = (arrived.client, RequestHeaders(headers));
            served.refused.refused(client, reason, &served.receiver, &headers, body);
            RequestRefusal::Signature(reason)
        };
        let form = served.receiver.check_form(&RequestHeaders(headers));
        form.map_err(|reason| refused(reason, None))?;
        let (body, _reservation) = body::read(headers, payload, link, arrived.limits, &self.parts.budget).await?;
        let verified = link.place().is_verified();
        let received = self
            .parts
            .verification
            .receive(&served.receiver, headers, body, verified);
        let mut event = received.await.map_err(|rejected| match rejected.refusal {
            RequestRefusal::Signature(reason) => refused(reason, rejected.body),
            other => other,
        })?;
        link.place().verified();
        self.mark(served, &mut event);
        event.trace = span.verified(&event);
        let durable = served.told.event(&event.kind);
        let record = event.encode();
        let waiting = span.append(record.len());
        let appended = appends.append(durable, |desk, ticket| {
            (self.parts.intake)(&event, record, class(served.receiver.sender(), &event), (desk, ticket))
        });
        let stored = match appended {
            Ok(append) => settled(append, ACK_DEADLINE).await,
            Err(error) => Err(RequestRefusal::Spool(error)),
        };
        waiting.end(stored);
        if matches!(stored, Err(RequestRefusal::Spool(_))) && !event.is_repeated {
            self.seen_ids.forget(event.id);
        }
        stored.map(|_| served.receiver.sender().answer())
    }

    /// Holds an event against those before it.
    fn mark(&self, served: &ServedEndpoint, event: &mut Event) {
        event.late_by_ms = self.lateness.observe(&event.key, event.time, event.recorded);
        event.is_stale = is_stale(event, served.replay_window);
        event.is_repeated = self.seen_ids.observe(event.id, served.replay_window, Instant::now());
        served.told.marked(event);
        served.other_accounts.observe(event);
    }

    /// What is checked of a request before its body is looked at; returns who serves it.
    fn admit<'a>(&self, arrived: &ArrivedRequest<'a>) -> Result<&'a ServedEndpoint, RequestRefusal> {
        let ArrivedRequest {
            request, link, client, ..
        } = *arrived;
        let served = arrived.served.ok_or(RequestRefusal::Path)?;
        if request.method() != Method::POST {
            return Err(RequestRefusal::Method);
        }
        if request.headers().contains_key(header::UPGRADE) && !says_where_it_ends(request.headers()) {
            return Err(RequestRefusal::Upgrade);
        }
        if client != link.peer() && link.place().attribute(client).is_err() {
            return Err(RequestRefusal::ClientFull);
        }
        if let Some(allow) = &served.allow
            && !allow.networks.iter().any(|network| network.contains(client))
        {
            served.told.unexpected_client(client, allow.refuses);
            if allow.refuses {
                return Err(RequestRefusal::NotAllowed);
            }
        }
        if self.parts.lifecycle.phase() == ProcessPhase::Stopping {
            return Err(RequestRefusal::Stopping);
        }
        Ok(served)
    }
}

/// Whether a request has a body of its own, so that it is one whatever else it asks for (RFC 9110, 7.8).
fn says_where_it_ends(headers: &HeaderMap) -> bool {
    headers.contains_key(header::CONTENT_LENGTH) || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Whether an event was sent longer ago than `window`, by a time that its sender signed. A window of zero is none.
fn is_stale(event: &Event, window: Duration) -> bool {
    let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    let age_ms = event.sent.map_or(0, |sent| event.recorded.0.saturating_sub(sent.0));
    window_ms > 0 && age_ms > window_ms
}

/// Waits for an append for so long as the sender may be expected to.
async fn settled(append: impl Future<Output = AppendReply>, deadline: Duration) -> Result<u64, RequestRefusal> {
    match tokio::time::timeout(deadline, append).await {
        Ok(result) => result.map_err(RequestRefusal::Spool),
        Err(_) => Err(RequestRefusal::Late),
    }
}

/// A panic refuses the one request that it came from.
async fn caught<T>(taken: impl Future<Output = Result<T, RequestRefusal>>) -> Result<T, RequestRefusal> {
    AssertUnwindSafe(taken)
        .catch_unwind()
        .await
        .unwrap_or(Err(RequestRefusal::Panicked))
}

fn class(sender: &dyn Sender, event: &Event) -> RecordClass {
    match sender.is_bulk(event) {
        true => RecordClass::Bulk,
        false => RecordClass::Ordinary,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer() {
        assert_eq!(
            caught::<()>(async { panic!("on purpose") }).await,
            Err(RequestRefusal::Panicked)
        );
        assert_eq!(caught(async { Ok(()) }).await, Ok(()));
    }

    #[tokio::test]
    async fn a_disk_that_is_late_is_not_waited_for() {
        let deadline = Duration::from_millis(5);
        assert_eq!(
            settled(std::future::pending(), deadline).await,
            Err(RequestRefusal::Late)
        );
        assert_eq!(settled(std::future::ready(Ok(1)), deadline).await, Ok(1));
    }
}
