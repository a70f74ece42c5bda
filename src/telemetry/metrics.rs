//! Every metric, registered once and handed in. `docs/metrics.md` lists them with their labels.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder, exponential_buckets,
    proto::{MetricFamily, MetricType},
};

use super::{logging, process::ProcessMetrics};

/// The commit that was built, where the build was told.
pub(super) const REVISION: &str = match option_env!("FOREBAY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// 0.5 ms to about 60 s.
fn seconds_buckets() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
    ]
}

/// All metrics, on a registry of their own.
pub struct Metrics {
    pub registry: Registry,
    process: ProcessMetrics,
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
    pub connections: IntGauge,
    pub connections_closed: IntCounterVec,
    pub unexpected_clients: IntCounterVec,
    pub limit_used: IntGaugeVec,
    pub limit_max: IntGaugeVec,
    pub spool_records: IntGauge,
    pub spool_bytes: IntGauge,
    pub spool_bytes_max: IntGauge,
    pub spool_fsync_seconds: Histogram,
    pub spool_disk_works_seconds: Gauge,
    pub spool_append_waits_seconds: Gauge,
    pub spool_batch_records: Histogram,
    pub spool_damage: IntCounterVec,
    pub route_backlog_records: IntGaugeVec,
    pub route_pinned_bytes: IntGaugeVec,
    pub route_pinned_bytes_max: IntGaugeVec,
    pub backlog_dropped: IntCounterVec,
    pub route_oldest_seconds: IntGaugeVec,
    pub route_blocked: IntGaugeVec,
    pub in_flight_records: IntGaugeVec,
    pub reorder_records: IntGaugeVec,
    pub reordered: IntCounterVec,
    pub reorder_cut_short: IntCounterVec,
    pub published: IntCounterVec,
    pub publish_errors: IntCounterVec,
    pub publish_seconds: HistogramVec,
    pub dead_letters: IntCounterVec,
    pub dead_letters_kept: IntGaugeVec,
    pub dead_letters_bytes: IntGaugeVec,
    pub dead_letters_dropped: IntCounterVec,
    pub unrouted: IntCounterVec,
    pub spans: IntCounterVec,
    pub config_last_reload_successful: IntGauge,
    pub config_last_reload_timestamp_seconds: IntGauge,
    log_lines_dropped: IntCounter,
    /// Their gauges are not shown.
    gone_routes: Mutex<BTreeSet<String>>,
}

/// Registers on one registry, with the names' prefix.
pub(super) struct MetricsRegister<'a>(&'a Registry);

impl MetricsRegister<'_> {
    pub fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("a metric's name and labels are constants");
        self.0
            .register(Box::new(collector.clone()))
            .expect("each metric is registered once");
        collector
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(format!("forebay_{name}"), help), labels))
    }

    fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(format!("forebay_{name}"), help))
    }

    fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(format!("forebay_{name}"), help))
    }

    fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(format!("forebay_{name}"), help), labels))
    }

    fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.register(Histogram::with_opts(
            HistogramOpts::new(format!("forebay_{name}"), help).buckets(buckets),
        ))
    }

    fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
        self.register(HistogramVec::new(
            HistogramOpts::new(format!("forebay_{name}"), help).buckets(seconds_buckets()),
            labels,
        ))
    }
}

