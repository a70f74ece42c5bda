//! What becomes of a message that the broker refuses for its own sake.

use bytes::Bytes;
use futures_util::future::join_all;

use super::{DeadLetter, Dispatcher, End, READ_BYTES_MAX, status::now_ms};
use crate::{
    event::Event,
    sink::{Failure, Remedy, Sink},
    spool::{ReadError, Record},
};

/// The trace that a record belongs to, for the log.
fn trace_id(record: &Bytes) -> Option<String> {
    let trace = Event::decode(record).ok()?.trace?;
    Some(trace.trace_id_text())
}

impl<S: Sink> Dispatcher<S> {
    /// Keeps a record among the dead letters; only then is it settled.
    pub(super) async fn dead_letter(&mut self, record: Record, failure: Failure) -> Result<(), Failure> {
        let sequence = record.sequence;
        if let Err(full) = self.keep(record, &failure).await {
            self.condemned = Some((sequence, failure));
            return Err(full);
        }
        self.window.pass(sequence);
        self.limits.records = self.limits.records_max;
        Ok(())
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
        self.dead_letters.keep(&letter).await.map_err(|error| Failure {
            remedy: Remedy::Hold,
            label: "dead_letters_full",
            text: format!(
                "record {} cannot be kept among the dead letters: {error}",
                letter.sequence
            ),
        })?;
        tracing::warn!(
            route = self.route,
            sequence = letter.sequence,
            reason = failure.label,
            trace_id = trace_id(&letter.record),
            "dead letter: {failure}"
        );
        let labels = [self.route.as_str(), failure.label];
        self.metrics.all.dead_letters.with_label_values(&labels).inc();
        Ok(())
    }

    /// Keeps records that are in flight, and that the broker refused one by one, among the dead letters; only then are they
    /// settled. All together, so that they share the syncs of the disk.
    pub(super) async fn set_aside(&mut self, refused: Vec<(u64, Failure)>) -> Result<(), End> {
        let keeping = refused.iter().map(|(sequence, failure)| async {
            let mut read = Vec::new();
            let mut reader = self.spool.reader(*sequence);
            reader.next(1, READ_BYTES_MAX, &mut read).await?;
            let record = read.pop().filter(|record| record.sequence == *sequence);
            // Its segment is kept as long as the cursor is before it, so what is not there was damaged and is reported by the spool.
            if let Some(record) = record {
                self.keep(record, failure).await?;
            }
            Ok::<_, End>(*sequence)
        });
        let kept = join_all(keeping).await;
        let mut result = Ok(());
        for kept in kept {
            match kept {
                Ok(sequence) => {
                    self.window.settle(sequence);
                    self.set_aside.insert(sequence);
                }
                Err(end) => result = Err(end),
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
