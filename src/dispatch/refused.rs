//! What becomes of a message that the broker refuses for its own sake.

use std::collections::BTreeMap;

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
    /// Keeps a record that is held among the dead letters; only then is it settled.
    pub(super) async fn dead_letter(&mut self, record: Record, failure: Failure) {
        let sequence = record.sequence;
        match self.keep(record, &failure).await {
            Ok(()) => self.is_dead_letter(sequence),
            Err(reason) => self.is_stuck(sequence, failure, reason),
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

    /// Tries those again for which there was no room.
    pub(super) async fn unstick(&mut self) -> Result<(), End> {
        let again: Vec<_> = self
            .stuck
            .records
            .iter()
            .take(AGAIN_MAX)
            .map(|(n, f)| (*n, f.clone()))
            .collect();
        for (sequence, failure) in again {
            if !self.window.is_held(sequence) {
                // It comes again with the replay.
                break;
            }
            let Some(record) = self.record(sequence).await? else {
                self.is_dead_letter(sequence);
                continue;
            };
            self.dead_letter(record, failure).await;
            if self.stuck.contains(sequence) {
                break;
            }
        }
        Ok(())
    }

    /// A record by its number. Its segment is kept as long as it is not settled, so what is not there was damaged and is
    /// reported by the spool.
    async fn record(&self, sequence: u64) -> Result<Option<Record>, ReadError> {
        let mut read = Vec::new();
        self.spool.reader(sequence).next(1, READ_BYTES_MAX, &mut read).await?;
        Ok(read.pop().filter(|record| record.sequence == sequence))
    }

    /// Makes a record durable among the dead letters.
    async fn keep(&self, record: Record, failure: &Failure) -> Result<(), Failure> {
        let letter = DeadLetter {
            route: self.route.clone(),
            sequence: record.sequence,
            reason: failure.label.into(),
            text: failure.text.clone(),
            at_ms: now_ms(),
            record: record.bytes,
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
        match self.record(sequence).await? {
            Some(record) => self.dead_letter(record, failure).await,
            None => self.settle_held(sequence),
        }
        Ok(())
    }

    /// Keeps records that are in flight, and that the broker refused one by one, among the dead letters; only then are they
    /// settled. All together, so that they share the syncs of the disk.
    pub(super) async fn set_aside(&mut self, refused: Vec<(u64, Failure)>) -> Result<(), End> {
        for (sequence, _) in &refused {
            let settled = self.window.take_back(*sequence);
            settled.into_iter().for_each(|range| self.cursor.settle(range));
        }
        let keeping = refused.iter().map(|(sequence, failure)| async {
            Ok(match self.record(*sequence).await? {
                Some(record) => self.keep(record, failure).await.err(),
                None => None,
            })
        });
        let kept: Vec<Result<Option<Failure>, ReadError>> = join_all(keeping).await;
        let mut result = Ok(());
        for ((sequence, failure), kept) in refused.into_iter().zip(kept) {
            match kept {
                Ok(None) => self.is_dead_letter(sequence),
                Ok(Some(reason)) => self.is_stuck(sequence, failure, reason),
                Err(error) => result = Err(error.into()),
            }
        }
        result
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
