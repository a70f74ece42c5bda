//! The causes, made to happen to real Forebays that a real Prometheus scrapes: each alert fires, and goes out when its cause is gone.
//!
//! All durations of the rules are a sixtieth: minutes are seconds.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{DEADLINE, files, send_too_large};
use crate::support::{
    forebay::{PATH, Setup},
    http,
    kafka::{Cluster, create_topic},
    prometheus::Prometheus,
    sender::{Sender, sign, webhook},
};

const FASTER: u64 = 60;

/// The rules with all of their durations a sixtieth.
fn hurried(rules: &Value) -> String {
    let mut rules = rules.clone();
    for group in rules["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            for part in ["expr", "for"] {
                if let Some(text) = rule[part].as_str() {
                    rule[part] = hurry(text).into();
                }
            }
        }
    }
    rules.to_string()
}

/// Replaces each duration, and each number of seconds that is an hour.
fn hurry(text: &str) -> String {
    let mut whole = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
            word.push(c);
            continue;
        }
        whole.push_str(&hurry_word(&word));
        whole.push(c);
        word.clear();
    }
    whole.pop();
    whole
}

fn hurry_word(word: &str) -> String {
    let seconds = [("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800)];
    let duration = seconds.iter().find_map(|(unit, seconds)| {
        let count: u64 = word.strip_suffix(unit)?.parse().ok()?;
        Some(count * seconds * 1_000 / FASTER)
    });
    match duration {
        Some(ms) => format!("{ms}ms"),
        None if word == "3600" => (3_600 / FASTER).to_string(),
        None => word.to_owned(),
    }
}

#[test]
fn a_hurried_rule_differs_in_its_durations_only() {
    let text = "a:b:rate5m[1w] offset 15m > 5 * x[5m] and y{c=\"503\"} < 3600";
    let fast = "a:b:rate5m[10080000ms] offset 15000ms > 5 * x[5000ms] and y{c=\"503\"} < 60";
    assert_eq!(hurry(text), fast);
}

/// Sends events with right or wrong signatures until `done`.
fn send_until(setup: &Setup, is_right: bool, done: impl Fn() -> bool) {
    let start = Instant::now();
    for feed in 0.. {
        if done() {
            return;
        }
        assert!(
            start.elapsed() < DEADLINE,
            "{feed} events, is_right = {is_right}, in vain"
        );
        let body = webhook(0, &format!("{is_right}-{feed}"));
        let signature = if is_right {
            sign(body.as_bytes())
        } else {
            format!("sha1={}", "0".repeat(40))
        };
        let headers = format!("X-Millicast-Signature: {signature}\r\n");
        let answer = http::request(setup.public, "POST", PATH, &headers, &body).unwrap();
        assert_eq!(answer.code, if is_right { 200 } else { 400 });
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// A small spool, which is soon full.
fn small(mut setup: Setup) -> Setup {
    let limits = [
        "env",
        "FOREBAY__SPOOL__BYTES_MAX=16MiB",
        "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
    ];
    setup.wrapper.extend(limits.map(str::to_owned));
    setup
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_makes_its_alert_fire_and_the_alert_goes_out_with_it() {
    let mut cluster = Cluster::single();
    let brokers = cluster.bootstrap();
    let topic = create_topic(&brokers, "alerting", 3, &[("max.message.bytes", "10000")]).await;
    let setup = small(Setup::new(&brokers, &topic));
    let second = small(Setup::new(&brokers, &topic).replica("replica-1"));
    let (mut forebay, mut other) = (setup.start(), second.start());
    let rules = hurried(&files::rules());
    let prometheus = Prometheus::start(&rules, &[setup.admin, second.admin], Duration::from_secs(5));
    let fires = |alert: &str| prometheus.firing().contains(alert);

    // Both were seen for longer than any alert waits, except the one of a week.
    send_until(&setup, true, || {
        prometheus.holds(
            "min_over_time(job:forebay_replicas:count[15s] offset 1s) == 2 and job:forebay_replicas:count offset 15s",
        )
    });
    assert_eq!(prometheus.firing(), BTreeSet::new(), "all is well");

    send_too_large(&setup);
    prometheus.wait_until_firing(&["ForebayDeadLetters"], DEADLINE);

    let wrong_secret = ["ForebaySecretWrong", "ForebayBadSignatures"];
    send_until(&setup, false, || wrong_secret.into_iter().all(fires));
    send_until(&setup, true, || !wrong_secret.into_iter().any(fires));

    // The peer may be cut off before it reads its answer.
    let _ = http::request(setup.public, "POST", PATH, "", &"x".repeat(2 << 20));
    prometheus.wait_until_firing(&["ForebayBodiesRefused"], DEADLINE);
    prometheus.wait_until_out(&["ForebayBodiesRefused", "ForebayDeadLetters"], 2 * DEADLINE);

    let broker_gone = ["ForebayRouteBlocked", "ForebaySpoolFilling", "ForebayEventsRefused"];
    cluster.kill(0);
    let sender = Sender::start(setup.public, 8, 3_000, 100);
    prometheus.wait_until_firing(&broker_gone, 2 * DEADLINE);
    cluster.restart(0);
    sender.stop();
    forebay.wait_until_drained(DEADLINE);
    std::thread::sleep(Duration::from_secs(8)); eprintln!("DBG {}", forebay.status());
    prometheus.wait_until_out(&broker_gone, 2 * DEADLINE);

    other.terminate(DEADLINE);
    prometheus.wait_until_firing(&["ForebayReplicaMissing"], DEADLINE);
    forebay.terminate(DEADLINE);
    prometheus.wait_until_firing(&["ForebayDown"], DEADLINE);
    fs::remove_file(setup.spool().join("cursors/events.cursor")).unwrap();
    let (mut forebay, _other) = (setup.start(), second.start());
    prometheus.wait_until_firing(&["ForebaySpoolDamaged"], DEADLINE);
    prometheus.wait_until_out(&["ForebayDown", "ForebayReplicaMissing"], DEADLINE);
    forebay.terminate(DEADLINE);
    let _forebay = setup.start();
    prometheus.wait_until_out(&["ForebaySpoolDamaged"], DEADLINE);
}
