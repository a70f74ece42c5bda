//! The rules for Prometheus: right by its own tools, about metrics that exist, each with a page for who is woken, and
//! true of a real Forebay. And the dashboard.

mod dashboard;
mod files;
mod live;

use std::{fs, path::Path, time::Duration};

use files::{CASES, ROOT, alerts, cases, each, expressions, pages, queries, read, rules};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    forebay::{PATH, Setup, wait_until},
    http,
    kafka::{self, create_topic},
    prometheus::promtool,
    sender::{sign, webhook},
    tls,
};

const DEADLINE: Duration = Duration::from_secs(60);

fn assert_none(findings: &[String]) {
    assert!(findings.is_empty(), "{}", findings.join("\n"));
}

fn deploy() -> std::path::PathBuf {
    Path::new(ROOT).join("deploy/prometheus")
}

#[test]
fn the_rules_are_right_and_every_case_comes_out_as_it_says() {
    promtool(&deploy(), &["check", "rules", "rules.yml"]).unwrap();
    promtool(&deploy(), &[["test", "rules"], CASES].concat()).unwrap();
}

#[test]
fn a_broken_rule_file_is_refused() {
    let dir = TempDir::new().unwrap();
    let text = read("deploy/prometheus/rules.yml");
    for (right, broken) in [
        (
            "count by (job, namespace) (forebay_build_info)",
            "count by (job, namespace) (forebay_build_info",
        ),
        ("for: 2m", "for: soon"),
        ("severity: critical", "severity: {{ $labels"),
        ("expr: instance", "expression: instance"),
    ] {
        assert!(text.contains(right), "{right}");
        fs::write(dir.path().join("rules.yml"), text.replace(right, broken)).unwrap();
        let refused = promtool(dir.path(), &["check", "rules", "rules.yml"]);
        assert!(refused.is_err(), "{broken}");
    }
}

/// An alert that never fires, one that always does, and one that does not wait each fail a case: the cases hold the
/// rule from both sides.
#[test]
fn the_cases_notice_a_wrong_alert() {
    let rules = rules();
    for file in CASES {
        let cases = cases(file);
        for rule in each(&rules).filter(|rule| rule["alert"].is_string()) {
            let alert = rule["alert"].as_str().unwrap();
            let Some(cases) = cases_of(&cases, alert) else { continue };
            let expr = rule["expr"].as_str().unwrap();
            let mut mutants = vec![
                (
                    "never fires",
                    json!({"expr": format!("({expr}) and on () vector(0) > 1")}),
                ),
                ("always fires", json!({"expr": format!("({expr}) or on () vector(1)")})),
            ];
            // Where a week is looked at, nobody looks at minutes.
            if rule["for"].is_string() && file == CASES[0] {
                mutants.push(("does not wait", json!({"for": "0s"})));
            }
            assert_eq!(
                outcome(&with(&rules, alert, &json!({})), &cases),
                Ok(()),
                "{alert} as it is"
            );
            for (what, change) in mutants {
                let outcome = outcome(&with(&rules, alert, &change), &cases);
                assert!(outcome.is_err(), "no case fails when {alert} {what}");
            }
        }
    }
}

/// What promtool says of rules and cases.
fn outcome(rules: &Value, cases: &Value) -> Result<(), String> {
    let dir = TempDir::new().unwrap();
    // JSON is YAML.
    fs::write(dir.path().join("rules.yml"), rules.to_string()).unwrap();
    fs::write(dir.path().join("cases.yml"), cases.to_string()).unwrap();
    promtool(dir.path(), &["test", "rules", "cases.yml"])
}

/// What is recorded, and one alert with a change.
fn with(rules: &Value, alert: &str, change: &Value) -> Value {
    let mut rules = rules.clone();
    for group in rules["groups"].as_array_mut().unwrap() {
        let rules = group["rules"].as_array_mut().unwrap();
        rules.retain(|rule| rule["alert"].is_null() || rule["alert"] == alert);
        for rule in rules.iter_mut().filter(|rule| rule["alert"] == alert) {
            let changed = change.as_object().unwrap().clone();
            rule.as_object_mut().unwrap().extend(changed);
        }
    }
    rules
}

/// The cases of one alert, if the file has some.
fn cases_of(cases: &Value, alert: &str) -> Option<Value> {
    let mut cases = cases.clone();
    let tests = cases["tests"].as_array_mut().unwrap();
    tests.retain(|test| {
        test["alert_rule_test"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["alertname"] == alert)
    });
    (!tests.is_empty()).then_some(cases)
}

