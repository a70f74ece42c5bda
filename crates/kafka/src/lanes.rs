//! What a session holds back, and why.
//!
//! A topic is *sought* until the brokers have answered for it: what goes there waits, and what goes elsewhere does not.
//! Behind it each of its partitions is a *lane*.
//!
//! Until a lane's first confirmation one message is on its way in it. A broker takes any first sequence number of a
//! producer that a partition does not know (KAFKA-15591), and each session's producer is a new one: with more requests
//! on their way, the first could be refused and the second written, and a consumer would see what follows before what
//! it follows. What was confirmed makes the producer known, and from then on the broker itself refuses what follows a
//! refused request.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::sizes::TopicSizes;
use crate::failure::KafkaFailure;
use forebay_broker::{Message, number_of, partition::partition_of};

/// Brokers forget a producer that was silent for a day (`producer.id.expiration.ms`): long before, it counts as unknown
/// again.
const KNOWN_FOR: Duration = Duration::from_secs(600);

/// The messages of a session on their way to its producer.
#[derive(Default)]
pub(super) struct PartitionLanes {
    topics: HashMap<Arc<str>, TopicLanes>,
    lanes: Vec<PartitionLane>,
    /// Lanes with something held back that may be able to go.
    releasable: BTreeSet<usize>,
    /// Topics to be asked about.
    pub unasked: BTreeSet<Arc<str>>,
    sizes: TopicSizes,
}

/// What is known of a topic.
enum TopicLanes {
    /// Not whether it is there.
    Sought {
        held: VecDeque<Message>,
        /// Since when the brokers say that it cannot be used, and why.
        unusable: Option<(Instant, KafkaFailure)>,
    },
    There {
        first_lane: usize,
        partitions: u32,
    },
    /// Given up, until a later look finds it.
    Absent(KafkaFailure),
}

#[derive(Default)]
struct PartitionLane {
    held: VecDeque<Message>,
    /// Given to the producer and without an answer.
    in_flight: usize,
    confirmed_at: Option<Instant>,
    /// What is in flight may be too large: it is alone, and nothing follows it.
    tries: bool,
    /// With something in flight: when something was confirmed, or the first of it was sent.
    quiet_since: Option<Instant>,
}

/// A partition that confirms nothing.
pub(super) struct StalledLane<'a> {
    pub topic: &'a str,
    pub partition: usize,
    pub records: usize,
    pub quiet: Duration,
}

/// What is to be done with a message.
pub(super) enum PlacedMessage {
    /// It goes now, by this lane. [`PartitionLanes::sent`] when it went.
    Go(Message, usize),
    Held,
    /// Its topic was given up.
    Absent(Message, KafkaFailure),
}

impl PartitionLanes {
    /// No topic is known yet. What `sizes` suspects is sent alone.
    pub fn new(sizes: TopicSizes) -> Self {
        Self {
            sizes,
            ..Self::default()
        }
    }

    /// The lane of a topic and a key: a partition, or all of a topic whose partitions are not known.
    pub fn number(&self, topic: &str, key: &str) -> u64 {
        match self.topics.get(topic) {
            Some(TopicLanes::There { first_lane, partitions }) => {
                *first_lane as u64 + u64::from(partition_of(key.as_bytes(), *partitions))
            }
            // Apart from the numbers of partitions.
            Some(TopicLanes::Sought { .. } | TopicLanes::Absent(_)) | None => number_of(topic) | 1 << 63,
        }
    }

    /// Finds the way for the next message.
    pub fn place(&mut self, message: Message, now: Instant) -> PlacedMessage {
        let Some(topic) = self.topics.get_mut(&message.address) else {
            let topic = message.address.clone();
            self.seek(topic, message);
            return PlacedMessage::Held;
        };
        match topic {
            TopicLanes::Sought { held, .. } => {
                held.push_back(message);
                PlacedMessage::Held
            }
            TopicLanes::Absent(failure) => PlacedMessage::Absent(message, failure.clone()),
            TopicLanes::There { first_lane, partitions } => {
                let index = *first_lane + partition_of(message.key.as_bytes(), *partitions) as usize;
                let lane = &mut self.lanes[index];
                if lane.held.is_empty() && lane.may_send(now) {
                    if !self.sizes.suspects(&message) {
                        return PlacedMessage::Go(message, index);
                    }
                    self.releasable.insert(index);
                }
                lane.held.push_back(message);
                PlacedMessage::Held
            }
        }
    }

