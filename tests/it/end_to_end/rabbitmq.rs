//! From HTTP to a real RabbitMQ, with everything in its place; and what Forebay says when it is not.

use std::{net::TcpListener, time::Duration};

use super::{DRAINED, assert_volume, send_volume};
use crate::support::{
    census::assert_delivered,
    forebay::{EXCHANGE, Forebay, Setup, wait_until},
    rabbitmq::{self, QUORUM, STREAM, Vhost, read_all, read_streams},
    sender::Sender,
    time::observe_for,
};

/// How soon something that somebody must put right is told.
const TOLD: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_events_of_five_thousand_streams_arrive_in_order_in_quorum_queues() {
    let vhost = rabbitmq::shared().vhost("volume");
    let queues = vhost.topology(EXCHANGE, 8, QUORUM);
    let setup = Setup::rabbitmq(&vhost.uris(), 8);
    let forebay = setup.start();
    let sent = send_volume(&setup);
    forebay.wait_until_drained(DRAINED);
    assert_volume(&read_all(&vhost.uri(), &queues).await, &forebay, sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_on_the_way_to_rabbitmq_when_forebay_is_killed_and_started_again() {
    let vhost = rabbitmq::shared().vhost("killed");
    let queues = vhost.topology(EXCHANGE, 8, QUORUM);
    let setup = Setup::rabbitmq(&vhost.uris(), 8);
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 16, 3_000, 5_000);
    for kill in 1..=4 {
        wait_until("a fifth more is acknowledged", DRAINED, || {
            sender.acknowledged() >= kill * 20_000
        });
        forebay.kill();
        forebay = setup.start();
    }
    wait_until("all of it is acknowledged", DRAINED, || {
        sender.acknowledged() >= 100_000
    });
    let outcome = sender.stop();
    assert!(outcome.unanswered > 0, "the kills were felt");
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_all(&vhost.uri(), &queues).await, &outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_type_stream_takes_the_same() {
    let vhost = rabbitmq::shared().vhost("stream");
    let queues = vhost.topology(EXCHANGE, 2, STREAM);
    let setup = Setup::rabbitmq(&vhost.uris(), 2);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 1_000, 100);
    sender.wait_until_acknowledged(2_000);
    let outcome = sender.stop();
    forebay.wait_until_drained(DRAINED);
    let records = read_streams(&vhost.uri(), &queues, outcome.acknowledged.len()).await;
    let repeats = assert_delivered(&records, &outcome);
    assert_eq!(repeats, 0, "nothing failed");
}

/// Waits until the route is blocked for this reason, in `/status` and in the metrics alike.
fn assert_told(forebay: &Forebay, reason: &str) {
    wait_until(&format!("{reason} is told: {}", forebay.status()), TOLD, || {
        forebay.blocked()["reason"] == reason
    });
    let series = format!("forebay_route_blocked{{reason=\"{reason}\",route=\"events\"}}");
    wait_until(&format!("{series} is 1"), TOLD, || forebay.metric(&series) == 1.0);
    assert_eq!(forebay.get("/readyz").unwrap().0, 200, "a broker makes nothing unready");
    let said = format!("{}{}", forebay.log(), forebay.status());
    assert!(!said.contains("-horse"), "a password is told: {said}");
}

fn threads(forebay: &Forebay) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", forebay.pid()))
        .unwrap()
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_forebay_from_connecting_is_named_and_costs_no_threads() {
    let vhost = rabbitmq::shared().vhost("refused");
    vhost.topology(EXCHANGE, 2, QUORUM);
    let right = vhost.uri();
    let (user, password) = (&vhost.broker.user, &vhost.broker.password);
    let node = vhost.broker.nodes[0];
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cases = [
        (
            vhost.uri_of("amqp", &node, user, "wrong-horse"),
            "rabbitmq_authentication",
        ),
        (right.replace(&vhost.name, "nowhere"), "rabbitmq_vhost"),
        (
            vhost.uri_of("amqp", &silent.local_addr().unwrap(), user, password),
            "rabbitmq_unreachable",
        ),
        (vhost.uri_of("amqp", &closed, user, password), "rabbitmq_unreachable"),
    ];
    for (uri, reason) in cases {
        let setup = Setup::rabbitmq(&[uri], 2);
        let forebay = setup.start();
        let sender = Sender::start(setup.public, 1, 50, 10);
        assert_told(&forebay, reason);
        let before = threads(&forebay);
        observe_for(Duration::from_secs(6)).await;
        let after = threads(&forebay);
        assert!(after <= before + 2, "{reason}: {before} threads became {after}");
        let outcome = sender.stop();
        assert_eq!(outcome.answers.keys().copied().collect::<Vec<_>>(), [200], "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_at_the_broker_is_read_again_from_its_file() {
    let vhost = rabbitmq::shared().vhost("password");
    let queues = vhost.topology(EXCHANGE, 2, QUORUM);
    vhost.admit(&vhost.name, "first-horse");
    let file = tempfile::NamedTempFile::new().unwrap();
    let uri = |password: &str| vhost.uri_of("amqp", &vhost.broker.nodes[0], &vhost.name, password);
    std::fs::write(file.path(), uri("first-horse")).unwrap();
    let setup = Setup::rabbitmq(&[format!("file:{}", file.path().display())], 2);
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 2, 200, 50);
    wait_until("something is published", DRAINED, || forebay.published() > 100.0);

    vhost.admit(&vhost.name, "second-horse");
    close_connections(&vhost);
    assert_told(&forebay, "rabbitmq_authentication");
    std::fs::write(file.path(), uri("second-horse")).unwrap();
    let before = forebay.published();
    wait_until("it goes on", DRAINED, || forebay.published() > before);
    let outcome = sender.stop();
    forebay.wait_until_drained(DRAINED);
    assert_delivered(&read_all(&vhost.uri(), &queues).await, &outcome);
    assert!(forebay.blocked().is_null());
}

/// Closes every connection to the virtual host. The management API lists a connection some seconds after it is there.
fn close_connections(vhost: &Vhost) {
    wait_until("the connection is listed", DRAINED, || vhost.close_connections() > 0);
}
