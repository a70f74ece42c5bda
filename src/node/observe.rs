//! From the spool's own words to metrics and logs.

use std::{sync::Arc, time::Duration};

use parking_lot::RwLock;

use super::{
    endpoints::OpenEndpoint,
    metrics::{LogMetrics, NodeMetrics},
    operator::{NodeOperator, RoutePause, ShownJob},
    reload::ReloadStatus,
};
use crate::{
    config::Config,
    job::{DeadLetters, DeadLettersKept, JobMetrics, RouteSnapshot, RouteStatus},
    senders::{self, KIND_OTHER},
    spool::{LogObserver, LogState, Spool, damage_kinds},
};

/// Counts what the spool's writer does.
pub(super) struct SpoolMetrics(Arc<LogMetrics>);

impl SpoolMetrics {
    pub(super) fn new(metrics: Arc<LogMetrics>) -> Self {
        for kind in damage_kinds() {
            metrics.spool_damage.with_label_values(&[kind]).inc_by(0);
        }
        Self(metrics)
    }
}

impl LogObserver for SpoolMetrics {
    fn synced(&self, records: usize, took: Duration) {
        self.0.spool_fsync_seconds.observe(took.as_secs_f64());
        self.0.spool_batch_records.observe(records as f64);
    }

    fn damage(&self, kind: &'static str) {
        self.0.spool_damage.with_label_values(&[kind]).inc();
    }
}

/// What the admin server asks of the running parts.
pub(super) struct NodeOverview {
    pub(super) replica: Arc<str>,
    pub(super) spool: Spool,
    pub(super) dead_letters: DeadLetters,
    pub(super) metrics: NodeMetrics,
    pub(super) reload: ReloadStatus,
    pub(super) operator: NodeOperator,
    pub(super) parts: RwLock<ShownParts>,
}

/// The parts that come and go.
#[derive(Default)]
pub(super) struct ShownParts {
    routes: Vec<RouteStatus>,
    ending_routes: Vec<RouteStatus>,
    endpoints: Vec<OpenEndpoint>,
}

/// `/status`.
#[derive(serde::Serialize)]
struct NodeStatus {
    replica: Arc<str>,
    version: &'static str,
    spool: SpoolStatus,
    dead_letters: DeadLettersKept,
    routes: Vec<ShownRoute>,
    /// Of routes that are no longer configured, and still publish what was accepted for them.
    ending_routes: Vec<RouteSnapshot>,
    /// Replays and redrives.
    jobs: Vec<ShownJob>,
    endpoints: Vec<serde_json::Value>,
    configuration: serde_json::Value,
}

#[derive(serde::Serialize)]
struct ShownRoute {
    #[serde(flatten)]
    snapshot: RouteSnapshot,
    /// Since when an operator has paused it, and who.
    paused: Option<RoutePause>,
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
    /// Beside `bytes`, what every route has settled.
    retained_bytes: u64,
    /// When the oldest of that was accepted, in milliseconds since the Unix epoch.
    retained_oldest_ms: Option<i64>,
}

impl From<LogState> for SpoolStatus {
    fn from(state: LogState) -> Self {
        Self {
            records: state.records,
            bytes: state.needed_bytes(),
            bytes_max: state.bytes_max,
            head: state.head,
            refuses: state.refuses.map(|error| error.to_string()),
            retained_bytes: state.retained.bytes,
            retained_oldest_ms: state.retained.oldest_ms,
        }
    }
}

impl NodeOverview {
    /// Shows these from here on.
    pub(super) fn show(&self, routes: Vec<RouteStatus>, ending_routes: Vec<RouteStatus>, endpoints: Vec<OpenEndpoint>) {
        *self.parts.write() = ShownParts {
            routes,
            ending_routes,
            endpoints,
        };
    }

    /// Brings every gauge up to date, before they are gathered.
    pub(super) fn collect(&self) {
        let state = self.spool.state();
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.metrics.log.spool_records.set(number(state.records));
        self.metrics.log.spool_bytes.set(number(state.needed_bytes()));
        self.metrics.log.spool_bytes_max.set(number(state.bytes_max));
        self.metrics.log.retained_bytes.set(number(state.retained.bytes));
        let oldest_ms = state.retained.oldest_ms.unwrap_or_default();
        self.metrics
            .log
            .retained_oldest_timestamp_seconds
            .set(oldest_ms as f64 / 1000.0);
        let seconds = |took: Option<Duration>| took.unwrap_or_default().as_secs_f64();
        self.metrics.log.spool_disk_works_seconds.set(seconds(state.disk_works));
        self.metrics
            .log
            .spool_append_waits_seconds
            .set(seconds(state.append_waits));
        for (route, kept) in self.dead_letters.kept().routes {
            let labels = [route.as_str()];
            self.metrics
                .jobs
                .dead_letters_kept
                .with_label_values(&labels)
                .set(number(kept.records));
            self.metrics
                .jobs
                .dead_letters_bytes
                .with_label_values(&labels)
                .set(number(kept.bytes));
        }
        let parts = self.parts.read();
        for route in parts.routes.iter().chain(&parts.ending_routes) {
            route.collect();
        }
        self.operator.collect();
        // A file may hold fewer secrets than before, and an endpoint may be gone.
        self.metrics.ingress.secret_last_match.reset();
        self.metrics.ingress.secrets_active.reset();
        for endpoint in &parts.endpoints {
            endpoint.secrets.collect(&self.metrics.ingress);
        }
    }

    pub(super) fn status(&self) -> serde_json::Value {
        let parts = self.parts.read();
        let shown = |route: &RouteStatus| ShownRoute {
            paused: self.operator.pause_of(route.name()),
            snapshot: route.snapshot(),
        };
        let status = NodeStatus {
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION"),
            spool: self.spool.state().into(),
            dead_letters: self.dead_letters.kept(),
            routes: parts.routes.iter().map(shown).collect(),
            ending_routes: parts.ending_routes.iter().map(RouteStatus::snapshot).collect(),
            jobs: self.operator.jobs(),
            endpoints: parts.endpoints.iter().map(OpenEndpoint::status).collect(),
            configuration: self.reload.status(),
        };
        serde_json::to_value(status).expect("names and numbers always serialize")
    }
}

/// What no route wants is counted from 0 on.
pub(super) fn born_unrouted(config: &Config, metrics: &JobMetrics) {
    for endpoint in &config.endpoints {
        for kind in senders::kinds().iter().copied().chain([KIND_OTHER]) {
            metrics
                .unrouted
                .with_label_values(&[endpoint.name.as_str(), kind])
                .inc_by(0);
        }
    }
}