    /// Holds a message back until [`Self::release`], which it can be let go by at once.
    pub fn hold(&mut self, message: Message) {
        match self.topics.get_mut(&message.address) {
            Some(TopicLanes::Sought { held, .. }) => held.push_back(message),
            Some(TopicLanes::There { first_lane, partitions }) => {
                let index = *first_lane + partition_of(message.key.as_bytes(), *partitions) as usize;
                self.lanes[index].held.push_back(message);
                self.releasable.insert(index);
            }
            Some(TopicLanes::Absent(_)) | None => self.seek(message.address.clone(), message),
        }
    }

    /// The lowest sequence number that waits for a topic other than `but`, of which it is not known whether it is
    /// there.
    pub fn earliest_sought(&self, but: &str) -> Option<u64> {
        let sought = self.topics.iter().filter_map(|(topic, state)| match state {
            TopicLanes::Sought { held, .. } if &**topic != but => Some(held),
            _ => None,
        });
        sought.flatten().map(|message| message.sequence).min()
    }

    pub fn is_sought(&self, topic: &str) -> bool {
        matches!(self.topics.get(topic), Some(TopicLanes::Sought { .. }))
    }

    /// A topic that is to be asked about, with a message for it or without.
    fn seek(&mut self, topic: Arc<str>, message: impl Into<Option<Message>>) {
        self.unasked.insert(topic.clone());
        let held = message.into().into_iter().collect();
        self.topics.insert(topic, TopicLanes::Sought { held, unusable: None });
    }

    /// Asks about a topic before there is a message for it.
    pub fn expect(&mut self, topic: &str) {
        self.seek(topic.into(), None);
    }

    pub fn sent(&mut self, lane: usize, now: Instant) {
        self.lanes[lane].sent(now);
    }

    /// The broker has confirmed a message of a lane.
    pub fn confirmed(&mut self, lane: usize, now: Instant) {
        self.answered(lane, now);
        self.lanes[lane].confirmed_at = Some(now);
    }

    /// A message that went alone was answered, whatever the answer. That makes the producer of the others no better
    /// known.
    pub fn answered(&mut self, lane: usize, now: Instant) {
        let found = &mut self.lanes[lane];
        found.tries = false;
        found.in_flight = found.in_flight.saturating_sub(1);
        found.quiet_since = (found.in_flight > 0).then_some(now);
        if !found.held.is_empty() {
            self.releasable.insert(lane);
        }
    }

    /// Whether a lane has one message with the broker, which is then in no batch with others.
    pub fn is_alone(&self, lane: usize) -> bool {
        self.lanes[lane].in_flight == 1
    }

    /// Hands what may go now to `send`, with whether it goes alone, until that has no room (`Ok(false)`) or fails.
    /// `Err` has the sequence number of what failed.
    pub fn release<E>(
        &mut self,
        now: Instant,
        mut send: impl FnMut(&Message, usize, bool) -> Result<bool, E>,
    ) -> Result<(), (u64, E)> {
        while let Some(&index) = self.releasable.first() {
            let lane = &mut self.lanes[index];
            while lane.may_send(now)
                && let Some(message) = lane.held.pop_front()
            {
                let alone = self.sizes.suspects(&message);
                if alone && lane.in_flight > 0 {
                    lane.held.push_front(message);
                    break;
                }
                match send(&message, index, alone) {
                    Ok(true) => {
                        lane.sent(now);
                        lane.tries = alone;
                    }
                    Ok(false) => {
                        lane.held.push_front(message);
                        return Ok(());
                    }
                    Err(error) => return Err((message.sequence, error)),
                }
            }
            self.releasable.pop_first();
        }
        Ok(())
    }

    /// A topic is there, with so many partitions: what waited for it goes into its lanes.
    pub fn found(&mut self, topic: Arc<str>, partitions: u32) {
        let first_lane = self.lanes.len();
        let held = match self.topics.get_mut(&topic) {
            // The count that was seen first holds for the session.
            Some(TopicLanes::There { .. }) => return,
            Some(TopicLanes::Sought { held, .. }) => std::mem::take(held),
            Some(TopicLanes::Absent(_)) | None => VecDeque::new(),
        };
        self.lanes
            .resize_with(first_lane + partitions as usize, PartitionLane::default);
        for message in held {
            let index = first_lane + partition_of(message.key.as_bytes(), partitions) as usize;
            self.lanes[index].held.push_back(message);
            self.releasable.insert(index);
        }
        self.topics.insert(topic, TopicLanes::There { first_lane, partitions });
    }

