//! What a route tells of itself, for `/status` and the metrics.

use std::sync::Arc;

use parking_lot::Mutex;
use serde::Serialize;

use super::metrics::JobMetrics;
use crate::{sink::PublishFailure, spool::Cursor};

/// A failure and when it was seen.
#[derive(Debug, Clone, Serialize)]
pub struct RouteTrouble {
    /// The failure's label, as in the metrics.
    pub reason: &'static str,
    pub text: String,
    /// Milliseconds since the Unix epoch.
    pub since_ms: i64,
}

#[derive(Debug, Default)]
struct RouteState {
    position: u64,
    in_flight_records: usize,
    oldest_recorded_ms: Option<i64>,
    blocked: Option<RouteTrouble>,
    last_error: Option<RouteTrouble>,
}

/// A route's state, written by its job and read by whoever asks.
#[derive(Clone)]
pub struct RouteStatus {
    route: String,
    sink: String,
    cursor: Arc<Cursor>,
    metrics: Arc<JobMetrics>,
    state: Arc<Mutex<RouteState>>,
}

/// What `/status` shows of a route.
#[derive(Debug, Serialize)]
pub struct RouteSnapshot {
    pub name: String,
    pub sink: String,
    /// The sequence number of the last settled record.
    pub position: u64,
    pub backlog_records: u64,
    /// Bytes of the records that are kept in the spool for its sake.
    pub pinned_bytes: u64,
    pub oldest_seconds: u64,
    pub in_flight_records: usize,
    /// What keeps it from publishing now, and since when.
    pub blocked: Option<RouteTrouble>,
    /// The last failure, also when it has passed.
    pub last_error: Option<RouteTrouble>,
}

impl RouteStatus {
    /// The route's name.
    pub fn name(&self) -> &str {
        &self.route
    }

    pub(super) fn new(route: &str, sink: &str, cursor: Arc<Cursor>, metrics: Arc<JobMetrics>) -> Self {
        Self {
            route: route.into(),
            sink: sink.into(),
            cursor,
            metrics,
            state: Arc::default(),
        }
    }

    pub(super) fn progress(&self, in_flight_records: usize, oldest_recorded_ms: Option<i64>) {
        let position = self.cursor.position();
        let mut state = self.state.lock();
        // A session that begins knows nothing yet.
        if oldest_recorded_ms.is_some() || position != state.position {
            state.oldest_recorded_ms = oldest_recorded_ms;
        }
        state.position = position;
        state.in_flight_records = in_flight_records;
    }

    /// The oldest record that is not settled, though not in flight, was accepted then.
    pub(super) fn waiting_since(&self, recorded_ms: i64) {
        self.state.lock().oldest_recorded_ms = Some(recorded_ms);
    }

    /// Remembers a failure without calling the route blocked.
    pub(super) fn failed(&self, failure: &PublishFailure) {
        self.state.lock().last_error = Some(trouble(failure));
    }

    /// The route cannot publish. Says so once for each change of the reason.
    pub(super) fn block(&self, failure: &PublishFailure) {
        let mut state = self.state.lock();
        if state.blocked.as_ref().is_some_and(|now| now.reason == failure.label) {
            return;
        }
        if let Some(before) = &state.blocked {
            self.blocked_gauge(before.reason).set(0);
        }
        tracing::warn!(
            route = self.route,
            reason = failure.label,
            "the route is blocked: {failure}"
        );
        self.blocked_gauge(failure.label).set(1);
        state.blocked = Some(trouble(failure));
        state.last_error = state.blocked.clone();
    }

    pub(super) fn unblock(&self) {
        let mut state = self.state.lock();
        if let Some(before) = state.blocked.take() {
            self.blocked_gauge(before.reason).set(0);
            tracing::info!(route = self.route, reason = before.reason, "the route publishes again");
        }
    }

    fn blocked_gauge(&self, reason: &str) -> prometheus::IntGauge {
        self.metrics.route_blocked.with_label_values(&[&self.route, reason])
    }

    /// The state now, and what the route has not settled.
    pub fn snapshot(&self) -> RouteSnapshot {
        let backlog = self.cursor.backlog();
        let backlog_records = backlog.records;
        let state = self.state.lock();
        let oldest_ms = state
            .oldest_recorded_ms
            .filter(|_| backlog_records > 0)
            .map_or(0, |recorded_ms| now_ms().saturating_sub(recorded_ms).max(0));
        RouteSnapshot {
            name: self.route.clone(),
            sink: self.sink.clone(),
            position: self.cursor.position(),
            backlog_records,
            pinned_bytes: self.cursor.pinned_bytes(),
            oldest_seconds: u64::try_from(oldest_ms / 1000).unwrap_or(0),
            in_flight_records: state.in_flight_records,
            blocked: state.blocked.clone(),
            last_error: state.last_error.clone(),
        }
    }

    /// Brings the route's gauges up to date.
    pub fn collect(&self) {
        let snapshot = self.snapshot();
        let labels = [self.route.as_str()];
        let set = |gauge: &prometheus::IntGaugeVec, value: u64| {
            gauge
                .with_label_values(&labels)
                .set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.metrics.route_backlog_records, snapshot.backlog_records);
        set(&self.metrics.route_pinned_bytes, snapshot.pinned_bytes);
        set(&self.metrics.route_oldest_seconds, snapshot.oldest_seconds);
        set(&self.metrics.in_flight_records, snapshot.in_flight_records as u64);
    }
}

fn trouble(failure: &PublishFailure) -> RouteTrouble {
    RouteTrouble {
        reason: failure.label,
        text: failure.text.clone(),
        since_ms: now_ms(),
    }
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
