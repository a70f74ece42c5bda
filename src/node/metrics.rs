//! The metrics of a node's parts.

use std::sync::Arc;

use prometheus::{Gauge, Histogram, IntCounterVec, IntGauge, IntGaugeVec, exponential_buckets};

use crate::{
    ingress::IngressMetrics,
    job::JobMetrics,
    telemetry::{Metrics, metrics::seconds_buckets},
};

/// All of them, on one registry. Clones share them.
#[derive(Clone)]
pub(super) struct NodeMetrics {
    /// The registry.
    pub all: Arc<Metrics>,
    pub ingress: Arc<IngressMetrics>,
    pub jobs: Arc<JobMetrics>,
    pub log: Arc<LogMetrics>,
    pub reload: Arc<ReloadMetrics>,
    pub operator: Arc<OperatorMetrics>,
}

impl NodeMetrics {
    pub fn new() -> Self {
        let all = Metrics::new();
        Self {
            ingress: IngressMetrics::register(&all),
            jobs: JobMetrics::register(&all),
            log: LogMetrics::register(&all),
            reload: ReloadMetrics::register(&all),
            operator: OperatorMetrics::register(&all),
            all,
        }
    }
}

/// The disk, and what is on it.
pub(super) struct LogMetrics {
    pub spool_records: IntGauge,
    pub spool_bytes: IntGauge,
    pub spool_bytes_max: IntGauge,
    pub spool_fsync_seconds: Histogram,
    pub spool_disk_works_seconds: Gauge,
    pub spool_append_waits_seconds: Gauge,
    pub spool_batch_records: Histogram,
    pub spool_damage: IntCounterVec,
    pub retained_bytes: IntGauge,
    pub retained_oldest_timestamp_seconds: Gauge,
}

impl LogMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        Arc::new(Self {
            spool_records: r.gauge("spool_records", "Records in the spool."),
            spool_bytes: r.gauge(
                "spool_bytes",
                "Bytes of disk that the spool takes, without what is retained.",
            ),
            spool_bytes_max: r.gauge("spool_bytes_max", "Bytes of disk that the spool may take."),
            spool_fsync_seconds: r.histogram(
                "spool_fsync_seconds",
                "How long an fsync of the spool took.",
                seconds_buckets(),
            ),
            spool_disk_works_seconds: r.register(Gauge::new(
                "forebay_spool_disk_works_seconds",
                "How long a write or fsync of the spool that is under way has taken; 0 when there is none.",
            )),
            spool_append_waits_seconds: r.register(Gauge::new(
                "forebay_spool_append_waits_seconds",
                "How long the oldest event that waits for the disk has waited; 0 when there is none.",
            )),
            spool_batch_records: r.histogram(
                "spool_batch_records",
                "Records that shared one fsync.",
                exponential_buckets(1.0, 2.0, 12).expect("constants"),
            ),
            spool_damage: r.counters("spool_damage_total", "Damage found in the spool, set aside.", &["kind"]),
            retained_bytes: r.gauge(
                "retained_bytes",
                "Bytes of the spool that hold what every route has settled, kept to be published again.",
            ),
            retained_oldest_timestamp_seconds: r.register(Gauge::new(
                "forebay_retained_oldest_timestamp_seconds",
                "When the oldest of it was accepted, in seconds since the Unix epoch; 0 when there is none.",
            )),
        })
    }
}

/// What operators do.
pub(super) struct OperatorMetrics {
    pub route_paused: IntGaugeVec,
    pub redriven: IntCounterVec,
    pub replayed: IntCounterVec,
    pub job_records: IntCounterVec,
}

impl OperatorMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        let operator = Self {
            route_paused: r.gauges("route_paused", "1 while an operator has paused the route.", &["route"]),
            redriven: r.counters(
                "redriven_total",
                "Dead letters of the route that were redriven.",
                &["route"],
            ),
            replayed: r.counters("replayed_total", "Events that were replayed by the route.", &["route"]),
            job_records: r.counters(
                "job_records_total",
                "What operators' jobs have chosen, published, and not published.",
                &["job_kind", "outcome"],
            ),
        };
        for kind in ["replay", "redrive"] {
            for outcome in ["chosen", "published", "failed"] {
                operator.job_records.with_label_values(&[kind, outcome]).inc_by(0);
            }
        }
        Arc::new(operator)
    }
}

/// How the configuration was applied.
pub(super) struct ReloadMetrics {
    pub config_last_reload_successful: IntGauge,
    pub config_last_reload_timestamp_seconds: IntGauge,
}

impl ReloadMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        Arc::new(Self {
            config_last_reload_successful: r.gauge(
                "config_last_reload_successful",
                "1 while the configuration that was read last is the one that runs, 0 while it could not be used.",
            ),
            config_last_reload_timestamp_seconds: r.gauge(
                "config_last_reload_timestamp_seconds",
                "When the configuration that runs was applied, in seconds since the Unix epoch.",
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_unlabelled_metric_and_the_build() {
        let text = NodeMetrics::new().all.text();
        for name in [
            "forebay_connections 0",
            "forebay_spool_records 0",
            "forebay_spool_fsync_seconds_bucket{le=\"0.0005\"} 0",
            "process_open_fds ",
            concat!(
                "forebay_build_info{revision=\"",
                "unknown",
                "\",version=\"",
                env!("CARGO_PKG_VERSION"),
                "\"} 1"
            ),
        ] {
            assert!(text.contains(name), "{name} is not in\n{text}");
        }
    }
}
