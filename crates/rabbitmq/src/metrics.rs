//! lapin's own state, by sink and route.

use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

use super::RabbitMqNames;

/// What the sessions of all RabbitMQ sinks tell.
pub struct RabbitMqMetrics {
    pub(super) connected: IntGaugeVec,
    pub(super) blocked: IntGaugeVec,
    pub(super) channels: IntGaugeVec,
    pub(super) sessions: IntCounterVec,
    pub(super) returned: IntCounterVec,
    pub(super) nacks: IntCounterVec,
}

impl RabbitMqMetrics {
    /// Registers the metrics; an error when they are registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let labels = &["sink", "route"];
        let gauge = |name: &str, help: &str| -> prometheus::Result<IntGaugeVec> {
            let gauge = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counter = |name: &str, help: &str| -> prometheus::Result<IntCounterVec> {
            let counter = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        Ok(Self {
            connected: gauge("forebay_rabbitmq_connected", "1 while the route has a connection.")?,
            blocked: gauge(
                "forebay_rabbitmq_blocked",
                "1 while RabbitMQ has blocked the connection.",
            )?,
            channels: gauge(
                "forebay_rabbitmq_channels",
                "Open channels, one for each partition in use.",
            )?,
            sessions: counter(
                "forebay_rabbitmq_sessions_total",
                "Connections made, the first included.",
            )?,
            returned: counter("forebay_rabbitmq_returned_total", "Messages that no queue took.")?,
            nacks: counter("forebay_rabbitmq_nacks_total", "Times that a queue refused a message.")?,
        })
    }

    /// Everything stands at 0 before the first session.
    pub(super) fn born(&self, names: &RabbitMqNames) {
        self.session(names, false);
        let labels = [&*names.sink, &*names.route];
        for counter in [&self.sessions, &self.returned, &self.nacks] {
            counter.with_label_values(&labels).inc_by(0);
        }
    }

    /// A session begins or ends: what of it is told as it is now.
    pub(super) fn session(&self, names: &RabbitMqNames, connected: bool) {
        let labels = [&*names.sink, &*names.route];
        self.connected.with_label_values(&labels).set(connected.into());
        self.blocked.with_label_values(&labels).set(0);
        self.channels.with_label_values(&labels).set(0);
        if connected {
            self.sessions.with_label_values(&labels).inc();
        }
    }
}
