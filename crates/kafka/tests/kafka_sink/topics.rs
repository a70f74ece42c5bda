//! Topics that are missing, deleted, too small, or growing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use forebay_broker::{Remedy, Sink, partition::partition_of};
use forebay_kafka::{CreateTopics, KafkaConfig, UnknownTopic};
use forebay_test_support::kafka as server;
use tokio::time::{sleep, timeout};

use super::publisher::{DEADLINE, Publisher, assert_in_order, message, new_sink_for, sink, sink_with};

#[tokio::test]
async fn an_unknown_topic_holds_the_route_until_somebody_creates_it() {
    let broker = server::shared();
    let topic = format!("later-{}", std::process::id());
    let mut publisher = Publisher::new(sink(&broker), (1..=20).map(|n| message(&topic, n)));
    let missed = publisher.told("kafka_unknown_topic");
    let created = async {
        missed.await;
        server::create_topic_named(&broker, &topic, 2, &[]).await;
    };
    tokio::join!(publisher.drain(DEADLINE), created);

    assert_eq!(publisher.failures, [], "they wait, and no session ends for them");
    assert_in_order(&server::read(&broker, &topic, 20), 1..=20);
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_named_and_holds_back_its_own_messages_only() {
    let broker = server::shared();
    let there = server::create_topic(&broker, "there", 2, &[]).await;
    let missing = format!("missing-{}", std::process::id());
    let mut sink = sink(&broker);
    sink.reopen().await.unwrap();
    sink.enqueue(message(&missing, 1)).unwrap();
    for sequence in 2..=50 {
        sink.enqueue(message(&there, sequence)).unwrap();
    }
    let mut confirmed = Vec::new();
    while confirmed.len() < 49 {
        timeout(DEADLINE, sink.settle(&mut confirmed)).await.unwrap().unwrap();
    }
    assert!(confirmed.iter().all(|settled| settled.result.is_ok()), "{confirmed:?}");
    let trouble = async {
        loop {
            let _ = timeout(Duration::from_millis(100), sink.settle(&mut confirmed)).await;
            if let Some(trouble) = sink.trouble() {
                return trouble;
            }
        }
    };
    let trouble = timeout(DEADLINE, trouble).await.unwrap();
    assert_eq!((trouble.label, trouble.remedy), ("kafka_unknown_topic", Remedy::Hold));
    assert!(trouble.text.contains(&missing), "{trouble}");
}

fn config(broker: &str, create_topics: Option<CreateTopics>) -> KafkaConfig {
    KafkaConfig {
        brokers: vec![broker.to_owned()],
        properties: BTreeMap::new(),
        create_topics,
    }
}

#[tokio::test]
async fn messages_for_a_topic_that_is_not_there_are_given_up_where_the_route_says_so() {
    let broker = server::shared();
    let prefix = format!("given-up-{}", std::process::id());
    let (there, missing) = (format!("{prefix}.there"), format!("{prefix}.missing"));
    server::create_topic_named(&broker, &there, 2, &[]).await;
    let messages = || (1..=40).map(|n| message(if n % 4 == 0 { &missing } else { &there }, n));
    let sink = new_sink_for(
        &config(&broker, None),
        &format!("{prefix}.{{event}}"),
        UnknownTopic::DeadLetter,
    );
    let mut publisher = Publisher::new(sink, messages());
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.dead, (1..=10).map(|n| n * 4).collect::<Vec<u64>>());
    assert_eq!(publisher.labels(), ["kafka_unknown_topic"].into());
    let records = server::read_all(&broker, &there);
    assert_eq!(records.len(), 30, "none of the others twice");
    assert_in_order(&records, (1..=40).filter(|n| n % 4 != 0));

    // Once it is there it is written to, by the same session.
    server::create_topic_named(&broker, &missing, 1, &[]).await;
    let mut sink = publisher.into_sink();
    let mut sequence = 100;
    let written = async {
        while server::read_all(&broker, &missing).is_empty() {
            sequence += 1;
            sink.enqueue(message(&missing, sequence)).unwrap();
            sink.settle(&mut Vec::new()).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, written)
        .await
        .expect("a topic that was made is found");
}

#[tokio::test]
async fn messages_for_a_topic_that_is_not_there_go_to_the_fallback() {
    let broker = server::shared();
    let prefix = format!("fallback-{}", std::process::id());
    let (there, fallback) = (format!("{prefix}.there"), format!("{prefix}-others"));
    server::create_topic_named(&broker, &there, 2, &[]).await;
    server::create_topic_named(&broker, &fallback, 2, &[]).await;
    let unknown = UnknownTopic::Fallback(fallback.clone());
    let sink = new_sink_for(&config(&broker, None), &format!("{prefix}.{{event}}"), unknown);
    let missing = |n: u64| format!("{prefix}.missing-{}", n % 3);
    let messages = (1..=40).map(|n| {
        if n % 4 == 0 {
            message(&missing(n), n)
        } else {
            message(&there, n)
        }
    });
    let mut publisher = Publisher::new(sink, messages);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);
    assert_in_order(&server::read_all(&broker, &there), (1..=40).filter(|n| n % 4 != 0));
    assert_in_order(&server::read_all(&broker, &fallback), (1..=10).map(|n| n * 4));
}

