//! An honest sender while strangers attack the front in every way at once, in the memory that the chart gives a pod.
//!
//! `FOREBAY_TEST_SIEGE_S` makes it longer than the few seconds of a usual run: `docs/benchmarks.md` has what it
//! measured.

use std::{net::Ipv4Addr, time::Duration};

use crate::support::{
    cgroup::MemoryGroup,
    forebay::{Setup, wait_until},
    kafka::{self, create_topic},
    siege::{Honest, HonestSender, Siege, Strength, peak_resident_bytes},
};

const MIB: u64 = 1 << 20;
/// The chart's limit.
const MEMORY_BYTES_MAX: u64 = 1024 * MIB;
/// What it may come to.
const RESIDENT_BYTES_MAX: u64 = 512 * MIB;

/// Of a usual run, beside which other tests run.
const SHORT: Strength = Strength {
    idle: 300,
    pipelining: 10,
    declaring: 16,
    heads: 50,
    large: 0,
    flood: 0,
    admin: 300,
};
/// Of a long one.
const LONG: Strength = Strength {
    idle: 2000,
    pipelining: 40,
    declaring: 16,
    heads: 1000,
    large: 2,
    flood: 0,
    admin: 300,
};

fn period_and_strength() -> (Duration, Strength) {
    match std::env::var("FOREBAY_TEST_SIEGE_S") {
        Ok(seconds) => (Duration::from_secs(seconds.parse().expect("a number of seconds")), LONG),
        Err(_) => (Duration::from_secs(10), SHORT),
    }
}

fn topic() -> String {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(create_topic(&kafka::shared(), "siege", 2, &[]))
}

#[allow(clippy::print_stderr, reason = "what was measured is said")]
fn report(what: &str, honest: &Honest) {
    eprintln!(
        "{what}: {} answered, {} not, p50 {:?}, p99 {:?}, most {:?}",
        honest.took.len(),
        honest.failures.len(),
        honest.permille(500),
        honest.permille(990),
        honest.took.last().copied().unwrap_or_default()
    );
}

#[test]
#[allow(clippy::print_stderr, reason = "what was measured is said")]
fn strangers_who_attack_in_every_way_shut_nobody_out() {
    let Some(group) = MemoryGroup::new("siege", MEMORY_BYTES_MAX) else {
        return;
    };
    let topic = topic();
    let (period, strength) = period_and_strength();
    let connections_max = format!("FOREBAY__SERVER__CONNECTIONS_MAX={}", strength.idle);
    let setup = Setup::new(&kafka::shared(), &topic).environment(&[&connections_max]);
    let mut forebay = setup.launch_within(&group.wrapper());
    forebay.wait_until_ready();
    let mut sender = HonestSender::connect(setup.public);
    let alone = sender.send(period / 2, true);
    report("alone", &alone);

    let siege = Siege::begin(setup.public, setup.admin, strength, None);
    wait_until("the strangers are there", Duration::from_secs(30), || {
        siege.attempts() > strength.idle as u64 / 2
    });
    let besieged = sender.send(period, true);
    report("besieged", &besieged);
    assert_eq!(besieged.failures, Vec::<String>::new());
    assert_eq!(forebay.get("/livez").map(|(code, _)| code), Some(200));
    assert_eq!(forebay.get("/readyz").map(|(code, _)| code), Some(200));
    assert!(forebay.metric("forebay_connections_closed_total{reason=\"made_room\",server=\"public\"}") > 0.0);
    drop(siege);

    // The honest sender has the strangers' address: what it had before stays.
    let siege = Siege::begin(setup.public, setup.admin, strength, Some(Ipv4Addr::LOCALHOST));
    let alike = sender.send(period / 2, false);
    report("from the strangers' own address", &alike);
    assert_eq!(alike.failures, Vec::<String>::new());
    drop(siege);

    let resident = peak_resident_bytes(forebay.pid());
    eprintln!("peak resident: {} MiB", resident / MIB);
    assert!(resident < RESIDENT_BYTES_MAX, "{} MiB", resident / MIB);
    assert_eq!(
        forebay.terminate(Duration::from_secs(60)).code(),
        Some(0),
        "{}",
        forebay.log()
    );
    let published = alone.took.len() + besieged.took.len() + alike.took.len();
    assert!(published > 100, "{published}");
}
