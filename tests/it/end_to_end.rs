//! From HTTP to a real broker, through what goes wrong on the way: here Kafka.

mod backlog;
mod both;
mod content;
mod late;
mod pinned;
mod rabbitmq;
mod rabbitmq_faults;
mod reorder;
mod rights;
mod rolls;
mod stalls;
mod standing;
mod topics;

use std::time::Duration;

use crate::support::{
    census::{Delivered, assert_delivered, assert_in_order},
    forebay::{Forebay, Setup, send_command, wait_until},
    kafka::{self, Cluster, Options, create_topic},
    sender::Sender,
    topic::read_to_end,
};

const DRAINED: Duration = Duration::from_secs(120);
const STOPPED: Duration = Duration::from_secs(60);

/// Sends a hundred thousand events of five thousand streams, out of order and with duplicates; returns how many there
/// were with those. Each was answered 200.
fn send_volume(setup: &Setup) -> usize {
    let kinds = ["feeds", "media", "viewerConnection", "recordings", "transcoder"];
    let output = send_command(&setup.url(), &kinds)
        .args(["--json", "--seed", "7"])
        .args(["--count", "100000", "--streams", "5000", "--concurrency", "64"])
        .args(["--shuffle", "50", "--duplicates", "5"])
        .output()
        .unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        output.status.success(),
        "{summary}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let sent = usize::try_from(summary["sent"].as_u64().unwrap()).unwrap();
    assert!(sent > 100_000, "duplicates come on top: {summary}");
    sent
}

/// All of it is there once, and Forebay says so.
fn assert_volume(records: &[impl Delivered], forebay: &Forebay, sent: usize) {
    let census = assert_in_order(records);
    assert_eq!(
        census.messages,
        sent,
        "every 2xx is at the broker, once, for nothing failed: {}\n{}",
        forebay.status(),
        forebay.log()
    );
    assert_eq!(census.repeats, 0);
    assert_eq!(forebay.published(), sent as f64, "each is counted");
    assert_eq!(census.ids.len(), 100_000, "a duplicate has the id of its original");
    assert!(census.streams >= 5_000, "{} streams", census.streams);
    assert_eq!(
        forebay.metrics_sum("forebay_dead_letters_total"),
        0.0,
        "nothing is dead-lettered"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_of_five_thousand_streams_arrive_in_order() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "volume", 12, &[]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    let sent = send_volume(&setup);
    forebay.wait_until_drained(DRAINED);

    assert_volume(&read_to_end(&brokers, &topic), &forebay, sent);
    let config = setup.config();
    let (code, report) = crate::verify::verify(&["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_forebay_is_killed_and_started_again() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "killed", 12, &[]).await;
    let setup = Setup::new(&brokers, &topic);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 2_000, 500);
    for _ in 0..4 {
        sender.wait_until_acknowledged(sender.acknowledged() + 2_000);
        forebay.kill();
        forebay = setup.start();
    }
    sender.wait_until_acknowledged(sender.acknowledged() + 1_000);
    let outcome = sender.stop();
    assert!(outcome.unanswered > 0, "the kills were felt");
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_to_end(&brokers, &topic), &outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_for_a_minute_is_never_noticed_by_the_sender() {
    let mut cluster = Cluster::single();
    let topic = create_topic(&cluster.bootstrap(), "away", 12, &[]).await;
    let setup = Setup::new(&cluster.bootstrap(), &topic);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 500, 500);
    sender.wait_until_acknowledged(500);
    cluster.kill(0);
    sender.wait_until_acknowledged(60 * 500);
    assert_eq!(forebay.get("/readyz").unwrap().0, 200, "a broker makes nothing unready");
    let blocked = forebay.blocked();
    assert!(blocked["text"].is_string(), "the broker's absence is told: {blocked}");
    cluster.restart(0);
    let outcome = sender.stop();
    assert_eq!(outcome.unanswered, 0);
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_to_end(&cluster.bootstrap(), &topic), &outcome);
    assert!(forebay.blocked().is_null(), "and so is its return");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_three_brokers_is_never_noticed_by_the_sender() {
    let options = Options::default().nodes(3).property("min.insync.replicas", "2");
    let mut cluster = Cluster::start(&options);
    let topic = create_topic(&cluster.bootstrap(), "rolled", 12, &[]).await;
    let setup = Setup::new(&cluster.bootstrap(), &topic);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 500, 500);
    sender.wait_until_acknowledged(500);
    cluster.roll();
    let outcome = sender.stop();
    assert_eq!(outcome.unanswered, 0);
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_to_end(&cluster.bootstrap(), &topic), &outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_goes_on_accepting_then_publishes_what_is_in_flight_and_exits_0() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "stopped", 3, &[]).await;
    let setup = Setup::new(&brokers, &topic).with("\n");
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 400, 50);
    sender.wait_until_acknowledged(300);
    forebay.signal("TERM");
    wait_until("not ready after SIGTERM", Duration::from_secs(1), || {
        !matches!(forebay.get("/readyz"), Some((200, _)))
    });
    let status = forebay.wait(STOPPED);
    assert_eq!(status.code(), Some(0), "{}", forebay.log());
    let outcome = sender.stop();
    let refused: usize = outcome
        .answers
        .iter()
        .filter(|(code, _)| **code != 200)
        .map(|(_, n)| n)
        .sum();
    let only = outcome.answers.keys().all(|code| [200, 503].contains(code));
    assert!(only, "{refused} refused: {:?}", outcome.answers);

    let forebay = setup.start();
    forebay.wait_until_drained(DRAINED);
    let census = assert_in_order(&read_to_end(&brokers, &topic));
    assert!(outcome.acknowledged.is_subset(&census.feed_ids));
    assert_eq!(census.repeats, 0, "an orderly stop leaves nothing half published");
}

/// A topic's limit is for a batch as a whole. Each session that finds its batches too large begins the next with
/// smaller ones, so they are few.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_small_batches_only_is_published_to_without_delay_and_without_dead_letters() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "small-batches", 1, &[("max.message.bytes", "10000")]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 2_000, 200);
    wait_until("a load", DRAINED, || sender.acknowledged() > 5_000);
    let outcome = sender.stop();
    forebay.wait_until_drained(Duration::from_secs(30));
    let sessions = forebay.metric("forebay_kafka_sessions_total{route=\"events\",sink=\"main\"}");
    assert!((2.0..20.0).contains(&sessions), "{sessions} sessions");
    assert_eq!(forebay.metrics_sum("forebay_dead_letters_total"), 0.0);
    assert_delivered(&read_to_end(&brokers, &topic), &outcome);
}
