//! What a route counts.

use std::sync::Arc;

use prometheus::{Histogram, IntCounter};

use super::cause::JobCause;
use crate::{
    sink::{FailureCause as _, SinkLabels},
    telemetry::Metrics,
};

pub(super) struct RouteMetrics {
    pub all: Arc<Metrics>,
    pub published: IntCounter,
    pub publish_seconds: Histogram,
}

impl RouteMetrics {
    /// Everything stands at 0: of a counter that is born with its first failure, no rate would show that failure.
    pub fn new(route: &str, labels: SinkLabels, all: Arc<Metrics>) -> Self {
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
            failures: &["a", "b"],
            dead_letters: &["b"],
        };
        let metrics = Metrics::new();
        RouteMetrics::new("events", labels, metrics.clone());
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
