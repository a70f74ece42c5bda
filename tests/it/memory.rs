//! What strangers, and senders of extreme bodies, make Forebay take of the memory that the chart gives a pod.

use std::{thread, time::Duration};

use crate::support::{
    cgroup::MemoryGroup,
    forebay::{Forebay, PATH, Setup, kafka_route},
    http,
    sender::{sign, webhook},
    siege::{NOBODY, Siege, Strength, peak_resident_bytes},
};

const MIB: u64 = 1 << 20;
/// The chart's limit. Who goes above it is killed.
const MEMORY_BYTES_MAX: u64 = 1024 * MIB;
const SOON: Duration = Duration::from_secs(60);

fn post(setup: &Setup, body: &str) -> Option<u16> {
    let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
    http::request(setup.public, "POST", PATH, &headers, body).map(|answer| answer.code)
}

/// Runs `during` beside a Forebay with little memory, which must be alive afterwards and have taken less than
/// `bytes_max`.
fn within(name: &str, bytes_max: u64, during: impl FnOnce(&Setup)) {
    let Some(group) = MemoryGroup::new(name, MEMORY_BYTES_MAX) else {
        return;
    };
    let mut setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none"));
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    let mut forebay: Forebay = setup.launch_within(&group.wrapper());
    forebay.wait_until_ready();
    during(&setup);
    assert_eq!(post(&setup, &webhook(1, "afterwards")), Some(200));
    let peak = peak_resident_bytes(forebay.pid());
    assert!(peak < bytes_max, "{} MiB", peak / MIB);
    assert_eq!(forebay.terminate(SOON).code(), Some(0), "{}", forebay.log());
}

/// An honest webhook a tenth of a second, on a connection of its own each time.
fn besieged(setup: &Setup, strength: Strength) {
    let siege = Siege::begin(setup.public, setup.admin, strength, None);
    for number in 0..60 {
        assert_eq!(
            post(setup, &webhook(number, &format!("{number}"))),
            Some(200),
            "{number}"
        );
        thread::sleep(Duration::from_millis(100));
    }
    drop(siege);
}

#[test]
fn pipelined_requests_whose_answers_nobody_reads_take_little() {
    let strength = Strength {
        pipelining: 40,
        ..NOBODY
    };
    within("pipelining", 256 * MIB, |setup| besieged(setup, strength));
}

#[test]
fn unfinished_heads_take_little() {
    let strength = Strength { heads: 2000, ..NOBODY };
    within("heads", 256 * MIB, |setup| besieged(setup, strength));
}

#[test]
fn bodies_that_are_declared_and_dribble_take_little() {
    let strength = Strength {
        declaring: 16,
        ..NOBODY
    };
    within("declaring", 256 * MIB, |setup| besieged(setup, strength));
}

#[test]
fn an_authentic_body_of_millions_of_members_takes_what_its_size_does_and_holds_up_nobody() {
    let mut members = String::new();
    let mut count = 0;
    while members.len() < 15 * MIB as usize {
        members += &format!("\"{count:x}\":1,");
        count += 1;
    }
    assert!(count > 1_000_000);
    let body = webhook(1, "many").replace("\"data\":{", &format!("\"data\":{{{members}"));
    within("members", 768 * MIB, |setup| {
        thread::scope(|scope| {
            let large: Vec<_> = (0..3).map(|_| scope.spawn(|| post(setup, &body))).collect();
            for number in 0..20 {
                assert_eq!(
                    post(setup, &webhook(number, &format!("{number}"))),
                    Some(200),
                    "{number}"
                );
            }
            for large in large {
                assert_eq!(large.join().unwrap(), Some(200));
            }
        });
    });
}
