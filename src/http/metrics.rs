//! What a server exposes of its connections.

use std::sync::Arc;

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::connections::{ConnectionLimits, as_gauge};
use crate::telemetry::Metrics;

/// What the servers have open, and how much of the limits is used.
pub struct ServerMetrics {
    pub connections: IntGauge,
    pub connections_closed: IntCounterVec,
    pub limit_used: IntGaugeVec,
    pub limit_max: IntGaugeVec,
}

impl ServerMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        Arc::new(Self {
            connections: r.gauge("connections", "Open connections of the public server."),
            connections_closed: r.counters(
                "connections_closed_total",
                "Connections that a server closed without being asked to, by reason.",
                &["server", "reason"],
            ),
            limit_used: r.gauges("limit_used", "How much of a limit is in use.", &["limit"]),
            limit_max: r.gauges("limit_max", "The limit.", &["limit"]),
        })
    }
}

/// Which server it is; a label.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ServerLabel {
    Public,
    Admin,
}

/// Why the server closed a connection whose peer had not asked for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// A head was not complete in time.
    HeadDeadline,
    /// A head was larger than it may be.
    HeadTooLarge,
    /// There was no request for the time of `keep_alive`.
    Idle,
    /// The peer did not read its answer.
    AnswerUnread,
    /// It made room for another.
    MadeRoom,
    /// There was no room for it.
    Refused,
    /// Its client had as many as one may have.
    ClientLimit,
    /// The trusted proxy did not say in its first bytes for whom it connects.
    ProxyHeader,
}

impl CloseReason {
    const ALL: [Self; 8] = [
        Self::HeadDeadline,
        Self::HeadTooLarge,
        Self::Idle,
        Self::AnswerUnread,
        Self::MadeRoom,
        Self::Refused,
        Self::ClientLimit,
        Self::ProxyHeader,
    ];

    fn label(self) -> &'static str {
        match self {
            Self::HeadDeadline => "head_deadline",
            Self::HeadTooLarge => "head_too_large",
            Self::Idle => "idle",
            Self::AnswerUnread => "answer_unread",
            Self::MadeRoom => "made_room",
            Self::Refused => "refused",
            Self::ClientLimit => "client_limit",
            Self::ProxyHeader => "proxy_header",
        }
    }
}

/// A server's connections, and the use of its limits.
pub(crate) struct ConnectionMetrics {
    /// Under its own name too, for the public server.
    open: Vec<IntGauge>,
    connections_max: IntGauge,
    pub busiest_client: IntGauge,
    per_client_max: IntGauge,
    pub heads_bytes: IntGauge,
    heads_bytes_max: IntGauge,
    closed: [IntCounter; CloseReason::ALL.len()],
}

impl ConnectionMetrics {
    pub fn new(server: ServerLabel, metrics: &ServerMetrics) -> Self {
        let (name, limits) = match server {
            ServerLabel::Public => ("public", ["connections", "connections_per_client", "heads_bytes"]),
            ServerLabel::Admin => (
                "admin",
                ["admin_connections", "admin_connections_per_client", "admin_heads_bytes"],
            ),
        };
        let used = limits.map(|limit| metrics.limit_used.with_label_values(&[limit]));
        let max = limits.map(|limit| metrics.limit_max.with_label_values(&[limit]));
        let [open, busiest_client, heads_bytes] = used;
        let [connections_max, per_client_max, heads_bytes_max] = max;
        let open = match server {
            ServerLabel::Public => vec![open, metrics.connections.clone()],
            ServerLabel::Admin => vec![open],
        };
        let closed =
            CloseReason::ALL.map(|reason| metrics.connections_closed.with_label_values(&[name, reason.label()]));
        Self {
            open,
            connections_max,
            busiest_client,
            per_client_max,
            heads_bytes,
            heads_bytes_max,
            closed,
        }
    }

    pub fn limits(&self, limits: &ConnectionLimits) {
        self.connections_max.set(as_gauge(limits.connections_max));
        self.per_client_max.set(as_gauge(limits.per_client_max));
        self.heads_bytes_max.set(as_gauge(limits.heads_bytes_max));
    }

    pub fn open(&self, connections: usize) {
        let connections = i64::try_from(connections).unwrap_or(i64::MAX);
        self.open.iter().for_each(|gauge| gauge.set(connections));
    }

    pub fn closed(&self, reason: CloseReason) {
        self.closed[reason as usize].inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_counter() {
        let metrics = ServerMetrics::register(&Metrics::new());
        let connections = ConnectionMetrics::new(ServerLabel::Public, &metrics);
        for reason in CloseReason::ALL {
            connections.closed(reason);
            let counter = metrics
                .connections_closed
                .with_label_values(&["public", reason.label()]);
            assert_eq!(counter.get(), 1, "{reason:?}");
        }
    }
}
