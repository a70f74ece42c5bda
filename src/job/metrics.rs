//! What a route counts.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::cause::JobCause;
use crate::{
    sink::{FailureCause as _, SinkLabels},
    telemetry::Metrics,
};

/// What the routes publish, and what keeps them from it.
pub struct JobMetrics {
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
}

impl JobMetrics {
    /// Registers them. Once on each registry.
    pub fn register(metrics: &Metrics) -> Arc<Self> {
        let r = metrics.prefixed();
        Arc::new(Self {
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
        })
    }
}

/// What one route counts.
pub(super) struct RouteMetrics {
    pub all: Arc<JobMetrics>,
    pub published: IntCounter,
    pub publish_seconds: Histogram,
}

impl RouteMetrics {
    /// Everything stands at 0: of a counter that is born with its first failure, no rate would show that failure.
    pub fn new(route: &str, labels: SinkLabels, all: Arc<JobMetrics>) -> Self {
        let own = JobCause::OF_ANY_ROUTE.map(JobCause::label);
        for label in labels.failures.iter().chain(&own) {
            all.route_blocked.with_label_values(&[route, label]).set(0);
            all.publish_errors.with_label_values(&[route, label]).inc_by(0);
        }
        all.dead_letters_dropped.with_label_values(&[route]).inc_by(0);
        for label in labels.dead_letters.iter().chain([&JobCause::Undecodable.label()]) {
            all.dead_letters.with_label_values(&[route, label]).inc_by(0);
        }
        Self {
            published: all.published.with_label_values(&[route]),
            publish_seconds: all.publish_seconds.with_label_values(&[route]),
            all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_route_counts_is_there_before_it_happens() {
        let labels = SinkLabels {
            failures: vec!["a", "b"],
            dead_letters: vec!["b"],
        };
        let metrics = Metrics::new();
        RouteMetrics::new("events", labels, JobMetrics::register(&metrics));
        let text = metrics.text();
        for series in [
            "route_blocked{reason=\"a\",route=\"events\"}",
            "route_blocked{reason=\"no_confirmation\",route=\"events\"}",
            "publish_errors_total{kind=\"b\",route=\"events\"}",
            "dead_letters_total{reason=\"b\",route=\"events\"}",
            "dead_letters_total{reason=\"undecodable\",route=\"events\"}",
            "published_total{route=\"events\"}",
        ] {
            assert!(text.contains(&format!("\nforebay_{series} 0\n")), "{series}: {text}");
        }
        assert!(!text.contains("dead_letters_total{reason=\"a\""), "{text}");
    }
}
