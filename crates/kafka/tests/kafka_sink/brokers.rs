//! Brokers that die, hang, are absent, or are restarted one by one.

use std::time::Duration;

use forebay_broker::{Remedy, Sink};
use forebay_kafka::{KafkaConfig, UnknownTopic};
use forebay_test_support::{
    kafka::{self as server, Cluster, Options},
    time::last_for,
};
use tokio::time::{Instant, timeout};

use super::publisher::{
    DEADLINE, Publisher, assert_goes_on, assert_in_order, message, new_sink_counting, sink, sink_with, trouble_with,
};

#[tokio::test]
async fn a_broker_that_is_killed_and_comes_back_costs_nothing() {
    const LAST: u64 = 2000;
    let mut cluster = Cluster::single();
    let broker = cluster.bootstrap();
    let topic = server::create_topic(&broker, "down", 3, &[]).await;
    let mut publisher =
        Publisher::new(sink(&broker), (1..=LAST).map(|n| message(&topic, n))).slowly(10, Duration::from_millis(5));
    let begun = publisher.after(500);
    let broken = async {
        begun.await;
        cluster.kill(0);
        last_for(Duration::from_secs(3)).await;
        let restarted = tokio::task::spawn_blocking(move || {
            cluster.restart(0);
            cluster
        });
        restarted.await.unwrap()
    };
    let ((), cluster) = tokio::join!(publisher.drain(DEADLINE), broken);
    assert_eq!(publisher.failures, [], "the sink waits, nothing fails");
    assert_in_order(&server::read_all(&cluster.bootstrap(), &topic), 1..=LAST);
}

#[tokio::test]
async fn a_broker_that_hangs_for_a_while_costs_nothing() {
    const LAST: u64 = 1000;
    let cluster = tokio::task::spawn_blocking(Cluster::single).await.unwrap();
    let broker = cluster.bootstrap();
    let topic = server::create_topic(&broker, "hanging", 3, &[]).await;
    // Short, so that requests time out while the broker hangs.
    let sink = sink_with(std::slice::from_ref(&broker), &[("socket.timeout.ms", "1000")]);
    let mut publisher =
        Publisher::new(sink, (1..=LAST).map(|n| message(&topic, n))).slowly(10, Duration::from_millis(5));
    let begun = publisher.after(300);
    let hanging = async {
        begun.await;
        cluster.freeze(0);
        last_for(Duration::from_secs(4)).await;
        cluster.thaw(0);
    };
    tokio::join!(publisher.drain(DEADLINE), hanging);
    assert_eq!(publisher.failures, [], "the sink waits, nothing fails");
    assert_in_order(&server::read_all(&broker, &topic), 1..=LAST);
}

#[tokio::test]
async fn a_connection_that_an_idle_broker_closes_is_no_trouble() {
    let options = Options::default().property("connections.max.idle.ms", "1000");
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let broker = cluster.bootstrap();
    let topic = server::create_topic(&broker, "idle", 1, &[]).await;
    let config = KafkaConfig {
        brokers: vec![broker.clone()],
        properties: [("statistics.interval.ms".to_string(), "100".to_string())].into(),
        create_topics: None,
    };
    let registry = prometheus::Registry::new();
    let mut sink = new_sink_counting(&config, &topic, UnknownTopic::Hold, &registry);
    let connected = || {
        let families = registry.gather();
        let up = families
            .iter()
            .find(|family| family.name() == "forebay_kafka_broker_up");
        up.is_some_and(|up| {
            up.get_metric()
                .iter()
                .any(|metric| metric.get_gauge().get_value() > 0.0)
        })
    };
    sink.reopen().await.unwrap();
    let mut settled = Vec::new();
    for sequence in 1..=3 {
        sink.enqueue(message(&topic, sequence)).unwrap();
        let deadline = Instant::now() + DEADLINE;
        while settled.len() < sequence as usize || connected() {
            assert_eq!(sink.trouble(), None);
            assert!(Instant::now() < deadline, "{settled:?}: the broker closes nothing");
            if let Ok(over) = timeout(Duration::from_millis(50), sink.settle(&mut settled)).await {
                over.unwrap();
            }
        }
        // Until librdkafka has said that no broker is left.
        for _ in 0..20 {
            let _ = timeout(Duration::from_millis(50), sink.settle(&mut settled)).await;
            assert_eq!(sink.trouble(), None, "nothing waits");
        }
    }
    assert_in_order(&server::read_all(&broker, &topic), 1..=3);
}

#[tokio::test]
async fn a_broker_that_is_not_there_is_told_and_found_when_it_comes() {
    let mut cluster = Cluster::single();
    let broker = cluster.bootstrap();
    let topic = server::create_topic(&broker, "absent", 1, &[]).await;
    cluster.stop(0);
    let mut sink = sink(&broker);
    let trouble = trouble_with(&mut sink, message(&topic, 1)).await;
    assert_eq!(
        (trouble.label, trouble.remedy),
        ("kafka_brokers_down", Remedy::Retry),
        "{trouble}"
    );

    cluster.restart(0);
    assert_goes_on(&mut sink).await;
}

#[tokio::test]
async fn three_brokers_are_restarted_one_after_the_other_under_load_and_nothing_is_lost() {
    const LAST: u64 = 6000;
    let options = Options::default().nodes(3).property("min.insync.replicas", "2");
    let mut cluster = tokio::task::spawn_blocking(move || Cluster::start(&options))
        .await
        .unwrap();
    let broker = cluster.bootstrap();
    let topic = server::create_topic(&broker, "rolling", 6, &[]).await;
    let mut publisher =
        Publisher::new(sink(&broker), (1..=LAST).map(|n| message(&topic, n))).slowly(5, Duration::from_millis(20));
    let begun = publisher.after(500);
    let rolled = async {
        begun.await;
        let rolled = tokio::task::spawn_blocking(move || {
            cluster.roll();
            cluster
        });
        rolled.await.unwrap()
    };
    let ((), cluster) = tokio::join!(publisher.drain(Duration::from_secs(180)), rolled);
    assert_in_order(&server::read_all(&cluster.bootstrap(), &topic), 1..=LAST);
}
