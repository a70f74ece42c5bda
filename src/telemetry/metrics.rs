//! The registry of metrics. What a part counts it registers itself, once; `docs/metrics.md` lists all with their
//! labels.

use std::{collections::BTreeSet, sync::Arc};

use parking_lot::Mutex;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    TextEncoder,
    proto::{MetricFamily, MetricType},
};

use super::{logging, process::ProcessMetrics};

/// The commit that was built, where the build was told.
pub(super) const REVISION: &str = match option_env!("FOREBAY_REVISION") {
    Some(revision) => revision,
    None => "unknown",
};

/// 0.5 ms to about 60 s.
pub(crate) fn seconds_buckets() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0,
    ]
}

/// All metrics, on a registry of their own.
pub struct Metrics {
    pub registry: Registry,
    process: ProcessMetrics,
    pub spans: IntCounterVec,
    log_lines_dropped: IntCounter,
    /// Their gauges are not shown.
    gone_routes: Mutex<BTreeSet<String>>,
}

/// Registers on one registry, with the names' prefix.
pub(crate) struct MetricsRegister<'a>(&'a Registry);

impl MetricsRegister<'_> {
    pub fn register<C: prometheus::core::Collector + Clone + 'static>(&self, collector: prometheus::Result<C>) -> C {
        let collector = collector.expect("a metric's name and labels are constants");
        self.0
            .register(Box::new(collector.clone()))
            .expect("each metric is registered once");
        collector
    }

    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.register(IntCounterVec::new(Opts::new(format!("forebay_{name}"), help), labels))
    }

    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.register(IntCounter::new(format!("forebay_{name}"), help))
    }

    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.register(IntGauge::new(format!("forebay_{name}"), help))
    }

    pub fn gauges(&self, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
        self.register(IntGaugeVec::new(Opts::new(format!("forebay_{name}"), help), labels))
    }

    pub fn histogram(&self, name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
        self.register(Histogram::with_opts(
            HistogramOpts::new(format!("forebay_{name}"), help).buckets(buckets),
        ))
    }

    pub fn histograms(&self, name: &str, help: &str, labels: &[&str]) -> HistogramVec {
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
            spans: r.counters("spans_total", "Spans that ended, by what became of them.", &["outcome"]),
            gone_routes: Mutex::default(),
            log_lines_dropped: r.counter(
                "log_lines_dropped_total",
                "Lines of the log that could not be written, or that had no room to wait for whoever reads it.",
            ),
            registry: registry.clone(),
        };
        Arc::new(metrics)
    }

    /// Registers metrics of a part, with the names' prefix.
    pub(crate) fn prefixed(&self) -> MetricsRegister<'_> {
        MetricsRegister(&self.registry)
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
