//! The answers, and what is told of them.

use std::sync::{Mutex, OnceLock};

use forebay_event::Time;
use prometheus::IntCounterVec;

use super::*;

#[test]
fn the_providers_vectors_are_accepted_and_stored_byte_for_byte() {
    let server = Server::start();
    let jpeg = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\xff\xd9";
    let bodies: [(&[u8], &str, &str); 4] = [
        (b"", "sha1=8a22708cf0dde70b0e75ead9575e659dce6a85b2", "application/json"),
        (jpeg, "sha1=0024c94d27e67b31ef72bab615355199febdc4b2", "image/jpeg"),
        (
            FEEDS.as_bytes(),
            "sha1=dfde8e23a8c06e6c522a67d50fe7412283f653f9",
            "application/json",
        ),
        (
            FEEDS.as_bytes(),
            "sha1=DFDE8E23A8C06E6C522A67D50FE7412283F653F9",
            "text/plain",
        ),
    ];
    for (count, (body, signature, content_type)) in (1..).zip(bodies) {
        let lines = [
            format!("X-Millicast-Signature: {signature}"),
            format!("Content-Type: {content_type}"),
        ];
        let answer = server.answer(&request(&lines.each_ref().map(String::as_str), body));
        assert_eq!((answer.status, answer.body.as_str()), (200, "OK"), "{signature}");
        assert_eq!(
            server.newest_record(),
            count,
            "the record is in the spool when the answer is there"
        );
        assert_eq!(server.newest_event().body, body);
    }
}

#[test]
fn a_signature_that_is_missing_malformed_wrong_or_doubled_is_answered_alike() {
    let server = Server::start();
    let right = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    for lines in [
        vec![],
        vec!["x-millicast-signature: dfde8e23a8c06e6c522a67d50fe7412283f653f9"],
        vec!["x-millicast-signature: sha1=dfde"],
        vec!["x-millicast-signature: sha256=dfde8e23a8c06e6c522a67d50fe7412283f653f9"],
        // The secret left undecoded.
        vec!["x-millicast-signature: sha1=c46ca674c65f3217a7c88d056f1b89fd01efe10f"],
        vec![right.as_str(), right.as_str()],
    ] {
        let answer = server.answer(&request(&lines, FEEDS.as_bytes()));
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, "BAD SIGNATURE"),
            "{lines:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    }
    assert_eq!(server.newest_record(), 0);
    assert_eq!(server.requests("acme", "400"), 6);
    let failures = |reason| {
        server
            .metrics
            .signature_failures
            .with_label_values(&["acme", reason])
            .get()
    };
    assert_eq!(failures("missing") + failures("malformed") + failures("wrong"), 6);
    assert_eq!(failures("wrong"), 1);
}

#[test]
fn a_path_is_compared_byte_for_byte_and_its_query_ignored() {
    let server = Server::start();
    let signature = signature(FEEDS.as_bytes());
    for (target, expected) in [
        (PATH, 200),
        ("/millicast/acme?any=thing", 200),
        ("/millicast/acme/", 404),
        ("/Millicast/acme", 404),
        ("/millicast/%61cme", 404),
        ("//millicast/acme", 404),
        ("/millicast/../millicast/acme", 404),
        ("/", 404),
    ] {
        let request = format!(
            "POST {target} HTTP/1.1\r\nhost: forebay\r\nx-millicast-signature: {signature}\r\ncontent-length: {}\r\n\r\n{FEEDS}",
            FEEDS.len()
        );
        let answer = server.answer(request.as_bytes());
        assert_eq!(answer.status, expected, "{target}");
        if expected == 404 {
            assert_eq!(answer.problem(), "not_found");
        }
    }
    assert_eq!(server.requests("none", "404"), 6);
    assert_eq!(server.requests("acme", "200"), 2);
}

