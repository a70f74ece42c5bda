//! The RabbitMQ sink against a real broker.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod check;
mod publisher;
mod refusals;
mod security;
mod topology;

use forebay_broker::{Message, partition::partition_of};
use forebay_test_support::rabbitmq::{self, QUORUM, read_all};
use publisher::{DEADLINE, EXCHANGE, Publisher, assert_in_order, message, sink};

#[tokio::test(flavor = "multi_thread")]
async fn what_is_enqueued_is_confirmed_and_lies_in_its_partitions_queue_in_order() {
    let vhost = rabbitmq::shared().vhost("order");
    let queues = vhost.topology(EXCHANGE, 4, QUORUM);
    let mut publisher = Publisher::new(sink(&vhost.uris(), 4), (1..=5000).map(message));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);

    let records = read_all(&vhost.uri(), &queues).await;
    assert_eq!(records.len(), 5000, "each exactly once");
    assert_in_order(&records, 1..=5000);
    for record in &records {
        let partition = partition_of(record.key().as_bytes(), 4);
        assert_eq!(record.queue, format!("{EXCHANGE}.{partition:02}"), "{}", record.key());
        let stream = record.sequence() % 7;
        assert_eq!(
            record.routing_key,
            format!("{partition:02}.feeds.started.ZG6NWV.stream-{stream}")
        );
        assert!(!record.redelivered);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_carries_its_properties_and_headers_and_survives_the_node() {
    let vhost = rabbitmq::shared().vhost("headers");
    let queues = vhost.topology(EXCHANGE, 1, QUORUM);
    let binary = Message {
        content_type: "image/jpeg".into(),
        attributes: vec![
            ("id", "abc".into()),
            ("type", "com.millicast.thumbnail.captured".into()),
        ],
        ..message(2)
    };
    let mut publisher = Publisher::new(sink(&vhost.uris(), 1), [message(1), binary]);
    publisher.drain(DEADLINE).await;

    let records = read_all(&vhost.uri(), &queues).await;
    let headers = |n: usize| -> Vec<(&str, &str)> {
        let headers = &records[n].headers;
        headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect()
    };
    for record in &records {
        assert_eq!(record.delivery_mode, Some(2));
        assert_eq!(record.timestamp_seconds, Some(1_638_463_486));
    }
    let first = &records[0];
    assert_eq!(first.body, b"{\"n\":1}");
    assert_eq!(
        first.message_id.as_deref(),
        Some("00000000-0000-0000-0000-000000000001")
    );
    assert_eq!(
        first.content_type.as_deref(),
        Some("application/cloudevents+json; charset=UTF-8")
    );
    assert_eq!(
        headers(0),
        [
            ("partitionkey", "ZG6NWV/stream-1"),
            ("replica", "forebay-0"),
            ("sequence", "00000000000000000001"),
        ]
    );
    assert_eq!(records[1].content_type.as_deref(), Some("image/jpeg"));
    assert_eq!(
        headers(1),
        [
            ("cloudEvents:id", "abc"),
            ("cloudEvents:type", "com.millicast.thumbnail.captured"),
            ("partitionkey", "ZG6NWV/stream-2"),
            ("replica", "forebay-0"),
            ("sequence", "00000000000000000002"),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_routing_key_with_every_awkward_character_still_finds_its_queue() {
    let vhost = rabbitmq::shared().vhost("words");
    let queues = vhost.topology(EXCHANGE, 1, QUORUM);
    let streams = ["a.b", "*", "#", "100%", "white space", "配信", &"long".repeat(200)];
    let messages = (1..).zip(streams).map(|(sequence, stream)| Message {
        address: forebay_rabbitmq::routing_key::words("feeds", Some("started"), Some("A.B"), stream).into(),
        key: format!("A.B/{stream}"),
        ..message(sequence)
    });
    let mut publisher = Publisher::new(sink(&vhost.uris(), 1), messages);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);

    let records = read_all(&vhost.uri(), &queues).await;
    assert_eq!(records.len(), streams.len());
    for (record, stream) in records.iter().zip(streams) {
        assert_eq!(record.key(), format!("A.B/{stream}"));
        let words: Vec<&str> = record.routing_key.split('.').collect();
        assert_eq!(words.len(), 5, "{}", record.routing_key);
        assert_eq!(words[..4], ["00", "feeds", "started", "A%2EB"]);
        let shortened = record.headers.contains_key("routingkeyshortened");
        assert_eq!(shortened, stream.len() > 255, "{}", record.routing_key);
    }
}
