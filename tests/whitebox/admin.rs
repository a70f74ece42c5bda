//! The operator's server, over TCP.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay::{
    admin::{self, AdminSources},
    config,
    ingress::ServerMetrics,
    lifecycle::{ProcessLifecycle, ProcessPhase},
    spool::Spool,
    telemetry::Metrics,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

struct Server {
    runtime: Runtime,
    address: SocketAddr,
    lifecycle: Arc<ProcessLifecycle>,
    spool: Spool,
    collected: Arc<AtomicUsize>,
    _dir: TempDir,
}

impl Server {
    fn start() -> Self {
        let runtime = Runtime::new().unwrap();
        let inside = runtime.enter();
        let dir = TempDir::new().unwrap();
        let spool = crate::ingress::spool(&dir);
        let lifecycle = Arc::new(ProcessLifecycle::starting());
        let collected = Arc::new(AtomicUsize::new(0));
        let collecting = Arc::clone(&collected);
        let metrics = Metrics::new();
        let sources = AdminSources {
            lifecycle: Arc::clone(&lifecycle),
            spool: spool.clone(),
            servers: ServerMetrics::register(&metrics),
            metrics,
            collect: Arc::new(move || {
                collecting.fetch_add(1, Ordering::Relaxed);
            }),
            status: Arc::new(|| json!({"routes": {"events": "ok"}})),
        };
        let listen = "127.0.0.1:0".parse().unwrap();
        let bound = admin::bind(None, &config::AdminConfig { listen }, 256, sources).unwrap();
        let address = bound.addresses()[0];
        drop(inside);
        runtime.spawn(bound.run());
        Self {
            runtime,
            address,
            lifecycle,
            spool,
            collected,
            _dir: dir,
        }
    }

    /// The answer's status, its head in lower case, and its body.
    fn ask(&self, method: &str, path: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), head.to_lowercase(), body.to_owned())
    }

    fn ready(&self) -> (u16, Value) {
        let (status, _, body) = self.ask("GET", "/readyz");
        (
            status,
            serde_json::from_str(&body).map_or(Value::Null, |document: Value| document["reasons"].clone()),
        )
    }
}

#[test]
fn readiness_follows_the_phase_and_liveness_does_not() {
    let server = Server::start();
    assert_eq!(server.ready(), (503, json!(["starting"])));
    for (phase, expected) in [
        (ProcessPhase::Ready, (200, Value::Null)),
        (ProcessPhase::Draining, (503, json!(["draining"]))),
        (ProcessPhase::Stopping, (503, json!(["stopping"]))),
    ] {
        server.lifecycle.advance(phase);
        assert_eq!(server.ready(), expected);
        assert_eq!(server.ask("GET", "/livez").0, 200);
    }
}

#[test]
fn a_spool_that_refuses_makes_unready() {
    let server = Server::start();
    server.lifecycle.advance(ProcessPhase::Ready);
    server.runtime.block_on(server.spool.close());
    assert_eq!(server.ready(), (503, json!(["the spool is closed"])));
    assert_eq!(server.ask("GET", "/livez").0, 200);
}

#[test]
fn metrics_are_collected_when_they_are_asked_for() {
    let server = Server::start();
    let (status, head, body) = server.ask("GET", "/metrics");
    assert_eq!((status, server.collected.load(Ordering::Relaxed)), (200, 1));
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(body.contains("# TYPE forebay_connections gauge"), "{body}");
    assert!(body.contains("forebay_build_info{"), "{body}");
}

#[test]
fn the_status_is_what_the_application_says() {
    let (status, head, body) = Server::start().ask("GET", "/status");
    assert_eq!(status, 200);
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap(),
        json!({"routes": {"events": "ok"}})
    );
}

#[test]
fn anything_else_is_a_problem() {
    let server = Server::start();
    for (method, path, expected) in [("GET", "/", 404), ("GET", "/livez/", 404), ("POST", "/livez", 405)] {
        let (status, head, body) = server.ask(method, path);
        assert_eq!(status, expected, "{method} {path}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], expected);
        assert_eq!(expected == 405, head.contains("allow: get, head"));
    }
}

#[test]
fn a_probe_gets_in_whoever_holds_connections() {
    let server = Server::start();
    let head = b"GET /livez HTTP/1.1\r\nhost: ";
    let hold = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        stream.write_all(head).unwrap();
        stream
    };
    let held: Vec<TcpStream> = (0..300).map(|_| hold()).collect();
    let (status, head, body) = server.ask("GET", "/livez");
    assert_eq!((status, body.as_str()), (200, "ok\n"));
    assert!(
        head.contains("connection: close"),
        "a probe's connection is its own: {head}"
    );
    assert_eq!(server.ask("GET", "/metrics").0, 200);
    drop(held);
}
