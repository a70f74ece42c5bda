//! Who sends: behind proxies, and on the allow list or not.

use super::*;

fn loopback() -> Vec<config::IpNetwork> {
    vec!["127.0.0.1/32".parse().unwrap()]
}

fn allow(network: &str, refuses: bool) -> Option<AllowList> {
    let networks = vec![network.parse().unwrap()];
    Some(AllowList { networks, refuses })
}

fn forwarded(client: &str) -> Vec<u8> {
    let signature = format!("x-millicast-signature: {}", signature(FEEDS.as_bytes()));
    request(&[&signature, &format!("x-forwarded-for: {client}")], FEEDS.as_bytes())
}

#[test]
fn only_who_is_on_the_allow_list_may_send() {
    let server = Server::allowing(allow("203.0.113.0/24", true), |config| {
        config.trusted_proxies = loopback();
    });
    assert_eq!(server.answer(&forwarded("203.0.113.5")).status, 200);
    assert_eq!(server.answer(&forwarded("203.0.113.5:4711")).status, 200);
    let answer = server.answer(&forwarded("198.51.100.1"));
    assert_eq!((answer.status, answer.problem().as_str()), (403, "not_allowed"));
    assert_eq!(server.answer(&signed(FEEDS.as_bytes())).status, 403);
    assert_eq!(server.requests("acme", "403"), 2);
    assert_eq!(server.metrics.unexpected_clients.with_label_values(&["acme"]).get(), 2);
    // Who is no trusted proxy speaks for nobody.
    let mut other = server.connect_from("127.0.0.2");
    other.send(&forwarded("203.0.113.5"));
    assert_eq!(other.answer().status, 403);
}

#[test]
fn an_allow_list_may_only_count_others() {
    let server = Server::allowing(allow("203.0.113.0/24", false), |_| {});
    assert_eq!(server.answer(&signed(FEEDS.as_bytes())).status, 200);
    assert_eq!(server.metrics.unexpected_clients.with_label_values(&["acme"]).get(), 1);
}

#[test]
fn a_client_that_a_proxy_names_gets_only_so_many_connections() {
    let server = Server::with(|config| {
        config.trusted_proxies = loopback();
        config.connections_per_client_max = 2;
    });
    let mut connections = [(); 3].map(|()| server.connect());
    let mut ask = |index: usize, client: &str| {
        let connection: &mut Client = &mut connections[index];
        connection.send(&forwarded(client));
        connection.answer()
    };
    assert_eq!(ask(0, "203.0.113.5").status, 200);
    assert_eq!(ask(1, "203.0.113.5").status, 200);
    assert_eq!(ask(1, "203.0.113.6").status, 200);
    assert_eq!(
        ask(2, "203.0.113.5").status,
        200,
        "the second serves another client now"
    );
    let refused = ask(1, "203.0.113.5");
    assert_eq!(
        (refused.status, refused.problem().as_str()),
        (429, "client_connections")
    );
    assert_eq!(refused.header("retry-after"), Some("1"));
}

#[test]
fn a_load_balancer_without_http_says_for_whom_it_connects() {
    let server = Server::allowing(allow("203.0.113.0/24", true), |config| {
        config.trusted_proxies = loopback();
        config.proxy_protocol = true;
    });
    let header = |source: [u8; 4]| {
        let signature = b"\r\n\r\n\0\r\nQUIT\n".as_slice();
        let addresses = [&source[..], &[10, 0, 0, 1, 0x12, 0x34, 0, 80]].concat();
        [signature, &[0x21, 0x11, 0, 12], &addresses].concat()
    };
    let request = signed(FEEDS.as_bytes());
    let whole = server.answer(&[header([203, 0, 113, 5]), request.clone()].concat());
    assert_eq!(whole.status, 200);

    let mut in_pieces = server.connect();
    for piece in header([203, 0, 113, 5]).chunks(5) {
        in_pieces.send(piece);
        std::thread::sleep(Duration::from_millis(2));
    }
    for _ in 0..2 {
        in_pieces.send(&request);
        assert_eq!(
            in_pieces.answer().status,
            200,
            "the header stands once, at the beginning"
        );
    }

    let other = server.answer(&[header([198, 51, 100, 1]), request.clone()].concat());
    assert_eq!(other.status, 403);

    let mut without = server.connect();
    without.send(&request);
    assert_eq!(without.rest(), "", "a trusted proxy must say it");
    assert_eq!(server.connections_closed("proxy_header"), 1);

    // Nobody else is believed.
    let mut stranger = server.connect_from("127.0.0.2");
    stranger.send(&[header([203, 0, 113, 5]), request].concat());
    assert_eq!(stranger.answer().status, 400);
}
