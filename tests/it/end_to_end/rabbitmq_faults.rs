//! From HTTP to a real RabbitMQ that fails. Forebay runs through all of it, and answers nothing but 200.

use std::{collections::HashSet, time::Duration};

use serde_json::json;

use super::DRAINED;
use crate::support::{
    census::{assert_delivered, assert_in_order},
    forebay::{EXCHANGE, Forebay, Setup, rabbitmq_route, wait_until},
    rabbitmq::{self, CLASSIC, Cluster, Options, QUORUM, Read, Vhost, can_isolate, read_all, read_slowly},
    sender::Sender,
    time::last_for,
};

const PARTITIONS: usize = 8;
const STREAMS: usize = 5_000;
const WEBHOOKS: usize = 100_000;
/// By far enough for that many at the rate at which they are sent.
const SENT: Duration = Duration::from_secs(300);
/// How soon a trouble is told.
const TOLD: Duration = Duration::from_secs(45);

/// A Forebay under load.
struct Run {
    _setup: Setup,
    forebay: Forebay,
    sender: Sender,
    queues: Vec<String>,
    uri: String,
}

impl Run {
    fn start(vhost: &Vhost) -> Self {
        let queues = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
        // An exchange that was just made again has no bindings yet: what comes in between is to wait.
        let hold = "[sinks.rabbit]\nunroutable = \"hold\"";
        let route = rabbitmq_route("events", &vhost.uris(), PARTITIONS).replace("[sinks.rabbit]", hold);
        let setup = Setup::publishing(&route);
        let forebay = setup.start();
        let sender = Sender::start(setup.public, 16, 1_500, STREAMS);
        let run = Self {
            _setup: setup,
            forebay,
            sender,
            queues,
            uri: vhost.uri(),
        };
        run.wait_until_publishing("the start");
        run
    }

    fn wait_until_publishing(&self, after: &str) {
        let goal = self.forebay.published() + 500.0;
        wait_until(
            &format!("publishing after {after}: {:#}", self.forebay.status()),
            DRAINED,
            || self.forebay.published() >= goal,
        );
    }

    /// Waits until `/status` says that the route is blocked, for one of these reasons.
    fn wait_until_told(&self, reasons: &[&str]) {
        wait_until(&format!("one of {reasons:?} is told"), TOLD, || {
            reasons.iter().any(|reason| self.forebay.blocked()["reason"] == *reason)
        });
    }

