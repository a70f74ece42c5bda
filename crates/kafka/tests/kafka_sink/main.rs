//! The Kafka sink against real brokers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod brokers;
mod order;
mod publisher;
mod security;
mod tokens;
mod topics;

use forebay_broker::{FindingLevel, Message, partition::partition_of};
use forebay_kafka::connect_check;
use forebay_test_support::kafka as server;
use publisher::{DEADLINE, Publisher, assert_in_order, message, sink};

fn now_ms() -> i64 {
    i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

#[tokio::test]
async fn what_is_enqueued_is_confirmed_and_lies_in_the_topic_in_order() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "order", 4, &[]).await;
    let mut publisher = Publisher::new(sink(&broker), (1..=2000).map(|n| message(&topic, n)));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);

    let records = server::read(&broker, &topic, 2000);
    assert_eq!(records.len(), 2000, "each exactly once");
    assert_in_order(&records, 1..=2000);
    for record in &records {
        assert_eq!(
            u32::try_from(record.partition).unwrap(),
            partition_of(record.key.as_bytes(), 4),
            "{}",
            record.key
        );
    }
}

#[tokio::test]
async fn a_record_carries_key_headers_and_the_events_time() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "headers", 1, &[]).await;
    let mut binary = message(&topic, 2);
    binary.content_type = "image/jpeg".into();
    binary.attributes = vec![
        ("specversion", "1.0".into()),
        ("id", "abc".into()),
        ("type", "com.millicast.thumbnail.captured".into()),
    ];
    let mut publisher = Publisher::new(sink(&broker), [message(&topic, 1), binary]);
    publisher.drain(DEADLINE).await;

    let records = server::read(&broker, &topic, 2);
    let headers = |n: usize| -> Vec<(&str, &str)> {
        records[n]
            .headers
            .iter()
            .map(|(k, v)| (k.as_str(), v.as_str()))
            .collect()
    };
    assert_eq!(records[0].key, "ZG6NWV/stream-1");
    assert_eq!(records[0].value, b"{\"n\":1}");
    let age_ms = now_ms() - records[0].timestamp_ms.unwrap();
    assert!((0..60_000).contains(&age_ms), "a record is as old as its publication");
    assert_eq!(
        headers(0),
        [
            ("content-type", "application/cloudevents+json; charset=UTF-8"),
            ("replica", "forebay-0"),
            ("sequence", "00000000000000000001"),
        ]
    );
    assert_eq!(
        headers(1),
        [
            ("ce_id", "abc"),
            ("ce_specversion", "1.0"),
            ("ce_type", "com.millicast.thumbnail.captured"),
            ("content-type", "image/jpeg"),
            ("replica", "forebay-0"),
            ("sequence", "00000000000000000002"),
        ]
    );
}

#[tokio::test]
async fn the_java_client_reads_what_was_written_where_it_would_look_for_it() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "java", 5, &[]).await;
    let messages = (1..=50).map(|n| Message {
        key: format!("ZG6NWV/straße-配信-{n}"),
        ..message(&topic, n)
    });
    let mut publisher = Publisher::new(sink(&broker), messages);
    publisher.drain(DEADLINE).await;

    let lines = server::java("ReadTopic.java", &[&broker, &topic, "50"]);
    let mut count = 0;
    for line in lines.lines() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        let key = record["key"].as_str().unwrap();
        assert!(key.starts_with("ZG6NWV/straße-配信-"), "{key}");
        assert_eq!(record["partition"], partition_of(key.as_bytes(), 5), "{key}");
        assert_eq!(record["headers"]["replica"], "forebay-0");
        count += 1;
    }
    assert_eq!(count, 50);
}

#[tokio::test]
async fn a_check_says_what_is_wrong_with_each_topic() {
    let broker = server::shared();
    let good = server::create_topic(&broker, "good", 2, &[("max.message.bytes", "10000000")]).await;
    let compacted = server::create_topic(&broker, "compacted", 1, &[("cleanup.policy", "compact")]).await;
    let absent = "absent-for-ever".to_string();
    let config = |brokers: &[&str], properties: &[(&str, &str)]| forebay_kafka::KafkaConfig {
        brokers: brokers.iter().map(|s| s.to_string()).collect(),
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        create_topics: None,
    };
    let topics = [good.clone(), compacted.clone(), absent.clone()];
    let findings = connect_check("main", &config(&[&broker], &[]), &topics, 1 << 20).await;
    let has = |level: FindingLevel, parts: &[&str]| {
        assert!(
            findings
                .iter()
                .any(|f| f.level == level && parts.iter().all(|part| f.text.contains(part))),
            "no {level:?} {parts:?} in {findings:#?}"
        );
    };
    has(FindingLevel::Good, &["connected, 1 broker"]);
    has(FindingLevel::Good, &[&good, "2 partitions"]);
    has(FindingLevel::Warning, &[&compacted, "max.message.bytes"]);
    has(FindingLevel::Problem, &[&compacted, "cleanup.policy"]);
    has(FindingLevel::Problem, &[&absent, "does not exist"]);
    has(FindingLevel::Warning, &[&good, "min.insync.replicas"]);
    let good_ones = findings
        .iter()
        .filter(|f| f.text.contains(&good) && f.text.contains("max.message.bytes"));
    assert_eq!(good_ones.count(), 0, "{findings:#?}");

    let nowhere = connect_check("main", &config(&["127.0.0.1:1"], &[]), &topics, 1 << 20).await;
    assert!(
        matches!(&nowhere[..], [f] if f.level == FindingLevel::Problem && f.text.contains("127.0.0.1:1")),
        "{nowhere:?}"
    );
    let denied = connect_check("main", &config(&[&broker], &[("acks", "1")]), &topics, 1 << 20).await;
    assert!(
        matches!(&denied[..], [f] if f.level == FindingLevel::Problem && f.text.contains("acks")),
        "{denied:?}"
    );
}
