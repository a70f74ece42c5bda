//! With a real Kafka and a real RabbitMQ, under a thousand webhooks a second: nothing is refused, lost or out of order.

use std::{collections::BTreeSet, time::Duration};

use super::{PATH, apply, post};
use crate::support::{
    census::{assert_delivered, assert_in_order},
    forebay::{EXCHANGE, Forebay, SECRET, Setup, wait_until},
    kafka::{self, Cluster, create_topic},
    rabbitmq::{self, QUORUM, read_all},
    secrets::NEXT_WEBHOOK as NEXT,
    sender::Sender,
    topic::read_to_end,
};

const DRAINED: Duration = Duration::from_secs(120);
const STREAMS: usize = 200;
/// How many webhooks come between two changes.
const BETWEEN: usize = 1_500;

/// What is configured at one time.
#[derive(Clone)]
struct Wanted {
    brokers: String,
    /// More of the route `events`.
    events: &'static str,
    /// More of the route `copies`; `None`: there is no such route.
    copies: Option<&'static str>,
    other_endpoint: bool,
}

impl Wanted {
    fn toml(&self, topic: &str, uri: &str) -> String {
        let Self { brokers, events, .. } = self;
        let mut toml = format!(
            r#"
            [sinks.main]
            type = "kafka"
            brokers = ["{brokers}"]

            [sinks.rabbit]
            type = "rabbitmq"
            uri = "{uri}"
            exchange = "{EXCHANGE}"
            partitions = 4

            [routes.no_pictures]
            discard = true
            match = {{ kinds = ["thumbnail"] }}

            [routes.events]
            sink = "main"
            match = {{ not_kinds = ["thumbnail"] }}
            topic = "{topic}"
            {events}
            "#
        );
        if let Some(more) = self.copies {
            toml.push_str(&format!(
                "[routes.copies]\nsink = \"rabbit\"\nmatch = {{ not_kinds = [\"thumbnail\"] }}\n{more}\n"
            ));
        }
        if self.other_endpoint {
            toml.push_str(&format!(
                "[endpoints.other]\npath = \"/other\"\nsecrets = [\"base64:{SECRET}\"]\n"
            ));
        }
        toml
    }
}

fn sessions(forebay: &Forebay) -> f64 {
    forebay.metric("forebay_kafka_sessions_total{route=\"events\",sink=\"main\"}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_webhooks_a_second_never_notice_what_changes() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "reloaded", 12, &[]).await;
    let vhost = rabbitmq::shared().vhost("reloaded");
    let queues = vhost.topology(EXCHANGE, 4, QUORUM);
    let mut wanted = Wanted {
        brokers: brokers.clone(),
        events: "",
        copies: None,
        other_endpoint: false,
    };
    let mut setup = Setup::publishing(&wanted.toml(&topic, &vhost.uri()));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 1_000, STREAMS);
    let goes_on = || sender.wait_until_acknowledged(sender.acknowledged() + BETWEEN);
    goes_on();

    // A secret, an endpoint and a route are added.
    setup.secrets.push(format!("base64:{NEXT}"));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed endpoints: ~acme"), "{said}");
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
    goes_on();
    wanted.other_endpoint = true;
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed endpoints: +other"), "{said}");
    assert_eq!(post(setup.public, "/other", SECRET), Some(200));
    goes_on();
    assert_eq!(sessions(&forebay), 1.0, "the route was not touched");
    // Beside it the other one stops and starts again, which takes some time.
    wanted.copies = Some("start = \"oldest\"");
    wanted.events = "in_flight_records_max = 1500";
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: +copies ~events"), "{said}");
    goes_on();
    assert_eq!(sessions(&forebay), 2.0);

    // Routes change, each alone: what one may have in flight, then the brokers of the other's sink.
    wanted.copies = Some("start = \"oldest\"\nin_flight_records_max = 300\nbacklog_bytes_max = \"64MiB\"");
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: ~copies"), "{said}");
    let limit = forebay.metric("forebay_route_pinned_bytes_max{route=\"copies\"}");
    assert_eq!(limit, 67_108_864.0);
    goes_on();
    assert_eq!(sessions(&forebay), 2.0, "the other route was not touched");
    wanted.brokers = brokers.replace("127.0.0.1", "localhost");
    assert_ne!(wanted.brokers, brokers);
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: ~events"), "{said}");
    goes_on();
    assert_eq!(sessions(&forebay), 3.0);
    wanted.events = "mode = \"structured\"\nin_flight_records_max = 2000";
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    apply(&setup, &forebay);
    goes_on();

    // A route and a secret are removed.
    wanted.copies = None;
    setup.change(&wanted.toml(&topic, &vhost.uri()));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: -copies"), "{said}");
    wait_until(&format!("it has published all: {}", forebay.log()), DRAINED, || {
        forebay.status()["ending_routes"] == serde_json::json!([])
    });
    goes_on();
    setup.secrets.pop();
    apply(&setup, &forebay);
    assert_eq!(post(setup.public, PATH, NEXT), Some(400));
    goes_on();

    let outcome = sender.stop();
    let answers: Vec<u16> = outcome.answers.keys().copied().collect();
    assert_eq!((answers, outcome.unanswered), (vec![200], 0), "{}", forebay.log());
    forebay.wait_until_drained(DRAINED);
    for route in ["events", "no_pictures"] {
        let pinned = forebay.metric(&format!("forebay_route_pinned_bytes{{route=\"{route}\"}}"));
        assert_eq!(pinned, 0.0, "{route}");
    }
    let in_kafka = read_to_end(&brokers, &topic);
    assert_eq!(
        assert_delivered(&in_kafka, &outcome),
        0,
        "nothing failed, so nothing is repeated"
    );

    // What the other route published is all of what was there, from the oldest record to its removal.
    let in_rabbitmq = read_all(&vhost.uri(), &queues).await;
    let census = assert_in_order(&in_rabbitmq);
    assert_eq!(census.repeats, 0);
    let copied: BTreeSet<u64> = in_rabbitmq.iter().map(|message| message.sequence()).collect();
    let (first, last) = (copied.first().unwrap(), copied.last().unwrap());
    let missing: Vec<u64> = in_kafka
        .iter()
        .map(|record| record.sequence())
        .filter(|sequence| (first..=last).contains(&sequence) && !copied.contains(sequence))
        .take(10)
        .collect();
    assert!(copied.len() >= 3 * BETWEEN, "{}", copied.len());
    assert_eq!(missing, [0; 0], "of {first} to {last}");

    // Nothing of the route is left that a start would stumble over.
    assert!(forebay.terminate(DRAINED).success(), "{}", forebay.log());
    forebay = setup.start();
    assert_eq!(forebay.status()["routes"].as_array().unwrap().len(), 1);
}

