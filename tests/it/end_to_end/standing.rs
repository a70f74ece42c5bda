//! What takes nothing for as long as it likes, beside what does: a partition's queue that is full, a topic that is not
//! there, dead letters without room.
//!
//! `FOREBAY_TEST_STANDING_S` says for how many seconds: `docs/benchmarks.md` has what ten minutes came to.

use std::{env, time::Duration};

use serde_json::json;

use super::DRAINED;
use crate::support::{
    census::{assert_delivered, assert_in_order},
    forebay::{EXCHANGE, Forebay, SECRET, Setup, rabbitmq_route, wait_until},
    kafka::{self, create_topic, create_topic_named},
    rabbitmq::{self, Cluster, QUORUM, read_all},
    sender::Sender,
    siege::peak_resident_bytes,
    time::{last_for, observe_for},
    topic::read_to_end,
};

const PARTITIONS: usize = 8;
const OTHER_EXCHANGE: &str = "forebay-other";
const RATE: usize = 500;
const STREAMS: usize = 400;
/// Published again after a kill: what was confirmed since the cursors were made durable last, twice a second.
const REPEATS_MAX: usize = 4 * RATE;
const MIB: u64 = 1 << 20;
const RESIDENT_BYTES_MAX: u64 = 256 * MIB;

/// What was seen of a route that stands in part, beside the route `other`.
struct Standing {
    seconds: u64,
    /// Records of the route `events` that wait at the end.
    behind: usize,
    early_bytes: u64,
    peak_bytes: u64,
}

impl Standing {
    /// Looks at it for as long as was asked for. The route `other` goes on.
    async fn watch(forebay: &Forebay) -> Self {
        let seconds = env::var("FOREBAY_TEST_STANDING_S").map_or(15, |text| text.parse().expect("a number of seconds"));
        let mut standing = Self {
            seconds,
            behind: 0,
            early_bytes: 0,
            peak_bytes: 0,
        };
        for second in 1..=seconds {
            observe_for(Duration::from_secs(1)).await;
            if second == seconds.min(60) {
                standing.early_bytes = peak_resident_bytes(forebay.pid());
            }
            let backlog = |route: &str| forebay.metric(&format!("forebay_route_backlog_records{{route=\"{route}\"}}"));
            assert!(
                backlog("other") < 5.0 * RATE as f64,
                "the other route goes on: {}",
                backlog("other")
            );
            standing.behind = backlog("events") as usize;
        }
        standing.peak_bytes = peak_resident_bytes(forebay.pid());
        standing
    }

    /// What waits is what nobody takes, and a little that is on its way.
    #[allow(clippy::print_stderr, reason = "what was measured is said")]
    fn assert(&self, taken: usize, gone: usize) {
        let (seconds, behind) = (self.seconds, self.behind);
        eprintln!(
            "{seconds} s: {taken} taken in, {gone} gone beside what stands, {behind} wait, peak resident {} MiB, {} MiB by the first minute",
            self.peak_bytes / MIB,
            self.early_bytes / MIB
        );
        assert!(gone + 5 * RATE + behind >= taken, "{gone} and {behind} of {taken}");
        assert!(behind < taken / 2 && behind > 0);
        // The newest records, which are kept in memory while somebody wants them, are most of it.
        assert!(self.peak_bytes < RESIDENT_BYTES_MAX);
    }
}

#[allow(clippy::print_stderr, reason = "what was measured is said")]
fn assert_few_repeats(repeats: usize, of_other: usize) {
    eprintln!("after kill -9 {repeats} came again on the one route, {of_other} on the other");
    assert!(
        repeats <= REPEATS_MAX && of_other <= REPEATS_MAX,
        "{repeats}, {of_other}"
    );
}

