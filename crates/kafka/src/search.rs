//! Looking for topics, and what becomes of messages whose topic is not there.

use std::{collections::BTreeSet, mem, sync::Arc, time::Duration};

use tokio::{sync::oneshot, task::AbortHandle, time::Instant};

use super::{
    KafkaSink, LOOK_INTERVAL,
    oauth::TokenLease,
    state::SessionProducers,
    topics::{TopicAnswer, TopicAnswers, TopicCreation, TopicLook},
};
use crate::failure::KafkaFailure;
use crate::settings::UnknownTopic;
use forebay_broker::{Message, Remedy, SettledMessage};

/// A topic of which the brokers say for so long that it is not there is unknown: one that was made just now needs a
/// moment to be known to each of them.
const ABSENT_MIN: Duration = Duration::from_secs(5);

/// The looks for topics of one session.
#[derive(Default)]
pub(super) struct TopicSearch {
    pub lease: Option<TokenLease>,
    /// One that is under way.
    look: Option<(oneshot::Receiver<TopicAnswers>, AbortHandle)>,
    /// Topics to look for again, and when.
    again: BTreeSet<Arc<str>>,
    again_at: Option<Instant>,
}

impl TopicSearch {
    /// What the brokers have said, once they have.
    fn answers(&mut self) -> Option<TopicAnswers> {
        let (coming, _) = self.look.as_mut()?;
        let answers = match coming.try_recv() {
            Ok(answers) => answers,
            Err(oneshot::error::TryRecvError::Empty) => return None,
            Err(oneshot::error::TryRecvError::Closed) => panic!("a look for topics panicked"),
        };
        self.look = None;
        Some(answers)
    }

    pub fn again(&mut self, topic: Arc<str>) {
        self.again.insert(topic);
        self.again_at.get_or_insert_with(|| Instant::now() + LOOK_INTERVAL);
    }
}

impl Drop for TopicSearch {
    fn drop(&mut self) {
        self.look.iter().for_each(|(_, task)| task.abort());
    }
}

impl KafkaSink {
    /// Takes in what the brokers say of topics, once they have.
    pub(super) fn take_look(&mut self) {
        let Some(answers) = self.search.answers() else { return };
        let now = Instant::now();
        let mut found = Vec::new();
        for (topic, answer) in answers {
            let again = match answer {
                TopicAnswer::There { partitions } => {
                    for session in self.session.producers().into_iter().flat_map(SessionProducers::iter) {
                        session.pin(&topic, partitions);
                    }
                    self.lanes.found(topic.clone(), partitions);
                    found.push(topic);
                    continue;
                }
                TopicAnswer::Unknown => self.lanes.is_sought(&topic),
                TopicAnswer::Unusable(failure) => self.lanes.unusable(&topic, failure, now).is_some(),
                TopicAnswer::Absent(failure) => {
                    let since = self.lanes.unusable(&topic, failure.clone(), now);
                    let for_long = since.is_some_and(|since| now.duration_since(since) >= ABSENT_MIN);
                    if for_long && self.may_give_up(&topic) {
                        for message in self.lanes.give_up(topic, failure.clone()) {
                            self.place_elsewhere(message, failure.clone());
                        }
                        continue;
                    }
                    since.is_some()
                }
            };
            if again {
                self.search.again(topic);
            }
        }
        let (names, client, lease) = (self.names.clone(), self.client.clone(), self.search.lease.clone());
        self.asked.ask(found, names, client, lease, self.body_bytes_max);
    }

    fn may_give_up(&self, topic: &str) -> bool {
        match &self.topics.unknown {
            UnknownTopic::Hold => false,
            UnknownTopic::DeadLetter => true,
            UnknownTopic::Fallback(fallback) => fallback != topic,
        }
    }

    /// Lets messages go to the fallback. A stream's earlier message may wait for another topic, and come to the
    /// fallback too: it goes first.
    pub(super) fn divert(&mut self) {
        let Some((_, first)) = self.diverted.first_key_value() else {
            return;
        };
        let earliest = self.lanes.earliest_sought(&first.address).unwrap_or(u64::MAX);
        let later = self.diverted.split_off(&earliest);
        for message in mem::replace(&mut self.diverted, later).into_values() {
            self.lanes.hold(message);
        }
    }

    /// A message whose topic was given up.
    pub(super) fn place_elsewhere(&mut self, mut message: Message, failure: KafkaFailure) {
        if let UnknownTopic::Fallback(fallback) = &self.topics.unknown {
            message.address = fallback.as_str().into();
            self.diverted.insert(message.sequence, message);
            return;
        }
        self.refused.push(SettledMessage {
            sequence: message.sequence,
            result: Err(KafkaFailure {
                remedy: Remedy::SetAside,
                ..failure
            }
            .into()),
        });
    }

    /// Starts a look for topics, when there are some to look for.
    pub(super) fn look(&mut self) {
        let Some(SessionProducers { main: session, .. }) = self.session.producers() else {
            return;
        };
        let search = &mut self.search;
        if search.look.is_some() {
            return;
        }
        if search.again_at.take_if(|at| *at <= Instant::now()).is_some() {
            self.lanes.unasked.append(&mut search.again);
        }
        if self.lanes.unasked.is_empty() {
            return;
        }
        let topics = mem::take(&mut self.lanes.unasked).into_iter().collect();
        let look = TopicLook {
            producer: session.producer.clone(),
            client: self.client.clone(),
            lease: search.lease.clone(),
            creation: self.create_topics.map(|how| TopicCreation {
                how,
                template: self.topics.template.clone(),
            }),
        };
        let (answers, coming) = oneshot::channel();
        let shared = session.shared.clone();
        let task = tokio::spawn(async move {
            // Nobody waits for it any more when the session is over.
            let _ = answers.send(look.run(topics).await);
            shared.changed.notify_one();
        });
        search.look = Some((coming, task.abort_handle()));
    }
}
