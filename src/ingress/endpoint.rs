//! An endpoint as it is served: its receiver, its metrics, and what it says of refusals.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use prometheus::{Histogram, IntCounter, IntCounterVec};

use super::metrics::IngressMetrics;
use super::{PublicEndpoint, RefusedRequests, answer::RequestRefusal, other_accounts::OtherAccounts};
use crate::{
    config::AllowList,
    event::Event,
    senders::{self, EndpointReceiver, KIND_OTHER, SignatureError},
    telemetry::LogThrottle,
};

/// The label of requests to no endpoint.
const NONE: &str = "none";
/// Every status code that a request is answered with; the label is one of these.
const CODES: [u16; 10] = [200, 400, 403, 404, 405, 408, 413, 429, 500, 503];
/// The label of all other kinds, for kinds come from the wire.
/// An endpoint logs one refusal in this time, and counts the rest.
const REFUSAL_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Of a path that no endpoint has, so much is logged.
const PATH_SHOWN_BYTES_MAX: usize = 120;

/// What serves the requests of one path.
pub(super) struct ServedEndpoint {
    pub path: String,
    pub receiver: Arc<EndpointReceiver>,
    pub replay_window: Duration,
    pub other_accounts: OtherAccounts,
    pub refused: Arc<RefusedRequests>,
    pub allow: Option<AllowList>,
    pub told: EndpointMetrics,
}

impl ServedEndpoint {
    pub fn new(endpoint: PublicEndpoint, metrics: &IngressMetrics) -> Self {
        let counter = metrics.other_account_events.with_label_values(&[&endpoint.name]);
        Self {
            told: EndpointMetrics::new(&endpoint.name, metrics),
            other_accounts: OtherAccounts::new(&endpoint.receiver, counter),
            replay_window: endpoint.replay_window,
            receiver: endpoint.receiver,
            refused: endpoint.refused,
            allow: endpoint.allow,
            path: endpoint.path,
        }
    }
}

/// What an endpoint tells of itself. Every label is resolved here, once: requests look up none.
pub(super) struct EndpointMetrics {
    pub endpoint: String,
    requests: [IntCounter; CODES.len()],
    events: ByKind,
    late_events: ByKind,
    stale_events: ByKind,
    repeated_events: ByKind,
    signature_missing: IntCounter,
    signature_malformed: IntCounter,
    signature_wrong: IntCounter,
    ack_seconds: Histogram,
    unexpected_clients: IntCounter,
    refusals: LogThrottle,
    strangers: LogThrottle,
}

/// One counter for each kind.
struct ByKind {
    known: Vec<IntCounter>,
    other: IntCounter,
}

impl EndpointMetrics {
    /// Of requests to no endpoint.
    pub fn none(metrics: &IngressMetrics) -> Self {
        Self::new(NONE, metrics)
    }

    pub fn new(endpoint: &str, metrics: &IngressMetrics) -> Self {
        let signature = |reason| metrics.signature_failures.with_label_values(&[endpoint, reason]);
        Self {
            endpoint: endpoint.to_owned(),
            requests: CODES.map(|code| metrics.requests.with_label_values(&[endpoint, &code.to_string()])),
            events: ByKind::new(endpoint, &metrics.events),
            late_events: ByKind::new(endpoint, &metrics.late_events),
            stale_events: ByKind::new(endpoint, &metrics.stale_events),
            repeated_events: ByKind::new(endpoint, &metrics.repeated_events),
            signature_missing: signature("missing"),
            signature_malformed: signature("malformed"),
            signature_wrong: signature("wrong"),
            ack_seconds: metrics.ack_seconds.with_label_values(&[endpoint]),
            unexpected_clients: metrics.unexpected_clients.with_label_values(&[endpoint]),
            refusals: LogThrottle::new(REFUSAL_LOG_INTERVAL),
            strangers: LogThrottle::new(REFUSAL_LOG_INTERVAL),
        }
    }