#[test]
fn only_post_is_allowed() {
    let server = Server::start();
    for method in ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let answer = server.answer(format!("{method} {PATH} HTTP/1.1\r\nhost: forebay\r\n\r\n").as_bytes());
        assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")), "{method}");
        assert_eq!(answer.problem(), "method_not_allowed");
    }
    let mut client = server.connect();
    client.send(format!("HEAD {PATH} HTTP/1.1\r\nhost: forebay\r\nconnection: close\r\n\r\n").as_bytes());
    let answer = client.rest();
    assert!(
        answer.starts_with("HTTP/1.1 405 ") && answer.ends_with("\r\n\r\n"),
        "{answer}"
    );
}

#[test]
fn a_load_balancer_may_ask_the_public_server_how_it_is() {
    let server = Server::with(|config| config.health_path = Some("/healthz".to_owned()));
    let ask = |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nhost: forebay\r\n\r\n");
        server.answer(request.as_bytes()).status
    };
    assert_eq!(ask("GET", "/healthz"), 200);
    assert_eq!(ask("POST", "/healthz"), 404);
    assert_eq!(ask("GET", "/healthz/"), 404);
    server.lifecycle.advance(ProcessPhase::Draining);
    assert_eq!(ask("GET", "/healthz"), 503);
    assert_eq!(server.requests("none", "404"), 2);
    let without = Server::start();
    assert_eq!(
        without.answer(b"GET /healthz HTTP/1.1\r\nhost: forebay\r\n\r\n").status,
        404
    );
}

#[test]
fn a_server_that_drains_accepts_and_one_that_stops_does_not() {
    let server = Server::start();
    server.lifecycle.advance(ProcessPhase::Draining);
    let mut client = server.connect();
    client.send(&signed(FEEDS.as_bytes()));
    let answer = client.answer();
    assert_eq!((answer.status, answer.header("connection")), (200, Some("close")));
    client.rest();

    server.lifecycle.advance(ProcessPhase::Stopping);
    let answer = server.answer(&signed(FEEDS.as_bytes()));
    assert_eq!((answer.status, answer.problem().as_str()), (503, "stopping"));
    assert_eq!(answer.header("retry-after"), Some("5"));
    assert_eq!(server.newest_record(), 1);
}

#[test]
fn a_closed_spool_is_answered_503() {
    let server = Server::start();
    server.runtime.block_on(server.spool.close());
    let answer = server.answer(&signed(FEEDS.as_bytes()));
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("5")));
    assert_eq!(answer.problem(), "stopping");
}

#[test]
fn pictures_are_refused_before_events_when_the_spool_fills() {
    let server = Server::build(1 << 20, |_| {});
    let event = vec![b'x'; 10_000];
    let picture = [b"\xff\xd8\xff", &event[..]].concat();
    let fill = |body: &[u8], content_type: &str| {
        let signature = format!("x-millicast-signature: {}", signature(body));
        let mut client = server.connect();
        for count in 0..1000 {
            client.send(&request(&[&signature, content_type], body));
            let answer = client.answer();
            if answer.status != 200 {
                assert_eq!((answer.status, answer.header("retry-after")), (503, Some("30")));
                return (count, answer.problem());
            }
        }
        panic!("the spool is never full");
    };
    let (pictures, code) = fill(&picture, "content-type: image/jpeg");
    assert_eq!(code, "spool_bulk_full", "after {pictures} pictures");
    let (events, code) = fill(&event, "content-type: application/json");
    assert_eq!(code, "spool_full", "after {events} events");
    assert!(pictures > 10 && events > 10, "{pictures} pictures, {events} events");
}

#[test]
fn what_has_begun_is_finished_when_the_server_stops() {
    let server = Server::start();
    let mut client = server.connect();
    let length = format!("content-length: {}", FEEDS.len());
    let signature = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    client.send(head(&[&length, &signature, "expect: 100-continue"]).as_bytes());
    assert_eq!(client.answer().status, 100, "the request is in hand");
    let handle = server.handle.clone();
    let stopped = server.runtime.spawn(async move { handle.stop().await });
    assert!(
        within(PATIENCE, || TcpStream::connect(server.address).is_err()),
        "nobody new"
    );
    client.send(FEEDS.as_bytes());
    assert_eq!(client.answer().status, 200);
    server.runtime.block_on(stopped).unwrap();
    assert_eq!(server.newest_record(), 1);
}

