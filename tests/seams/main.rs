//! What a user adds without touching a line but the one that registers it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod doorbell;
mod ledger;

use std::{
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use clap::Parser as _;
use forebay::{
    broker::{FindingLevel, TailOptions},
    cli::{self, Cli, ExitCause},
    config::Config,
    event::Time,
    node::{HandedSockets, Node},
    senders::{self, SampleParameters, Secret, Sender as _},
    sink::{self, kafka::embedded::EmbeddedKafka},
};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::Value;
use uuid::Uuid;

use doorbell::Doorbell;
use ledger::Ledger;

const SECRET: &str = "ZG9vcmJlbGw=";
const SOON: Duration = Duration::from_secs(30);

fn configuration(brokers: &str, pages: &Path) -> String {
    format!(
        r#"
        server.listen = "127.0.0.1:0"
        admin.listen = "127.0.0.1:0"

        [endpoints.house]
        path = "/rings"
        provider = "doorbell"
        secrets = ["base64:{SECRET}"]

        [sinks.main]
        type = "kafka"
        brokers = ["{brokers}"]

        [routes.events]
        sink = "main"
        topic = "{{provider}}.{{kind}}"
        match = {{ kinds = ["door"] }}

        [sinks.pages]
        type = "ledger"
        dir = {pages:?}

        [routes.archive]
        sink = "pages"
        page = "rings"
        match = {{ kinds = ["door"] }}
        "#
    )
}

async fn ring(to: SocketAddr, headers: Vec<(&'static str, String)>, body: Vec<u8>) -> (u16, String) {
    let mut request = reqwest::Client::new().post(format!("http://{to}/rings")).body(body);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.text().await.unwrap())
}

/// The first message of a topic.
fn first_of(brokers: &str, topic: &str) -> Value {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "seams")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap();
    consumer.subscribe(&[topic]).unwrap();
    let start = Instant::now();
    loop {
        assert!(start.elapsed() < SOON, "nothing in {topic}");
        if let Some(Ok(message)) = consumer.poll(Duration::from_millis(500)) {
            return serde_json::from_slice(message.payload().unwrap()).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_and_a_broker_of_a_programs_own_serve_like_those_that_are_built_in() {
    senders::register(&[&Doorbell]);
    sink::register(&[&Ledger]);
    let kafka = EmbeddedKafka::start(&["doorbell.door"], 1).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (path, pages) = (dir.path().join("forebay.toml"), dir.path().join("pages"));
    std::fs::create_dir(&pages).unwrap();
    let text = format!(
        "spool.dir = {:?}\n{}",
        dir.path().join("spool"),
        configuration(&kafka.brokers(), &pages)
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, std::iter::empty()).unwrap();
    let unrouted: Vec<_> = config
        .warnings
        .iter()
        .filter(|text| text.contains("no route wants"))
        .collect();
    let [unrouted] = unrouted[..] else {
        panic!("one warning: {:?}", config.warnings)
    };
    assert!(
        unrouted.contains("house: unreadable, kinds that are not known."),
        "no other sender's: {unrouted}"
    );
    let node = Node::open(config.clone(), HandedSockets::default()).await.unwrap();
    let (public, admin) = (node.public_addresses()[0], node.admin_addresses()[0]);
    tokio::select! {
        ended = node.run(None) => panic!("it ended: {ended:?}"),
        () = rings(public, admin, kafka.brokers()) => {}
    }
    is_read(&config).await;
    for (arguments, expected) in [
        (&["check", "--connect"][..], ExitCause::Ok),
        (
            &["tail", "--route", "archive", "--from-start", "--count", "1"],
            ExitCause::Ok,
        ),
        (&["verify", "--route", "archive"], ExitCause::Ok),
    ] {
        let arguments = [&["forebay"], arguments, &["--config", path.to_str().unwrap()]].concat();
        let cli = Cli::try_parse_from(&arguments).unwrap();
        let exit = tokio::task::spawn_blocking(|| cli::run(cli)).await.unwrap();
        assert_eq!(
            exit.map_err(|failure| failure.to_string()),
            Ok(expected),
            "{arguments:?}"
        );
    }
    let other = std::fs::read_to_string(&path).unwrap().replace("page = ", "pege = ");
    std::fs::write(&path, other).unwrap();
    let problems = Config::load(&path, std::iter::empty()).unwrap_err().to_string();
    for problem in [
        "routes.archive.page: missing",
        "routes.archive.pege: unknown key; did you mean page",
    ] {
        assert!(problems.contains(problem), "{problems}");
    }
}

/// What the broker itself says of what was published to it.
async fn is_read(config: &Config) {
    let sink = config.sinks.iter().find(|sink| sink.name == "pages").unwrap();
    let route = config.routes.iter().find(|route| route.name == "archive").unwrap();
    let address = route.address.as_ref().unwrap();
    let findings = sink.settings.check("pages", &[("archive", address)], 1000).await;
    assert_eq!(findings[0].level, FindingLevel::Good);
    assert!(findings[0].text.ends_with("for rings"), "{findings:?}");
    let options = |from_start| TailOptions {
        from_start,
        deadline: SOON,
    };
    let refused = sink.settings.tail(&[(address, &[])], options(false)).err().unwrap();
    assert!(refused.to_string().contains("--from-start"), "{refused}");
    let followed = sink.settings.tail(&[(address, &[])], options(true)).unwrap();
    let first = followed.open().await.unwrap().next().await.unwrap();
    let event: Value = serde_json::from_slice(&first.payload).unwrap();
    assert_eq!(
        (first.place.as_str(), &event["type"]),
        ("page rings-door", &"example.doorbell.door.rung".into())
    );
}

async fn rings(public: SocketAddr, admin: SocketAddr, brokers: String) {
    let parameters = SampleParameters {
        account: "nobody",
        stream_name: "12 Elm Street",
        feed_id: Uuid::nil(),
        sent: Time::now(),
        counter: 7,
    };
    let sample = Doorbell.sample(Doorbell.samples()[0], &parameters);
    let secret = Secret::from_base64(SECRET).unwrap();
    let signed = Doorbell.sign(&secret, &sample.body);
    let other = Doorbell.sign(&Secret::from_base64("b3RoZXI=").unwrap(), &sample.body);
    let unsigned_moment = vec![signed[0].clone(), ("Doorbell-Moment", "1".to_owned())];
    for (headers, code) in [
        (Vec::new(), 400),
        (vec![signed[0].clone()], 400),
        (other, 400),
        (unsigned_moment, 400),
    ] {
        let (answered, _) = ring(public, headers.clone(), sample.body.clone()).await;
        assert_eq!(answered, code, "{headers:?}");
    }
    let answer = ring(public, signed, sample.body).await;
    assert_eq!(answer, (200, r#"{"heard":true}"#.to_owned()));

    let event = tokio::task::spawn_blocking(move || first_of(&brokers, "doorbell.door"))
        .await
        .unwrap();
    for (attribute, expected) in [
        ("type", "example.doorbell.door.rung"),
        ("source", "//doorbell.example/accounts/12%20Elm%20Street"),
        ("partitionkey", "12 Elm Street"),
    ] {
        assert_eq!(event[attribute], expected, "{event:#}");
    }
    assert_eq!(event["data"]["place"], "12 Elm Street", "normalised: {event:#}");
    let expected = [
        "forebay_events_total{endpoint=\"house\",kind=\"door\"} 1",
        "forebay_signature_failures_total{endpoint=\"house\",reason=\"wrong\"} 2",
        "forebay_published_total{route=\"archive\"} 1",
        "forebay_publish_errors_total{kind=\"ledger_disk\",route=\"archive\"} 0",
        "ledger_lines_total 1",
    ];
    let start = Instant::now();
    loop {
        let metrics = reqwest::get(format!("http://{admin}/metrics")).await.unwrap();
        let metrics = metrics.text().await.unwrap();
        let missing: Vec<_> = expected.iter().filter(|series| !metrics.contains(**series)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(start.elapsed() < SOON, "{missing:?}: {metrics}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