    /// A request was answered 200, this long after its head.
    pub fn accepted(&self, took: Duration) {
        self.count(200);
        self.ack_seconds.observe(took.as_secs_f64());
    }

    /// The counter of events of this kind that are on disk.
    pub fn event(&self, kind: &str) -> &IntCounter {
        self.events.counter_for(kind)
    }

    /// A verified event was marked: it is late, stale, repeated, or none of these.
    pub fn marked(&self, event: &Event) {
        for (is_marked, counters) in [
            (event.late_by_ms.is_some(), &self.late_events),
            (event.is_stale, &self.stale_events),
            (event.is_repeated, &self.repeated_events),
        ] {
            if is_marked {
                counters.counter_for(&event.kind).inc();
            }
        }
    }

    /// A client sent whom the endpoint's allow list does not have. Where that is no refusal, it is logged here.
    pub fn unexpected_client(&self, client: IpAddr, refused: bool) {
        self.unexpected_clients.inc();
        if !refused && let Some(more) = self.strangers.due(Instant::now()) {
            let endpoint = &self.endpoint;
            tracing::warn!(endpoint, %client, more, "a client sent that the endpoint's allow list does not have");
        }
    }

    /// A request was refused. What only the log wants to know is asked only if there is to be a line.
    pub fn refused(
        &self,
        refusal: RequestRefusal,
        client: IpAddr,
        path: &str,
        trace_id: impl FnOnce() -> Option<String>,
    ) {
        let code = refusal.status().as_u16();
        self.count(code);
        if let RequestRefusal::Signature(error) = refusal {
            match error {
                SignatureError::Missing => self.signature_missing.inc(),
                SignatureError::Malformed => self.signature_malformed.inc(),
                SignatureError::Wrong => self.signature_wrong.inc(),
            }
        }
        if let Some(more) = self.refusals.due(Instant::now()) {
            tracing::warn!(
                endpoint = self.endpoint,
                code,
                reason = refusal.code(),
                %client,
                path = (refusal == RequestRefusal::Path).then(|| shown(path)),
                trace_id = trace_id(),
                more,
                "refused a request"
            );
        }
    }

    fn count(&self, code: u16) {
        let index = CODES.iter().position(|known| *known == code);
        self.requests[index.expect("every answer's code is in the table")].inc();
    }
}

/// A path as a log line shows it: no control characters, and not all of a long one.
fn shown(path: &str) -> String {
    let cut = path.floor_char_boundary(PATH_SHOWN_BYTES_MAX);
    let more = if cut < path.len() { "…" } else { "" };
    format!("{}{more}", path[..cut].escape_debug())
}

impl ByKind {
    fn new(endpoint: &str, counters: &IntCounterVec) -> Self {
        let of = |kind| counters.with_label_values(&[endpoint, kind]);
        Self {
            known: senders::kinds().iter().copied().map(of).collect(),
            other: of(KIND_OTHER),
        }
    }

    fn counter_for(&self, kind: &str) -> &IntCounter {
        match senders::kinds().iter().position(|known| *known == kind) {
            Some(index) => &self.known[index],
            None => &self.other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_logged_escaped_and_cut() {
        assert_eq!(shown("/millicast/acme"), "/millicast/acme");
        assert_eq!(shown("/a\nb\u{1b}"), "/a\\nb\\u{1b}");
        let long = shown(&format!("/{}", "ä".repeat(1000)));
        assert!(long.len() <= PATH_SHOWN_BYTES_MAX + 3 && long.ends_with('…'), "{long}");
    }

    #[test]
    fn a_kind_from_the_wire_never_becomes_a_label() {
        let metrics = IngressMetrics::register(&crate::telemetry::Metrics::new());
        let told = EndpointMetrics::new("acme", &metrics);
        told.event("feeds").inc();
        told.event("surprise").inc();
        assert_eq!(metrics.events.with_label_values(&["acme", "feeds"]).get(), 1);
        assert_eq!(metrics.events.with_label_values(&["acme", "other"]).get(), 1);
    }
}
