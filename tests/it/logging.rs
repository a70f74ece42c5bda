//! The log of the real binary, in JSON: what fields its lines have, and how many lines a flood of refused requests
//! makes.

mod unread;

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    support::{
        ROOT,
        forebay::{EXCHANGE, Forebay, PATH, Setup, kafka_route, rabbitmq_route, wait_until},
        http, program, rabbitmq,
        sender::{sign, webhook},
    },
    tidy::documents::first_column,
};

/// More than the time in which there is one line for all refusals of an endpoint.
const LINES_APART: Duration = Duration::from_millis(1100);
const SOON: Duration = Duration::from_secs(60);
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const MARKER: &str = "marker-in-a-body-7c9e";

fn documented() -> BTreeSet<String> {
    let path = Path::new(ROOT).join("docs/logging.md");
    let names = first_column(&fs::read_to_string(path).unwrap());
    names.into_iter().collect()
}

/// Every line, which is an object with the fields of all lines and documented ones.
fn lines(text: &str) -> Vec<Value> {
    let documented = documented();
    let lines = text.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        for field in ["timestamp", "level", "target", "message"] {
            assert!(line[field].is_string(), "no {field}: {line}");
        }
        let fields = line.as_object().unwrap().keys().cloned().collect();
        let unknown: Vec<&String> = BTreeSet::difference(&fields, &documented).collect();
        assert!(unknown.is_empty(), "{unknown:?} is not in docs/logging.md: {line}");
        line
    });
    lines.collect()
}

fn with_message<'a>(lines: &'a [Value], begin: &str) -> Vec<&'a Value> {
    let begins = |line: &&Value| line["message"].as_str().unwrap().starts_with(begin);
    lines.iter().filter(begins).collect()
}

fn post(setup: &Setup, path: &str, signature: &str, body: &str) -> u16 {
    let headers = format!(
        "Content-Type: application/json\r\nX-Millicast-Signature: {signature}\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n"
    );
    http::request(setup.public, "POST", path, &headers, body).unwrap().code
}

fn in_json(mut setup: Setup) -> Setup {
    setup.options = vec!["--log-format".into(), "json".into()];
    setup.env = vec![
        ("FOREBAY_LOG".into(), "info,forebay=debug".into()),
        ("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into()),
    ];
    setup
}

fn says(forebay: &Forebay, text: &str) {
    wait_until(&format!("the log says {text:?}"), SOON, || forebay.log().contains(text));
}

#[test]
fn every_line_is_json_with_documented_fields() {
    let vhost = rabbitmq::shared().vhost("logging");
    vhost.declare_exchange(EXCHANGE);
    let routes = [
        rabbitmq_route("unroutable", &vhost.uris(), 1),
        kafka_route("nowhere", "127.0.0.1:1", "none"),
        "[tracing]\nendpoint = \"http://127.0.0.1:1\"\nsample_ratio = 1.0\n".to_owned(),
    ];
    let setup = in_json(Setup::publishing(&routes.concat()));
    let mut forebay = setup.start();
    let body = webhook(1, "feed").replace("\"active\":true", &format!("\"active\":true,\"note\":\"{MARKER}\""));
    let right = sign(body.as_bytes());
    assert_eq!(post(&setup, PATH, &right, &body), 200);
    assert_eq!(post(&setup, PATH, &sign(b"else"), &body), 400);
    assert_eq!(post(&setup, "/elsewhere", &right, &body), 404);
    for text in ["dead letter", "the route is blocked", "spans were not exported"] {
        says(&forebay, text);
    }
    assert!(forebay.terminate(SOON).success());
    says(&forebay, "stopped");

    let log = forebay.log();
    let lines = lines(&log);
    let refused = with_message(&lines, "refused a request");
    assert_eq!(refused.len(), 2, "{refused:#?}");
    for (line, endpoint, code, reason) in [
        (refused[0], "acme", 400, "signature_wrong"),
        (refused[1], "none", 404, "not_found"),
    ] {
        assert_eq!(line["level"], "WARN");
        assert_eq!((&line["endpoint"], &line["reason"]), (&endpoint.into(), &reason.into()));
        assert_eq!((&line["code"], &line["more"]), (&code.into(), &0.into()));
        assert_eq!(line["client"], "127.0.0.1");
        // Both are recorded, as traces of their own.
        assert!(
            line["trace_id"]
                .as_str()
                .is_some_and(|id| id.len() == 32 && id != TRACE),
            "{line}"
        );
    }
    let dead = with_message(&lines, "dead letter");
    assert_eq!(dead.len(), 1, "{dead:#?}");
    assert_eq!(dead[0]["trace_id"], TRACE);
    assert!(
        dead[0]["sequence"].as_u64().is_some_and(|sequence| sequence > 0),
        "{dead:#?}"
    );
    assert_eq!(
        (&dead[0]["route"], &dead[0]["level"]),
        (&"unroutable".into(), &"WARN".into())
    );
    for secret in [MARKER, &right, &right[5..]] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}

#[test]
fn the_reason_for_which_it_ends_is_a_line_too() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("forebay.toml");
    fs::write(&config, "[server]\nlisten = 8080\nbodies = 1\n").unwrap();
    let output = program::forebay()
        .args(["--log-format", "json", "serve", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(64));
    let lines = lines(std::str::from_utf8(&output.stderr).unwrap());
    let [line] = &lines[..] else {
        panic!("one line, not {lines:#?}")
    };
    assert_eq!((&line["level"], &line["exit_code"]), (&"ERROR".into(), &64.into()));
    let message = line["message"].as_str().unwrap();
    assert!(
        message.contains("server.listen") && message.contains("server.bodies"),
        "{message}"
    );
}

#[test]
fn a_flood_of_refused_requests_is_a_line_a_second_for_each_endpoint_and_the_rest_is_counted() {
    let setup = in_json(Setup::publishing(&kafka_route("nowhere", "127.0.0.1:1", "none")));
    let forebay = setup.start();
    let refused = |endpoint: &str| -> Vec<Value> {
        let lines = lines(&forebay.log());
        let refused = with_message(&lines, "refused a request").into_iter().cloned();
        refused.filter(|line| line["endpoint"] == endpoint).collect()
    };
    let mut sent: u64 = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(2500) || sent < 50 {
        for (path, code) in [(PATH, 400), ("/elsewhere", 404)] {
            assert_eq!(post(&setup, path, &sign(b"else"), ""), code);
        }
        sent += 1;
    }
    // Then there is a line again, which says how many had none.
    std::thread::sleep(LINES_APART);
    for (path, endpoint, code) in [(PATH, "acme", 400), ("/elsewhere", "none", 404)] {
        let before = refused(endpoint).len();
        assert_eq!(post(&setup, path, "", MARKER), code);
        wait_until("another line", SOON, || refused(endpoint).len() > before);
        let lines = refused(endpoint);
        let more: u64 = lines.iter().map(|line| line["more"].as_u64().unwrap()).sum();
        assert_eq!(more + lines.len() as u64, sent + 1, "{lines:#?}");
        let times = lines
            .iter()
            .map(|line| line["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap());
        let times: Vec<_> = times.collect();
        for pair in times.windows(2) {
            let apart = pair[1].duration_since(pair[0]).as_secs_f64();
            assert!(apart > 0.95, "{apart} s apart: {lines:#?}");
        }
        assert_eq!(lines[0]["trace_id"], TRACE, "the one that the request names");
    }
    assert!(!forebay.log().contains(MARKER));
}
