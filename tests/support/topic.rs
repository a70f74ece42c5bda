//! Reads a whole topic and says what is wrong with it.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};

use super::kafka::{self, Read};

const DEADLINE: Duration = Duration::from_secs(60);

/// Reads every partition of `topic` to the end that it has now.
pub fn read_to_end(brokers: &str, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a consumer");
    let metadata = consumer.fetch_metadata(Some(topic), DEADLINE).expect("metadata");
    let count: i64 = metadata.topics()[0]
        .partitions()
        .iter()
        .map(|partition| {
            let (low, high) = consumer
                .fetch_watermarks(topic, partition.id(), DEADLINE)
                .expect("watermarks");
            high - low
        })
        .sum();
    let count = usize::try_from(count).expect("a count");
    let records = kafka::read(brokers, topic, count);
    assert_eq!(records.len(), count, "all of {topic} is read");
    records
}

/// The CloudEvent of a structured record.
pub fn event(record: &Read) -> serde_json::Value {
    serde_json::from_slice(&record.value).expect("a structured event is JSON")
}

/// What a topic looks like as a whole.
#[derive(Debug, Default)]
pub struct Census {
    pub messages: usize,
    pub streams: usize,
    /// Messages of a spool record that was there before.
    pub repeats: usize,
    pub ids: HashSet<String>,
    pub feed_ids: HashSet<String>,
}

/// Checks what every topic must fulfil: a stream in one partition, its records rising where they are first seen,
/// and a repeat with the id of its first copy.
pub fn assert_in_order(records: &[Read]) -> Census {
    let mut partitions: HashMap<&str, i32> = HashMap::new();
    let mut newest: HashMap<(&str, &str), u64> = HashMap::new();
    let mut first_ids: HashMap<(&str, u64), String> = HashMap::new();
    let mut census = Census {
        messages: records.len(),
        ..Census::default()
    };
    for record in records {
        let partition = *partitions.entry(&record.key).or_insert(record.partition);
        assert_eq!(partition, record.partition, "{} is in two partitions", record.key);
        let event = event(record);
        super::schemas::validate(&event).unwrap_or_else(|problem| panic!("{problem}\n{event:#}"));
        let id = event["id"].as_str().expect("an id").to_owned();
        census.ids.insert(id.clone());
        census.feed_ids.extend(event["feedid"].as_str().map(str::to_owned));
        let replica = record.headers["replica"].as_str();
        if let Some(first) = first_ids.get(&(replica, record.sequence())) {
            assert_eq!(*first, id, "record {} came with two ids", record.sequence());
            census.repeats += 1;
            continue;
        }
        first_ids.insert((replica, record.sequence()), id);
        let newest = newest.entry((replica, &record.key)).or_insert(0);
        let sequence = record.sequence();
        assert!(
            sequence > *newest,
            "{}: {sequence} is first seen after {newest}",
            record.key
        );
        *newest = sequence;
    }
    census.streams = partitions.len();
    census
}
