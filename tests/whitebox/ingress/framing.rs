//! What is one request, and what is none.

use std::process::Command;

use super::*;
use crate::support::smuggling;

#[test]
fn a_chunked_body_is_counted_as_it_comes() {
    let server = Server::start();
    let signature = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    let (first, second) = FEEDS.split_at(100);
    let mut chunked = head(&["transfer-encoding: chunked", &signature]);
    for part in [first, second] {
        chunked += &format!("{:x}\r\n{part}\r\n", part.len());
    }
    chunked += "0\r\n\r\n";
    assert_eq!(server.answer(chunked.as_bytes()).status, 200);
    assert_eq!(server.newest_event().body, FEEDS);

    let mut client = server.connect();
    client.send(head(&["transfer-encoding: chunked", &signature]).as_bytes());
    for _ in 0..17 {
        client.send(format!("1000\r\n{}\r\n", "x".repeat(0x1000)).as_bytes());
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    client.rest();
    assert_eq!(server.newest_record(), 1);
}

#[test]
fn a_request_that_two_servers_could_read_differently_is_refused_and_closed() {
    let server = Server::start();
    let signature = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    let smuggled = String::from_utf8(signed(FEEDS.as_bytes())).unwrap();
    for (name, request) in smuggling::requests(PATH, &signature, FEEDS, &smuggled) {
        refuse(&server, name, &request);
    }
    assert_eq!(server.newest_record(), 0);
}

fn refuse(server: &Server, name: &str, request: &str) {
    let mut client = server.connect();
    client.send(request.as_bytes());
    let answers = client.rest();
    assert!(
        answers.starts_with("HTTP/1.1 400 ") || answers.starts_with("HTTP/1.0 400 "),
        "{name}: {answers}"
    );
    assert!(!answers.contains(" 200 OK"), "{name}: {answers}");
}

#[test]
fn requests_in_a_row_are_answered_in_a_row() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(
        &[
            signed(FEEDS.as_bytes()),
            signed(b"{}"),
            request(&[], b"{}"),
            signed(b""),
        ]
        .concat(),
    );
    let statuses = [(); 3].map(|()| client.answer().status);
    assert_eq!(statuses, [200, 200, 400]);
    assert_eq!(client.rest(), "", "a refusal ends the connection");
    assert_eq!(server.newest_record(), 2);
}

#[test]
fn a_request_in_pieces_is_the_same_request() {
    let server = Server::start();
    let signature = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    let chunked = format!("{:x}\r\n{FEEDS}\r\n0\r\n\r\n", FEEDS.len());
    let chunked = head(&["transfer-encoding: chunked", &signature]) + &chunked;
    let requests = [signed(FEEDS.as_bytes()), chunked.into_bytes(), signed(b"{}")].concat();
    for piece_bytes in [1, 7, 100, 333] {
        let mut client = server.connect();
        for piece in requests.chunks(piece_bytes) {
            client.send(piece);
            if piece_bytes > 1 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let statuses = [(); 3].map(|()| client.answer().status);
        assert_eq!(statuses, [200; 3], "{piece_bytes} bytes at a time");
    }
    assert_eq!(server.newest_record(), 12);
}

#[test]
fn an_upgrade_is_ignored_where_the_request_says_where_it_ends() {
    let server = Server::start();
    let body = FEEDS.as_bytes();
    let signature = format!("x-millicast-signature: {}", signature(body));
    let length = format!("content-length: {}", body.len());
    let mut client = server.connect();
    // As the JDK's client and curl ask for HTTP/2.
    for _ in 0..2 {
        let lines = [
            length.as_str(),
            &signature,
            "connection: Upgrade, HTTP2-Settings",
            "http2-settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
            "upgrade: h2c",
        ];
        client.send(&[head(&lines).as_bytes(), body].concat());
        let answer = client.answer();
        assert_eq!((answer.status, answer.header("connection")), (200, None), "{answer:?}");
    }
    client.send(head(&[&signature, "connection: upgrade", "upgrade: websocket"]).as_bytes());
    let answer = client.answer();
    assert_eq!(
        (answer.status, answer.problem().as_str()),
        (400, "upgrade_not_supported")
    );
    assert_eq!(server.newest_record(), 2);
}

#[test]
fn a_malformed_chunk_is_told_from_a_body_that_ends_too_early() {
    let server = Server::start();
    let ask = |body: &str, ends: bool| {
        let mut client = server.connect();
        client.send(head(&["transfer-encoding: chunked", WELL_FORMED]).as_bytes());
        client.send(body.as_bytes());
        if ends {
            client.0.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        }
        client.answer().problem()
    };
    assert_eq!(ask("5\r\nhello\r\nnonsense\r\n", false), "body_framing");
    assert_eq!(ask("zz\r\n", false), "body_framing");
    assert_eq!(ask("5\r\nhel", true), "body_incomplete");
}

#[test]
fn a_body_is_asked_for_only_when_the_client_waits_for_that() {
    let server = Server::start();
    let body = FEEDS.as_bytes();
    let signature = format!("x-millicast-signature: {}", signature(body));
    let mut client = server.connect();
    client.send(
        head(&[
            &format!("content-length: {}", body.len()),
            &signature,
            "expect: 100-continue",
        ])
        .as_bytes(),
    );
    assert_eq!(client.answer().status, 100);
    client.send(body);
    assert_eq!(client.answer().status, 200);

    let mut client = server.connect();
    client.send(head(&["content-length: 1000000000", "expect: 100-continue", WELL_FORMED]).as_bytes());
    assert_eq!(client.answer().status, 100);
    assert_eq!(client.answer().status, 413);
    client.rest();
}

#[test]
fn nothing_decompresses_a_body_and_nothing_speaks_http_2() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "features,normal",
            "--invert",
            "actix-http",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("actix-http v"), "{tree}");
    for feature in ["compress", "http2", "openssl", "rustls"] {
        assert!(
            !tree.contains(&format!("feature \"{feature}")),
            "{feature} is on in\n{tree}"
        );
    }
}
