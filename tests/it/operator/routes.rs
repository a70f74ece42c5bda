//! Routes are paused, and go on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_route_publishes_nothing_and_says_so_until_it_goes_on() {
    let bench = Bench::new("paused", "1000000", "").await;
    let mut forebay = bench.setup.start();
    bench.post(0..50, |_| false);
    forebay.wait_until_drained(SOON);
    assert_eq!(forebay.metric("forebay_route_paused{route=\"events\"}"), 0.0);
    let said = bench.run(&["routes", "pause", "events"]).assert(0);
    assert_eq!(said.stdout, "events is paused\n");
    bench.post(50..100, |_| false);
    assert_eq!(forebay.metric("forebay_route_paused{route=\"events\"}"), 1.0);
    let route = |forebay: &Forebay| forebay.status()["routes"][0].clone();
    assert!(
        route(&forebay)["paused"]["since_ms"].as_i64().unwrap() > 0,
        "{}",
        route(&forebay)
    );
    assert_eq!(route(&forebay)["backlog_records"], 50);
    assert_eq!(forebay.get("/readyz").unwrap().0, 200, "webhooks are taken in");

    wait_until("how old the oldest is, is told", SOON, || {
        route(&forebay)["oldest_seconds"].as_u64().unwrap() >= 1
    });

    // A restart changes nothing, and a drain does not go round it.
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    let drained = bench.run(&["drain"]).assert(64);
    assert!(drained.stderr.contains("routes resume events"), "{}", drained.stderr);
    let mut forebay = bench.setup.start();
    bench.post(100..150, |_| false);
    assert_eq!(forebay.metric("forebay_route_paused{route=\"events\"}"), 1.0);
    assert_eq!(bench.read().len(), 50, "nothing was published meanwhile");
    let listed = bench.run(&["routes", "list"]).assert(0);
    assert!(
        listed.stdout.contains("events to main: 100 records behind, paused"),
        "{}",
        listed.stdout
    );

    assert_eq!(
        bench.run(&["routes", "resume", "events"]).assert(0).stdout,
        "events goes on\n"
    );
    forebay.wait_until_drained(SOON);
    let read = bench.read();
    assert_eq!(read.len(), 150, "each once");
    assert_streams_in_order(&read);
    assert_eq!(forebay.metric("forebay_route_paused{route=\"events\"}"), 0.0);
    bench.run(&["routes", "pause", "evens"]).assert(64);
    let log = forebay.log();
    assert!(log.contains("an operator has resumed the route"), "{log}");
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
}
