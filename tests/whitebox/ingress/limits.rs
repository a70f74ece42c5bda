//! What a peer cannot use up.

use super::*;

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(head(&["content-length: 65537", WELL_FORMED]).as_bytes());
    let answer = client.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
    client.rest();

    let largest = vec![b'x'; 65536];
    assert_eq!(
        server.answer(&signed(&largest)).status,
        200,
        "the limit itself is allowed"
    );
    assert_eq!(server.newest_event().body, largest);
}

#[test]
fn a_body_that_never_ends_is_answered_at_the_deadline_and_closed() {
    let server = Server::with(|config| config.body_deadline = Duration::from_millis(300));
    for line in ["content-length: 100", "transfer-encoding: chunked"] {
        let mut client = server.connect();
        let start = Instant::now();
        client.send(head(&[line, WELL_FORMED]).as_bytes());
        client.send(b"5\r\nhello");
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (408, "body_deadline"),
            "{line}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        drop(client);
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
    assert_eq!(server.requests("acme", "408"), 2);
}

#[test]
fn a_body_that_dribbles_is_refused_long_before_the_deadline() {
    let server = Server::with(|config| config.body_deadline = Duration::from_secs(60));
    let mut client = server.connect();
    client.send(head(&["content-length: 50000", WELL_FORMED]).as_bytes());
    let mut writer = client.0.get_ref().try_clone().unwrap();
    let dribble = std::thread::spawn(move || {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body_too_slow"));
    drop(client);
    dribble.join().unwrap();
}

#[test]
fn half_of_a_second_head_does_not_hold_a_connection() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(&signed(FEEDS.as_bytes()));
    assert_eq!(client.answer().status, 200);
    let answered = Instant::now();
    client.send(b"POST /millicast/acme HTTP/1.1\r\nhost: fore");
    assert_eq!(client.answer().status, 408);
    assert!(answered.elapsed() < PATIENCE, "{:?}", answered.elapsed());
    drop(client);
    assert!(
        within(PATIENCE, || server.metrics.servers.connections.get() == 0),
        "it is let go"
    );
    assert_eq!(server.connections_closed("head_deadline"), 1);
}

#[test]
fn half_of_a_first_head_is_answered_and_closed() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(b"POST /millicast/acme HTTP/1.1\r\nhost: fore");
    assert_eq!(client.answer().status, 408);
    client.rest();
}

#[test]
fn what_is_declared_and_does_not_come_takes_no_memory() {
    let server = Server::with(|config| config.bodies_bytes_max = 70_000);
    let declare = || {
        let mut client = server.connect();
        client.send(head(&["content-length: 60000", WELL_FORMED]).as_bytes());
        client.send(b"a part of it");
        client
    };
    let strangers = [(); 20].map(|()| declare());
    for _ in 0..20 {
        assert_eq!(server.answer(&signed(&[b'x'; 20_000])).status, 200);
    }
    drop(strangers);
}

#[test]
fn a_stranger_s_body_gives_way_to_one_on_a_connection_that_was_verified() {
    let server = Server::with(|config| config.bodies_bytes_max = 70_000);
    let mut sender = server.connect();
    sender.send(&signed(FEEDS.as_bytes()));
    assert_eq!(sender.answer().status, 200);

    let mut stranger = server.connect();
    stranger.send(head(&["content-length: 60000", WELL_FORMED]).as_bytes());
    stranger.send(&[b'x'; 59_000]);
    assert!(
        within(PATIENCE, || server.limit_used("bodies_bytes") > 50_000),
        "its body is held"
    );
    let other = server.answer(&signed(&[b'x'; 20_000]));
    assert_eq!(
        (other.status, other.problem().as_str()),
        (503, "bodies_full"),
        "strangers are alike"
    );
    assert_eq!(other.header("retry-after"), Some("1"));

    sender.send(&signed(&[b'x'; 20_000]));
    assert_eq!(sender.answer().status, 200);
    let answer = stranger.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (503, "bodies_full"));
    assert!(
        within(PATIENCE, || server.limit_used("bodies_bytes") == 0),
        "the memory comes back"
    );
}

#[test]
fn a_body_without_a_signature_is_not_read() {
    let server = Server::start();
    let right = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    for lines in [vec![], vec!["x-millicast-signature: sha1=dfde"], vec![&right, &right]] {
        let mut client = server.connect();
        client.send(head(&[&["content-length: 60000"], lines.as_slice()].concat()).as_bytes());
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (400, "BAD SIGNATURE"),
            "{lines:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
    }
}

#[test]
fn a_peer_that_still_sends_gets_to_read_why_it_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(head(&["content-length: 40000000", WELL_FORMED]).as_bytes());
    // A slow sender, that looks at the answer when all is sent.
    for _ in 0..30 {
        client.send(&[b'x'; 1000]);
        std::thread::sleep(Duration::from_millis(100));
    }
    let answer = client.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (413, "body_too_large"));
}

#[test]
fn a_large_body_is_verified_beside_the_workers() {
    let server = Server::with(|config| {
        config.body_bytes_max = 512 << 10;
        config.bodies_bytes_max = 8 << 20;
    });
    let body = vec![b'x'; 512 << 10];
    assert_eq!(server.answer(&signed(&body)).status, 200);
    assert_eq!(server.newest_event().body, body);
    assert_eq!(server.answer(&request(&[WELL_FORMED], &body)).status, 400);
}
