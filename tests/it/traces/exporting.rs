//! The way to a collector: one that is away, one that is slow, one that wants to know who sends, and the real one's
//! receiver.

use std::{
    io::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{PATH, SENDER, STOPPED, TRACE, named, send, send_traced, traceparent, tracing};
use crate::support::{
    ROOT,
    collector::Collector,
    forebay::{Forebay, Setup, kafka_route, wait_until},
    process::{Process, free_port, mortal},
    secrets::COLLECTOR_TOKEN,
};

/// Traces everything, and publishes to nobody.
fn setup(endpoint: &str) -> Setup {
    let mut setup = Setup::publishing(&(kafka_route("events", "127.0.0.1:1", "none") + &tracing(endpoint, 1.0)));
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "2s".into())];
    setup
}

fn spans(forebay: &Forebay, outcome: &str) -> f64 {
    forebay.metric(&format!("forebay_spans_total{{outcome=\"{outcome}\"}}"))
}

/// What the log says of spans that were not exported.
fn complaints(forebay: &Forebay) -> Vec<String> {
    let log = forebay.log();
    let lines = log.lines().filter(|line| line.contains("spans were not exported"));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_collector_that_is_away_costs_one_line_and_a_count_and_is_found_when_it_comes() {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let setup = setup(&format!("http://{address}"));
    let mut forebay = setup.start();
    let mut sent = 0;
    let began = Instant::now();
    wait_until("spans that were lost", Duration::from_secs(60), || {
        let start = Instant::now();
        assert_eq!(send(&setup, &format!("feed-{sent}"), ""), 200);
        assert!(start.elapsed() < Duration::from_secs(2), "nobody waits for a collector");
        sent += 1;
        spans(&forebay, "failed") > 5.0 && began.elapsed() > Duration::from_secs(5)
    });
    let said = complaints(&forebay);
    assert_eq!(said.len(), 1, "{said:#?}");
    assert!(said[0].contains("refused") && said[0].contains("more=0"), "{said:#?}");
    assert_eq!(spans(&forebay, "exported"), 0.0);

    let collector = Collector::at(address);
    wait_until("spans that arrive", Duration::from_secs(30), || {
        assert_eq!(send(&setup, &format!("feed-{sent}"), ""), 200);
        sent += 1;
        spans(&forebay, "exported") > 0.0
    });
    assert!(!collector.spans().is_empty());
    wait_until("that is said", Duration::from_secs(5), || {
        forebay.log().contains("spans are exported again")
    });
    assert!(forebay.terminate(STOPPED).success());
}

#[test]
fn a_collector_that_refuses_is_named_by_its_answer() {
    let collector = Collector::start();
    collector.answer(401);
    let setup = setup(&collector.endpoint());
    let forebay = setup.start();
    assert_eq!(send(&setup, "feed", ""), 200);
    wait_until("the complaint", Duration::from_secs(30), || {
        !complaints(&forebay).is_empty()
    });
    assert!(complaints(&forebay)[0].contains("answers 401"), "{}", forebay.log());
}

#[test]
fn a_collector_that_never_answers_does_not_hold_up_the_stop() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let setup = setup(&format!("http://{}", silent.local_addr().unwrap()));
    let mut forebay = setup.start();
    assert_eq!(send(&setup, "feed", ""), 200);
    let start = Instant::now();
    assert!(forebay.terminate(STOPPED).success());
    // The route waits for its broker as long as it may, and then the spans get their second.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}\n{}", forebay.log());
    assert!(
        forebay.log().contains("too slow for the last spans"),
        "{}",
        forebay.log()
    );
}

#[test]
fn what_a_collector_wants_to_see_comes_from_the_environment() {
    let collector = Collector::start();
    let mut setup = setup(&collector.endpoint());
    let headers = format!("authorization=Bearer%20{COLLECTOR_TOKEN}");
    setup.env.push(("OTEL_EXPORTER_OTLP_HEADERS".into(), headers));
    let forebay = setup.start();
    assert_eq!(send_traced(&setup, "feed", &traceparent()), 200);
    let spans = collector.trace(TRACE, 2);
    assert_eq!(named(&spans, &format!("POST {PATH}")).parent_id, SENDER);
    let head = collector.heads().remove(0);
    assert!(
        head.contains(&format!("authorization: bearer {COLLECTOR_TOKEN}")),
        "{head}"
    );
    drop(forebay);
}

