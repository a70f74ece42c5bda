//! What a RabbitMQ sink declares, and what it says of what is there already.

use std::{sync::Arc, time::Duration};

use forebay_broker::{PublishFailure, Remedy, Sink as _};
use forebay_rabbitmq::{RabbitMqMetrics, RabbitMqNames, RabbitMqSink};
use forebay_section::TextSource;
use forebay_test_support::rabbitmq::{self as server, Vhost};
use futures_util::StreamExt as _;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicConsumeOptions, BasicRejectOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A sink of two partitions for an exchange of a virtual host.
pub fn config(vhost: &Vhost, exchange: &str, declare: bool) -> forebay_rabbitmq::RabbitMqConfig {
    forebay_rabbitmq::RabbitMqConfig {
        uris: vec![TextSource::Inline(vhost.uri())],
        username: None,
        password: None,
        tls: forebay_rabbitmq::RabbitMqTls::default(),
        exchange: exchange.to_owned(),
        partitions: 2,
        declare,
        unroutable: forebay_rabbitmq::Unroutable::DeadLetter,
        management: Some(vhost.broker.management()),
    }
}

/// Opens a session and ends it.
pub async fn open(config: &forebay_rabbitmq::RabbitMqConfig) -> Result<(), PublishFailure> {
    let metrics = RabbitMqMetrics::register(&prometheus::Registry::new()).unwrap();
    let names = RabbitMqNames {
        sink: "rabbit".into(),
        route: "events".into(),
    };
    RabbitMqSink::new(config, names, 1 << 20, Arc::new(metrics))
        .reopen()
        .await
}

fn ask(vhost: &Vhost, kind: &str, rest: &str) -> Value {
    let path = format!("/{kind}/{}{rest}", vhost.name);
    vhost.broker.api("GET", &path, &Value::Null)
}

/// The bindings to queues, as `exchange key queue`, without those that every queue has by itself.
fn bindings(vhost: &Vhost) -> Vec<String> {
    let all = ask(vhost, "bindings", "");
    let text = |binding: &Value, key: &str| binding[key].as_str().unwrap().to_owned();
    let mut bindings: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .filter(|binding| binding["source"] != "")
        .map(|b| {
            format!(
                "{} {} {}",
                text(b, "source"),
                text(b, "routing_key"),
                text(b, "destination")
            )
        })
        .collect();
    bindings.sort();
    bindings
}

#[tokio::test]
async fn all_that_consumers_need_is_declared_and_can_be_declared_again() {
    let vhost = server::shared().vhost("declare");
    let config = config(&vhost, "live", true);
    // Two routes of a sink begin at the same time.
    let (one, other) = tokio::join!(open(&config), open(&config));
    one.unwrap();
    other.unwrap();
    open(&config).await.unwrap();

    for exchange in ["live", "live.dead-letters"] {
        let found = ask(&vhost, "exchanges", &format!("/{exchange}"));
        assert_eq!(
            (
                &found["type"],
                &found["durable"],
                &found["auto_delete"],
                &found["arguments"]
            ),
            (&json!("topic"), &json!(true), &json!(false), &json!({})),
        );
    }
    let arguments = |queue: &str| {
        let found = ask(&vhost, "queues", &format!("/{queue}"));
        assert_eq!(
            (&found["durable"], &found["auto_delete"], &found["exclusive"]),
            (&json!(true), &json!(false), &json!(false)),
        );
        found["arguments"].clone()
    };
    for queue in ["live.00", "live.01"] {
        let expected = json!({
            "x-queue-type": "quorum",
            "x-single-active-consumer": true,
            "x-overflow": "reject-publish",
            "x-dead-letter-exchange": "live.dead-letters",
        });
        assert_eq!(arguments(queue), expected);
    }
    assert_eq!(
        arguments("live.dead-letters"),
        json!({"x-queue-type": "quorum", "x-overflow": "reject-publish"})
    );
    assert_eq!(
        bindings(&vhost),
        [
            "live 00.# live.00",
            "live 01.# live.01",
            "live.dead-letters # live.dead-letters"
        ]
    );
}

