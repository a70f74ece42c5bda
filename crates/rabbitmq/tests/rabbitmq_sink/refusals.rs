//! Messages that the broker does not take: unroutable, too large, too many, or with no exchange to go to.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use forebay_broker::{Message, Remedy, Sink};
use forebay_test_support::{
    rabbitmq::{self, CLASSIC, Cluster, QUORUM, Read, read_all, read_slowly},
    time::last_for,
};
use serde_json::json;

use super::publisher::{DEADLINE, EXCHANGE, Publisher, assert_in_order, configuration, message, new_sink, sink};

#[tokio::test(flavor = "multi_thread")]
async fn of_a_hundred_in_flight_with_every_seventh_unroutable_exactly_those_are_set_aside() {
    const ROUNDS: u64 = 25;
    for kind in [QUORUM, CLASSIC] {
        let vhost = rabbitmq::shared().vhost("seventh");
        vhost.declare_exchange(EXCHANGE);
        let queues = [kind.to_owned()];
        vhost.declare_queue(kind, kind, &json!({}));
        for stream in 1..7 {
            vhost.bind(EXCHANGE, kind, &format!("*.*.*.*.stream-{stream}"));
        }
        let mut sink = sink(&vhost.uris(), 1);
        for round in 0..ROUNDS {
            let sequences = round * 100 + 1..=round * 100 + 100;
            let unroutable: BTreeSet<u64> = sequences.clone().filter(|n| n % 7 == 0).collect();
            // Of as many streams: a stream has one message in flight.
            let of_its_own_stream = |sequence| Message {
                key: format!("stream-{sequence}"),
                ..message(sequence)
            };
            let mut publisher = Publisher::new(sink, sequences.clone().map(of_its_own_stream));
            publisher.drain(DEADLINE).await;
            let dead: BTreeSet<u64> = publisher.dead.iter().copied().collect();
            assert_eq!(dead, unroutable, "{kind}, round {round}");
            assert_eq!(publisher.labels(), BTreeSet::from(["rabbitmq_unroutable"]));
            sink = publisher.into_sink();
        }
        let records = read_all(&vhost.uri(), &queues).await;
        let routable = (1..=ROUNDS * 100).filter(|n| n % 7 != 0);
        assert_in_order(&records, routable.clone());
        assert_eq!(records.len(), routable.count(), "{kind}: none twice");
    }
}

