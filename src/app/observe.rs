//! From the spool's own words to metrics and logs.

use std::{sync::Arc, time::Duration};

use super::secrets::EndpointSecrets;
use crate::{
    ingress::RefusedRequests,
    job::{DeadLetters, DeadLettersKept, RouteStatus, Snapshot},
    spool::{Observer, Spool, State, damage_kinds},
    telemetry::Metrics,
};

/// Counts what the spool's writer does.
pub(super) struct SpoolMetrics(Arc<Metrics>);

impl SpoolMetrics {
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        for kind in damage_kinds() {
            metrics.spool_damage.with_label_values(&[kind]).inc_by(0);
        }
        Self(metrics)
    }
}

impl Observer for SpoolMetrics {
    fn synced(&self, records: usize, took: Duration) {
        self.0.spool_fsync_seconds.observe(took.as_secs_f64());
        self.0.spool_batch_records.observe(records as f64);
    }

    fn damage(&self, kind: &'static str) {
        self.0.spool_damage.with_label_values(&[kind]).inc();
    }
}

/// What the admin server asks of the running parts.
pub(super) struct Overview {
    pub(super) replica: Arc<str>,
    pub(super) spool: Spool,
    pub(super) dead_letters: DeadLetters,
    pub(super) routes: Vec<RouteStatus>,
    pub(super) endpoints: Vec<(Arc<EndpointSecrets>, Arc<RefusedRequests>)>,
    pub(super) metrics: Arc<Metrics>,
}

/// `/status`.
#[derive(serde::Serialize)]
struct Status {
    replica: Arc<str>,
    version: &'static str,
    spool: SpoolStatus,
    dead_letters: DeadLettersKept,
    routes: Vec<Snapshot>,
    endpoints: Vec<serde_json::Value>,
}

#[derive(serde::Serialize)]
struct SpoolStatus {
    records: u64,
    bytes: u64,
    bytes_max: u64,
    /// The newest durable record.
    head: u64,
    /// Why it takes nothing just now.
    refuses: Option<String>,
}

impl From<State> for SpoolStatus {
    fn from(state: State) -> Self {
        Self {
            records: state.records,
            bytes: state.bytes,
            bytes_max: state.bytes_max,
            head: state.head,
            refuses: state.refuses.map(|error| error.to_string()),
        }
    }
}

impl Overview {
    /// Brings every gauge up to date, before they are gathered.
    pub(super) fn collect(&self) {
        let state = self.spool.state();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.spool_records.set(number(state.records));
        self.metrics.spool_bytes.set(number(state.bytes));
        self.metrics.spool_bytes_max.set(number(state.bytes_max));
        let seconds = |took: Option<Duration>| took.unwrap_or_default().as_secs_f64();
        self.metrics.spool_disk_works_seconds.set(seconds(state.disk_works));
        self.metrics.spool_append_waits_seconds.set(seconds(state.append_waits));
        for (route, kept) in self.dead_letters.kept().routes {
            let labels = [route.as_str()];
            self.metrics
                .dead_letters_kept
                .with_label_values(&labels)
                .set(number(kept.records));
            self.metrics
                .dead_letters_bytes
                .with_label_values(&labels)
                .set(number(kept.bytes));
        }
        for route in &self.routes {
            route.collect();
        }
        // A file may hold fewer secrets than before.
        self.metrics.secret_last_match.reset();
        for (secrets, _) in &self.endpoints {
            secrets.collect(&self.metrics);
        }
    }

    pub(super) fn status(&self) -> serde_json::Value {
        let status = Status {
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION"),
            spool: self.spool.state().into(),
            dead_letters: self.dead_letters.kept(),
            routes: self.routes.iter().map(RouteStatus::snapshot).collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(secrets, refused)| secrets.status(refused))
                .collect(),
        };
        serde_json::to_value(status).expect("names and numbers always serialize")
    }
}