#[tokio::test]
async fn topics_of_new_accounts_are_made_together_and_nothing_is_published_again_for_them() {
    let broker = server::shared();
    let prefix = format!("accounts-{}", std::process::id());
    let how = CreateTopics {
        partitions: 2,
        replication: 1,
        topics_max: 200,
    };
    let sink = new_sink_for(
        &config(&broker, Some(how)),
        &format!("{prefix}.{{account}}"),
        UnknownTopic::DeadLetter,
    );
    let topic = |n: u64| format!("{prefix}.A{:02}", n % 40);
    let mut publisher = Publisher::new(sink, (1..=800).map(|n| message(&topic(n), n)));
    publisher.drain(Duration::from_secs(30)).await;
    assert_eq!(publisher.failures, []);
    for account in 0..40 {
        let records = server::read_all(&broker, &topic(account));
        assert_eq!(records.len(), 20, "{}", topic(account));
        assert_in_order(&records, (1..=800).filter(|n| n % 40 == account));
        assert_eq!(server::partitions(&broker, &topic(account)), 2);
    }
}

#[tokio::test]
async fn no_more_topics_are_made_from_events_than_the_sink_allows() {
    let broker = server::shared();
    let prefix = format!("limit-{}", std::process::id());
    let how = CreateTopics {
        partitions: 1,
        replication: 1,
        topics_max: 3,
    };
    server::create_topic_named(&broker, &format!("{prefix}.0"), 1, &[]).await;
    let sink = new_sink_for(
        &config(&broker, Some(how)),
        &format!("{prefix}.{{account}}"),
        UnknownTopic::DeadLetter,
    );
    let mut publisher = Publisher::new(sink, (0..6).map(|n| message(&format!("{prefix}.{n}"), n + 1)));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.dead, [4, 5, 6], "one was there, two were made");
    assert!(
        publisher
            .failures
            .iter()
            .all(|failure| failure.text.contains("create_topics.topics_max")),
        "{:?}",
        publisher.failures
    );
}

#[tokio::test]
async fn a_clock_that_the_broker_does_not_believe_holds_the_route_until_it_does() {
    let broker = server::shared();
    // No record is less than 1 ms old when it arrives: it waits for its batch.
    let strict = [("message.timestamp.before.max.ms", "1")];
    let topic = server::create_topic(&broker, "clock", 1, &strict).await;
    let mut publisher = Publisher::new(sink(&broker), (1..=20).map(|n| message(&topic, n)));
    let refused = publisher.told("kafka_timestamp");
    let believed = async {
        refused.await;
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
    let how = CreateTopics {
        partitions: 3,
        replication: 1,
        topics_max: 1,
    };
    let sink = new_sink_for(&config(&broker, Some(how)), &named, UnknownTopic::Hold);
    let mut publisher = Publisher::new(sink, [message(&named, 1), message(&templated, 2)]);
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);
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

/// The first one costs a session; by then it is known what the topic takes.
#[tokio::test]
async fn many_messages_that_are_too_large_cost_one_session() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "many-large", 2, &[("max.message.bytes", "20000")]).await;
    let messages = (1..=500).map(|n| {
        let mut message = message(&topic, n);
        if n % 10 == 0 {
            message.body = Bytes::from(vec![b'x'; 100_000]);
        }
        message
    });
    let mut publisher = Publisher::new(sink(&broker), messages);
    publisher.drain(DEADLINE).await;

    publisher.dead.sort_unstable();
    assert_eq!(publisher.dead, (1..=50).map(|n| n * 10).collect::<Vec<u64>>());
    let ended = publisher
        .failures
        .iter()
        .filter(|failure| failure.remedy != Remedy::SetAside);
    assert!(ended.count() <= 2, "{:?}", publisher.failures);
    assert_in_order(&server::read_all(&broker, &topic), (1..=500).filter(|n| n % 10 != 0));
}

/// Its limit is for what is sent, and that is smaller.
#[tokio::test]
async fn a_large_message_that_compression_makes_small_is_taken_though_others_were_refused() {
    let broker = server::shared();
    let topic = server::create_topic(&broker, "compressed", 1, &[("max.message.bytes", "20000")]).await;
    let mut state = 1_u64;
    let noise = std::iter::repeat_with(|| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(50_000).collect();
    let messages = (1..=60).map(|n| {
        let mut message = message(&topic, n);
        match n % 10 {
            0 => message.body = Bytes::from(noise.clone()),
            5 => message.body = Bytes::from(vec![b'x'; 100_000]),
            _ => {}
        }
        message
    });
    let sink = sink_with(std::slice::from_ref(&broker), &[("compression.type", "zstd")]);
    let mut publisher = Publisher::new(sink, messages);
    publisher.drain(DEADLINE).await;
    publisher.dead.sort_unstable();
    assert_eq!(publisher.dead, [10, 20, 30, 40, 50, 60]);
    assert_in_order(&server::read_all(&broker, &topic), (1..=60).filter(|n| n % 10 != 0));
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