/// The queue refuses and accepts in turns, because its consumer makes room meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_with_room_for_five_gets_a_hundred_of_one_stream_in_order() {
    for (kind, pause_ms) in [(QUORUM, 0), (QUORUM, 10), (CLASSIC, 0), (CLASSIC, 10)] {
        let vhost = rabbitmq::shared().vhost("five");
        vhost.declare_exchange(EXCHANGE);
        let limit = json!({"x-max-length": 5, "x-overflow": "reject-publish"});
        vhost.declare_queue("forebay.00", kind, &limit);
        vhost.bind_partitions(EXCHANGE, 1);
        let of_one_stream = |sequence| Message {
            key: "ZG6NWV/stream-1".into(),
            ..message(sequence)
        };
        let mut publisher = Publisher::new(sink(&vhost.uris(), 1), (1..=100).map(of_one_stream));
        let all = |records: &[Read]| records.iter().map(Read::sequence).collect::<BTreeSet<_>>().len() == 100;
        let (uri, pause) = (vhost.uri(), Duration::from_millis(pause_ms));
        let ((), records) = tokio::join!(publisher.drain(DEADLINE), read_slowly(&uri, "forebay.00", pause, all));
        let sequences: Vec<u64> = records.iter().map(Read::sequence).collect();
        assert!(
            sequences.iter().copied().eq(1..=100),
            "{kind}, {pause_ms} ms: {sequences:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchange_that_is_not_there_is_waited_for() {
    let vhost = rabbitmq::shared().vhost("exchange");
    let mut sink = sink(&vhost.uris(), 2);
    let failure = sink.reopen().await.expect_err("there is no exchange");
    assert_eq!(
        (failure.label, failure.remedy),
        ("rabbitmq_unknown_exchange", Remedy::Hold)
    );
    assert!(failure.text.contains(EXCHANGE), "{failure}");

    let queues = vhost.topology(EXCHANGE, 2, QUORUM);
    let mut publisher = Publisher::new(sink, (1..=200).map(message)).slowly(10, Duration::from_millis(10));
    let (begun, missed) = (publisher.after(50), publisher.told("rabbitmq_unknown_exchange"));
    let again = async {
        begun.await;
        vhost.delete_exchange(EXCHANGE);
        missed.await;
        // With its bindings in the same moment as far as a publisher can tell: nothing is dead-lettered in between.
        vhost.declare_exchange(EXCHANGE);
        vhost.bind_partitions(EXCHANGE, 2);
    };
    tokio::join!(publisher.drain(DEADLINE), again);
    let mut arrived: BTreeSet<u64> = publisher.dead.iter().copied().collect();
    let records = read_all(&vhost.uri(), &queues).await;
    arrived.extend(records.iter().map(Read::sequence));
    assert!(
        arrived.iter().copied().eq(1..=200),
        "each is in a queue or a dead letter"
    );
    assert!(
        publisher.labels().contains("rabbitmq_unknown_exchange"),
        "{:?}",
        publisher.labels()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_that_is_too_large_is_set_aside_among_its_neighbours() {
    let cluster = Cluster::single();
    cluster.ctl(0, &["eval", "application:set_env(rabbit, max_message_size, 10000)."]);
    let vhost = cluster.vhost("large");
    let queues = vhost.topology(EXCHANGE, 1, QUORUM);
    let large = Message {
        body: Bytes::from(vec![b'x'; 10_001]),
        ..message(25)
    };
    let small = (1..=50).filter(|n| *n != 25).map(message);
    let mut publisher = Publisher::new(sink(&vhost.uris(), 1), small.chain([large]));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.dead, [25]);
    assert!(
        publisher.labels().contains("rabbitmq_too_large"),
        "{:?}",
        publisher.labels()
    );
    let records = read_all(&vhost.uri(), &queues).await;
    assert_in_order(&records, (1..=50).filter(|n| *n != 25));
}

/// Each try of a message that a queue refuses is a copy of it in the other queues of its key.
#[tokio::test(flavor = "multi_thread")]
async fn while_a_queue_refuses_one_message_at_a_time_asks_whether_it_takes_them_again() {
    const STREAMS: u64 = 60;
    let vhost = rabbitmq::shared().vhost("probe");
    vhost.declare_exchange(EXCHANGE);
    vhost.declare_queue("forebay.00", CLASSIC, &json!({"x-overflow": "reject-publish"}));
    vhost.bind_partitions(EXCHANGE, 1);
    vhost.declare_queue("archive", CLASSIC, &json!({}));
    vhost.bind(EXCHANGE, "archive", "#");
    vhost.limit_queues("^forebay[.]00$", Some(5));
    let of_many_streams = |sequence| Message {
        key: format!("stream-{}", sequence % STREAMS),
        ..message(sequence)
    };
    let mut publisher = Publisher::new(sink(&vhost.uris(), 1), (1..=300).map(of_many_streams));
    let freed = async {
        last_for(Duration::from_secs(8)).await;
        vhost.limit_queues("^forebay[.]00$", None);
    };
    tokio::join!(publisher.drain(DEADLINE), freed);
    assert_eq!(publisher.failures, []);
    let full = ["forebay.00".to_owned()];
    assert_in_order(&read_all(&vhost.uri(), &full).await, 1..=300);
    let copies = read_all(&vhost.uri(), &["archive".to_owned()]).await.len();
    // Each once, each stream's first refused one once more, and the tries of 8 s.
    assert!(
        (305..=300 + 60 + 30).contains(&copies),
        "{copies} messages in the other queue"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_queue_that_is_deleted_is_made_again_and_nothing_is_set_aside() {
    const LAST: u64 = 300;
    let vhost = rabbitmq::shared().vhost("deleted");
    let config = forebay_rabbitmq::RabbitMqConfig {
        declare: true,
        ..configuration(&vhost.uris(), 2)
    };
    let messages = (1..=LAST).map(message);
    let mut publisher = Publisher::new(new_sink(&config), messages).slowly(10, Duration::from_millis(400));
    // Then nothing is on its way, for a while.
    let begun = publisher.after(100);
    let deleted = async {
        begun.await;
        vhost.delete_queue("forebay.01");
    };
    tokio::join!(publisher.drain(DEADLINE), deleted);
    assert_eq!(publisher.dead, [0; 0]);
    // A message came back, or RabbitMQ's channel fell over the deletion: either ends the session.
    let renewed = publisher.failures.iter().all(|failure| failure.remedy == Remedy::Retry);
    assert!(!publisher.failures.is_empty() && renewed, "{:?}", publisher.failures);
    let records = read_all(&vhost.uri(), &["forebay.01".to_owned()]).await;
    let streams: BTreeSet<u64> = records.iter().map(|record| record.sequence() % 7).collect();
    assert!(!streams.is_empty(), "it is there again, with what came after");
    let first = records.iter().map(Read::sequence).min().unwrap();
    // What had been in it went with it.
    assert!(first > 50, "{first}");
    assert_in_order(&records, (first..=LAST).filter(|n| streams.contains(&(n % 7))));
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_share_the_channels_that_a_user_is_given() {
    let vhost = rabbitmq::shared().vhost("channels");
    let queues = vhost.topology(EXCHANGE, 8, QUORUM);
    let user = format!("few-{}", std::process::id());
    vhost.admit(&user, "s3cret");
    let uris: Vec<String> = vhost
        .broker
        .nodes
        .iter()
        .map(|node| vhost.uri_of("amqp", node, &user, "s3cret"))
        .collect();
    let many_streams = |sequence| Message {
        key: format!("stream-{}", sequence % 50),
        ..message(sequence)
    };
    vhost.limit_channels(&user, 3);
    // RabbitMQ counts what was opened a moment ago.
    let messages = (1..=200).map(many_streams);
    let mut publisher = Publisher::new(sink(&uris, 8), messages).slowly(1, Duration::from_millis(30));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.labels(), ["rabbitmq_channels"].into(), "the limit was felt");
    assert!(
        publisher.failures.iter().all(|failure| failure.remedy == Remedy::Retry),
        "{:?}",
        publisher.failures
    );
    assert!(publisher.failures.len() <= 2, "{:?}", publisher.failures);
    assert_in_order(&read_all(&vhost.uri(), &queues).await, 1..=200);
    drop(publisher);

    vhost.limit_channels(&user, 0);
    let failure = sink(&uris, 8).reopen().await.expect_err("there is none to publish on");
    assert_eq!(
        (failure.label, failure.remedy),
        ("rabbitmq_channels", Remedy::Hold),
        "{failure}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_share_the_channels_that_a_connection_has() {
    let cluster = Cluster::single();
    let limit = |channels: u32| {
        let set = format!("application:set_env(rabbit, channel_max, {channels}).");
        cluster.ctl(0, &["eval", &set]);
    };
    limit(4);
    let vhost = cluster.vhost("few");
    let queues = vhost.topology(EXCHANGE, 8, QUORUM);
    let many_streams = |sequence| Message {
        key: format!("stream-{}", sequence % 50),
        ..message(sequence)
    };
    let mut publisher = Publisher::new(sink(&vhost.uris(), 8), (1..=400).map(many_streams));
    publisher.drain(DEADLINE).await;
    assert_eq!(publisher.failures, []);
    limit(2047);
    let records = read_all(&vhost.uri(), &queues).await;
    assert_eq!(records.len(), 400, "none twice");
    assert_in_order(&records, 1..=400);
}