#[test]
fn what_is_accepted_is_counted_by_endpoint_and_kind() {
    let server = Server::start();
    for body in [FEEDS, FEEDS, r#"{"type":"surprise","event":"sprung"}"#, "not JSON"] {
        assert_eq!(server.answer(&signed(body.as_bytes())).status, 200);
    }
    let events = |kind| server.metrics.events.with_label_values(&["acme", kind]).get();
    assert_eq!((events("feeds"), events("other"), events("unreadable")), (2, 1, 1));
    assert_eq!(server.requests("acme", "200"), 4);
    assert_eq!(
        server
            .metrics
            .ack_seconds
            .with_label_values(&["acme"])
            .get_sample_count(),
        4
    );
}

/// All that is logged in this binary.
fn log() -> &'static Mutex<Vec<u8>> {
    static LOG: OnceLock<Mutex<Vec<u8>>> = OnceLock::new();
    LOG.get_or_init(Mutex::default)
}

struct LogWriter;

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        log().lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_event_behind_the_newest_of_its_stream_says_by_how_much_and_is_counted() {
    let server = Server::start();
    let feeds = |event: &str, stream: &str, timestamp: u64| {
        let data = format!(r#"{{"streamId":"A/{stream}","feedId":"f"}}"#);
        let body = format!(r#"{{"type":"feeds","event":"{event}","timestamp":{timestamp},"data":{data}}}"#);
        assert_eq!(server.answer(&signed(body.as_bytes())).status, 200);
        server.newest_event().late_by_ms
    };
    assert_eq!(feeds("ended", "a", 1_638_463_486_500), None);
    assert_eq!(feeds("started", "b", 1_638_463_486_100), None, "of another stream");
    assert_eq!(feeds("started", "a", 1_638_463_486_200), Some(300));
    assert_eq!(feeds("started", "a", 1_638_463_486_501), None);
    assert_eq!(server.metrics.streams_remembered.get(), 2);
    let late = |kind| server.metrics.late_events.with_label_values(&["acme", kind]).get();
    assert_eq!((late("feeds"), late("media")), (1, 0));
}

#[test]
fn an_event_that_is_old_or_comes_again_is_marked_and_counted() {
    let server = Server::start();
    let post = |age_ms: i64, name: &str| {
        let timestamp = Time::now().0 - age_ms;
        let body = format!(r#"{{"type":"new","event":"x","timestamp":{timestamp},"data":{{"name":"{name}"}}}}"#);
        assert_eq!(server.answer(&signed(body.as_bytes())).status, 200);
        body
    };
    let marks = || {
        let event = server.newest_event();
        (event.is_stale, event.is_repeated)
    };
    post(590_000, "young");
    assert_eq!(marks(), (false, false));
    post(-3_600_000, "a clock ahead");
    assert_eq!(marks(), (false, false));
    let old = post(601_000, "old");
    assert_eq!(marks(), (true, false));
    server.answer(&signed(old.as_bytes()));
    assert_eq!(marks(), (true, true));
    server.answer(&signed(b"no time"));
    server.answer(&signed(b"no time"));
    assert_eq!(marks(), (false, true));

    let count = |counters: &IntCounterVec, kind| counters.with_label_values(&["acme", kind]).get();
    let (stale, repeated) = (&server.metrics.stale_events, &server.metrics.repeated_events);
    assert_eq!((count(stale, "other"), count(stale, "unreadable")), (2, 0));
    assert_eq!((count(repeated, "other"), count(repeated, "unreadable")), (1, 1));
    assert_eq!(server.metrics.event_ids_remembered.get(), 4);
}

#[test]
fn an_event_that_was_refused_may_come_again_without_a_mark() {
    let server = Server::build(2 << 20, |_| {});
    let body = vec![b'x'; 60_000];
    while server.answer(&signed(&body)).status == 200 {}
    let (refused, repeated) = (vec![b'y'; 60_000], &server.metrics.repeated_events);
    let repeated = || repeated.with_label_values(&["acme", "unreadable"]).get();
    let before = repeated();
    assert_eq!(server.answer(&signed(&refused)).status, 503);
    assert_eq!(server.answer(&signed(&refused)).status, 503);
    assert_eq!(repeated(), before, "none of them was taken");
}

#[test]
fn a_second_account_at_an_endpoint_is_counted() {
    let server = Server::start();
    let post = |data: &str| {
        let body = format!(r#"{{"type":"new","event":"x","data":{data}}}"#);
        assert_eq!(server.answer(&signed(body.as_bytes())).status, 200);
        server.metrics.other_account_events.with_label_values(&["acme"]).get()
    };
    for (data, count) in [
        (r#"{"streamId":"A/s"}"#, 0),
        (r#"{"streamId":"A/t"}"#, 0),
        (r#"{"streamName":"s"}"#, 0),
        (r#"{"streamId":"B/s"}"#, 1),
        (r#"{"streamId":"B/s"}"#, 1),
        (r#"{"streamId":"A/s"}"#, 2),
    ] {
        assert_eq!(post(data), count, "{data}");
    }
}

#[test]
fn an_account_that_is_not_the_endpoints_is_counted() {
    let server = Server::of_account("A");
    for (body, header, claimed, count) in [
        (
            &br#"{"type":"new","event":"x","data":{"streamId":"A/s"}}"#[..],
            "X-A: b",
            None,
            0,
        ),
        (
            br#"{"type":"new","event":"x","data":{"streamId":"B/s"}}"#,
            "X-A: b",
            Some("B"),
            1,
        ),
        (b"\xff\xd8\xff", "X-Millicast-Stream-Id: B/s", Some("B"), 2),
        (b"\xff\xd8\xff", "X-Millicast-Stream-Id: A/s", None, 2),
    ] {
        let signature = format!("X-Millicast-Signature: {}", signature(body));
        assert_eq!(server.answer(&request(&[&signature, header], body)).status, 200);
        let event = server.newest_event();
        assert_eq!((event.account.as_deref(), event.key.as_str()), (Some("A"), "A/s"));
        assert_eq!(event.account_claimed.as_deref(), claimed);
        let counter = server.metrics.other_account_events.with_label_values(&["acme"]);
        assert_eq!(counter.get(), count);
    }
}

#[test]
fn no_secret_signature_or_body_is_logged() {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter("info,forebay=trace")
        .with_ansi(false)
        .with_writer(|| LogWriter)
        .finish();
    tracing::subscriber::set_global_default(subscriber).expect("this is the only test that listens to all logs");
    let server = Server::start();
    let body = br#"{"type":"feeds","event":"started","data":{"name":"marker-in-a-body"}}"#;
    server.answer(&signed(body));
    let wrong = "x-millicast-signature: sha1=5ecae75ecae75ecae75ecae75ecae75ecae75eca";
    server.answer(&request(&[wrong], body));
    server.answer(b"POST /a/path-that-nobody-has%0a?query=hidden HTTP/1.1\r\nhost: forebay\r\n\r\n");
    assert!(
        within(PATIENCE, || log_text().contains("/a/path-that-nobody-has%0a")),
        "a refused path is logged:\n{}",
        log_text()
    );
    assert!(
        within(PATIENCE, || log_text().contains("signature_wrong")),
        "{}",
        log_text()
    );
    let text = log_text();
    for secret in [
        "marker-in-a-body",
        "5ecae75ecae7",
        &signature(body)[5..],
        SECRET,
        "0123456789abcdef0123456789abcdef",
        "query=hidden",
    ] {
        assert!(!text.contains(secret), "{secret} is in\n{text}");
    }
}

fn log_text() -> String {
    String::from_utf8_lossy(&log().lock().unwrap()).into_owned()
}
