//! What no route wants is kept and counted, and what is discarded on purpose is neither.

use std::time::Duration;

use crate::support::{
    forebay::{PATH, Setup, wait_until},
    http,
    kafka::{self, create_topic},
    sender::{sign, webhook},
    topic::read_to_end,
};

const SOON: Duration = Duration::from_secs(60);

fn routes(topic: &str, more: &str) -> String {
    let brokers = kafka::shared();
    let brokers: Vec<&str> = brokers.split(',').collect();
    format!(
        "[sinks.main]\ntype = \"kafka\"\nbrokers = {brokers:?}\n\
         [routes.feeds]\ntopic = \"{topic}\"\nmatch = {{ kinds = [\"feeds\"] }}\n{more}"
    )
}

/// Posts ten events that the route wants, and as many of another kind.
fn post(setup: &Setup) {
    for number in 0..10 {
        let feeds = webhook(number, &format!("feed-{number}"));
        let media = feeds.replace("\"type\":\"feeds\"", "\"type\":\"media\"");
        assert_ne!(feeds, media);
        for body in [feeds, media] {
            let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
            let answer = http::request(setup.public, "POST", PATH, &headers, body).unwrap();
            assert_eq!(answer.code, 200, "{}", answer.body);
        }
    }
}

#[test]
fn what_no_route_wants_is_kept_counted_and_said() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let topic = runtime.block_on(create_topic(&kafka::shared(), "unrouted", 1, &[]));
    let setup = Setup::publishing(&routes(&topic, ""));
    let mut forebay = setup.start();
    post(&setup);
    wait_until("the rest is kept", SOON, || {
        forebay.metric("forebay_dead_letters{route=\"unrouted\"}") == 10.0
    });
    assert_eq!(
        forebay.metric("forebay_unrouted_total{endpoint=\"acme\",kind=\"media\"}"),
        10.0
    );
    assert_eq!(
        forebay.metric("forebay_unrouted_total{endpoint=\"acme\",kind=\"feeds\"}"),
        0.0
    );
    assert_eq!(
        forebay.metric("forebay_dead_letters_total{reason=\"unrouted\",route=\"unrouted\"}"),
        10.0
    );
    forebay.wait_until_drained(SOON);
    let log = forebay.log();
    assert!(log.contains("no route wants these of endpoint acme: media, "), "{log}");
    assert!(log.contains("kinds that are not known"), "{log}");
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    assert_eq!(read_to_end(&kafka::shared(), &topic).len(), 10);

    // A restart does not take them up again.
    let mut forebay = setup.start();
    forebay.wait_until_drained(SOON);
    assert_eq!(forebay.metric("forebay_dead_letters{route=\"unrouted\"}"), 10.0);
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
}

#[test]
fn what_is_discarded_is_not_kept_and_an_own_route_publishes_the_rest() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let create = |name: &str| runtime.block_on(create_topic(&kafka::shared(), name, 1, &[]));
    let (topic, rest) = (create("discarding"), create("the-rest"));
    let discard = "[routes.nobody]\ndiscard = true\nmatch = { not_kinds = [\"feeds\"] }\n";
    let setup = Setup::publishing(&routes(&topic, discard));
    let mut forebay = setup.start();
    post(&setup);
    forebay.wait_until_drained(SOON);
    assert_eq!(forebay.metrics_sum("forebay_dead_letters_total"), 0.0);
    assert_eq!(forebay.metrics_sum("forebay_unrouted_total"), 0.0);
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    assert_eq!(read_to_end(&kafka::shared(), &topic).len(), 10);

    let setup = Setup::publishing(&routes(&topic, &format!("[routes.unrouted]\ntopic = \"{rest}\"\n")));
    let mut forebay = setup.start();
    post(&setup);
    forebay.wait_until_drained(SOON);
    assert_eq!(
        forebay.metric("forebay_unrouted_total{endpoint=\"acme\",kind=\"media\"}"),
        10.0
    );
    assert_eq!(forebay.metrics_sum("forebay_dead_letters_total"), 0.0);
    assert_eq!(forebay.terminate(SOON).code(), Some(0));
    assert_eq!(read_to_end(&kafka::shared(), &rest).len(), 10);
}
