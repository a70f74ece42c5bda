//! Topics that events name.

use std::time::Duration;

use super::DRAINED;
use crate::support::{
    forebay::{PATH, SECRET, Setup, wait_until},
    http,
    kafka::{self, create_topic_named},
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
