//! What a peer cannot use up.

use super::*;

#[test]
fn a_body_that_is_too_large_is_refused_before_it_is_read() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(head(&["content-length: 65537"]).as_bytes());
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
    for lines in [["content-length: 100"], ["transfer-encoding: chunked"]] {
        let mut client = server.connect();
        let start = Instant::now();
        client.send(head(&lines).as_bytes());
        client.send(b"5\r\nhello");
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.problem().as_str()),
            (408, "body_deadline"),
            "{lines:?}"
        );
        assert_eq!(answer.header("connection"), Some("close"));
        client.rest();
        assert!(start.elapsed() < Duration::from_secs(8), "{:?}", start.elapsed());
    }
    assert_eq!(server.requests("acme", "408"), 2);
}

#[test]
fn a_body_that_dribbles_is_refused_long_before_the_deadline() {
    let server = Server::with(|config| config.body_deadline = Duration::from_secs(60));
    let mut client = server.connect();
    client.send(head(&["content-length: 50000"]).as_bytes());
    let mut writer = client.0.get_ref().try_clone().unwrap();
    let dribble = std::thread::spawn(move || {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end && writer.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let answer = client.answer();
    assert_eq!((answer.status, answer.problem().as_str()), (408, "body_too_slow"));
    client.rest();
    drop(client);
    dribble.join().unwrap();
}

#[test]
fn half_of_a_second_head_does_not_hold_a_connection() {
    let server = Server::start();
    let mut client = server.connect();
    client
        .0
        .get_ref()
        .set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    client.send(&signed(FEEDS.as_bytes()));
    assert_eq!(client.answer().status, 200);
    let answered = Instant::now();
    client.send(b"POST /millicast/acme HTTP/1.1\r\nhost: fore");
    assert_eq!(client.rest(), "");
    assert!(answered.elapsed() < Duration::from_secs(15), "{:?}", answered.elapsed());
    assert!(
        within(PATIENCE, || server.metrics.connections.get() == 0),
        "it is let go"
    );
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
fn bodies_in_flight_are_limited_together() {
    let server = Server::with(|config| config.bodies_bytes_max = 70_000);
    let mut holder = server.connect();
    let large = vec![b'x'; 60_000];
    let signature = format!("x-millicast-signature: {}", signature(&large));
    holder.send(head(&["content-length: 60000", "expect: 100-continue", &signature]).as_bytes());
    assert_eq!(
        holder.answer().status,
        100,
        "its memory is reserved when it is asked to go on"
    );

    let second = || server.answer(&signed(&large[..20_000]));
    let answer = second();
    assert_eq!((answer.status, answer.problem().as_str()), (503, "bodies_full"));
    assert_eq!(answer.header("retry-after"), Some("1"));

    holder.send(&large);
    assert_eq!(holder.answer().status, 200);
    assert!(within(PATIENCE, || second().status == 200), "the memory comes back");
}

#[test]
fn connections_over_the_limit_wait_for_a_place() {
    let server = Server::with(|config| config.connections_max = 1);
    let mut first = server.connect();
    first.send(&signed(FEEDS.as_bytes()));
    assert_eq!(first.answer().status, 200);
    assert_eq!(server.metrics.connections.get(), 1);

    let mut second = server.connect();
    second.send(&signed(FEEDS.as_bytes()));
    second
        .0
        .get_ref()
        .set_read_timeout(Some(Duration::from_millis(300)))
        .unwrap();
    let waits = second.0.fill_buf().unwrap_err();
    assert!(
        matches!(waits.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        "{waits}"
    );

    drop(first);
    second.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.answer().status, 200);
}
