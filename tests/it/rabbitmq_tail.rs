//! `forebay tail --amqp` and `forebay dev --amqp`, on a real RabbitMQ.

use std::{
    io::{BufRead as _, BufReader},
    process::Child,
    sync::mpsc,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    forebay::wait_until,
    program,
    rabbitmq::{self as server, Vhost},
};

const SOON: Duration = Duration::from_secs(30);

/// A subcommand that runs until it is dropped, and its lines.
struct Running {
    child: Child,
    lines: mpsc::Receiver<Value>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut child = program::forebay().args(arguments).arg("--json").spawn();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Waits until a tail says that it reads.
    fn until_reading(mut self) -> Self {
        let stderr = BufReader::new(self.child.stderr.take().unwrap());
        let mut said = Vec::new();
        for line in stderr.lines().map_while(Result::ok) {
            if line.contains("reading") {
                return self;
            }
            said.push(line);
        }
        panic!("the tail did not begin: {said:?}");
    }

    fn line(&self) -> Value {
        self.lines.recv_timeout(SOON).expect("a line in time")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(vhost: &Vhost, key: &str, stream: &str) {
    let message = json!({
        "properties": {"content_type": "text/plain", "headers": {"partitionkey": stream, "sequence": "00000000000000000007"}},
        "routing_key": key, "payload": key, "payload_encoding": "string"
    });
    vhost
        .broker
        .api("POST", &format!("/exchanges/{}/live/publish", vhost.name), &message);
}

fn waiting(vhost: &Vhost, queue: &str) -> Value {
    let path = format!("/queues/{}/{queue}/get", vhost.name);
    let how = json!({"count": 10, "ackmode": "ack_requeue_true", "encoding": "auto"});
    vhost.broker.api("POST", &path, &how)
}

#[test]
fn a_queue_is_followed_and_nothing_is_taken_from_it() {
    let vhost = server::shared().vhost("tail");
    vhost.declare_exchange("live");
    vhost.declare_queue("feeds", "quorum", &json!({}));
    vhost.bind("live", "feeds", "*.feeds.#");
    let (uri, management) = (vhost.uri(), vhost.broker.management());
    let tail =
        Running::start(&["tail", "--amqp", &uri, "--queue", "feeds", "--management", &management]).until_reading();
    publish(&vhost, "01.media.completed.a.s", "a/s");
    publish(&vhost, "01.feeds.started.a.s", "a/s");
    let line = tail.line();
    assert_eq!(
        (&line["exchange"], &line["routing_key"], &line["key"]),
        (&json!("live"), &json!("01.feeds.started.a.s"), &json!("a/s"))
    );
    assert_eq!(line["body_base64"], "MDEuZmVlZHMuc3RhcnRlZC5hLnM=");
    assert_eq!(
        waiting(&vhost, "feeds").as_array().unwrap().len(),
        1,
        "it is still there for its consumer"
    );
}

#[test]
fn an_exchange_is_followed_by_binding_stream_and_count() {
    let vhost = server::shared().vhost("tail-exchange");
    vhost.declare_exchange("live");
    let uri = vhost.uri();
    let mut tail = Running::start(&[
        "tail",
        "--amqp",
        &uri,
        "--exchange",
        "live",
        "--binding",
        "00.#",
        "--binding",
        "01.#",
        "--stream",
        "a/s",
        "--count",
        "2",
    ])
    .until_reading();
    for (key, stream) in [("00.a", "a/t"), ("02.a", "a/s"), ("01.a", "a/s"), ("00.b", "a/s")] {
        publish(&vhost, key, stream);
    }
    assert_eq!(tail.line()["routing_key"], "01.a");
    assert_eq!(tail.line()["routing_key"], "00.b");
    assert!(tail.child.wait().unwrap().success());
    wait_until("the temporary queue to be gone", SOON, || {
        let path = format!("/queues/{}", vhost.name);
        vhost.broker.api("GET", &path, &Value::Null) == json!([])
    });
}

#[test]
fn what_cannot_be_followed_is_named() {
    let vhost = server::shared().vhost("tail-wrong");
    vhost.declare_queue("lonely", "quorum", &json!({}));
    let (uri, management) = (vhost.uri(), vhost.broker.management());
    let nobody = format!("http://127.0.0.1:{}", crate::support::process::free_port());
    let queue = |name: &'static str, at: &str| {
        vec![
            "--queue".to_owned(),
            name.to_owned(),
            "--management".to_owned(),
            at.to_owned(),
        ]
    };
    let exchange = |more: &[&str]| {
        let all = [&["--exchange", "nope"], more].concat();
        all.into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    for (arguments, code, parts) in [
        (queue("nope", &management), 69, &["queue nope is not there"][..]),
        (
            queue("lonely", &management),
            69,
            &["queue lonely", "bound to no exchange"],
        ),
        (
            queue("lonely", &nobody),
            69,
            &["cannot be read", "--exchange NAME [--binding KEY]"],
        ),
        (exchange(&[]), 69, &["exchange nope cannot be followed", "NOT_FOUND"]),
        (exchange(&["--from-start"]), 64, &["--from-start", "consumers'"]),
        (exchange(&["--queue", "q"]), 64, &["cannot be used with"]),
    ] {
        let output = program::forebay()
            .args(["tail", "--amqp", &uri])
            .args(&arguments)
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{arguments:?}: {said}");
        assert!(!said.contains(&vhost.broker.password), "{said}");
    }
}

#[test]
fn dev_publishes_to_a_rabbitmq_and_shows_what_arrives() {
    let vhost = server::shared().vhost("dev");
    let uri = vhost.uri();
    let dev = Running::start(&[
        "dev",
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
        "--amqp",
        &uri,
    ]);
    assert_eq!(dev.line()["listening"]["exchange"], "forebay-dev");
    let kinds: Vec<String> = forebay_senders::usual()
        .samples()
        .iter()
        .map(|_| {
            let line = dev.line();
            assert_eq!(line["event"]["specversion"], "1.0", "{line}");
            line["event"]["type"].as_str().unwrap().to_owned()
        })
        .collect();
    for kind in ["com.millicast.feeds.started", "com.millicast.thumbnail.captured"] {
        assert!(kinds.iter().any(|known| known == kind), "{kinds:?}");
    }
}
