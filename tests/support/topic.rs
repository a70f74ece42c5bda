//! Reads a whole topic.

use std::time::Duration;

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