    /// A topic cannot be used: since when the brokers say so. `None` when nothing waits for it.
    pub fn unusable(&mut self, topic: &Arc<str>, failure: KafkaFailure, now: Instant) -> Option<Instant> {
        match self.topics.get_mut(topic) {
            Some(TopicLanes::Sought { held, .. }) if held.is_empty() => {
                self.topics.remove(topic);
                None
            }
            Some(TopicLanes::Sought { unusable, .. }) => {
                let since = unusable.as_ref().map_or(now, |(since, _)| *since);
                *unusable = Some((since, failure));
                Some(since)
            }
            Some(TopicLanes::There { .. } | TopicLanes::Absent(_)) | None => None,
        }
    }

    /// Gives a topic up, and what waited for it back.
    pub fn give_up(&mut self, topic: Arc<str>, failure: KafkaFailure) -> VecDeque<Message> {
        match self.topics.insert(topic, TopicLanes::Absent(failure)) {
            Some(TopicLanes::Sought { held, .. }) => held,
            _ => VecDeque::new(),
        }
    }

    /// The partition that has confirmed nothing for longest, if that is as long as `quiet_min`.
    pub fn stalled(&self, quiet_min: Duration) -> Option<StalledLane<'_>> {
        let there = self.topics.iter().filter_map(|(topic, state)| match state {
            TopicLanes::There { first_lane, partitions } => {
                Some((topic, &self.lanes[*first_lane..][..*partitions as usize]))
            }
            TopicLanes::Sought { .. } | TopicLanes::Absent(_) => None,
        });
        let lanes = there.flat_map(|(topic, lanes)| {
            lanes
                .iter()
                .enumerate()
                .map(move |(partition, lane)| (topic, partition, lane))
        });
        let stalled = lanes.filter_map(|(topic, partition, lane)| {
            Some(StalledLane {
                topic,
                partition,
                records: lane.in_flight + lane.held.len(),
                quiet: lane.quiet_since?.elapsed(),
            })
        });
        stalled
            .filter(|stalled| stalled.quiet >= quiet_min)
            .max_by_key(|stalled| stalled.quiet)
    }

    /// Why messages wait for a topic that cannot be used; for the one that was found so first.
    pub fn trouble(&self) -> Option<&KafkaFailure> {
        let unusable = self.topics.values().filter_map(|topic| match topic {
            TopicLanes::Sought { held, unusable } if !held.is_empty() => unusable.as_ref(),
            _ => None,
        });
        unusable.min_by_key(|(since, _)| *since).map(|(_, failure)| failure)
    }
}

impl PartitionLane {
    fn sent(&mut self, now: Instant) {
        self.in_flight += 1;
        self.quiet_since.get_or_insert(now);
    }

    fn may_send(&self, now: Instant) -> bool {
        !self.tries && (self.in_flight == 0 || self.confirmed_at.is_some_and(|at| now.duration_since(at) < KNOWN_FOR))
    }
}

