//! A route's reorder window: [`Reorder`], by a clock that the log itself has.
//!
//! The clock is the time at which the records were taken in, as far as the log was read, and at its head the time that
//! passes. So a backlog that is published hours later, or a replay after a crash, is put in order as it would have been
//! at once; and no wall clock that is set back or forward holds anything for longer than the window.

use std::{collections::BTreeSet, time::Duration};

use prometheus::{IntCounter, IntGauge};
use tokio::time::Instant;

use super::metrics::JobMetrics;
use crate::{
    config,
    event::{Event, Time},
    order::Reorder,
};

/// A record is never taken in by so much before one that is ahead of it in the log, unless the clock was set back.
const STEP_BACK_MS_MIN: i64 = 60_000;

/// An event that waits for its turn.
#[derive(Debug)]
pub(super) struct WaitingEvent {
    /// Of its record, in the log that the job publishes.
    pub sequence: u64,
    /// Of the event, in its replica.
    pub replica_sequence: u64,
    /// The size of its record.
    pub bytes: usize,
    pub event: Event,
}

/// The events that a route holds back.
pub(super) struct RouteReordering {
    buffer: Reorder<WaitingEvent>,
    /// The numbers of what is in it.
    sequences: BTreeSet<u64>,
    clock: LogClock,
    /// The route stops: everything is due.
    is_over: bool,
    held: IntGauge,
    overtaking: IntCounter,
    cut_short: IntCounter,
}

impl RouteReordering {
    /// `None` for a route without a reorder window.
    pub(super) fn new(route: &config::RouteConfig, metrics: &JobMetrics) -> Option<Self> {
        let window = route.reorder_window?;
        let labels = [route.name.as_str()];
        Some(Self {
            buffer: Reorder::new(window).with_limits(route.reorder_records_max, route.reorder_bytes_max),
            sequences: BTreeSet::new(),
            clock: LogClock::default(),
            is_over: false,
            held: metrics.reorder_records.with_label_values(&labels),
            overtaking: metrics.reordered.with_label_values(&labels),
            cut_short: metrics.reorder_cut_short.with_label_values(&labels),
        })
    }

    /// A record was read that was taken in at `recorded`.
    pub(super) fn observe(&mut self, recorded: Time) {
        self.clock.observe(recorded, Instant::now());
    }

    /// Takes in the event of the record that was observed last.
    pub(super) fn hold(&mut self, waiting: WaitingEvent) {
        let (time, bytes, now) = (waiting.event.time, waiting.bytes, self.clock.now);
        let key = waiting.event.key.clone();
        self.sequences.insert(waiting.sequence);
        self.buffer.push(&key, time, bytes, waiting, now);
        self.held.set(self.buffer.len() as i64);
    }

    /// The next event whose turn it is.
    pub(super) fn release(&mut self) -> Option<WaitingEvent> {
        let now = if self.is_over { Time(i64::MAX) } else { self.clock.now };
        let out = self.buffer.release(now)?;
        self.sequences.remove(&out.item.sequence);
        self.held.set(self.buffer.len() as i64);
        self.overtaking.inc_by(u64::from(out.overtakes));
        self.cut_short.inc_by(u64::from(out.is_cut_short));
        Some(out.item)
    }

    /// Whether it holds a record of up to this number.
    pub(super) fn holds_up_to(&self, sequence: u64) -> bool {
        self.sequences.first().is_some_and(|first| *first <= sequence)
    }

    /// When the next event's turn comes, if nothing more is read until then.
    pub(super) fn release_at(&self) -> Option<Instant> {
        Some(self.clock.reaches(self.buffer.next_due()?))
    }

    /// [`Self::release_at`] has come, and all that the log has was read.
    pub(super) fn pass_time(&mut self) {
        if let Some(due) = self.buffer.next_due() {
            self.clock.pass_to(due);
        }
    }

    /// Holds nothing back any more.
    pub(super) fn end(&mut self) {
        self.is_over = true;
    }

    /// Forgets what it holds: it will be read again.
    pub(super) fn rewind(&mut self) {
        self.buffer.clear();
        self.sequences.clear();
        self.clock = LogClock::default();
        self.held.set(0);
    }
}

/// The time as the log tells it. Never goes back.
#[derive(Debug)]
struct LogClock {
    now: Time,
    /// When it was `now`.
    at: Instant,
    /// What is added to a record's time since the replica's clock was set back.
    ahead_ms: i64,
}

impl Default for LogClock {
    fn default() -> Self {
        Self {
            now: Time(i64::MIN),
            at: Instant::now(),
            ahead_ms: 0,
        }
    }
}

impl LogClock {
    fn observe(&mut self, recorded: Time, at: Instant) {
        let mut time = Time(recorded.0.saturating_add(self.ahead_ms));
        if time.0 < self.now.0.saturating_sub(STEP_BACK_MS_MIN) {
            self.ahead_ms = self.now.0.saturating_sub(recorded.0);
            time = self.now;
            self.at = at;
        }
        if time > self.now {
            (self.now, self.at) = (time, at);
        }
    }

    /// When it will be `time`, if time just passes.
    fn reaches(&self, time: Time) -> Instant {
        let ms = time.0.saturating_sub(self.now.0);
        self.at + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    fn pass_to(&mut self, time: Time) {
        if time > self.now {
            (self.at, self.now) = (self.reaches(time), time);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_log_s_clock_goes_with_the_records_and_at_the_head_with_time() {
        let (start, mut clock) = (Instant::now(), LogClock::default());
        clock.observe(Time(1000), start);
        clock.observe(Time(990), start + 5 * MS);
        assert_eq!((clock.now, clock.reaches(Time(1500))), (Time(1000), start + 500 * MS));
        clock.pass_to(Time(1500));
        assert_eq!((clock.now, clock.reaches(Time(1700))), (Time(1500), start + 700 * MS));
        clock.observe(Time(9000), start + 600 * MS);
        assert_eq!((clock.now, clock.reaches(Time(9001))), (Time(9000), start + 601 * MS));
        assert_eq!(clock.reaches(Time(0)), start + 600 * MS, "long ago");
    }

    #[test]
    fn a_clock_that_was_set_back_goes_on_from_where_it_was() {
        let (start, mut clock) = (Instant::now(), LogClock::default());
        clock.observe(Time(10_000_000), start);
        clock.observe(Time(1000), start + MS);
        assert_eq!(clock.now, Time(10_000_000));
        clock.observe(Time(1200), start + 2 * MS);
        assert_eq!(clock.now, Time(10_000_200));
        clock.observe(Time(i64::MAX), start + 3 * MS);
        clock.observe(Time(1300), start + 4 * MS);
        assert_eq!(clock.now, Time(i64::MAX), "nothing waits for ever: all is due");
    }
}