    /// Everything acknowledged is there, and the trouble is over.
    async fn finish(mut self) {
        wait_until("enough is acknowledged", SENT, || {
            self.sender.acknowledged() >= WEBHOOKS
        });
        let outcome = self.sender.stop();
        assert_eq!(outcome.unanswered, 0);
        self.forebay.wait_until_drained(DRAINED);
        assert_delivered(&read_all(&self.uri, &self.queues).await, &outcome);
        let blocked = self.forebay.blocked();
        assert!(blocked.is_null(), "it is over: {blocked}");
        assert_eq!(self.forebay.child.try_wait().unwrap(), None, "it ran through all of it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_app_a_memory_alarm_and_closed_connections_are_never_noticed_by_the_sender() {
    let cluster = Cluster::single();
    let vhost = cluster.vhost("node");
    let run = Run::start(&vhost);

    cluster.stop_app(0);
    run.wait_until_told(&["rabbitmq_unreachable"]);
    cluster.start_app(0);
    run.wait_until_publishing("start_app");

    cluster.alarm(0, true);
    let blocked = || {
        run.forebay
            .metric("forebay_rabbitmq_blocked{route=\"events\",sink=\"rabbit\"}")
            == 1.0
    };
    wait_until("the alarm is in the metrics", Duration::from_secs(3), blocked);
    run.wait_until_told(&["rabbitmq_blocked"]);
    last_for(Duration::from_secs(5)).await;
    cluster.alarm(0, false);
    run.wait_until_publishing("the alarm");

    let closed = cluster.close_all_connections_every_second(0, 60);
    assert!(closed >= 30, "closed {closed} connections in a minute");
    run.wait_until_publishing("the closes");

    vhost.delete_exchange(EXCHANGE);
    run.wait_until_told(&["rabbitmq_unknown_exchange", "rabbitmq_topology"]);
    vhost.declare_exchange(EXCHANGE);
    vhost.bind_partitions(EXCHANGE, PARTITIONS);
    run.wait_until_publishing("the exchange was made again");
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_and_a_lost_majority_are_never_noticed_by_the_sender() {
    let mut cluster = Cluster::three();
    let vhost = cluster.vhost("cluster");
    let run = Run::start(&vhost);

    cluster.kill(0);
    run.wait_until_publishing("the first node was killed");
    cluster.restart(&[0]);
    run.wait_until_publishing("it came back");

    cluster.kill(1);
    cluster.kill(2);
    run.wait_until_told(&[
        "rabbitmq_unconfirmed",
        "rabbitmq_unreachable",
        "rabbitmq_nacked",
        "no_confirmation",
    ]);
    last_for(Duration::from_secs(60)).await;
    assert_eq!(
        run.forebay.get("/readyz").unwrap().0,
        200,
        "a broker makes nothing unready"
    );
    cluster.restart(&[1, 2]);
    run.wait_until_publishing("the majority came back");
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_that_vanish_are_never_noticed_by_the_sender() {
    if !can_isolate("packets_that_vanish_are_never_noticed_by_the_sender") {
        return;
    }
    let cluster = Cluster::start(&Options {
        isolated: true,
        ..Options::default()
    });
    let vhost = cluster.vhost("isolated");
    let run = Run::start(&vhost);
    cluster.namespace().drop_packets();
    run.wait_until_told(&["rabbitmq_unconfirmed", "rabbitmq_unreachable", "no_confirmation"]);
    last_for(Duration::from_secs(10)).await;
    cluster.namespace().deliver_packets();
    run.wait_until_publishing("packets arrive again");
    run.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_no_queue_takes_are_dead_letters_and_their_neighbours_pass() {
    for kind in [QUORUM, CLASSIC] {
        let vhost = rabbitmq::shared().vhost("unroutable");
        // Nobody takes the feeds of stream-0: one in seven.
        vhost.declare_exchange(EXCHANGE);
        vhost.declare_queue("taken", kind, &json!({}));
        for stream in 1..7 {
            vhost.bind(EXCHANGE, "taken", &format!("*.*.*.*.stream-{stream}"));
        }
        let setup = Setup::rabbitmq(&vhost.uris(), 1);
        let forebay = setup.start();
        let sender = Sender::start(setup.public, 7, 1_400, 7);
        sender.wait_until_acknowledged(2_000);
        let outcome = sender.stop();
        forebay.wait_until_drained(DRAINED);

        let records = read_all(&vhost.uri(), &["taken".into()]).await;
        let dead = forebay.metric("forebay_dead_letters_total{reason=\"rabbitmq_unroutable\",route=\"events\"}");
        let taken: HashSet<u64> = records.iter().map(Read::sequence).collect();
        assert_eq!(
            taken.len() + dead as usize,
            outcome.acknowledged.len(),
            "{kind}: each is one or the other"
        );
        let accepted = outcome.acknowledged.len();
        // A seventh, where the sender's threads get the processor alike.
        assert!(
            accepted > 700 && dead as usize * 20 >= accepted,
            "{kind}: {dead} dead letters of {accepted}"
        );
        assert!(records.iter().all(|record| record.key() != "ZG6NWV/stream-0"));
        let feeds = assert_in_order(&records).feed_ids;
        let lost = outcome
            .acknowledged
            .difference(&feeds)
            // The sender's first thread has the stream that nobody takes.
            .filter(|feed| !feed.starts_with("00000000-"))
            .count();
        assert_eq!(lost, 0, "{kind}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_with_a_slow_consumer_gets_all_of_it_in_order() {
    let vhost = rabbitmq::shared().vhost("full");
    vhost.declare_exchange(EXCHANGE);
    let limit = json!({"x-max-length": 5, "x-overflow": "reject-publish"});
    vhost.declare_queue("forebay.00", QUORUM, &limit);
    let queues = vhost.bind_partitions(EXCHANGE, 1);
    let setup = Setup::rabbitmq(&vhost.uris(), 1);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 1, 200, 1);
    wait_until("a hundred are acknowledged", DRAINED, || {
        sender.so_far().acknowledged.len() >= 100
    });
    let outcome = sender.stop();
    wait_until("the full queue is told", TOLD, || {
        forebay.blocked()["reason"] == "rabbitmq_nacked"
    });

    let all = |records: &[Read]| {
        let sequences: HashSet<u64> = records.iter().map(Read::sequence).collect();
        sequences.len() == outcome.acknowledged.len()
    };
    let records = read_slowly(&vhost.uri(), &queues[0], Duration::from_millis(20), all).await;
    assert_delivered(&records, &outcome);
    forebay.wait_until_drained(DRAINED);
}
