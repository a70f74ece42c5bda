//! A partition that takes nothing, for as long as it likes, beside others that do.
//!
//! `FOREBAY_TEST_STANDING_S` says for how many seconds: `docs/benchmarks.md` has what four minutes came to.

use std::{env, time::Duration};

use tokio::time::sleep;

use super::DRAINED;
use crate::support::{
    census::{assert_delivered, assert_in_order},
    forebay::{EXCHANGE, Setup, rabbitmq_route, wait_until},
    rabbitmq::{self, QUORUM, read_all},
    sender::Sender,
    siege::peak_resident_bytes,
};

const PARTITIONS: usize = 8;
const OTHER_EXCHANGE: &str = "forebay-other";
const RATE: usize = 500;
const STREAMS: usize = 400;
/// Published again after a kill: what was confirmed since the cursors were made durable last, twice a second.
const REPEATS_MAX: usize = 4 * RATE;
const MIB: u64 = 1 << 20;
const RESIDENT_BYTES_MAX: u64 = 256 * MIB;

#[tokio::test(flavor = "multi_thread")]
#[allow(clippy::print_stderr, reason = "what was measured is said")]
async fn a_queue_that_is_full_for_long_holds_back_its_own_partition_and_costs_no_repeats() {
    let seconds = env::var("FOREBAY_TEST_STANDING_S").map_or(15, |text| text.parse().expect("a number of seconds"));
    let vhost = rabbitmq::shared().vhost("standing");
    let queues = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
    let other_queues = vhost.topology(OTHER_EXCHANGE, PARTITIONS, QUORUM);
    vhost.limit_queues(&format!("^{}$", queues[0]), Some(5));
    let other = format!(
        "[sinks.other]\ntype = \"rabbitmq\"\nuri = {:?}\nexchange = \"{OTHER_EXCHANGE}\"\npartitions = {PARTITIONS}\n\
         [routes.other]\nsink = \"other\"\nmatch = {{ not_kinds = [\"thumbnail\"] }}\n",
        vhost.uris()
    );
    let routes = rabbitmq_route("events", &vhost.uris(), PARTITIONS) + &other;
    let setup = Setup::publishing(&routes);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, RATE, STREAMS);
    let (mut early, mut behind) = (0, 0.0);
    for second in 1..=seconds {
        sleep(Duration::from_secs(1)).await;
        if second == seconds.min(60) {
            early = peak_resident_bytes(forebay.pid());
        }
        let backlog = |route: &str| forebay.metric(&format!("forebay_route_backlog_records{{route=\"{route}\"}}"));
        assert!(
            backlog("other") < 5.0 * RATE as f64,
            "the other route goes on: {}",
            backlog("other")
        );
        behind = backlog("events");
    }
    let outcome = sender.stop();
    assert_eq!(forebay.blocked()["reason"], "rabbitmq_nacked");
    let taken = outcome.acknowledged.len();
    let records = read_all(&vhost.uri(), &queues[1..]).await;
    let others = records.len();
    eprintln!(
        "{seconds} s: {taken} taken in, {others} published beside the full queue, {behind} wait, peak resident {} MiB, {} MiB by the first minute",
        peak_resident_bytes(forebay.pid()) / MIB,
        early / MIB
    );
    // What waits is what the full queue is for, and a little that is on its way.
    assert!(
        others + 5 * RATE + (behind as usize) >= taken,
        "{others} and {behind} of {taken}"
    );
    assert!((behind as usize) < taken / 2 && behind > 0.0);
    assert_eq!(assert_in_order(&records).repeats, 0);
    // The newest records, which are kept in memory while somebody wants them, are most of it.
    assert!(peak_resident_bytes(forebay.pid()) < RESIDENT_BYTES_MAX);

    forebay.kill();
    let mut forebay = setup.start();
    wait_until("the full queue is told again", DRAINED, || {
        forebay.blocked()["reason"] == "rabbitmq_nacked"
    });
    sleep(Duration::from_secs(3)).await;
    vhost.limit_queues("", None);
    forebay.wait_until_drained(DRAINED);
    let mut records = records;
    records.extend(read_all(&vhost.uri(), &queues).await);
    let repeats = assert_delivered(&records, &outcome);
    let of_other = assert_delivered(&read_all(&vhost.uri(), &other_queues).await, &outcome);
    eprintln!("after kill -9 {repeats} came again on the one route, {of_other} on the other");
    assert!(
        repeats <= REPEATS_MAX && of_other <= REPEATS_MAX,
        "{repeats}, {of_other}"
    );
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}