impl Metrics {
    pub fn new() -> Arc<Self> {
        let registry = Registry::new();
        let r = MetricsRegister(&registry);
        r.gauges("build_info", "1, with the version that runs.", &["version", "revision"])
            .with_label_values(&[env!("CARGO_PKG_VERSION"), REVISION])
            .set(1);
        let metrics = Self {
            process: ProcessMetrics::new(&r),
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
            connections: r.gauge("connections", "Open connections of the public server."),
            connections_closed: r.counters(
                "connections_closed_total",
                "Connections that a server closed without being asked to, by reason.",
                &["server", "reason"],
            ),
            unexpected_clients: r.counters(
                "unexpected_clients_total",
                "Requests of clients that the endpoint's allow list does not have.",
                &["endpoint"],
            ),
            limit_used: r.gauges("limit_used", "How much of a limit is in use.", &["limit"]),
            limit_max: r.gauges("limit_max", "The limit.", &["limit"]),
            spool_records: r.gauge("spool_records", "Records in the spool."),
            spool_bytes: r.gauge("spool_bytes", "Bytes of disk that the spool takes."),
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
            route_backlog_records: r.gauges(
                "route_backlog_records",
                "Records of the spool that the route has not settled.",
                &["route"],
            ),
            route_pinned_bytes: r.gauges(
                "route_pinned_bytes",
                "Bytes of the spool's records that the route wants and has not settled.",
                &["route"],
            ),
            route_pinned_bytes_max: r.gauges(
                "route_pinned_bytes_max",
                "Bytes that the route may pin of the spool, where it has a limit.",
                &["route"],
            ),
            backlog_dropped: r.counters(
                "backlog_dropped_total",
                "Records that the route gave up, because it may pin no more of the spool.",
                &["route"],
            ),
            route_oldest_seconds: r.gauges(
                "route_oldest_seconds",
                "Age of the oldest record that the route has not settled, in seconds.",
                &["route"],
            ),
            route_blocked: r.gauges(
                "route_blocked",
                "1 while the route cannot publish, by reason.",
                &["route", "reason"],
            ),
            in_flight_records: r.gauges(
                "in_flight_records",
                "Messages handed to the broker and not yet confirmed.",
                &["route"],
            ),
            reorder_records: r.gauges(
                "reorder_records",
                "Events that the route's reorder window holds back.",
                &["route"],
            ),
            reordered: r.counters(
                "reordered_total",
                "Events that the reorder window let out before an earlier one of their stream.",
                &["route"],
            ),
            reorder_cut_short: r.counters(
                "reorder_cut_short_total",
                "Events that left the reorder window early, because it was full.",
                &["route"],
            ),
            published: r.counters("published_total", "Messages confirmed by the broker.", &["route"]),
            publish_errors: r.counters(
                "publish_errors_total",
                "Failures to publish, by kind.",
                &["route", "kind"],
            ),
            publish_seconds: r.histograms(
                "publish_seconds",
                "From acceptance to the broker's confirmation.",
                &["route"],
            ),
            dead_letters: r.counters(
                "dead_letters_total",
                "Records that went to the dead letters.",
                &["route", "reason"],
            ),
            dead_letters_kept: r.gauges("dead_letters", "Dead letters of the route that are kept.", &["route"]),
            dead_letters_bytes: r.gauges(
                "dead_letters_bytes",
                "Bytes of disk that the dead letters of the route take.",
                &["route"],
            ),
            dead_letters_dropped: r.counters(
                "dead_letters_dropped_total",
                "Dead letters that went to make room for newer ones.",
                &["route"],
            ),
            unrouted: r.counters("unrouted_total", "Events that no route wants.", &["endpoint", "kind"]),
            spans: r.counters("spans_total", "Spans that ended, by what became of them.", &["outcome"]),
            config_last_reload_successful: r.gauge(
                "config_last_reload_successful",
                "1 while the configuration that was read last is the one that runs, 0 while it could not be used.",
            ),
            config_last_reload_timestamp_seconds: r.gauge(
                "config_last_reload_timestamp_seconds",
                "When the configuration that runs was applied, in seconds since the Unix epoch.",
            ),
            gone_routes: Mutex::default(),
            log_lines_dropped: r.counter(
                "log_lines_dropped_total",
                "Lines of the log that could not be written, or that had no room to wait for whoever reads it.",
            ),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// All metrics in Prometheus' text format.
    pub fn text(&self) -> String {
        self.process.refresh();
        self.log_lines_dropped
            .inc_by(logging::lines_dropped().saturating_sub(self.log_lines_dropped.get()));
        let mut families = self.registry.gather();
        self.hide_gone_routes(&mut families);
        TextEncoder::new()
            .encode_to_string(&families)
            .expect("the metrics are valid and a string takes them")
    }

    /// The route runs: its gauges are shown.
    pub fn route_is_there(&self, route: &str) {
        self.gone_routes.lock().remove(route);
    }

    /// The route does not run any more: what its gauges had last is not shown. Its counters are, and its dead letters.
    pub fn route_is_gone(&self, route: &str) {
        self.gone_routes.lock().insert(route.to_owned());
    }

    fn hide_gone_routes(&self, families: &mut Vec<MetricFamily>) {
        let gone = self.gone_routes.lock();
        let hidden = |metric: &prometheus::proto::Metric| {
            let mut labels = metric.get_label().iter();
            labels.any(|label| label.name() == "route" && gone.contains(label.value()))
        };
        for family in families.iter_mut().filter(|_| !gone.is_empty()) {
            let is_gauge = family.get_field_type() == MetricType::GAUGE;
            if is_gauge && !family.name().starts_with("forebay_dead_letters") {
                let shown = family.take_metric().into_iter().filter(|metric| !hidden(metric));
                family.set_metric(shown.collect());
            }
        }
        families.retain(|family| !family.get_metric().is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_every_unlabelled_metric_and_the_build() {
        let text = Metrics::new().text();
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
