//! What is counted of requests and events.

use std::sync::Arc;

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

use crate::{http::ServerMetrics, telemetry::Metrics};

/// What is taken in, and refused.
pub struct IngressMetrics {
    pub servers: Arc<ServerMetrics>,
    pub requests: IntCounterVec,
    pub signature_failures: IntCounterVec,
    pub secrets_active: IntGaugeVec,
    pub secret_read_failures: IntCounterVec,
    pub secret_last_match: IntGaugeVec,
    pub ack_seconds: HistogramVec,
    pub events: IntCounterVec,
    pub late_events: IntCounterVec,
    pub streams_remembered: IntGauge,
    pub stale_events: IntCounterVec,
    pub repeated_events: IntCounterVec,
    pub event_ids_remembered: IntGauge,
    pub other_account_events: IntCounterVec,
    pub unexpected_clients: IntCounterVec,
}

impl IngressMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        Arc::new(Self {
            servers: ServerMetrics::register(metrics),
            requests: r.counters(
                "requests_total",
                "Requests answered, by status code.",
                &["endpoint", "code"],
            ),
            signature_failures: r.counters(
                "signature_failures_total",
                "Requests whose signature was refused.",
                &["endpoint", "reason"],
            ),
            secrets_active: r.gauges("secrets_active", "Secrets that are in use.", &["endpoint"]),
            secret_read_failures: r.counters(
                "secret_read_failures_total",
                "Times that a source of secrets could not be read.",
                &["endpoint", "position"],
            ),
            secret_last_match: r.gauges(
                "secret_last_match_timestamp_seconds",
                "When a secret last made a request's signature, since the Unix epoch; 0 for not since the start.",
                &["endpoint", "position"],
            ),
            ack_seconds: r.histograms(
                "ack_seconds",
                "From a request's head to its answer, of requests answered 200.",
                &["endpoint"],
            ),
            events: r.counters(
                "events_total",
                "Events accepted: verified and on disk.",
                &["endpoint", "kind"],
            ),
            late_events: r.counters(
                "late_events_total",
                "Events verified whose time lies behind the newest of their stream.",
                &["endpoint", "kind"],
            ),
            streams_remembered: r.gauge("streams_remembered", "Streams whose newest event time is remembered."),
            stale_events: r.counters(
                "stale_events_total",
                "Events verified that were sent before the replay window.",
                &["endpoint", "kind"],
            ),
            repeated_events: r.counters(
                "repeated_events_total",
                "Events verified whose id was seen before within the replay window.",
                &["endpoint", "kind"],
            ),
            event_ids_remembered: r.gauge("event_ids_remembered", "Ids of events that are remembered."),
            other_account_events: r.counters(
                "other_account_events_total",
                "Events verified of another account than the endpoint's.",
                &["endpoint"],
            ),
            unexpected_clients: r.counters(
                "unexpected_clients_total",
                "Requests of clients that the endpoint's allow list does not have.",
                &["endpoint"],
            ),
        })
    }
}