/// The receiver of OpenTelemetry's own collector, which prints each request as OTLP/JSON. `None`, said on stderr, where
/// there is no Go; in CI that is a failure.
fn real_receiver(address: SocketAddr, log: &Path) -> Option<Process> {
    let folder = Path::new(ROOT).join("tests/collector");
    let go = |arguments: &[&str]| {
        let mut command = Command::new("go");
        command.args(arguments).current_dir(&folder).stdin(Stdio::null());
        command
    };
    let can_read = go(&["list", "-m"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !can_read.is_ok_and(|status| status.success()) {
        let left_out = "LEFT OUT, for want of Go, as new as its go.mod says: the collector's own receiver";
        assert!(std::env::var_os("CI").is_none(), "{left_out}");
        // Not by `eprintln!`, which a test that passes keeps to itself.
        let _ = writeln!(std::io::stderr(), "{left_out}");
        return None;
    }
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("collector");
    let status = go(&["build", "-o", program.to_str().unwrap(), "."]).status();
    assert!(status.unwrap().success(), "{}: it does not build", folder.display());
    let mut command = mortal(&program);
    command.arg(address.to_string());
    Some(Process::run(command, log))
}

#[test]
fn the_receiver_of_the_collector_itself_takes_the_spans_for_what_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let Some(_receiver) = real_receiver(address, &log) else {
        return;
    };
    wait_until("a receiver that listens", Duration::from_secs(60), || {
        TcpStream::connect(address).is_ok()
    });
    let setup = setup(&format!("http://{address}"));
    let mut forebay = setup.start();
    assert_eq!(send_traced(&setup, "feed", &traceparent()), 200);
    assert_eq!(send(&setup, "other", ""), 200);
    wait_until("the spans of both", Duration::from_secs(30), || {
        spans(&forebay, "exported") >= 4.0
    });
    assert!(forebay.terminate(STOPPED).success());

    let said = std::fs::read_to_string(&log).unwrap();
    let requests = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_resources = requests.flat_map(|mut request| match request["resourceSpans"].take() {
        Value::Array(all) => all,
        other => panic!("{other}"),
    });
    let mut spans = Vec::new();
    for of_resource in of_resources {
        let service = json!({ "key": "service.name", "value": { "stringValue": "forebay" } });
        let attributes = of_resource["resource"]["attributes"].as_array().unwrap();
        assert!(attributes.contains(&service), "{of_resource:#}");
        for scope in of_resource["scopeSpans"].as_array().unwrap() {
            spans.extend(scope["spans"].as_array().unwrap().clone());
        }
    }
    let of_trace: Vec<&Value> = spans.iter().filter(|span| span["traceId"] == TRACE).collect();
    let request = of_trace
        .iter()
        .find(|span| span["name"] == format!("POST {PATH}").as_str())
        .unwrap();
    assert_eq!(
        (&request["parentSpanId"], &request["kind"]),
        (&SENDER.into(), &2.into()),
        "{request:#}"
    );
    let append = of_trace.iter().find(|span| span["name"] == "spool append").unwrap();
    assert_eq!(append["parentSpanId"], request["spanId"]);
    // What is in flight when it stops has failed, for a broker that was not there.
    let send = of_trace.iter().find(|span| span["name"] == "send none").unwrap();
    assert_eq!(
        (&send["parentSpanId"], &send["kind"]),
        (&request["spanId"], &4.into()),
        "{send:#}"
    );
    assert_eq!(send["status"]["code"], 2, "{send:#}");
    let stopped = json!({ "key": "error.type", "value": { "stringValue": "stopped" } });
    assert!(send["attributes"].as_array().unwrap().contains(&stopped), "{send:#}");
    assert_eq!(spans.len(), 6, "two webhooks of three spans each: {spans:#?}");
}