#[tokio::test]
async fn what_a_consumer_rejects_is_in_the_dead_letters() {
    let vhost = server::shared().vhost("rejected");
    open(&config(&vhost, "live", true)).await.unwrap();
    let message =
        json!({"properties": {}, "routing_key": "01.feeds.started.a.s", "payload": "x", "payload_encoding": "string"});
    let path = format!("/exchanges/{}/live/publish", vhost.name);
    assert_eq!(vhost.broker.api("POST", &path, &message)["routed"], true);
    let connection = Connection::connect(&vhost.uri(), ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let consume = async |queue: &str| {
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let mut consumer = channel
            .basic_consume(queue.into(), "".into(), options, arguments)
            .await
            .unwrap();
        let next = timeout(Duration::from_secs(20), consumer.next()).await;
        next.expect("a message in time").unwrap().unwrap()
    };
    let rejected = consume("live.01").await;
    rejected.reject(BasicRejectOptions { requeue: false }).await.unwrap();
    let dead = consume("live.dead-letters").await;
    assert_eq!(
        (dead.routing_key.as_str(), dead.data.as_slice()),
        ("01.feeds.started.a.s", &b"x"[..])
    );
}

/// Makes what is in the way.
type Prepare = Box<dyn Fn(&Vhost)>;

#[tokio::test]
async fn a_queue_or_exchange_of_another_kind_is_named_with_its_argument() {
    let broker = server::shared();
    let dead = json!({
        "x-dead-letter-exchange": "live.dead-letters",
        "x-single-active-consumer": true,
        "x-overflow": "reject-publish"
    });
    let table: [(&str, Prepare, &[&str]); 4] = [
        (
            "classic",
            Box::new(move |vhost| vhost.declare_queue("live.01", "classic", &dead)),
            &["queue 'live.01'", "x-queue-type", "quorum", "delete it"],
        ),
        (
            "limit",
            Box::new(|vhost| {
                let arguments = json!({
                    "x-dead-letter-exchange": "live.dead-letters",
                    "x-single-active-consumer": true,
                    "x-overflow": "reject-publish",
                    "x-max-length": 5
                });
                vhost.declare_queue("live.00", "quorum", &arguments);
            }),
            &["queue 'live.00'", "x-max-length", "set declare = false"],
        ),
        (
            "overflow",
            Box::new(|vhost| vhost.declare_queue("live.dead-letters", "quorum", &json!({}))),
            &["queue 'live.dead-letters'", "x-overflow", "reject-publish"],
        ),
        (
            "fanout",
            Box::new(|vhost| {
                let path = format!("/exchanges/{}/live", vhost.name);
                let how = json!({"type": "fanout", "durable": true});
                vhost.broker.api("PUT", &path, &how);
            }),
            &["exchange 'live'", "type", "fanout", "topic"],
        ),
    ];
    for (name, prepare, parts) in table {
        let vhost = broker.vhost(name);
        prepare(&vhost);
        let failure = open(&config(&vhost, "live", true)).await.expect_err(name);
        assert_eq!(
            (failure.label, failure.remedy),
            ("rabbitmq_topology", Remedy::Hold),
            "{failure}"
        );
        for part in parts {
            assert!(failure.text.contains(part), "{part}: {failure}");
        }
    }
}

#[tokio::test]
async fn without_declare_an_exchange_that_is_not_there_is_named_and_not_made() {
    let vhost = server::shared().vhost("passive");
    let config = config(&vhost, "live", false);
    let failure = open(&config).await.unwrap_err();
    assert_eq!(
        (failure.label, failure.remedy),
        ("rabbitmq_unknown_exchange", Remedy::Hold)
    );
    assert!(
        failure.text.contains("'live' is not there") && failure.text.contains("declare = true"),
        "{failure}"
    );
    let exchanges = ask(&vhost, "exchanges", "").to_string();
    assert!(!exchanges.contains("\"live\""), "{exchanges}");
    vhost.declare_exchange("live");
    open(&config).await.unwrap();
}

#[tokio::test]
async fn who_may_not_declare_is_told_what_to_grant() {
    let vhost = server::shared().vhost("forbidden");
    let user = format!("{}-user", vhost.name);
    vhost.admit(&user, "pw");
    let path = format!("/permissions/{}/{user}", vhost.name);
    let few = json!({"configure": "^$", "write": ".*", "read": ".*"});
    vhost.broker.api("PUT", &path, &few);
    let mut config = config(&vhost, "live", true);
    config.uris = vec![TextSource::Inline(vhost.uri_of(
        "amqp",
        &vhost.broker.nodes[0],
        &user,
        "pw",
    ))];
    let failure = open(&config).await.unwrap_err();
    assert_eq!(
        (failure.label, failure.remedy),
        ("rabbitmq_access_refused", Remedy::Hold),
        "{failure}"
    );
    assert!(failure.text.contains("grant configure"), "{failure}");
    // It may see and publish to what others made.
    vhost.declare_exchange("live");
    config.declare = false;
    open(&config).await.unwrap();
    vhost.broker.api("DELETE", &format!("/users/{user}"), &Value::Null);
}
