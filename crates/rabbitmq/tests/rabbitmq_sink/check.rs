//! What a check of RabbitMQ finds: what would keep the sink from working, and what consumers would miss.

use forebay_broker::{CheckFinding, FindingLevel};
use forebay_rabbitmq::connect_check;
use forebay_section::TextSource;
use forebay_test_support::{
    forebay::wait_until,
    process::free_port,
    rabbitmq::{self as server, Vhost},
};
use serde_json::{Value, json};

use super::topology::{config, open};

const BODY_BYTES_MAX: u64 = 16 << 20;

async fn check(config: &forebay_rabbitmq::RabbitMqConfig) -> Vec<CheckFinding> {
    connect_check("rabbit", config, BODY_BYTES_MAX).await
}

#[track_caller]
fn has(findings: &[CheckFinding], level: FindingLevel, parts: &[&str]) {
    assert!(
        findings
            .iter()
            .any(|finding| finding.level == level && parts.iter().all(|part| finding.text.contains(part))),
        "no {level:?} with {parts:?} in {findings:#?}"
    );
}

fn put(vhost: &Vhost, path: &str, body: Value) {
    let (kind, rest) = path.split_once('/').unwrap();
    vhost
        .broker
        .api("PUT", &format!("/{kind}/{}/{rest}", vhost.name), &body);
}

#[tokio::test]
async fn what_was_declared_is_good_and_what_will_be_declared_is_said() {
    let vhost = server::shared().vhost("check-good");
    let config = config(&vhost, "live", true);
    let before = check(&config).await;
    has(
        &before,
        FindingLevel::Good,
        &["'live' is not there yet", "2 queues", "live.dead-letters"],
    );
    let exchanges = vhost
        .broker
        .api("GET", &format!("/exchanges/{}", vhost.name), &Value::Null);
    assert!(!exchanges.to_string().contains("\"live\""), "a check makes nothing");

    open(&config).await.unwrap();
    let findings = check(&config).await;
    assert!(findings.iter().all(|f| f.level == FindingLevel::Good), "{findings:#?}");
    for parts in [
        &["connected to", vhost.name.as_str()][..],
        &["exchange 'live' is there"],
        &["'live' may be written to"],
        &["sink 'rabbit': RabbitMQ 3."],
        &["each of the 2 partitions has a binding"],
        &["queues 'live.00', 'live.01': kept, in order"],
    ] {
        has(&findings, FindingLevel::Good, parts);
    }
    let large = connect_check("rabbit", &config, 100 << 20).await;
    has(
        &large,
        FindingLevel::Warning,
        &["takes messages of 134217728 bytes", "max_message_size"],
    );
}

#[tokio::test]
async fn what_consumers_would_miss_is_warned_of() {
    let vhost = server::shared().vhost("check-bad");
    vhost.declare_exchange("live");
    put(&vhost, "exchanges/other", json!({"type": "fanout", "durable": true}));
    put(
        &vhost,
        "policies/alternate",
        json!({
            "pattern": "^live$", "apply-to": "exchanges", "definition": {"alternate-exchange": "other"}
        }),
    );
    vhost.declare_queue(
        "plain",
        "classic",
        &json!({"x-message-ttl": 60_000, "x-expires": 600_000}),
    );
    vhost.declare_queue(
        "limited",
        "quorum",
        &json!({"x-max-length": 5, "x-dead-letter-exchange": "other"}),
    );
    vhost.bind("live", "plain", "*.feeds.#");
    vhost.bind("live", "limited", "00.#");
    let mut config = config(&vhost, "live", false);
    config.partitions = 3;
    let findings = check(&config).await;
    for parts in [
        &["alternate exchange 'other'", "counts as delivered"][..],
        &["partitions '01', '02' is bound for some kinds"],
        &["queue 'plain': of type classic"],
        &["queue 'plain': has a message TTL"],
        &["queue 'plain': expires"],
        &["queue 'plain': no dead-letter exchange"],
        &["queue 'limited': has a length limit and drops the oldest"],
    ] {
        has(&findings, FindingLevel::Warning, parts);
    }
    assert!(
        findings.iter().all(|f| f.level != FindingLevel::Problem),
        "{findings:#?}"
    );

    vhost
        .broker
        .api("DELETE", &format!("/queues/{}/plain", vhost.name), &Value::Null);
    has(
        &check(&config).await,
        FindingLevel::Warning,
        &["no queue is bound for partitions '01', '02'", "dead letters", "'01.#'"],
    );
    config.unroutable = forebay_rabbitmq::Unroutable::Hold;
    has(
        &check(&config).await,
        FindingLevel::Warning,
        &["no queue is bound", "hold the route"],
    );
}

