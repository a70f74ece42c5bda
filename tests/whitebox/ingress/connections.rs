//! What a peer cannot do with connections.

use super::*;

fn is_closed(client: &Client) -> bool {
    let stream = client.0.get_ref();
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    match stream.peek(&mut [0]) {
        Ok(bytes) => bytes == 0,
        Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
    }
}

#[test]
fn at_the_limit_strangers_make_room_and_a_sender_stays() {
    let server = Server::with(|config| config.connections_max = 4);
    let mut sender = server.connect();
    sender.send(&signed(FEEDS.as_bytes()));
    assert_eq!(sender.answer().status, 200);
    let mut strangers = Vec::new();
    for _ in 0..20 {
        strangers.push(server.connect());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(
        within(PATIENCE, || strangers
            .iter()
            .filter(|client| !is_closed(client))
            .count()
            <= 3),
        "of the strangers only so many stay as there is room for"
    );
    assert!(!is_closed(strangers.last().unwrap()), "the newest stays");
    assert_eq!(
        server.answer(&signed(FEEDS.as_bytes())).status,
        200,
        "a new sender gets in"
    );
    sender.0.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    sender.send(&signed(FEEDS.as_bytes()));
    assert_eq!(
        sender.answer().status,
        200,
        "on the connection that was verified before"
    );
    assert!(server.connections_closed("made_room") >= 17);
}

#[test]
fn a_refusal_ends_the_connection_unless_the_request_was_verified() {
    let server = Server::build(1 << 20, |_| {});
    for request in [
        b"GET / HTTP/1.1\r\nhost: forebay\r\n\r\n".to_vec(),
        format!("GET {PATH} HTTP/1.1\r\nhost: forebay\r\n\r\n").into_bytes(),
        request(&[WELL_FORMED], b"{}"),
    ] {
        let mut client = server.connect();
        client.send(&request);
        assert_eq!(client.answer().header("connection"), Some("close"));
        assert_eq!(client.rest(), "");
    }
    // The spool is full at some time.
    let mut sender = server.connect();
    let body = vec![b'x'; 20_000];
    let refused = (0..1000).find_map(|_| {
        sender.send(&signed(&body));
        let answer = sender.answer();
        (answer.status != 200).then_some(answer)
    });
    let refused = refused.expect("the spool fills up");
    assert_eq!((refused.status, refused.header("connection")), (503, None));
    sender.send(&signed(&body));
    assert_eq!(sender.answer().status, 503, "the same connection goes on");
}

#[test]
fn one_client_gets_only_so_many_connections() {
    let server = Server::with(|config| config.connections_per_client_max = 3);
    let held = [(); 3].map(|()| {
        let mut client = server.connect();
        client.send(&signed(FEEDS.as_bytes()));
        assert_eq!(client.answer().status, 200);
        client
    });
    assert_eq!(server.connect().rest(), "", "one more is closed");
    assert_eq!(server.connections_closed("client_limit"), 1);
    let mut other = server.connect_from("127.0.0.2");
    other.send(&signed(FEEDS.as_bytes()));
    assert_eq!(other.answer().status, 200);
    assert!(held.iter().all(|client| !is_closed(client)));
    assert!(within(PATIENCE, || server.limit_used("connections_per_client") == 3));

    // Of one that never carried a verified request the oldest goes.
    let strangers = [1, 2, 3].map(|nth| {
        let stranger = server.connect_from("127.0.0.3");
        // Two workers let in what comes at once in an order of their own.
        assert!(within(PATIENCE, || server.limit_used("connections") == 4 + nth));
        stranger
    });
    let newest = server.connect_from("127.0.0.3");
    assert!(within(PATIENCE, || is_closed(&strangers[0])));
    assert!(!is_closed(&newest));
}

#[test]
fn requests_that_nobody_waits_for_are_answered_one_at_a_time() {
    let server = Server::with(|config| config.health_path = Some("/healthz".to_owned()));
    let client = server.connect();
    socket2::SockRef::from(client.0.get_ref())
        .set_recv_buffer_size(4096)
        .unwrap();
    let mut writer = client.0.get_ref().try_clone().unwrap();
    writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let requests = "GET /healthz HTTP/1.1\r\nhost: forebay\r\n\r\n".repeat(100);
    // As much as goes: nothing is read.
    let mut sent = 0;
    while sent < 256 << 20 && writer.write_all(requests.as_bytes()).is_ok() {
        sent += requests.len();
    }
    assert!(
        sent < 128 << 20,
        "what is not answered is not read for ever: {sent} bytes"
    );
    assert!(
        within(Duration::from_secs(40), || server.connections_closed("answer_unread")
            == 1),
        "a peer that does not read is given up, after {sent} bytes"
    );
}

#[test]
fn an_idle_connection_is_kept_for_longer_than_is_promised() {
    let server = Server::with(|config| config.keep_alive = Duration::from_millis(2500));
    let mut client = server.connect();
    for pause_ms in [0, 1000, 1900, 2200] {
        std::thread::sleep(Duration::from_millis(pause_ms));
        client.send(&signed(FEEDS.as_bytes()));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.header("keep-alive")),
            (200, Some("timeout=1")),
            "{pause_ms} ms"
        );
    }
    let idle = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(idle.elapsed() >= Duration::from_millis(2400), "{:?}", idle.elapsed());
    assert!(within(PATIENCE, || server.connections_closed("idle") == 1));
}

#[test]
fn a_head_has_a_largest_size() {
    let server = Server::start();
    let filler = |length: usize| format!("x-filler: {}", "y".repeat(length));
    let signature = format!("x-millicast-signature: {}", signature(b"{}"));
    let small = filler(15_000);
    assert_eq!(server.answer(&request(&[&signature, &small], b"{}")).status, 200);
    let large = filler(17_000);
    assert_eq!(server.answer(&request(&[&signature, &large], b"{}")).status, 431);
    // Also one that never ends.
    let mut client = server.connect();
    client.send(b"POST / HTTP/1.1\r\nx-filler: ");
    client.send(&[b'y'; 20_000]);
    assert_eq!(client.answer().status, 431);
    assert!(within(PATIENCE, || server.connections_closed("head_too_large") == 2));
}
