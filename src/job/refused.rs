//! What becomes of a message that the broker refuses for its own sake.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use futures_util::future::join_all;
use hashbrown::HashMap;

use super::cause::{JobCause, JobFailure};
use super::{DeadLetter, Job, SessionEnd, sizes::RouteSizes, status::now_ms, window};
use crate::{
    config::UNROUTED,
    event::Event,
    sink::{MessagePlace, PublishFailure, Remedy, Sink},
    spool::{RECORD_OVERHEAD_BYTES, Record},
};

/// A record that is to be a dead letter.
pub(super) struct RefusedRecord {
    record: Record,
    why: RefusedFor,
}

/// Why a record is to be a dead letter.
#[derive(Clone)]
struct RefusedFor {
    failure: PublishFailure,
    /// The lane that it was refused in.
    lane: Option<u64>,
}

/// Records that are to be dead letters, for which there is no room: they wait, and hold back nothing else, but that a
/// lane which has many of them takes no more.
#[derive(Default)]
pub(super) struct StuckRecords {
    records: BTreeMap<u64, RefusedFor>,
    /// How many each lane has.
    lanes: HashMap<u64, usize>,
    /// Why there was no room.
    reason: Option<PublishFailure>,
}

impl StuckRecords {
    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.records.contains_key(&sequence)
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= RouteSizes::now().stuck_max
    }

    pub(super) fn lane_is_full(&self, lane: u64) -> bool {
        self.lanes
            .get(&lane)
            .is_some_and(|count| *count >= RouteSizes::now().stuck_of_lane_max)
    }

    fn insert(&mut self, sequence: u64, why: RefusedFor) {
        let lane = why.lane;
        if self.records.insert(sequence, why).is_none()
            && let Some(lane) = lane
        {
            *self.lanes.entry(lane).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, sequence: u64) {
        let Some(lane) = self.records.remove(&sequence).and_then(|why| why.lane) else {
            return;
        };
        if let Some(count) = self.lanes.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.lanes.remove(&lane);
            }
        }
    }

    /// They will be read again. As many as there may be, of all or of a lane, are forgotten, or nothing would be tried:
    /// then each is refused once more.
    pub(super) fn rewind(&mut self) {
        if self.is_full() {
            self.records.clear();
            self.lanes.clear();
        }
        let full = |count: &usize| *count >= RouteSizes::now().stuck_of_lane_max;
        let lanes = &self.lanes;
        self.records
            .retain(|_, why| !why.lane.is_some_and(|lane| lanes.get(&lane).is_some_and(full)));
        self.lanes.retain(|_, count| !full(count));
    }

    /// What is to be told of it.
    pub(super) fn trouble(&self) -> Option<PublishFailure> {
        self.reason.clone().filter(|_| !self.records.is_empty())
    }
}

/// The trace that a record belongs to, for the log.
fn trace_id(record: &Bytes) -> Option<String> {
    let trace = Event::decode(record).ok()?.trace?;
    Some(trace.trace_id_text())
}

impl<S: Sink> Job<S> {
    /// A record that is held is to be a dead letter: with the next [`Self::keep_refused`].
    pub(super) fn refuse(&mut self, record: Record, failure: PublishFailure) {
        let why = RefusedFor { failure, lane: None };
        self.refused.push(RefusedRecord { record, why });
    }

    /// Keeps what was refused among the dead letters, all together, so that they share the syncs of the disk; only then
    /// it is settled.
    pub(super) async fn keep_refused(&mut self) {
        let refused = mem::take(&mut self.refused);
        let keeping = refused
            .iter()
            .map(|refused| self.store_dead_letter(&refused.record, &refused.why.failure));
        let kept = join_all(keeping).await;
        for (RefusedRecord { record, why }, kept) in refused.into_iter().zip(kept) {
            match kept {
                Ok(()) => {
                    self.log_dead_letter(&record, &why.failure);
                    self.is_dead_letter(record.sequence);
                }
                Err(reason) => self.is_stuck(record.sequence, why, reason),
            }
        }
    }

    fn log_dead_letter(&self, record: &Record, failure: &PublishFailure) {
        // What no route wants was logged at the start.
        if self.route != UNROUTED && self.again.is_none() {
            tracing::warn!(
                route = self.route,
                sequence = record.sequence,
                reason = failure.label,
                trace_id = trace_id(&record.bytes),
                "dead letter: {failure}"
            );
        }
    }

    fn is_dead_letter(&mut self, sequence: u64) {
        self.stuck.remove(sequence);
        self.settle_held(sequence);
    }

    fn is_stuck(&mut self, sequence: u64, why: RefusedFor, reason: PublishFailure) {
        self.status.block(&reason);
        self.stuck.insert(sequence, why);
        self.stuck.reason = Some(reason);
    }