#[test]
fn every_alert_says_what_a_person_needs_and_has_its_page_and_its_cases() {
    let rules = rules();
    let alerts = alerts(&rules);
    assert!(alerts.len() > 10, "only {alerts:?}");
    assert_none(&files::unsaid(&rules));
    assert_none(&files::pages_amiss(&alerts, &pages(), &read("docs/runbooks/README.md")));
    assert_none(&files::untried(&alerts, &CASES.map(cases)));
}

#[test]
fn what_an_alert_lacks_is_found() {
    let bare = json!({"groups": [{"rules": [{"alert": "A", "labels": {"severity": "loud"}, "annotations": {"runbook_url": "B.md"}}]}]});
    let found = files::unsaid(&bare);
    assert_eq!(
        found,
        [
            "A: no severity",
            "A: no summary",
            "A: no description",
            "A: its runbook_url is \"B.md\""
        ]
    );

    let page = ("B".to_owned(), "# B\n\ntext\n## Cure\n## Read the answer\n".to_owned());
    let found = files::pages_amiss(&["A"], &[page], "");
    assert_eq!(found.len(), 6, "{found:?}");

    let fires = json!({"tests": [{"alert_rule_test": [{"alertname": "A", "exp_alerts": [{}]}]}]});
    assert_eq!(files::untried(&["A"], &[fires]), ["A: no case in which it is silent"]);
    let silent = json!({"tests": [{"alert_rule_test": [{"alertname": "A", "exp_alerts": []}]}]});
    assert_eq!(files::untried(&["A"], &[silent]), ["A: no case in which it fires"]);
}

#[test]
fn the_queries_of_the_runbooks_are_right() {
    let queries = queries(&pages());
    assert!(queries.len() > 8, "only {queries:?}");
    let rules: Vec<Value> = queries
        .iter()
        .map(|query| json!({"record": "query", "expr": query}))
        .collect();
    // Of their own groups: a group may not have two of one name.
    let groups = rules
        .iter()
        .enumerate()
        .map(|(i, rule)| json!({"name": format!("query {i}"), "rules": [rule]}));
    let file = json!({"groups": groups.collect::<Vec<_>>()});
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("queries.yml"), file.to_string()).unwrap();
    promtool(dir.path(), &["check", "rules", "queries.yml"]).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_metric_of_the_rules_and_runbooks_is_one_that_forebay_exposes() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "watched", 1, &[("max.message.bytes", "10000")]).await;
    let setup = Setup::new(&brokers, &topic);
    let certificate = tls::self_signed(setup.dir.path(), "ca", 1);
    let away = format!(
        r#"
        [sinks.away]
        type = "kafka"
        brokers = ["127.0.0.1:1"]
        properties = {{ "ssl.ca.location" = {certificate:?} }}
        [routes.away]
        sink = "away"
        topic = "away"
        backlog_bytes_max = "1MiB"
        "#
    );
    let setup = setup.with(&away);
    let mut forebay = setup.start();
    send_too_large(&setup, 20_000);
    wait_until("a dead letter", DEADLINE, || {
        forebay.metric("forebay_dead_letters_total{reason=\"kafka_too_large\",route=\"events\"}") > 0.0
    });
    wait_until("a blocked route", DEADLINE, || {
        forebay.metric("forebay_route_blocked{reason=\"kafka_brokers_down\",route=\"away\"}") > 0.0
    });
    wait_until("librdkafka's statistics", DEADLINE, || {
        forebay
            .get("/metrics")
            .unwrap()
            .1
            .contains("forebay_kafka_broker_round_trip_seconds{")
    });
    let before = forebay.get("/metrics").unwrap().1;
    forebay.terminate(DEADLINE);
    for file in fs::read_dir(setup.spool().join("cursors")).unwrap() {
        fs::remove_file(file.unwrap().path()).unwrap();
    }
    let forebay = setup.start();
    let after = forebay.get("/metrics").unwrap().1;

    let rules = rules();
    let mut named = expressions(&rules);
    named.extend(queries(&pages()));
    let exposed = [before, after];
    assert_none(&files::unknown_metrics(&named, &rules, &exposed));

    let wrong = "sum(rate(forebay_gone_total{code=\"forebay_label\"}[5m])) > job:gone:sum + process_gone and forebay_events_total".to_owned();
    let found = files::unknown_metrics(&[wrong], &rules, &exposed);
    assert_eq!(found, ["forebay_gone_total", "job:gone:sum", "process_gone"]);
}

/// An event that is larger than the topic takes.
fn send_too_large(setup: &Setup, bytes: usize) {
    let body = webhook(0, &"f".repeat(bytes));
    let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
    let answer = http::request(setup.public, "POST", PATH, &headers, &body).unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
}
