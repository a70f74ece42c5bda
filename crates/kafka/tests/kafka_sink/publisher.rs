//! What the tests publish with.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use forebay_broker::{Message, PublishFailure, Sink, SinkLimits, TopicTemplate};
use forebay_kafka::{KafkaConfig, KafkaMetrics, KafkaNames, KafkaSink, RouteTopics, UnknownTopic};
use tokio::time::timeout;
use uuid::Uuid;

pub use forebay_test_support::publisher::{Publisher, assert_in_order, trouble_within};

pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn sink_with(brokers: &[String], properties: &[(&str, &str)]) -> KafkaSink {
    let config = KafkaConfig {
        brokers: brokers.to_vec(),
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        create_topics: None,
    };
    new_sink_for(&config, "{event}", UnknownTopic::Hold)
}

/// A sink of a route whose topic is `topic`, which may have placeholders.
pub fn new_sink_for(config: &KafkaConfig, topic: &str, unknown: UnknownTopic) -> KafkaSink {
    new_sink_counting(config, topic, unknown, &prometheus::Registry::new())
}

/// A sink whose metrics are in `registry`.
pub fn new_sink_counting(
    config: &KafkaConfig,
    topic: &str,
    unknown: UnknownTopic,
    registry: &prometheus::Registry,
) -> KafkaSink {
    let names = KafkaNames::new("main", "events");
    let topics = RouteTopics::new(TopicTemplate::parse(topic).unwrap(), unknown);
    let limits = SinkLimits {
        body_bytes_max: 4 << 20,
        in_flight_records_max: 10_000,
    };
    let metrics = KafkaMetrics::register(registry).unwrap();
    KafkaSink::new(config, names, topics, limits, Arc::new(metrics)).unwrap()
}

pub fn sink(bootstrap: &str) -> KafkaSink {
    sink_with(&bootstrap.split(',').map(str::to_string).collect::<Vec<_>>(), &[])
}

pub fn message(topic: &str, sequence: u64) -> Message {
    Message {
        sequence,
        replica: "forebay-0".into(),
        id: Uuid::from_u128(sequence.into()),
        address: topic.into(),
        time_ms: 0,
        trace: None,
        again: None,
        key: format!("ZG6NWV/stream-{}", sequence % 7),
        content_type: "application/cloudevents+json; charset=UTF-8".into(),
        attributes: Vec::new(),
        body: Bytes::from(format!("{{\"n\":{sequence}}}")),
    }
}

/// Gives a new sink a message, and returns what keeps it from publishing that.
pub async fn trouble_with(sink: &mut KafkaSink, message: Message) -> PublishFailure {
    sink.reopen().await.expect("no broker is needed to open a session");
    sink.enqueue(message).expect("nor to take a message");
    trouble_within(sink, Duration::from_secs(10)).await
}

/// Waits until a sink that was in trouble publishes the message that it has, and tells of no trouble any more.
pub async fn assert_goes_on(sink: &mut KafkaSink) {
    let mut settled = Vec::new();
    timeout(DEADLINE, sink.settle(&mut settled)).await.unwrap().unwrap();
    assert!(settled[0].result.is_ok());
    assert_eq!(sink.trouble(), None, "the trouble is over");
}