/// What is wanted of recordings, of which there are none, so that one route is always there; and the route `events`.
fn with_events(brokers: &str, topic: Option<&str>) -> String {
    let mut toml = format!(
        r#"
        [sinks.main]
        type = "kafka"
        brokers = ["{brokers}"]

        [routes.recordings]
        sink = "main"
        match = {{ kinds = ["recordings"] }}
        topic = "recordings"
        "#
    );
    if let Some(topic) = topic {
        toml.push_str(&format!(
            "[routes.events]\nsink = \"main\"\nmatch = {{ kinds = [\"feeds\"] }}\ntopic = \"{topic}\"\nstart = \"oldest\"\n"
        ));
    }
    toml
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_accepted_for_a_route_is_published_though_the_process_is_killed_or_the_route_goes() {
    let cluster = Cluster::single();
    let brokers = cluster.bootstrap();
    let topic = create_topic(&brokers, "comes-and-goes", 12, &[]).await;
    let mut setup = Setup::publishing(&with_events(&brokers, None));
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 1_000, STREAMS);
    let goes_on = || sender.wait_until_acknowledged(sender.acknowledged() + BETWEEN);
    goes_on();
    setup.change(&with_events(&brokers, Some(&topic)));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: +events ~unrouted"), "{said}");
    let before = sender.so_far().acknowledged;
    goes_on();

    // Killed while the broker takes nothing of it.
    cluster.freeze(0);
    goes_on();
    let pinned = forebay.metric("forebay_route_pinned_bytes{route=\"events\"}");
    assert!(pinned > 100.0 * BETWEEN as f64, "{pinned} bytes");
    forebay.kill();
    forebay = setup.start();
    goes_on();
    cluster.thaw(0);
    // It goes on coming: there is always something on its way.
    wait_until("the route has caught up", DRAINED, || {
        forebay.metric("forebay_route_backlog_records{route=\"events\"}") < 1_000.0
    });

    // Gone while the broker takes nothing of it.
    cluster.freeze(0);
    goes_on();
    let accepted = sender.so_far().acknowledged;
    setup.change(&with_events(&brokers, None));
    let said = apply(&setup, &forebay);
    assert!(said.ends_with("it changed routes: ~unrouted -events"), "{said}");
    let ending = forebay.status()["ending_routes"][0].take();
    assert_eq!(ending["name"], "events", "{}", forebay.status());
    goes_on();
    cluster.thaw(0);
    wait_until("it has published all", DRAINED, || {
        forebay.status()["ending_routes"] == serde_json::json!([])
    });
    sender.stop();
    assert!(forebay.terminate(DRAINED).success(), "{}", forebay.log());

    let census = assert_in_order(&read_to_end(&brokers, &topic));
    let lost = accepted
        .difference(&before)
        .filter(|feed| !census.feed_ids.contains(*feed));
    assert_eq!(lost.count(), 0, "of {}", accepted.len());
}