    /// Tries those again for which there was no room, once there may be some.
    pub(super) async fn unstick(&mut self) -> Result<(), SessionEnd> {
        if !self.dead_letters.has_room(&self.route) {
            return Ok(());
        }
        let again = self.stuck.records.iter().take(self.sizes.stuck_again_max);
        let again: Vec<_> = again
            // Others come again with the replay.
            .filter(|(sequence, _)| self.window.is_held(**sequence))
            .map(|(sequence, why)| (*sequence, why.clone()))
            .collect();
        self.refuse_by_number(again).await
    }

    /// Keeps records that are held, and of which only the number is known, among the dead letters.
    async fn refuse_by_number(&mut self, mut refused: Vec<(u64, RefusedFor)>) -> Result<(), SessionEnd> {
        // From front to back, so that each segment is read once.
        refused.sort_unstable_by_key(|(sequence, _)| *sequence);
        let Some((first, _)) = refused.first() else {
            return Ok(());
        };
        let mut reader = self.spool.reader(*first);
        let mut bytes = 0;
        for (sequence, why) in refused {
            if bytes >= self.sizes.refused_bytes_max {
                // They count against what the reader may hold: it would wait for itself.
                self.keep_refused().await;
                bytes = 0;
            }
            let mut read = Vec::new();
            reader.seek(sequence);
            reader.next(1, self.sizes.read_bytes_max, &mut read).await?;
            match read.pop().filter(|record| record.sequence == sequence) {
                Some(record) => {
                    bytes += record.bytes.len() + RECORD_OVERHEAD_BYTES;
                    self.refused.push(RefusedRecord { record, why });
                }
                // Its segment is kept as long as it is not settled: it was damaged, and is reported by the spool.
                None => self.is_dead_letter(sequence),
            }
        }
        self.keep_refused().await;
        Ok(())
    }

    /// Makes a record durable among the dead letters.
    pub(super) async fn store_dead_letter(
        &self,
        record: &Record,
        failure: &PublishFailure,
    ) -> Result<(), PublishFailure> {
        if self.again.is_some() {
            self.store_refused_again(record, failure).await;
            return Ok(());
        }
        let letter = DeadLetter {
            route: self.route.clone(),
            sequence: record.sequence,
            reason: failure.label.into(),
            text: failure.text.clone(),
            at_ms: now_ms(),
            attempts: 1,
            record: record.bytes.clone(),
        };
        let dropped = self.dead_letters.append(&letter).await.map_err(|error| {
            PublishFailure::from(JobFailure {
                remedy: Remedy::Hold,
                cause: JobCause::DeadLettersFull,
                text: format!(
                    "record {} cannot be kept among the dead letters: {error}",
                    letter.sequence
                ),
            })
        })?;
        if dropped > 0 {
            tracing::warn!(route = self.route, dropped, "the oldest dead letters went to make room");
            let dropped_total = &self.metrics.all.dead_letters_dropped;
            dropped_total.with_label_values(&[self.route.as_str()]).inc_by(dropped);
        }
        let labels = [self.route.as_str(), failure.label];
        self.metrics.all.dead_letters.with_label_values(&labels).inc();
        Ok(())
    }

    /// The sink refused a message before it took it: its own fault makes it a dead letter, another ends the session.
    pub(super) async fn refused_at_once(
        &mut self,
        sequence: u64,
        place: MessagePlace,
        failure: PublishFailure,
    ) -> Result<(), SessionEnd> {
        if !matches!(failure.remedy, Remedy::DeadLetter | Remedy::SetAside) {
            return Err(failure.into());
        }
        self.spans.failed(sequence, failure.label);
        let lane = Some(place.lane);
        self.refuse_by_number(vec![(sequence, RefusedFor { failure, lane })])
            .await
    }

    /// Keeps records that are in flight, and that the broker refused one by one, among the dead letters.
    pub(super) async fn set_aside(&mut self, refused: Vec<(u64, PublishFailure)>) -> Result<(), SessionEnd> {
        let mut to_keep = Vec::new();
        for (sequence, failure) in refused {
            let lane = self.window.place(sequence).map(|place| place.lane);
            self.window.take_back(sequence, &mut self.settleable);
            to_keep.push((sequence, RefusedFor { failure, lane }));
        }
        self.settle_letters();
        window::apply_settled(&mut self.settleable, &self.cursor);
        self.refuse_by_number(to_keep).await
    }

    /// A message was refused: if it was alone it is condemned, else the replay goes with fewer in flight.
    pub(super) fn search(&mut self, sequence: u64, failure: &PublishFailure, in_flight: usize) {
        if in_flight == 1 {
            self.condemned = Some((sequence, failure.clone()));
            return;
        }
        self.limits.records = (in_flight / 4).max(1);
        self.limits.search_until = self.window.read();
    }
}
