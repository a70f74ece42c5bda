//! Dead letters: shown, redriven, discarded.

use std::collections::BTreeSet;

use super::*;
use crate::support::{forebay::kafka_route, kafka::set_topic, terminal::TestTerminal};

/// Of these every tenth is too large for the topic.
const EVENTS: usize = 400;

fn is_large(number: usize) -> bool {
    number.is_multiple_of(10)
}

async fn with_letters(name: &str) -> (Bench, Forebay) {
    let bench = Bench::new(name, "3000", "").await;
    let forebay = bench.setup.start();
    bench.post(0..EVENTS, is_large);
    wait_until("what is too large is a dead letter", SOON, || {
        letters_kept(&forebay) == (EVENTS / 10) as f64
    });
    forebay.wait_until_drained(SOON);
    (bench, forebay)
}

async fn raise_limit(bench: &Bench) {
    set_topic(&bench.brokers, &bench.topic, "max.message.bytes", "1000000").await;
}

/// Redrives until the broker has learned of its topic's new limit.
fn redrive(bench: &Bench, selection: &[&str]) -> [u64; 3] {
    let said = bench.run(&[&["dead-letters", "redrive", "--json"], selection].concat());
    said.assert(0).counts()
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_shown_and_published_again_in_order_and_marked() {
    let (bench, mut forebay) = with_letters("redriven").await;
    let listed = bench.run(&["dead-letters", "list", "--json"]).assert(0).objects();
    assert_eq!(listed.len(), EVENTS / 10);
    for letter in &listed {
        assert_eq!(letter["route"], "events");
        assert_eq!(letter["reason"], "kafka_too_large");
        assert_eq!(letter["attempts"], 1);
        assert_eq!(letter["type"], "com.millicast.feeds.started");
        assert!(letter.get("body").is_none());
    }
    let of_stream = |stream: &str| listed.iter().filter(|letter| letter["stream"] == stream).count();
    assert_eq!(of_stream("ZG6NWV/stream-10"), EVENTS / STREAMS);
    // One of them whole, by its number and by its event's id.
    let number = listed[3]["number"].to_string();
    let id = listed[3]["id"].as_str().unwrap();
    for by in [number.as_str(), id] {
        let shown = bench.run(&["dead-letters", "show", by, "--json"]).assert(0).objects();
        assert_eq!(shown.len(), 1);
        assert_eq!(shown[0]["number"], listed[3]["number"]);
        assert!(shown[0]["body"].as_str().unwrap().contains("padding"), "{}", shown[0]);
    }
    let human = bench
        .run(&["dead-letters", "list", "--stream", "ZG6NWV/stream-10"])
        .assert(0);
    assert_eq!(human.stdout.lines().count(), EVENTS / STREAMS + 1);
    assert!(
        human.stdout.ends_with(&format!("{} dead letters\n", EVENTS / STREAMS)),
        "{}",
        human.stdout
    );

    // What nothing matches, or nobody selected.
    let nothing = bench.run(&["dead-letters", "list", "--kind", "media"]).assert(1);
    assert!(nothing.stderr.contains("nothing matches"), "{}", nothing.stderr);
    bench.run(&["dead-letters", "redrive", "--stream", "nobody"]).assert(1);
    let all = bench.run(&["dead-letters", "redrive"]).assert(64);
    assert!(all.stderr.contains("all are meant"), "{}", all.stderr);
    bench.run(&["dead-letters", "list", "--route", "evens"]).assert(64);
    let dry = bench
        .run(&["dead-letters", "redrive", "--all", "--dry-run", "--json"])
        .assert(0);
    assert_eq!(dry.objects()[0]["chosen"], EVENTS as u64 / 10);
    assert_eq!(letters_kept(&forebay), EVENTS as f64 / 10.0);

    // Refused again: each is a dead letter again, with its attempts.
    let again = bench
        .run(&["dead-letters", "redrive", "--stream", "ZG6NWV/stream-0", "--json"])
        .assert(1);
    assert_eq!(again.counts(), [EVENTS as u64 / 20, 0, EVENTS as u64 / 20]);
    let attempts = bench
        .run(&["dead-letters", "list", "--stream", "ZG6NWV/stream-0", "--json"])
        .assert(0);
    let attempts = attempts.objects();
    assert_eq!(attempts.len(), EVENTS / 20);
    assert!(attempts.iter().all(|letter| letter["attempts"] == 2), "{attempts:?}");

    raise_limit(&bench).await;
    // While others come in.
    bench.post(EVENTS..EVENTS + 50, |_| false);
    let of_stream = redrive(&bench, &["--stream", "ZG6NWV/stream-10"]);
    assert_eq!(of_stream, [EVENTS as u64 / 20, EVENTS as u64 / 20, 0]);
    let redriven = bench.marked("redriven");
    assert!(redriven.iter().all(|read| feed(read) % 20 == 10));
    assert_eq!(letters_kept(&forebay), EVENTS as f64 / 20.0);
    assert_eq!(redrive(&bench, &["--all"]), [EVENTS as u64 / 20, EVENTS as u64 / 20, 0]);

    let redriven = bench.marked("redriven");
    assert_eq!(redriven.len(), EVENTS / 10);
    assert_streams_in_order(&redriven);
    let ids: BTreeSet<String> = redriven.iter().map(super::id).collect();
    let expected = listed.iter().map(|letter| letter["id"].as_str().unwrap().to_owned());
    assert_eq!(ids, expected.collect());
    let numbers: BTreeSet<u64> = redriven.iter().map(Read::sequence).collect();
    assert_eq!(
        numbers,
        listed
            .iter()
            .map(|letter| letter["sequence"].as_u64().unwrap())
            .collect()
    );
    assert_eq!(letters_kept(&forebay), 0.0);
    assert_eq!(
        forebay.metric("forebay_redriven_total{route=\"events\"}"),
        EVENTS as f64 / 10.0
    );
    let records = |outcome: &str| {
        forebay.metric(&format!(
            "forebay_job_records_total{{job_kind=\"redrive\",outcome=\"{outcome}\"}}"
        ))
    };
    assert_eq!(records("published"), EVENTS as f64 / 10.0);
    assert_eq!(records("failed"), EVENTS as f64 / 20.0);
    bench.run(&["dead-letters", "list"]).assert(1);
    let jobs = bench.run(&["jobs", "list", "--json"]).assert(0).objects();
    assert_eq!(jobs.len(), 3);
    assert!(jobs.iter().all(|job| job["state"] == "done"), "{jobs:?}");
    bench.run(&["verify"]).assert(0);
    let log = forebay.log();
    assert!(log.contains("an operator has started a redrive"), "{log}");

    // What is gone is gone also after a kill, and takes no room.
    forebay.kill();
    let forebay = bench.setup.start();
    assert_eq!(letters_kept(&forebay), 0.0);
    assert_eq!(bench.run(&["jobs", "list", "--json"]).objects().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_discarded_only_when_it_is_meant() {
    let (bench, mut forebay) = with_letters("discarded").await;
    let asked = bench
        .run(&["dead-letters", "discard", "--stream", "ZG6NWV/stream-0"])
        .assert(64);
    assert!(asked.stderr.contains("--yes"), "{}", asked.stderr);
    assert_eq!(letters_kept(&forebay), EVENTS as f64 / 10.0);
    let terminal = TestTerminal::open();
    let command = bench.command(&["dead-letters", "discard", "--stream", "ZG6NWV/stream-0"]);
    let asked = terminal.start(command, "Discard them? [y/N]");
    terminal.type_in("n\n");
    let (code, told) = asked.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("nothing was discarded"), "{told}");
    assert_eq!(letters_kept(&forebay), EVENTS as f64 / 10.0);
    let said = bench
        .run(&["dead-letters", "discard", "--stream", "ZG6NWV/stream-0", "--yes"])
        .assert(0);
    assert_eq!(
        said.stdout,
        format!("{0} chosen, {0} discarded, 0 failed\n", EVENTS / 20)
    );
    assert_eq!(letters_kept(&forebay), EVENTS as f64 / 20.0);
    let left = bench.run(&["dead-letters", "list", "--json"]).assert(0).objects();
    assert!(left.iter().all(|letter| letter["stream"] == "ZG6NWV/stream-10"));
    bench
        .run(&["dead-letters", "discard", "--all", "--yes", "--json"])
        .assert(0);
    // What was said to be discarded is gone also after a kill.
    forebay.kill();
    assert!(
        forebay.log().contains("an operator has discarded dead letters"),
        "{}",
        forebay.log()
    );
    let forebay = bench.setup.start();
    assert_eq!(letters_kept(&forebay), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_runs_the_command_opens_the_spool_itself() {
    let (bench, mut forebay) = with_letters("redriven-alone").await;
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    drop(forebay);
    assert_eq!(
        bench.run(&["dead-letters", "list", "--json"]).assert(0).objects().len(),
        EVENTS / 10
    );
    raise_limit(&bench).await;
    assert_eq!(
        redrive(&bench, &["--route", "events", "--all"]),
        [EVENTS as u64 / 10, EVENTS as u64 / 10, 0]
    );
    assert_eq!(bench.marked("redriven").len(), EVENTS / 10);
    bench.run(&["dead-letters", "list"]).assert(1);
    let mut forebay = bench.setup.start();
    assert_eq!(letters_kept(&forebay), 0.0);
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_that_is_killed_loses_nothing_and_goes_on() {
    let (bench, mut forebay) = with_letters("redrive-killed").await;
    raise_limit(&bench).await;
    let begun = bench
        .run(&["dead-letters", "redrive", "--all", "--rate", "10", "--detach"])
        .assert(0);
    let job = begun.stdout.trim().to_owned();
    wait_until("some are redriven", SOON, || {
        forebay.metric("forebay_redriven_total{route=\"events\"}") >= 5.0
    });
    forebay.kill();
    let forebay = bench.setup.start();
    wait_until("the job is done", SOON, || {
        let jobs = bench.run(&["jobs", "list", "--json"]).assert(0).objects();
        jobs.iter()
            .any(|one| one["id"] == job.as_str() && one["state"] == "done")
    });
    let redriven = bench.marked("redriven");
    let ids: BTreeSet<String> = redriven.iter().map(super::id).collect();
    assert_eq!(ids.len(), EVENTS / 10, "each is there");
    // What had no time to be kept comes twice: half a second of ten a second, and what is in flight.
    assert!(redriven.len() <= EVENTS / 10 + 20, "{}", redriven.len());
    assert_eq!(letters_kept(&forebay), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_route_wanted_goes_through_another_route() {
    let bench = Bench::new("through", "1000000", "").await;
    let routes = kafka_route("events", &bench.brokers, &bench.topic);
    let narrow = routes.replace("not_kinds = [\"thumbnail\"]", "kinds = [\"media\"]");
    let bench = Bench {
        setup: Setup::publishing(&narrow),
        ..bench
    };
    let forebay = bench.setup.start();
    bench.post(0..40, |_| false);
    let unrouted = || forebay.metric("forebay_dead_letters{route=\"unrouted\"}");
    wait_until("no route wants them", SOON, || unrouted() == 40.0);
    let alone = bench
        .run(&["dead-letters", "redrive", "--route", "unrouted", "--all"])
        .assert(64);
    assert!(alone.stderr.contains("--through"), "{}", alone.stderr);
    let of_all = bench.run(&["dead-letters", "redrive", "--all"]).assert(64);
    assert!(
        of_all.stderr.contains("40 dead letters of unrouted"),
        "{}",
        of_all.stderr
    );
    let selection = ["--route", "unrouted", "--through", "events", "--all", "--yes"];
    assert_eq!(redrive(&bench, &selection), [40, 40, 0]);
    let redriven = bench.marked("redriven");
    assert_eq!(redriven.len(), 40);
    assert_streams_in_order(&redriven);
    assert_eq!(unrouted(), 0.0);
}