#[tokio::test]
async fn consumers_without_a_single_active_one_are_counted() {
    let vhost = server::shared().vhost("check-consumers");
    vhost.declare_exchange("live");
    vhost.declare_queue("many", "quorum", &json!({"x-dead-letter-exchange": "d"}));
    vhost.bind("live", "many", "#");
    let connection = lapin::Connection::connect(&vhost.uri(), lapin::ConnectionProperties::default())
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut consumers = Vec::new();
    for _ in 0..2 {
        let (options, arguments) = (Default::default(), Default::default());
        let consumer = channel.basic_consume("many".into(), "".into(), options, arguments);
        consumers.push(consumer.await.unwrap());
    }
    // The API counts consumers every few seconds.
    wait_until("two consumers", std::time::Duration::from_secs(30), || {
        let queue = vhost
            .broker
            .api("GET", &format!("/queues/{}/many", vhost.name), &Value::Null);
        queue["consumers"] == 2
    });
    has(
        &check(&config(&vhost, "live", false)).await,
        FindingLevel::Warning,
        &["queue 'many': more than one consumer"],
    );
}

#[tokio::test]
async fn what_keeps_the_sink_from_working_is_a_problem() {
    let vhost = server::shared().vhost("check-problem");
    let mut config = config(&vhost, "live", false);
    has(
        &check(&config).await,
        FindingLevel::Problem,
        &["exchange 'live' is not there", "declare = true"],
    );
    put(&vhost, "exchanges/live", json!({"type": "fanout", "durable": true}));
    has(
        &check(&config).await,
        FindingLevel::Problem,
        &["exchange 'live' is of type fanout"],
    );

    let user = format!("{}-user", vhost.name);
    vhost.admit(&user, "pw");
    put(
        &vhost,
        &format!("permissions/{user}"),
        json!({"configure": "^$", "write": "^other$", "read": "^$"}),
    );
    let good = config.uris.clone();
    let uri = vhost.uri_of("amqp", &vhost.broker.nodes[0], &user, "pw");
    config.uris = vec![TextSource::Inline(uri.clone())];
    let findings = check(&config).await;
    has(
        &findings,
        FindingLevel::Problem,
        &["exchange 'live' may not be written to", "grant the user write"],
    );
    has(
        &findings,
        FindingLevel::Warning,
        &["refuses user", "tag management", "not checked: the exchange's type"],
    );
    put(
        &vhost,
        &format!("permissions/{user}"),
        json!({"configure": "^$", "write": "^live$", "read": "^$"}),
    );
    has(&check(&config).await, FindingLevel::Good, &["'live' may be written to"]);

    config.uris = vec![TextSource::Inline(uri.replace(":pw@", ":wrong@"))];
    let findings = check(&config).await;
    has(&findings, FindingLevel::Problem, &["refuses user", &user]);
    assert_eq!(
        findings.len(),
        1,
        "without a connection there is nothing to look at: {findings:#?}"
    );

    let nobody = format!("amqp://127.0.0.1:{}", free_port());
    config.uris = [good, vec![TextSource::Inline(nobody)]].concat();
    has(&check(&config).await, FindingLevel::Warning, &["cannot be reached"]);
    config.management = Some(format!("http://127.0.0.1:{}", free_port()));
    has(
        &check(&config).await,
        FindingLevel::Warning,
        &["refused", "not checked"],
    );
}