/// The route `events` to eight queues, and the route `other` to eight others, whose names are returned.
fn two_exchanges(vhost: &rabbitmq::Vhost) -> (String, Vec<String>, Vec<String>) {
    let queues = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
    let other_queues = vhost.topology(OTHER_EXCHANGE, PARTITIONS, QUORUM);
    let other = format!(
        "[sinks.other]\ntype = \"rabbitmq\"\nuri = {:?}\nexchange = \"{OTHER_EXCHANGE}\"\npartitions = {PARTITIONS}\n\
         [routes.other]\nsink = \"other\"\nmatch = {{ not_kinds = [\"thumbnail\"] }}\n",
        vhost.uris()
    );
    let routes = other + &rabbitmq_route("events", &vhost.uris(), PARTITIONS);
    (routes, queues, other_queues)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_is_full_for_long_holds_back_its_own_partition_and_costs_no_repeats() {
    let vhost = rabbitmq::shared().vhost("standing");
    let (routes, queues, other_queues) = two_exchanges(&vhost);
    vhost.limit_queues(&format!("^{}$", queues[0]), Some(5));
    let setup = Setup::publishing(&routes);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, RATE, STREAMS);
    let standing = Standing::watch(&forebay).await;
    let outcome = sender.stop();
    assert_eq!(forebay.blocked()["reason"], "rabbitmq_nacked");
    let mut records = read_all(&vhost.uri(), &queues[1..]).await;
    standing.assert(outcome.acknowledged.len(), records.len());
    assert_eq!(assert_in_order(&records).repeats, 0);

    forebay.kill();
    let mut forebay = setup.start();
    wait_until("the full queue is told again", DRAINED, || {
        forebay.blocked()["reason"] == "rabbitmq_nacked"
    });
    last_for(Duration::from_secs(3)).await;
    vhost.limit_queues("", None);
    forebay.wait_until_drained(DRAINED);
    records.extend(read_all(&vhost.uri(), &queues).await);
    let repeats = assert_delivered(&records, &outcome);
    let others = read_all(&vhost.uri(), &other_queues).await;
    assert_few_repeats(repeats, assert_delivered(&others, &outcome));
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_not_there_for_long_holds_back_its_own_events_and_costs_no_repeats() {
    const MISSING_PATH: &str = "/millicast/missing";
    let brokers = kafka::shared();
    let other = create_topic(&brokers, "standing-other", 4, &[]).await;
    let prefix = format!("standing-{}", std::process::id());
    let (there, missing) = (format!("{prefix}.acme"), format!("{prefix}.missing"));
    create_topic_named(&brokers, &there, 4, &[]).await;
    let setup = Setup::publishing(&format!(
        r#"
        [sinks.main]
        type = "kafka"
        brokers = ["{brokers}"]

        [routes.events]
        topic = "{prefix}.{{endpoint}}"
        unknown_topic = "hold"

        [routes.other]
        topic = "{other}"

        [endpoints.missing]
        path = "{MISSING_PATH}"
        secrets = ["base64:{SECRET}"]
        "#
    ));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, RATE * 7 / 8, STREAMS);
    let to_missing = Sender::start_at(setup.public, MISSING_PATH, 1, RATE / 8, STREAMS);
    let standing = Standing::watch(&forebay).await;
    let (outcome, of_missing) = (sender.stop(), to_missing.stop());
    let records = read_to_end(&brokers, &there);
    standing.assert(
        outcome.acknowledged.len() + of_missing.acknowledged.len(),
        records.len(),
    );
    assert_eq!(assert_in_order(&records).repeats, 0);

    forebay.kill();
    let mut forebay = setup.start();
    wait_until("the topic is missed again", DRAINED, || {
        forebay.blocked()["reason"] == "kafka_unknown_topic"
    });
    last_for(Duration::from_secs(3)).await;
    create_topic_named(&brokers, &missing, 4, &[]).await;
    forebay.wait_until_drained(DRAINED);
    let repeats = assert_delivered(&read_to_end(&brokers, &there), &outcome);
    assert_eq!(assert_delivered(&read_to_end(&brokers, &missing), &of_missing), 0);
    let others = read_to_end(&brokers, &other);
    let census = assert_in_order(&others);
    assert!(census.feed_ids.is_superset(&outcome.acknowledged));
    assert!(census.feed_ids.is_superset(&of_missing.acknowledged));
    assert_few_repeats(repeats, census.repeats);
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_without_room_for_long_hold_back_nothing_else_and_cost_no_repeats() {
    let vhost = rabbitmq::shared().vhost("standing-dead");
    let (routes, queues, other_queues) = two_exchanges(&vhost);
    vhost.delete_queue(&queues[0]);
    let setup = Setup::publishing(&format!("{routes}dead_letters_bytes_max = \"1MiB\"\n"));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, RATE, STREAMS);
    let dead_letters = |forebay: &Forebay| forebay.metric("forebay_dead_letters{route=\"events\"}") as usize;
    wait_until("the dead letters are full", DRAINED, || {
        forebay.blocked()["reason"] == "dead_letters_full"
    });
    let standing = Standing::watch(&forebay).await;
    let outcome = sender.stop();
    let mut records = read_all(&vhost.uri(), &queues[1..]).await;
    let dead = dead_letters(&forebay);
    standing.assert(outcome.acknowledged.len(), records.len() + dead);
    assert_eq!(assert_in_order(&records).repeats, 0);

    forebay.kill();
    let bound = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
    let mut forebay = setup.start();
    assert_eq!(dead_letters(&forebay), dead);
    forebay.wait_until_drained(DRAINED);
    records.extend(read_all(&vhost.uri(), &bound).await);
    let census = assert_in_order(&records);
    assert_eq!(census.feed_ids.len() + dead, outcome.acknowledged.len());
    assert!(census.feed_ids.is_subset(&outcome.acknowledged));
    let others = read_all(&vhost.uri(), &other_queues).await;
    assert_few_repeats(census.repeats, assert_delivered(&others, &outcome));
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "what was measured is said")]
async fn a_queue_without_a_majority_for_long_holds_back_its_own_partition_and_costs_no_repeats() {
    // Behind the 30 s after which silence is reported, for more rounds of those.
    let seconds = env::var("FOREBAY_TEST_STANDING_S").map_or(60, |text| text.parse().expect("a number of seconds"));
    let mut cluster = Cluster::three();
    let vhost = cluster.vhost("majority");
    vhost.declare_exchange(EXCHANGE);
    let name = |partition: usize| format!("{EXCHANGE}.{partition:02}");
    // The first queue has members on all nodes, the others on the first node alone.
    vhost.declare_queue(&name(0), QUORUM, &json!({}));
    for partition in 1..PARTITIONS {
        vhost.declare_queue(&name(partition), QUORUM, &json!({"x-quorum-initial-group-size": 1}));
    }
    let queues = vhost.bind_partitions(EXCHANGE, PARTITIONS);
    let setup = Setup::rabbitmq(&vhost.uris(), PARTITIONS);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, RATE, STREAMS);
    wait_until("all is well", DRAINED, || forebay.published() > 500.0);
    cluster.kill(1);
    cluster.kill(2);
    wait_until("the silence is reported", DRAINED, || {
        forebay.blocked()["reason"] == "rabbitmq_unconfirmed"
    });
    last_for(Duration::from_secs(seconds)).await;
    let blocked = forebay.blocked();
    let behind = || forebay.metric("forebay_route_backlog_records{route=\"events\"}") as usize;
    let sessions = forebay.metric("forebay_rabbitmq_sessions_total{route=\"events\",sink=\"rabbit\"}");
    let outcome = sender.stop();
    wait_until("what waits is the first partition's share", DRAINED, || {
        behind() < outcome.acknowledged.len() / (PARTITIONS / 2)
    });
    let mut records = read_all(&vhost.uri(), &queues[1..]).await;
    let repeats = assert_in_order(&records).repeats;
    eprintln!(
        "{seconds} s: {} taken in, {} gone beside what stands, {} wait, {repeats} repeats, {sessions} sessions",
        outcome.acknowledged.len(),
        records.len(),
        behind()
    );
    assert_eq!(repeats, 0, "in {sessions} sessions:\n{}", forebay.log());
    assert_eq!(blocked["reason"], "rabbitmq_unconfirmed");

    cluster.restart(&[1, 2]);
    forebay.wait_until_drained(DRAINED);
    assert!(forebay.blocked().is_null());
    records.extend(read_all(&vhost.uri(), &queues).await);
    let repeats = assert_delivered(&records, &outcome);
    eprintln!(
        "with those of the first queue {} messages, {repeats} repeats",
        records.len()
    );
    assert!(repeats <= STREAMS, "at most what was on its way: {repeats}");
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}
