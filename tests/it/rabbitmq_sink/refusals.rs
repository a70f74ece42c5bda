//! Messages that the broker does not take: unroutable, too large, too many, or with no exchange to go to.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use forebay::sink::{Message, Remedy, Sink};
use serde_json::json;

use super::publisher::{DEADLINE, EXCHANGE, Publisher, assert_in_order, message, sink};
use crate::support::rabbitmq::{self, CLASSIC, Cluster, QUORUM, Read, read_all, read_slowly};

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
    let begun = publisher.after(50);
    let again = async {
        begun.await;
        vhost.delete_exchange(EXCHANGE);
        tokio::time::sleep(Duration::from_secs(1)).await;
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
