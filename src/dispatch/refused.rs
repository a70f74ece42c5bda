//! What becomes of a message that the broker refuses for its own sake.

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use futures_util::future::join_all;

use super::{DeadLetter, Dispatcher, End, READ_BYTES_MAX, status::now_ms};
use crate::{
    config::UNROUTED,
    event::Event,
    sink::{Failure, Remedy, Sink},
    spool::{ReadError, Record},
};

/// With so many records that are to be dead letters and cannot be, a route reads no further.
const STUCK_MAX: usize = 1024;
/// Tried again at a time.
const AGAIN_MAX: usize = 256;

/// Records that are to be dead letters, for which there is no room: they wait, and hold back nothing else.
#[derive(Default)]
pub(super) struct Stuck {
    /// Why each of them is one.
    records: BTreeMap<u64, Failure>,
    /// Why there was no room.
    reason: Option<Failure>,
}

impl Stuck {
    pub(super) fn contains(&self, sequence: u64) -> bool {
        self.records.contains_key(&sequence)
    }

    pub(super) fn is_full(&self) -> bool {
        self.records.len() >= STUCK_MAX
    }

    /// They will be read again. As many as there may be are forgotten, or nothing would be: then each is refused once more.
    pub(super) fn rewind(&mut self) {
        if self.is_full() {
            self.records.clear();
        }
    }

    /// What is to be told of it.
    pub(super) fn trouble(&self) -> Option<Failure> {
        self.reason.clone().filter(|_| !self.records.is_empty())
    }
}

/// The trace that a record belongs to, for the log.
fn trace_id(record: &Bytes) -> Option<String> {
    let trace = Event::decode(record).ok()?.trace?;
    Some(trace.trace_id_text())
}

impl<S: Sink> Dispatcher<S> {
    /// A record that is held is to be a dead letter: with the next [`Self::keep_refused`].
    pub(super) fn refuse(&mut self, record: Record, failure: Failure) {
        self.refused.push((record, failure));
    }

    /// Keeps what was refused among the dead letters, all together, so that they share the syncs of the disk; only then it is settled.
    pub(super) async fn keep_refused(&mut self) {
        let refused = mem::take(&mut self.refused);
        let keeping = refused.iter().map(|(record, failure)| self.keep(record, failure));
        let kept = join_all(keeping).await;
        for ((record, failure), kept) in refused.into_iter().zip(kept) {
            match kept {
                Ok(()) => self.is_dead_letter(record.sequence),
                Err(reason) => self.is_stuck(record.sequence, failure, reason),
            }
        }
    }

    fn is_dead_letter(&mut self, sequence: u64) {
        self.stuck.records.remove(&sequence);
        self.settle_held(sequence);
    }

    fn is_stuck(&mut self, sequence: u64, failure: Failure, reason: Failure) {
        self.status.block(&reason);
        self.stuck.records.insert(sequence, failure);
        self.stuck.reason = Some(reason);
    }

    /// Tries those again for which there was no room, once there may be some.
    pub(super) async fn unstick(&mut self) -> Result<(), End> {
        if !self.dead_letters.has_room(&self.route) {
            return Ok(());
        }
        let again = self.stuck.records.iter().take(AGAIN_MAX);
        let again: Vec<_> = again
            // Others come again with the replay.
            .filter(|(sequence, _)| self.window.is_held(**sequence))
            .map(|(sequence, failure)| (*sequence, failure.clone()))
            .collect();
        self.refuse_by_number(again).await
    }

    /// Keeps records that are held, and of which only the number is known, among the dead letters.
    async fn refuse_by_number(&mut self, mut refused: Vec<(u64, Failure)>) -> Result<(), End> {
        // From front to back, so that each segment is read once.
        refused.sort_unstable_by_key(|(sequence, _)| *sequence);
        let Some((first, _)) = refused.first() else {
            return Ok(());
        };
        let mut reader = self.spool.reader(*first);
        for (sequence, failure) in refused {
            let mut read = Vec::new();
            reader.seek(sequence);
            reader.next(1, READ_BYTES_MAX, &mut read).await?;
            match read.pop().filter(|record| record.sequence == sequence) {
                Some(record) => self.refuse(record, failure),
                // Its segment is kept as long as it is not settled: it was damaged, and is reported by the spool.
                None => self.is_dead_letter(sequence),
            }
        }
        self.keep_refused().await;
        Ok(())
    }

    /// Makes a record durable among the dead letters.
    async fn keep(&self, record: &Record, failure: &Failure) -> Result<(), Failure> {
        let letter = DeadLetter {
            route: self.route.clone(),
            sequence: record.sequence,
            reason: failure.label.into(),
            text: failure.text.clone(),
            at_ms: now_ms(),
            record: record.bytes.clone(),
        };
        let dropped = self.dead_letters.keep(&letter).await.map_err(|error| Failure {
            remedy: Remedy::Hold,
            label: "dead_letters_full",
            text: format!(
                "record {} cannot be kept among the dead letters: {error}",
                letter.sequence
            ),
        })?;
        if dropped > 0 {
            tracing::warn!(route = self.route, dropped, "the oldest dead letters went to make room");
            let dropped_total = &self.metrics.all.dead_letters_dropped;
            dropped_total.with_label_values(&[self.route.as_str()]).inc_by(dropped);
        }
        // What no route wants was said at the start, and is counted by kind.
        if self.route != UNROUTED {
            tracing::warn!(
                route = self.route,
                sequence = letter.sequence,
                reason = failure.label,
                trace_id = trace_id(&letter.record),
                "dead letter: {failure}"
            );
        }
        let labels = [self.route.as_str(), failure.label];
        self.metrics.all.dead_letters.with_label_values(&labels).inc();
        Ok(())
    }

    /// The sink refused a message before it took it: its own fault makes it a dead letter, another ends the session.
    pub(super) async fn refused_at_once(&mut self, sequence: u64, failure: Failure) -> Result<(), End> {
        if !matches!(failure.remedy, Remedy::DeadLetter | Remedy::SetAside) {
            return Err(failure.into());
        }
        self.spans.failed(sequence, failure.label);
        self.refuse_by_number(vec![(sequence, failure)]).await
    }

    /// Keeps records that are in flight, and that the broker refused one by one, among the dead letters.
    pub(super) async fn set_aside(&mut self, refused: Vec<(u64, Failure)>) -> Result<(), End> {
        for (sequence, _) in &refused {
            let settled = self.window.take_back(*sequence);
            settled.into_iter().for_each(|range| self.cursor.settle(range));
        }
        self.refuse_by_number(refused).await
    }

    /// A message was refused: if it was alone it is condemned, else the replay goes with fewer in flight.
    pub(super) fn search(&mut self, sequence: u64, failure: &Failure, in_flight: usize) {
        if in_flight == 1 {
            self.condemned = Some((sequence, failure.clone()));
            return;
        }
        self.limits.records = (in_flight / 4).max(1);
        self.limits.search_until = self.window.read();
    }
}

impl From<ReadError> for End {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Closed => Self::Stopped,
            ReadError::Io { .. } => Self::Failed(Failure {
                remedy: Remedy::Retry,
                label: "spool_read",
                text: error.to_string(),
            }),
        }
    }
}
