//! Topics that events name.

use std::time::Duration;

use super::DRAINED;
use crate::support::{
    forebay::{PATH, SECRET, Setup, kafka_route, wait_until},
    http,
    kafka::{self, create_topic, create_topic_named},
    sender::{sign, webhook},
    topic::read_to_end,
};

/// A header that nobody signed names the account of a body that is no JSON.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_names_a_topic_that_is_not_there_goes_to_the_dead_letters_and_delays_no_other() {
    let brokers = kafka::shared();
    let prefix = format!("forged-{}", std::process::id());
    let topic = format!("{prefix}.ZG6NWV");
    create_topic_named(&brokers, &topic, 3, &[]).await;
    let route = format!(
        r#"
        [sinks.main]
        type = "kafka"
        brokers = ["{brokers}"]

        [routes.events]
        topic = "{prefix}.{{account}}"

        [endpoints.own]
        path = "/millicast/own"
        account = "ZG6NWV"
        secrets = ["base64:{SECRET}"]
        "#
    );
    let setup = Setup::publishing(&route);
    let forebay = setup.start();
    let post_to = |path: &str, body: &str, stream: &str| {
        let headers = format!(
            "X-Millicast-Signature: {}\r\nX-Millicast-Stream-Id: {stream}\r\n",
            sign(body.as_bytes())
        );
        assert_eq!(
            http::request(setup.public, "POST", path, &headers, body).unwrap().code,
            200
        );
    };
    let post = |body: &str, stream: &str| post_to(PATH, body, stream);
    post("no JSON", "no-such-tenant/x");
    // Where the endpoint has an account, nothing else is one.
    post_to("/millicast/own", "no JSON", "no-such-tenant/x");
    for n in 0..50 {
        post(&webhook(n, &format!("feed-{n}")), "no-such-tenant/x");
    }
    let honest = || read_to_end(&brokers, &topic).len() == 51;
    wait_until("the others' events", Duration::from_secs(60), honest);
    forebay.wait_until_drained(DRAINED);
    let dead = "forebay_dead_letters_total{reason=\"kafka_unknown_topic\",route=\"events\"}";
    assert_eq!(forebay.metric(dead), 1.0, "{}", forebay.log());
    assert_eq!(read_to_end(&brokers, &topic).len(), 51, "none of them twice");
    assert!(forebay.blocked().is_null());
    let sessions = forebay.metric("forebay_kafka_sessions_total{route=\"events\",sink=\"main\"}");
    assert_eq!(sessions, 1.0, "no session ended for it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_takes_less_than_what_is_accepted_is_named_at_the_start_and_stops_nothing() {
    let brokers = kafka::shared();
    let small = create_topic(&brokers, "small", 1, &[("max.message.bytes", "100000")]).await;
    let large = create_topic(&brokers, "large", 1, &[("max.message.bytes", "30000000")]).await;
    let route = format!("[routes.all]\nsink = \"main\"\ntopic = \"{large}\"\n");
    let setup = Setup::publishing(&(kafka_route("events", &brokers, &small) + &route));
    let forebay = setup.start();
    let of_small = || {
        let log = forebay.log();
        let lines: Vec<String> = log
            .lines()
            .filter(|line| line.contains(&small) && line.contains("max.message.bytes"))
            .map(str::to_owned)
            .collect();
        lines
    };
    wait_until("the small topic is named", DRAINED, || !of_small().is_empty());
    assert_eq!(forebay.published(), 0.0, "before anything was sent");
    let line = of_small().remove(0);
    for part in [
        "WARN",
        "100000 bytes",
        "22435160",
        "dead letters",
        "lower body_bytes_max",
    ] {
        assert!(line.contains(part), "{part} in {line}");
    }

    let post = |body: &str| {
        let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
        http::request(setup.public, "POST", PATH, &headers, body).unwrap().code
    };
    let dead = "forebay_dead_letters_total{reason=\"kafka_too_large\",route=\"events\"}";
    assert_eq!(post(&webhook(1, "feed-1")), 200);
    assert_eq!(post(&format!("no JSON{}", "x".repeat(200_000))), 200);
    assert_eq!(post(&webhook(2, "feed-2")), 200);
    forebay.wait_until_drained(DRAINED);
    assert_eq!(forebay.metric(dead), 1.0, "{}", forebay.log());
    assert_eq!(read_to_end(&brokers, &small).len(), 2);
    assert_eq!(read_to_end(&brokers, &large).len(), 3);
    assert_eq!(
        of_small().iter().filter(|line| line.contains("100000 bytes")).count(),
        1,
        "once, for all sessions"
    );
    assert!(!forebay.log().contains(&format!("topic '{large}' takes")));
}
