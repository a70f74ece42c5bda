//! What `/status` has of the requests whose signature was refused: what is wrong with them, and nothing of them that is
//! secret.

use std::{io::Write as _, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::support::{
    forebay::{Forebay, PATH, SECRET, Setup, kafka_route, wait_until},
    http,
    secrets::NEXT_WEBHOOK as NEXT,
    sender::{sign_with, webhook},
};

const SOON: Duration = Duration::from_secs(60);
const MARKER: &str = "marker-in-a-refused-body-51e8";

fn setup() -> Setup {
    let other = format!("[endpoints.other]\npath = \"/other\"\nsecrets = [\"base64:{NEXT}\"]\n");
    let mut setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none")).with(&other);
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    setup
}

fn post(setup: &Setup, signature: &str, body: &str) {
    let headers = format!("X-Millicast-Signature: {signature}\r\n");
    assert_eq!(
        http::request(setup.public, "POST", PATH, &headers, body).unwrap().code,
        400
    );
}

/// What is remembered of the endpoint `acme`, the newest first.
fn refused(forebay: &Forebay) -> Vec<Value> {
    let page = forebay.get("/status").unwrap().1;
    assert!(!page.contains(MARKER), "{page}");
    let mut status: Value = serde_json::from_str(&page).unwrap();
    let endpoints = status["endpoints"].take();
    let acme = endpoints
        .as_array()
        .unwrap()
        .iter()
        .find(|endpoint| endpoint["name"] == "acme");
    acme.unwrap()["refused"].as_array().unwrap().clone()
}

/// Sends it until it was looked into: one of an endpoint is, in a second.
fn diagnosis(setup: &Setup, forebay: &Forebay, signature: &str, body: &str) -> Value {
    let mut found = Value::Null;
    wait_until("it is looked into", SOON, || {
        post(setup, signature, body);
        wait_until("a verdict", SOON, || {
            found = refused(forebay)[0].take();
            found["diagnosis"] != "pending"
        });
        found["diagnosis"] != "not_tried"
    });
    found
}

#[test]
fn a_refused_signature_is_told_apart_from_the_usual_mistakes() {
    let mut setup = setup();
    let secret = setup.dir.path().join("acme");
    std::fs::write(&secret, format!("{SECRET}\nb2xk\n")).unwrap();
    setup.secrets = vec![format!("file:{}", secret.display())];
    let forebay = setup.start();
    std::fs::write(&secret, SECRET).unwrap();
    wait_until("one secret is in use", SOON, || {
        forebay.metric("forebay_secrets_active{endpoint=\"acme\"}") == 1.0
    });

    let body = webhook(1, MARKER);
    let spaced = body.replace("\":", "\": ").replace(",\"", ", \"");
    let undecoded = STANDARD.encode(SECRET);
    for (secret, signed, sent, expected) in [
        (&*undecoded, &body, &body, "secret_undecoded"),
        (SECRET, &body, &spaced, "body_reserialised"),
        (SECRET, &spaced, &body, "body_reserialised"),
        (NEXT, &body, &body, "other_endpoint"),
        ("b2xk", &body, &body, "old_secret"),
        ("d3Jvbmc=", &body, &body, "none"),
    ] {
        let signature = sign_with(secret, signed.as_bytes());
        let found = diagnosis(&setup, &forebay, &signature, sent);
        assert_eq!(found["diagnosis"], expected, "{found}");
        assert_eq!(found["length"], sent.len(), "{found}");
        let digest = openssl::sha::sha256(sent.as_bytes());
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(found["sha256"], digest.as_str(), "{found}");
        for (field, value) in [
            ("client", "127.0.0.1"),
            ("reason", "wrong"),
            ("header", "sha1=, 40 hexadecimal digits"),
        ] {
            assert_eq!(found[field], value, "{found}");
        }
        assert!(
            found["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok(),
            "{found}"
        );
        assert!(!found.to_string().contains(&signature[5..]), "{found}");
    }
    let log = forebay.log();
    assert!(log.contains("diagnosis=\"secret_undecoded\""), "{log}");
    assert!(!log.contains(MARKER), "{log}");
}

#[test]
fn a_compressed_body_that_was_signed_before_is_found_out() {
    let setup = setup();
    let forebay = setup.start();
    let body = webhook(1, MARKER);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(body.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\
         X-Millicast-Signature: {}\r\n\r\n",
        gzip.len(),
        sign_with(SECRET, body.as_bytes())
    );
    let mut stream = std::net::TcpStream::connect(setup.public).unwrap();
    stream.write_all(&[head.as_bytes(), &gzip].concat()).unwrap();
    std::io::Read::read_to_end(&mut stream, &mut Vec::new()).unwrap();
    wait_until("it is looked into", SOON, || {
        refused(&forebay)[0]["diagnosis"] == "body_decompressed"
    });
}

#[test]
fn thirty_two_are_remembered_and_large_ones_are_not_looked_into() {
    let setup = setup();
    let forebay = setup.start();
    let signature = sign_with("d3Jvbmc=", b"else");
    for _ in 0..40 {
        post(&setup, &signature, MARKER);
    }
    let remembered = refused(&forebay);
    assert_eq!(remembered.len(), 32);
    let tried = remembered.iter().filter(|request| request["diagnosis"] != "not_tried");
    // One in a second, however long the forty took.
    assert!(tried.count() < 32, "{remembered:#?}");

    post(&setup, &signature, &MARKER.repeat((256 << 10) / MARKER.len() + 1));
    let newest = refused(&forebay)[0].take();
    assert_eq!(newest["diagnosis"], "not_tried", "{newest}");
    assert_eq!(newest["text"], "the body is too large", "{newest}");
    for (signature, reason) in [("", "malformed"), ("sha256=abcd", "malformed")] {
        post(&setup, signature, MARKER);
        let newest = refused(&forebay)[0].take();
        assert_eq!(
            (&newest["reason"], &newest["diagnosis"]),
            (&reason.into(), &"not_tried".into()),
            "{newest}"
        );
    }
}
