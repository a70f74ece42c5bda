//! Brokers that take connections and confirm nothing.

use std::time::{Duration, Instant};

use super::DRAINED;
use crate::support::{
    census::assert_delivered,
    forebay::{Setup, wait_until},
    kafka::{Cluster, Options, create_topic, leader},
    sender::Sender,
    topic::read_to_end,
};

/// Two of three replicas, where three must have what is confirmed. Longer than a session lasts that confirms nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_confirms_nothing_blocks_its_route_without_a_gap_until_it_confirms() {
    const OUTAGE: Duration = Duration::from_secs(150);
    let mut cluster = Cluster::start(&Options::default().nodes(3));
    let brokers = cluster.bootstrap();
    let topic = create_topic(&brokers, "stalled", 1, &[("min.insync.replicas", "3")]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 1, 20, 20);
    wait_until("something published", DRAINED, || forebay.published() > 20.0);

    let killed = (leader(&brokers, &topic).expect("a leader") + 1) % 3;
    cluster.kill(killed);
    let began = Instant::now();
    let mut blocked_at = None;
    let mut seen = Vec::new();
    while began.elapsed() < OUTAGE {
        let blocked = forebay.blocked();
        let reason = blocked["reason"].as_str().map(str::to_owned);
        if reason.is_some() {
            blocked_at.get_or_insert_with(|| began.elapsed());
        }
        assert!(
            blocked_at.is_none() || reason.is_some(),
            "not blocked after {:?}, though nothing was confirmed: {seen:?}\n{}",
            began.elapsed(),
            forebay.log()
        );
        if seen.last() != Some(&reason) {
            seen.push(reason);
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    assert!(
        blocked_at.is_some_and(|at| at < Duration::from_secs(60)),
        "{blocked_at:?}"
    );
    assert_eq!(seen.last().unwrap().as_deref(), Some("kafka_stalled"), "{seen:?}");
    let series = "forebay_route_blocked{reason=\"kafka_stalled\",route=\"events\"}";
    assert_eq!(forebay.metric(series), 1.0);
    let sessions = forebay.metric("forebay_kafka_sessions_total{route=\"events\",sink=\"main\"}");
    assert!(sessions >= 2.0, "the outage outlasts a session");

    cluster.restart(killed);
    let outcome = sender.stop();
    forebay.wait_until_drained(DRAINED);
    assert!(forebay.blocked().is_null());
    assert_delivered(&read_to_end(&cluster.bootstrap(), &topic), &outcome);
}