#[cfg(test)]
impl PartitionLanes {
    /// As if a lane had been quiet since then.
    pub fn quiet_since(&mut self, lane: usize, since: Instant) {
        self.lanes[lane].quiet_since = Some(since);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;
    use forebay_broker::Remedy;

    fn message(topic: &str, sequence: u64) -> Message {
        Message {
            sequence,
            replica: "forebay-0".into(),
            id: Uuid::nil(),
            address: topic.into(),
            key: "ZG6NWV/a".into(),
            content_type: "application/json".into(),
            attributes: Vec::new(),
            body: Bytes::from_static(b"{}"),
            time_ms: 0,
            trace: None,
            again: None,
        }
    }

    fn absent() -> KafkaFailure {
        crate::failure::unknown_topic("events")
    }

    /// What goes out of what is held, as far as the producer takes it.
    fn released(lanes: &mut PartitionLanes, room: usize) -> Vec<u64> {
        let mut sent = Vec::new();
        let released = lanes.release(Instant::now(), |message, _, _| {
            let taken = sent.len() < room;
            sent.extend(taken.then_some(message.sequence));
            Ok::<_, ()>(taken)
        });
        assert!(released.is_ok());
        sent
    }

    #[test]
    fn a_lane_has_one_message_on_its_way_until_something_was_confirmed() {
        let now = Instant::now();
        let mut lanes = PartitionLanes::default();
        for sequence in 1..=4 {
            assert!(matches!(
                lanes.place(message("events", sequence), now),
                PlacedMessage::Held
            ));
        }
        assert_eq!(lanes.unasked, BTreeSet::from(["events".into()]));
        lanes.found("events".into(), 1);
        assert_eq!(released(&mut lanes, 9), [1]);
        assert!(matches!(lanes.place(message("events", 5), now), PlacedMessage::Held));
        assert_eq!(released(&mut lanes, 9), [0; 0]);
        assert!(lanes.is_alone(0));

        lanes.confirmed(0, now);
        assert_eq!(released(&mut lanes, 2), [2, 3], "as many as there is room for");
        assert!(
            matches!(lanes.place(message("events", 6), now), PlacedMessage::Held),
            "behind those that wait"
        );
        assert_eq!(released(&mut lanes, 9), [4, 5, 6]);
        assert!(matches!(
            lanes.place(message("events", 7), now),
            PlacedMessage::Go(_, 0)
        ));
        lanes.sent(0, now);

        let now = now + KNOWN_FOR;
        assert!(
            matches!(lanes.place(message("events", 8), now), PlacedMessage::Held),
            "the producer may be forgotten"
        );
    }

    #[test]
    fn a_topic_that_cannot_be_used_holds_back_its_own_messages_only() {
        let now = Instant::now();
        let mut lanes = PartitionLanes::default();
        lanes.place(message("missing", 1), now);
        lanes.place(message("events", 2), now);
        lanes.found("events".into(), 3);
        assert_eq!(released(&mut lanes, 9), [2]);
        assert!(lanes.trouble().is_none(), "nothing was said of it yet");
        let began = Instant::now();
        assert_eq!(lanes.unusable(&"missing".into(), absent(), began), Some(began));
        let now = began + Duration::from_secs(1);
        let again = lanes.unusable(&"missing".into(), absent(), now);
        assert_eq!(again, Some(began), "since the first time");
        assert_eq!(lanes.trouble().map(|failure| failure.remedy), Some(Remedy::Hold));

        let given_up: Vec<u64> = lanes
            .give_up("missing".into(), absent())
            .into_iter()
            .map(|message| message.sequence)
            .collect();
        assert_eq!(given_up, [1]);
        assert!(lanes.trouble().is_none());
        assert!(matches!(
            lanes.place(message("missing", 3), now),
            PlacedMessage::Absent(..)
        ));
        lanes.found("missing".into(), 1);
        assert!(matches!(lanes.place(message("missing", 4), now), PlacedMessage::Go(..)));
    }

    #[test]
    fn a_message_that_may_be_too_large_goes_alone() {
        let mut sizes = TopicSizes::default();
        sizes.refused("events", 5_000, true, &rdkafka::ClientConfig::new());
        let now = Instant::now();
        let mut lanes = PartitionLanes::new(sizes);
        lanes.expect("events");
        lanes.found("events".into(), 1);
        assert!(matches!(lanes.place(message("events", 1), now), PlacedMessage::Go(..)));
        lanes.sent(0, now);
        lanes.confirmed(0, now);
        assert!(matches!(lanes.place(message("events", 2), now), PlacedMessage::Go(..)));
        lanes.sent(0, now);
        let large = Message {
            body: Bytes::from(vec![b'x'; 6_000]),
            ..message("events", 3)
        };
        assert!(matches!(lanes.place(large, now), PlacedMessage::Held));
        assert!(matches!(lanes.place(message("events", 4), now), PlacedMessage::Held));
        assert_eq!(released(&mut lanes, 9), [0; 0], "one is on its way");
        lanes.confirmed(0, now);
        assert_eq!(released(&mut lanes, 9), [3]);
        assert!(
            matches!(lanes.place(message("events", 5), now), PlacedMessage::Held),
            "nothing follows it"
        );
        lanes.answered(0, now);
        assert_eq!(released(&mut lanes, 9), [4, 5]);
    }

    #[test]
    fn a_topic_that_nothing_waits_for_is_no_trouble() {
        let now = Instant::now();
        let mut lanes = PartitionLanes::default();
        lanes.expect("events");
        assert_eq!(lanes.unusable(&"events".into(), absent(), now), None);
        assert!(lanes.trouble().is_none());
        assert!(matches!(lanes.place(message("events", 1), now), PlacedMessage::Held));
        assert!(lanes.unasked.contains("events"), "it is asked about again");
    }
}
