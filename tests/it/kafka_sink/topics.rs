//! Topics that are missing, deleted, too small, or growing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use forebay::{
    config,
    sink::{Remedy, partition::partition_of},
};
use tokio::time::sleep;

use super::publisher::{DEADLINE, Publisher, assert_in_order, message, new_sink_for, sink, sink_with};
use crate::support::kafka as server;

#[tokio::test]
async fn an_unknown_topic_holds_the_route_until_somebody_creates_it() {
    let broker = server::shared();
    let topic = format!("later-{}", std::process::id());
    let mut publisher = Publisher::new(sink(&broker), (1..=20).map(|n| message(&topic, n)));
    let created = async {
        sleep(Duration::from_secs(8)).await;
        server::create_topic_named(&broker, &topic, 2, &[]).await;
    };
    tokio::join!(publisher.drain(DEADLINE), created);

    assert_eq!(publisher.labels(), ["kafka_unknown_topic"].into());
    assert_eq!(publisher.failures[0].remedy, Remedy::Hold);
    assert!(publisher.failures[0].text.contains(&topic), "{}", publisher.failures[0]);
    assert_in_order(&server::read(&broker, &topic, 20), 1..=20);
}

#[tokio::test]
async fn a_clock_that_the_broker_does_not_believe_holds_the_route_until_it_does() {
    let broker = server::shared();
    // No record is less than 1 ms old when it arrives: it waits for its batch.
    let strict = [("message.timestamp.before.max.ms", "1")];
    let topic = server::create_topic(&broker, "clock", 1, &strict).await;
    let mut publisher = Publisher::new(sink(&broker), (1..=20).map(|n| message(&topic, n)));
    let believed = async {
        sleep(Duration::from_secs(2)).await;
        server::set_topic(&broker, &topic, "message.timestamp.before.max.ms", "3600000").await;
    };
    tokio::join!(publisher.drain(DEADLINE), believed);

    // A neighbour in a refused batch that was itself young enough has an error of its own, and is sent again alone.
    let refused: Vec<_> = publisher
        .failures
        .iter()
        .filter(|f| f.label == "kafka_timestamp")
        .collect();
    assert!(!refused.is_empty(), "{:?}", publisher.failures);
    assert!(refused.iter().all(|failure| failure.remedy == Remedy::Hold));
    assert!(publisher.dead.is_empty(), "{:?}", publisher.dead);
    assert_in_order(&server::read(&broker, &topic, 20), 1..=20);
}

#[tokio::test]
async fn topics_are_created_where_the_sink_was_told_to() {
    let broker = server::shared();
    let named = format!("created-{}", std::process::id());
    let templated = format!("created-later-{}", std::process::id());
    let config = config::Kafka {
        brokers: vec![broker.clone()],
        properties: BTreeMap::new(),
        create_topics: Some(config::CreateTopics {
            partitions: 3,
            replication: 1,
        }),
    };
    let sink = new_sink_for(&config, std::slice::from_ref(&named));
    let mut publisher = Publisher::new(sink, [message(&named, 1), message(&templated, 2)]);
    publisher.drain(DEADLINE).await;
    assert!(
        publisher.failures.iter().all(|f| f.text.contains(&templated)),
        "{:?}",
        publisher.failures
    );
    for topic in [&named, &templated] {
        assert_eq!(server::read(&broker, topic, 1).len(), 1);
        assert_eq!(server::partitions(&broker, topic), 3);
    }
}

#[tokio::test]
async fn a_topic_that_is_deleted_and_made_again_is_written_to_again() {
    const LAST: u64 = 3000;
    let broker = server::shared();
    let topic = server::create_topic(&broker, "again", 4, &[]).await;
    let mut publisher =
        Publisher::new(sink(&broker), (1..=LAST).map(|n| message(&topic, n))).slowly(10, Duration::from_millis(10));
    let begun = publisher.after(500);
    let broken = async {
        begun.await;
        server::delete_topic(&broker, &topic).await;
        // One partition less than there were.
        server::create_topic_named(&broker, &topic, 3, &[]).await;
    };
    tokio::join!(publisher.drain(Duration::from_secs(120)), broken);

    let records = server::read_all(&broker, &topic);
    assert_in_order(&records, records.iter().map(server::Read::sequence));
    let mut by_key: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    for record in &records {
        by_key.entry(&record.key).or_default().insert(record.sequence());
    }
    assert_eq!(by_key.len(), 7);
    for (key, sequences) in by_key {
        // What was confirmed before went with the old topic; from there on nothing is missing.
        let first = *sequences.first().unwrap();
        assert!(first > 7, "the fault did not happen: {key} is complete");
        let expected: BTreeSet<u64> = (first..=LAST).step_by(7).collect();
        assert_eq!(sequences, expected, "{key}");
    }
}

#[tokio::test]
async fn one_message_too_large_is_a_dead_letter_and_its_neighbours_pass() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "large", 1, &[("max.message.bytes", "20000")]).await;
    let messages = (1..=51).map(|n| {
        let mut message = message(&topic, n);
        if n == 25 {
            message.body = Bytes::from(vec![b'x'; 100_000]);
        }
        message
    });
    let mut publisher = Publisher::new(sink(&broker), messages);
    publisher.drain(DEADLINE).await;

    assert_eq!(publisher.dead, [25]);
    assert_eq!(publisher.labels(), ["kafka_too_large"].into());
    assert_in_order(&server::read(&broker, &topic, 50), (1..=51).filter(|n| *n != 25));
}

#[tokio::test]
async fn new_partitions_are_used_only_after_what_was_in_flight_is_confirmed() {
    const LAST: u64 = 4000;
    let broker = server::shared();
    let topic = server::create_topic(&broker, "growing", 2, &[]).await;
    let sink = sink_with(
        std::slice::from_ref(&broker),
        &[("topic.metadata.refresh.interval.ms", "300")],
    );
    let mut publisher =
        Publisher::new(sink, (1..=LAST).map(|n| message(&topic, n))).slowly(10, Duration::from_millis(10));
    let begun = publisher.after(500);
    let grown = async {
        begun.await;
        server::add_partitions(&broker, &topic, 5).await;
    };
    tokio::join!(publisher.drain(DEADLINE), grown);

    assert_eq!(publisher.labels(), ["kafka_partitions_changed"].into());
    let records = server::read_all(&broker, &topic);
    assert_eq!(
        u64::try_from(records.len()).unwrap(),
        LAST,
        "nothing was in flight, so nothing is there twice"
    );
    let mut by_key: BTreeMap<&str, BTreeMap<u64, i32>> = BTreeMap::new();
    for record in &records {
        by_key
            .entry(&record.key)
            .or_default()
            .insert(record.sequence(), record.partition);
    }
    let mut moved = 0;
    for (key, places) in by_key {
        let [before, after] = [2, 5].map(|count| partition_of(key.as_bytes(), count).cast_signed());
        let partitions: Vec<i32> = places.into_values().collect();
        let at = partitions
            .iter()
            .position(|partition| *partition != before)
            .unwrap_or(partitions.len());
        assert!(
            partitions[at..].iter().all(|partition| *partition == after),
            "{key}: {partitions:?}"
        );
        moved += usize::from(before != after && at < partitions.len());
    }
    assert!(moved > 0, "no key moved: the fault did not happen");
}
