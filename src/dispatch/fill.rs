//! From records that were read to messages that the sink has.

use tokio::time::Instant;

use super::{Dispatcher, reordering::Waiting};
use crate::{
    event::Event,
    sink::{EnqueueError, Failure, Message, Remedy, Sink},
    spool::Record,
};

/// A message on its way to the sink, or that the sink had no room for.
pub(super) struct Offered {
    message: Message,
    bytes: usize,
    recorded_ms: i64,
}

impl<S: Sink> Dispatcher<S> {
    pub(super) fn has_room(&self) -> bool {
        self.window.in_flight_records() < self.limits.records && self.window.in_flight_bytes() < self.limits.bytes_max
    }

    /// Hands over what was read, as far as there is room.
    pub(super) async fn fill(&mut self) -> Result<(), Failure> {
        let position_before = self.window.position();
        while self.has_room() {
            if let Some(offered) = self.offered.take().or_else(|| self.release()) {
                let sequence = offered.message.sequence;
                let taken = self.offer(offered).inspect_err(|failure| {
                    if failure.remedy == Remedy::DeadLetter {
                        self.condemned = Some((sequence, failure.clone()));
                    }
                });
                if !taken? {
                    break;
                }
                continue;
            }
            let Some(record) = self.ahead.pop_front() else { break };
            self.take(record).await?;
        }
        if self.ahead.is_empty() && self.offered.is_none() && self.ahead_through > self.window.read() {
            // A hole behind the last record is settled with it.
            self.window.pass(self.ahead_through);
        }
        if self.window.position() != position_before {
            self.publish_progress();
        }
        Ok(())
    }

    /// Decides what becomes of one record: passed over, dead-lettered, or handed to the sink.
    async fn take(&mut self, record: Record) -> Result<(), Failure> {
        if let Some((_, failure)) = self.condemned.take_if(|(sequence, _)| *sequence == record.sequence) {
            return self.dead_letter(record, failure).await;
        }
        if self.set_aside.contains(&record.sequence) {
            self.window.pass(record.sequence);
            return Ok(());
        }
        let event = match Event::decode(&record.bytes) {
            Ok(event) => event,
            Err(error) => {
                let failure = Failure {
                    remedy: Remedy::DeadLetter,
                    label: "undecodable",
                    text: format!("record {} cannot be read: {error}", record.sequence),
                };
                return self.dead_letter(record, failure).await;
            }
        };
        self.reordering.iter_mut().for_each(|held| held.observe(event.recorded));
        if !self.plan.wants(&event) {
            self.window.pass(record.sequence);
            return Ok(());
        }
        let (sequence, bytes) = (record.sequence, record.bytes.len());
        let waiting = Waiting { sequence, bytes, event };
        if let Some(reordering) = &mut self.reordering {
            self.window.hold(sequence, bytes, waiting.event.recorded.0);
            reordering.hold(waiting);
            return Ok(());
        }
        let offered = self.render(&waiting);
        match self.offer(offered) {
            Err(failure) if failure.remedy == Remedy::DeadLetter => {
                self.spans.failed(sequence, failure.label);
                self.dead_letter(record, failure).await
            }
            other => other.map(|_| ()),
        }
    }

    /// The next event of those that were held back, if its turn has come.
    fn release(&mut self) -> Option<Offered> {
        let waiting = self.reordering.as_mut()?.release()?;
        Some(self.render(&waiting))
    }

    /// When the next event that is held back goes out, if all that the spool has was read.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let reordering = self.reordering.as_ref().filter(|_| self.reader.is_at_head())?;
        reordering.release_at()
    }

    fn render(&mut self, waiting: &Waiting) -> Offered {
        let mut message = self.plan.message(&waiting.event, waiting.sequence);
        self.spans.begin(&waiting.event, &mut message);
        Offered {
            message,
            bytes: waiting.bytes,
            recorded_ms: waiting.event.recorded.0,
        }
    }

    /// Hands a message to the sink; `false` when it has no room, and the message waits.
    fn offer(&mut self, offered: Offered) -> Result<bool, Failure> {
        let sequence = offered.message.sequence;
        let (bytes, recorded_ms) = (offered.bytes, offered.recorded_ms);
        match self.sink.enqueue(offered.message) {
            Ok(()) => {
                self.not_taken_since = None;
                if self.window.in_flight_records() == 0 {
                    self.settled_at = Instant::now();
                }
                self.window.push(sequence, bytes, recorded_ms);
                Ok(true)
            }
            Err(EnqueueError::Full(message)) => {
                if self.window.in_flight_records() == 0 {
                    self.not_taken_since.get_or_insert_with(Instant::now);
                }
                self.offered = Some(Offered {
                    message: *message,
                    bytes,
                    recorded_ms,
                });
                Ok(false)
            }
            Err(EnqueueError::Failed(failure)) => Err(failure),
        }
    }
}
