//! What a broker holds in the end, and what would be wrong with it.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{kafka, rabbitmq, sender::Outcome};

/// A message as it lies at a broker, whichever it is.
pub trait Delivered {
    /// The stream key.
    fn key(&self) -> &str;
    /// Where the broker keeps order: a partition, a queue.
    fn place(&self) -> String;
    fn replica(&self) -> &str;
    fn sequence(&self) -> u64;
    fn body(&self) -> &[u8];
}

impl Delivered for kafka::Read {
    fn key(&self) -> &str {
        &self.key
    }
    fn place(&self) -> String {
        self.partition.to_string()
    }
    fn replica(&self) -> &str {
        &self.headers["replica"]
    }
    fn sequence(&self) -> u64 {
        self.sequence()
    }
    fn body(&self) -> &[u8] {
        &self.value
    }
}

impl Delivered for rabbitmq::Read {
    fn key(&self) -> &str {
        self.key()
    }
    fn place(&self) -> String {
        self.queue.clone()
    }
    fn replica(&self) -> &str {
        &self.headers["replica"]
    }
    fn sequence(&self) -> u64 {
        self.sequence()
    }
    fn body(&self) -> &[u8] {
        &self.body
    }
}

/// What all of it looks like as a whole.
#[derive(Debug, Default)]
pub struct Census {
    pub messages: usize,
    pub streams: usize,
    /// Messages of a spool record that was there before.
    pub repeats: usize,
    pub ids: HashSet<String>,
    pub feed_ids: HashSet<String>,
}

/// Checks what holds at every broker: a stream in one place, its records rising where they are first seen,
/// and a repeat with the id of its first copy.
pub fn assert_in_order(records: &[impl Delivered]) -> Census {
    let mut places: HashMap<&str, String> = HashMap::new();
    let mut newest: HashMap<(&str, &str), u64> = HashMap::new();
    let mut first_ids: HashMap<(&str, u64), String> = HashMap::new();
    let mut census = Census {
        messages: records.len(),
        ..Census::default()
    };
    for record in records {
        let (key, place) = (record.key(), record.place());
        let first_place = places.entry(key).or_insert_with(|| place.clone());
        assert_eq!(*first_place, place, "{key} is in two places");
        let event: Value = serde_json::from_slice(record.body()).expect("a structured event is JSON");
        super::schemas::validate(&event).unwrap_or_else(|problem| panic!("{problem}\n{event:#}"));
        let id = event["id"].as_str().expect("an id").to_owned();
        census.ids.insert(id.clone());
        census.feed_ids.extend(event["feedid"].as_str().map(str::to_owned));
        let replica = record.replica();
        if let Some(first) = first_ids.get(&(replica, record.sequence())) {
            assert_eq!(*first, id, "record {} came with two ids", record.sequence());
            census.repeats += 1;
            continue;
        }
        first_ids.insert((replica, record.sequence()), id);
        let newest = newest.entry((replica, key)).or_insert(0);
        let sequence = record.sequence();
        assert!(sequence > *newest, "{}: {sequence} is first seen after {newest}", key);
        *newest = sequence;
    }
    census.streams = places.len();
    census
}

/// Every answer was 200, and everything so answered has arrived, in order. Returns how much of it came again.
pub fn assert_delivered(records: &[impl Delivered], outcome: &Outcome) -> usize {
    assert_eq!(
        outcome.answers.keys().copied().collect::<Vec<_>>(),
        [200],
        "answers: {:?}",
        outcome.answers
    );
    let census = assert_in_order(records);
    let lost: Vec<&String> = outcome.acknowledged.difference(&census.feed_ids).collect();
    assert!(
        lost.is_empty(),
        "{} acknowledged webhooks are lost, such as {:?}",
        lost.len(),
        lost.first()
    );
    census.repeats
}
