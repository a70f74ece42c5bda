//! Rights that a user of Kafka's does not have yet, at brokers that ask for them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::support::{
    census::assert_delivered,
    forebay::{Forebay, Setup, wait_until},
    kafka::{self as server, Cluster, Listener, Options, Version},
    sender::Sender,
    topic::read_to_end,
};

use super::DRAINED;

const BLOCKED: &str = "forebay_route_blocked{reason=\"kafka_authorisation\",route=\"events\"}";
/// How soon a missing right is reported.
const REPORTED: Duration = Duration::from_secs(45);
const STREAMS: usize = 20;

/// A right that is missing, and what is there.
struct Missing {
    topic: String,
    exists: bool,
    /// What is granted before the start; `@` stands for the topic.
    granted: &'static [&'static str],
    /// What is granted when its lack was reported.
    missing: &'static [&'static str],
    /// In the log, all of it in one line; `@` as above.
    log: &'static [&'static str],
}

impl Missing {
    /// A Forebay as the user of the cluster, which publishes to the topic.
    fn setup(&self, cluster: &Cluster) -> Setup {
        Setup::publishing(&format!(
            r#"
            [sinks.main]
            type = "kafka"
            brokers = {:?}
            create_topics = {{ partitions = 3, replication = 1 }}

            [sinks.main.properties]
            "security.protocol" = "sasl_plaintext"
            "sasl.mechanisms" = "PLAIN"
            "sasl.username" = "{}"
            "sasl.password" = "{}"

            [routes.events]
            topic = "{}"
            "#,
            cluster.brokers(Listener::Plain),
            server::USER,
            server::PASSWORD,
            self.topic
        ))
    }

    fn grant(&self, cluster: &Cluster, rights: &[&str]) {
        let rights: Vec<String> = rights.iter().map(|right| right.replace('@', &self.topic)).collect();
        let brokers = cluster.bootstrap();
        let arguments = [brokers.as_str(), server::USER].into_iter();
        let arguments: Vec<&str> = arguments.chain(rights.iter().map(String::as_str)).collect();
        server::java("Grant.java", &arguments);
    }

    fn is_reported(&self, forebay: &Forebay) -> bool {
        let log = forebay.log();
        let parts: Vec<String> = self.log.iter().map(|part| part.replace('@', &self.topic)).collect();
        let reported = |line: &str| parts.iter().all(|part| line.contains(part));
        forebay.metric(BLOCKED) == 1.0 && log.lines().any(reported)
    }
}

/// What stands in front of the topic is reported, holds, and is over once it is granted: nothing is lost and nothing
/// comes twice.
fn assert_missed(missing: &Missing, cluster: &Cluster) {
    missing.grant(cluster, missing.granted);
    let setup = missing.setup(cluster);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 50, STREAMS);
    let began = Instant::now();
    while !missing.is_reported(&forebay) {
        let blocked = forebay.blocked();
        assert!(
            began.elapsed() < REPORTED,
            "{}: {:?} is not reported: {blocked}\n{}",
            missing.topic,
            missing.log,
            forebay.log()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(forebay.blocked()["reason"], "kafka_authorisation");
    assert_eq!(forebay.published(), 0.0);
    missing.grant(cluster, missing.missing);
    wait_until("the right is there", DRAINED, || forebay.published() > 0.0);
    let outcome = sender.stop();
    forebay.wait_until_drained(DRAINED);
    assert!(forebay.blocked().is_null(), "it is over: {}", forebay.blocked());
    assert_eq!(forebay.metric(BLOCKED), 0.0);
    assert_eq!(forebay.metrics_sum("forebay_dead_letters_total"), 0.0);
    let records = read_to_end(&cluster.bootstrap(), &missing.topic);
    assert_eq!(
        assert_delivered(&records, &outcome),
        0,
        "{}: what was not allowed was not written",
        missing.topic
    );
    assert_eq!(forebay.terminate(DRAINED).code(), Some(0));
}

/// One user, whose rights grow: so each case has what those before it were granted.
fn cases(version: Version) -> Vec<Missing> {
    let topic = |name: &str| format!("{name}-{}-{version:?}", std::process::id());
    vec![
        // Not even a number for a producer, which a broker gives to whoever may write to some topic.
        Missing {
            topic: topic("writes-nothing"),
            exists: true,
            granted: &["DESCRIBE:@"],
            missing: &["WRITE:@"],
            log: &["the route is blocked", "@", "grant WRITE", "IDEMPOTENT_WRITE"],
        },
        Missing {
            topic: topic("sees-only"),
            exists: true,
            granted: &["DESCRIBE:@"],
            missing: &["WRITE:@"],
            log: &["the route is blocked", "@", "grant WRITE"],
        },
        Missing {
            topic: topic("sees-nothing"),
            exists: true,
            granted: &[],
            missing: &["WRITE:@"],
            log: &["the route is blocked", "@", "DESCRIBE"],
        },
        Missing {
            topic: topic("makes-nothing"),
            exists: false,
            granted: &["WRITE:@"],
            missing: &["CREATE:@"],
            log: &["the route is blocked", "@", "grant CREATE"],
        },
    ]
}

async fn assert_each_missing_right(version: Version) {
    let options = Options::default()
        .version(version)
        .listener(Listener::Plain)
        .authorized();
    let cluster = tokio::task::spawn_blocking(move || Cluster::start(&options));
    let cluster = Arc::new(cluster.await.unwrap());
    for missing in cases(version) {
        if missing.exists {
            server::create_topic_named(&cluster.bootstrap(), &missing.topic, 3, &[]).await;
        }
        let cluster = cluster.clone();
        let checked = tokio::task::spawn_blocking(move || assert_missed(&missing, &cluster));
        checked.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_kafka_misses_is_named_and_what_waits_for_it_comes_once_and_in_order() {
    assert_each_missing_right(Version::Usual).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_right_that_an_older_kafka_misses_is_named_and_what_waits_for_it_comes_once_and_in_order() {
    assert_each_missing_right(Version::V3).await;
}
