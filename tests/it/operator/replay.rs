//! What is retained is published again.

use std::collections::BTreeSet;

use super::*;

const EVENTS: usize = 300;

async fn with_events(name: &str) -> (Bench, Forebay) {
    let bench = Bench::new(name, "1000000", "").await;
    let bench = Bench {
        setup: bench.setup.environment(&["FOREBAY__SPOOL__RETAIN=1h"]),
        ..bench
    };
    let forebay = bench.setup.start();
    bench.post(0..EVENTS, |_| false);
    forebay.wait_until_drained(SOON);
    (bench, forebay)
}

fn replay(bench: &Bench, arguments: &[&str]) -> Said {
    bench.run(&[&["replay", "--route", "events", "--json"], arguments].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_retained_is_replayed_by_stream_time_and_id_in_order_and_marked() {
    let (bench, forebay) = with_events("replayed").await;
    let published = bench.read();
    assert_eq!(published.len(), EVENTS);
    assert!(bench.marked("replayed").is_empty());
    wait_until("what is settled is retained", SOON, || {
        forebay.metric("forebay_route_backlog_records{route=\"events\"}") == 0.0
    });

    let dry = replay(&bench, &["--stream", "ZG6NWV/stream-7", "--dry-run"]).assert(0);
    assert_eq!(dry.objects()[0]["chosen"], (EVENTS / STREAMS) as u64);
    replay(&bench, &["--stream", "nobody"]).assert(1);
    replay(&bench, &["--to", "1h"]).assert(1);
    replay(&bench, &[]).assert(64);
    let of_stream = replay(&bench, &["--stream", "ZG6NWV/stream-7"]).assert(0);
    assert_eq!(of_stream.counts(), [15, 15, 0]);
    let replayed = bench.marked("replayed");
    assert!(replayed.iter().all(|read| read.key == "ZG6NWV/stream-7"));
    assert_streams_in_order(&replayed);
    let numbers = |reads: &[Read]| reads.iter().map(Read::sequence).collect::<BTreeSet<_>>();
    let of_stream: Vec<Read> = published
        .iter()
        .filter(|read| read.key == "ZG6NWV/stream-7")
        .cloned()
        .collect();
    assert_eq!(numbers(&replayed), numbers(&of_stream));

    let one = &published[42];
    assert_eq!(replay(&bench, &["--id", &id(one)]).assert(0).counts(), [1, 1, 0]);
    let last = bench.marked("replayed");
    assert_eq!(
        last.iter().filter(|read| id(read) == id(one)).count(),
        1 + usize::from(one.key == "ZG6NWV/stream-7")
    );
    let all = replay(
        &bench,
        &[
            "--from",
            "10m",
            "--kind",
            "feeds",
            "--endpoint",
            "acme",
            "--rate",
            "1000",
        ],
    )
    .assert(0);
    assert_eq!(all.counts(), [EVENTS as u64, EVENTS as u64, 0]);
    assert_eq!(bench.marked("replayed").len(), EVENTS + 16);
    assert_eq!(
        forebay.metric("forebay_replayed_total{route=\"events\"}"),
        (EVENTS + 16) as f64
    );
    bench.run(&["verify"]).assert(0);
    assert!(
        forebay.log().contains("an operator has started a replay"),
        "{}",
        forebay.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_goes_to_another_topic_and_no_topic_is_an_error() {
    let (bench, mut forebay) = with_events("replayed-elsewhere").await;
    let other = create_topic(&bench.brokers, "elsewhere", 3, &[]).await;
    let wrong = replay(&bench, &["--all", "--to-topic", "no/topic"]).assert(64);
    assert!(wrong.stderr.contains("to_topic"), "{}", wrong.stderr);
    assert_eq!(
        replay(&bench, &["--all", "--to-topic", &other]).assert(0).counts(),
        [300, 300, 0]
    );
    let replayed = read_to_end(&bench.brokers, &other);
    assert_eq!(replayed.len(), EVENTS);
    assert!(replayed.iter().all(|read| is_marked(read, "replayed")));
    assert_streams_in_order(&replayed);
    assert_eq!(bench.read().len(), EVENTS, "and not to its own");
    // Without a process too.
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    assert_eq!(
        replay(&bench, &["--stream", "ZG6NWV/stream-1"]).assert(0).counts(),
        [15, 15, 0]
    );
    assert_eq!(bench.marked("replayed").len(), 15);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_is_killed_goes_on_where_it_was_or_says_that_it_was_cut_short() {
    let (bench, mut forebay) = with_events("replay-killed").await;
    let start = |more: &[&str]| {
        let begun = replay(&bench, &[&["--all", "--rate", "50", "--detach"], more].concat()).assert(0);
        begun.objects()[0]["job"].as_str().unwrap().to_owned()
    };
    let (goes_on, once) = (start(&[]), start(&["--once"]));
    let published = |id: &str| {
        let jobs = bench.run(&["jobs", "list", "--json"]).assert(0).objects();
        let job = jobs.into_iter().find(|job| job["id"] == id).unwrap();
        job["published"].as_u64().unwrap()
    };
    wait_until("the one is half through", SOON, || {
        published(&goes_on) >= EVENTS as u64 / 2
    });
    forebay.kill();
    let forebay = bench.setup.start();
    let job = |id: &str| {
        let jobs = bench.run(&["jobs", "list", "--json"]).assert(0).objects();
        jobs.into_iter().find(|job| job["id"] == id).unwrap()
    };
    assert_eq!(job(&once)["state"], "cut_short");
    let paused = bench.run(&["jobs", "pause", &goes_on, "--json"]).assert(0);
    assert_eq!(paused.objects()[0]["state"], "paused");
    bench.run(&["jobs", "resume", &goes_on]).assert(0);
    wait_until("the other is done", SOON, || job(&goes_on)["state"] == "done");
    let replayed = bench.marked("replayed");
    let ids: BTreeSet<String> = replayed.iter().map(id).collect();
    assert_eq!(ids.len(), EVENTS, "each is there");
    let cut = job(&once)["published"].as_u64().unwrap();
    // What had no time to be kept comes twice.
    assert!(
        replayed.len() as u64 <= EVENTS as u64 + cut + 2 * 100,
        "{}",
        replayed.len()
    );
    let cancelled = start(&[]);
    bench.run(&["jobs", "cancel", &cancelled]).assert(0);
    assert_eq!(job(&cancelled)["state"], "cancelled");
    bench.run(&["jobs", "cancel", &cancelled]).assert(1);
    bench.run(&["jobs", "cancel", "nobody"]).assert(1);
    drop(forebay);
}
