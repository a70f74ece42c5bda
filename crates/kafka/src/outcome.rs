//! What the broker has answered.

use std::mem;

use tokio::time::Instant;

use super::{
    KafkaSink,
    session::{DeliveryOutcome, FailedMessage},
};
use crate::failure::{KafkaCause, KafkaFailure};
use crate::settings::UnknownTopic;
use forebay_broker::{Remedy, SettledMessage};

impl KafkaSink {
    /// Takes in what the broker has answered.
    pub(super) fn take_outcome(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), KafkaFailure> {
        let main = &self.session.open()?.main;
        let DeliveryOutcome { confirmed, failed } = mem::take(&mut *main.shared.outcome.lock());
        let now = Instant::now();
        if !confirmed.is_empty() {
            self.progress = now;
            self.stalled = None;
        }
        for sent in confirmed {
            self.lanes.confirmed(sent.lane, now);
            settled.push(SettledMessage {
                sequence: sent.sequence,
                result: Ok(()),
            });
        }
        let Some(FailedMessage {
            sent,
            topic,
            bytes,
            mut failure,
        }) = failed.into_iter().next()
        else {
            return Ok(());
        };
        let alone = self.lanes.is_alone(sent.lane);
        if failure.cause == KafkaCause::TooLarge {
            self.sizes.refused(&topic, bytes, alone, &self.client);
            if !alone {
                // The next session's batches are smaller, and what does not fit into one goes alone.
                failure.remedy = Remedy::Retry;
            }
        }
        if failure.cause == KafkaCause::UnknownTopic && self.topics.unknown != UnknownTopic::Hold {
            // The next session's look decides.
            failure.remedy = Remedy::Retry;
        }
        let mut over = failure.clone();
        if alone && failure.remedy == Remedy::DeadLetter {
            failure.remedy = Remedy::SetAside;
            over.remedy = Remedy::Retry;
        }
        settled.push(SettledMessage {
            sequence: sent.sequence,
            result: Err(failure.into()),
        });
        self.session.end(over);
        Ok(())
    }

    /// The same of what went alone.
    pub(super) fn take_outcome_aside(&mut self, settled: &mut Vec<SettledMessage>) {
        let Some(aside) = self.session.producers().and_then(|producers| producers.aside.as_ref()) else {
            return;
        };
        let fatal = aside.fatal();
        let DeliveryOutcome { confirmed, failed } = mem::take(&mut *aside.shared.outcome.lock());
        let now = Instant::now();
        for sent in confirmed {
            self.progress = now;
            self.lanes.answered(sent.lane, now);
            settled.push(SettledMessage {
                sequence: sent.sequence,
                result: Ok(()),
            });
        }
        for FailedMessage { sent, mut failure, .. } in failed {
            self.lanes.answered(sent.lane, now);
            if failure.remedy == Remedy::DeadLetter {
                failure.remedy = Remedy::SetAside;
            } else {
                self.session.end(failure.clone());
            }
            settled.push(SettledMessage {
                sequence: sent.sequence,
                result: Err(failure.into()),
            });
        }
        if let Some(fatal) = fatal {
            self.session.end(fatal);
        }
    }
}
