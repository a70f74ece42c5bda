//! The real binary from outside: what it prints, what it sends, how it exits.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Output,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rdkafka::mocking::MockCluster;

use crate::support::{
    forebay::{Setup, send_command},
    program,
    secrets::WEBHOOK as SECRET,
    sender::sign_with,
};

fn forebay(args: &[&str]) -> Output {
    program::forebay().args(args).env("A_SECRET", SECRET).output().unwrap()
}

/// Runs it, expects the exit code, returns stdout and stderr.
fn ends_with(code: i32, args: &[&str]) -> (String, String) {
    let output = forebay(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert_eq!(
        output.status.code(),
        Some(code),
        "{args:?}\nstdout: {stdout}\nstderr: {stderr}"
    );
    (stdout, stderr)
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Received {
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// A server that keeps what it gets, and gives the answers it was told to, over and over.
pub struct Server {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
}

impl Server {
    pub fn answering(statuses: &'static [u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self {
            address: listener.local_addr().unwrap(),
            received: Arc::default(),
        };
        let received = Arc::clone(&server.received);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let received = Arc::clone(&received);
                // A connection that ends is how each of them ends.
                thread::spawn(move || drop(serve(stream, &received, statuses)));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    pub fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }
}

fn serve(mut stream: TcpStream, received: &Mutex<Vec<Received>>, statuses: &[u16]) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        assert_eq!(line, "POST /hook HTTP/1.1\r\n");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        let mut body = vec![0; headers["content-length"].parse().unwrap()];
        reader.read_exact(&mut body)?;
        let status = {
            let mut received = received.lock().unwrap();
            received.push(Received { headers, body });
            statuses[(received.len() - 1) % statuses.len()]
        };
        write!(stream, "HTTP/1.1 {status} x\r\nContent-Length: 2\r\n\r\nOK")?;
    }
}

fn send(server: &Server, more: &[&str]) -> Vec<Received> {
    let url = server.url();
    let mut args = vec!["send", "--url", &url, "--secret", SECRET];
    args.extend(more);
    ends_with(0, &args);
    server.received()
}

#[test]
fn sent_webhooks_are_signed_and_of_every_kind() {
    let server = Server::answering(&[200]);
    let received = send(&server, &["--count", "60", "--streams", "4"]);
    assert_eq!(received.len(), 60);
    let mut kinds = BTreeSet::new();
    for Received { headers, body } in &received {
        assert_eq!(headers["x-millicast-signature"], sign_with(SECRET, body));
        if headers["content-type"] == "image/jpeg" {
            assert!(body.starts_with(b"\xff\xd8\xff") && headers["x-millicast-stream-id"].starts_with("ZG6NWV/"));
            kinds.insert("thumbnail".to_owned());
        } else {
            let json: serde_json::Value = serde_json::from_slice(body).unwrap();
            kinds.insert(json["type"].as_str().unwrap().to_owned());
        }
    }
    let all = [
        "feeds",
        "media",
        "recordings",
        "thumbnail",
        "transcoder",
        "viewerConnection",
    ];
    assert_eq!(kinds.into_iter().collect::<Vec<_>>(), all);
}

#[test]
fn the_same_seed_sends_the_same_bytes_and_duplicates_come_on_top() {
    let sent = |seed: &str| {
        let server = Server::answering(&[200]);
        let more = [
            "--count",
            "200",
            "--streams",
            "5",
            "--duplicates",
            "10",
            "--shuffle",
            "8",
            "--seed",
            seed,
        ];
        let mut received = send(&server, &more);
        for one in &mut received {
            // The only thing that is the connection's and not the webhook's.
            one.headers.remove("host");
        }
        received.sort();
        received
    };
    let first = sent("7");
    assert_eq!(first.len(), 220);
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 200);
    assert_eq!(first, sent("7"));
    let other: BTreeSet<_> = sent("8").into_iter().collect();
    assert!(first.iter().all(|one| !other.contains(one)));
}

#[test]
fn a_stream_is_sent_in_order_however_many_go_side_by_side() {
    let server = Server::answering(&[200]);
    let received = send(
        &server,
        &[
            "--count",
            "200",
            "--streams",
            "4",
            "--concurrency",
            "4",
            "--kind",
            "feeds",
        ],
    );
    let mut times: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    for one in received {
        let json: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
        let stream = json["data"]["streamId"].as_str().unwrap().to_owned();
        times
            .entry(stream)
            .or_default()
            .push(json["timestamp"].as_i64().unwrap());
    }
    assert_eq!(times.len(), 4);
    assert!(
        times.values().all(|times| times.len() == 50 && times.is_sorted()),
        "{times:?}"
    );
}

#[test]
fn the_kinds_that_were_asked_for_are_sent() {
    let server = Server::answering(&[200]);
    let more = [
        "--count",
        "40",
        "--kind",
        "Feeds.Started",
        "--kind",
        "recording.completed",
        "--secret",
        "env:A_SECRET",
    ];
    let url = server.url();
    let mut args = vec!["send", "--url", &url];
    args.extend(more);
    ends_with(0, &args);
    let mut kinds = BTreeSet::new();
    for one in server.received() {
        let json: serde_json::Value = serde_json::from_slice(&one.body).unwrap();
        kinds.insert(format!(
            "{}.{}",
            json["type"].as_str().unwrap(),
            json["event"].as_str().unwrap()
        ));
    }
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["feeds.started", "recordings.completed"]
    );
}

#[test]
fn the_summary_counts_the_answers_and_the_exit_code_says_whether_they_were_right() {
    let server = Server::answering(&[200, 200, 200, 503]);
    let url = server.url();
    let args = [
        "send", "--url", &url, "--secret", SECRET, "--count", "40", "--rate", "1000", "--json",
    ];
    let (stdout, _) = ends_with(1, &args);
    let summary: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(summary["sent"], 40);
    assert_eq!(summary["answers"], serde_json::json!({ "200": 30, "503": 10 }));
    assert_eq!(summary["failed"], 0);
    assert!(summary["latency_ms"]["p99"].as_f64().unwrap() > 0.0);
    let (stdout, _) = ends_with(1, &args[..7]);
    assert!(stdout.contains("503 × 10") && stdout.contains("p99"), "{stdout}");
}

#[test]
fn sending_that_is_interrupted_still_tells_what_it_did() {
    let server = Server::answering(&[200]);
    let url = server.url();
    let args = [
        "send", "--url", &url, "--secret", SECRET, "--count", "1000000", "--rate", "50", "--json",
    ];
    let send = program::forebay().args(args).spawn();
    let until = Instant::now() + Duration::from_secs(20);
    while server.received().is_empty() {
        assert!(Instant::now() < until, "nothing was sent");
        thread::sleep(Duration::from_millis(10));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&send), rustix::process::Signal::INT).unwrap();
    let output = send.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["sent"], server.received().len());
}

/// An address at which nobody listens.
fn nobody() -> String {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string()
}

fn config(dir: &Path, more: &str) -> PathBuf {
    let text = format!(
        "spool.dir = {:?}\n[endpoints.acme]\npath = \"/a\"\nsecrets = [\"env:A_SECRET\"]\n{more}",
        dir.join("spool")
    );
    let path = dir.join("forebay.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn each_way_to_end_has_its_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = nobody();
    let sink = format!("[sinks.main]\ntype = \"kafka\"\nbrokers = [\"{nobody}\"]");
    let good = config(dir.path(), &sink).display().to_string();
    let url = format!("http://{nobody}/");
    let table: [(i32, &[&str], &str); 17] = [
        (0, &["--version"], ""),
        (0, &["--help"], ""),
        (64, &[], "Usage"),
        (64, &["srve"], "serve"),
        (64, &["serve"], "--config"),
        (
            64,
            &["check", "--config", "/not/there.toml"],
            "/not/there.toml: cannot be read",
        ),
        (64, &["serve", "--config", "/not/there.toml"], "1 problem"),
        (0, &["check", "--config", &good], ""),
        (64, &["tail"], "--config"),
        (
            64,
            &["tail", "--config", &good, "--route", "no"],
            "known: events, thumbnails",
        ),
        (
            64,
            &["tail", "--brokers", &nobody, "--topic", "a b"],
            "cannot be in a topic's name",
        ),
        (
            69,
            &["tail", "--brokers", &nobody, "--topic", "t"],
            "no broker is reachable at",
        ),
        (64, &["send", "--url", "ftp://x/", "--secret", SECRET], "http://"),
        (
            64,
            &["send", "--url", &url, "--secret", "env:NOT_THERE"],
            "env:NOT_THERE",
        ),
        (64, &["send", "--url", &url, "--secret", "!"], "not base64"),
        (
            64,
            &["send", "--url", &url, "--secret", SECRET, "--kind", "feed"],
            "no such kind",
        ),
        (69, &["send", "--url", &url, "--secret", SECRET], "nothing was reached"),
    ];
    for (code, args, told) in table {
        let (_, stderr) = ends_with(code, args);
        assert!(stderr.contains(told), "{args:?}: {stderr}");
    }
}

#[test]
fn check_shows_what_a_configuration_means_and_tries_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let sink = format!("[sinks.main]\ntype = \"kafka\"\nbrokers = [\"{}\"]", nobody());
    let path = config(dir.path(), &sink).display().to_string();
    let (stdout, _) = ends_with(0, &["check", "--config", &path]);
    for part in [
        "0.0.0.0:8080",
        "endpoint  acme: POST /a, 1 secret",
        "all kinds but thumbnail to main, topic millicast.events",
    ] {
        assert!(stdout.contains(part), "{stdout}");
    }
    assert!(!stdout.contains(&SECRET[..8]));
    let (stdout, stderr) = ends_with(69, &["check", "--config", &path, "--connect"]);
    assert!(stdout.contains("takes writes, and an fsync in"), "{stdout}");
    assert!(stdout.lines().any(|line| line.starts_with("problem ")), "{stdout}");
    assert!(stderr.contains("a broker or a topic cannot be used"), "{stderr}");
}

#[test]
fn check_asks_a_running_forebay_whether_it_is_alive_and_needs_nothing_else_for_it() {
    // What is alive stays so without its secret.
    let setup =
        Setup::new("127.0.0.1:1", "nowhere").with("[endpoints.late]\npath = \"/late\"\nsecrets = [\"file:late\"]\n");
    let config = setup.config();
    let secret = setup.dir.path().join("late");
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("file:late", &format!("file:{}", secret.display()));
    std::fs::write(&config, text).unwrap();
    let check = ["check", "--config", config.to_str().unwrap(), "--live"];
    let (_, stderr) = ends_with(69, &check);
    assert!(stderr.contains("not alive: 127.0.0.1:"), "{stderr}");
    ends_with(64, &check[..3]);
    let running = Setup::new("127.0.0.1:1", "nowhere");
    let mut forebay = running.start();
    let admin = format!("127.0.0.1:{}", running.admin.port());
    let live = |admin: &str| {
        let mut command = program::forebay();
        command
            .args(check)
            .env("FOREBAY__ADMIN__LISTEN", admin)
            .output()
            .unwrap()
            .status
            .code()
    };
    assert_eq!(live(&admin), Some(0));
    assert_eq!(
        live(&format!("0.0.0.0:{}", running.admin.port())),
        Some(0),
        "as images have it"
    );
    assert_eq!(live(&running.public.to_string()), Some(69), "another server does");
    forebay.kill();
    assert_eq!(live(&admin), Some(69));
}

#[test]
fn tail_names_a_missing_topic_and_ends_in_order_at_a_signal() {
    let kafka = MockCluster::new(1).unwrap();
    kafka.create_topic("events", 2, 1).unwrap();
    let brokers = kafka.bootstrap_servers();
    let (_, stderr) = ends_with(69, &["tail", "--brokers", &brokers, "--topic", "other.{kind}"]);
    assert!(stderr.contains("there is no topic other.{kind}"), "{stderr}");

    let mut tail = program::forebay()
        .args(["tail", "--brokers", &brokers, "--topic", "events"])
        .spawn();
    let mut log = BufReader::new(tail.stderr.take().unwrap()).lines();
    assert!(
        log.any(|line| line.unwrap().contains("reading; Ctrl-C ends it")),
        "it ended before it read"
    );
    let pid = rustix::process::Pid::from_child(&tail);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(tail.wait().unwrap().code(), Some(0));
}

#[test]
fn help_of_every_subcommand_has_examples() {
    for name in [
        "serve",
        "check",
        "dev",
        "send",
        "tail",
        "webhooks",
        "completions",
        "man",
    ] {
        let (stdout, _) = ends_with(0, &[name, "--help"]);
        assert!(
            stdout.contains(&format!("Examples:\n  forebay {name}")),
            "{name}: {stdout}"
        );
    }
    assert!(ends_with(0, &["--help"]).0.contains("Exit codes:"));
}

#[test]
fn completions_and_the_man_page_know_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = ends_with(0, &["completions", shell]);
        assert!(
            script.contains("concurrency") && script.contains("from-start") && script.contains("viewer-connection"),
            "{shell}"
        );
    }
    let (page, _) = ends_with(0, &["man"]);
    assert!(page.starts_with(".ie") || page.starts_with(".TH"), "{}", &page[..40]);
    for name in ["SERVE", "CHECK", "DEV", "SEND", "TAIL", "WEBHOOKS"] {
        assert!(page.contains(&format!("FOREBAY {name}")), "{name}");
    }
}

#[test]
fn send_holds_its_answers_against_the_receivers_own_count() {
    let (setup, other) = (
        Setup::new("127.0.0.1:1", "nowhere"),
        Setup::new("127.0.0.1:1", "nowhere"),
    );
    let (_forebay, _other) = (setup.start(), other.start());
    let send = |metrics: &str| {
        let output = send_command(&setup.url(), &["feeds"])
            .args(["--count", "5", "--duplicates", "40", "--metrics", metrics])
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let metrics = |of: &Setup| format!("http://{}/metrics", of.admin);
    for _ in 0..2 {
        assert_eq!(send(&metrics(&setup)), (Some(0), String::new()));
    }
    let (code, stderr) = send(&metrics(&other));
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("7 were answered 2xx, and forebay_events_total at"),
        "{stderr}"
    );
    let (code, stderr) = send("http://127.0.0.1:1/metrics");
    assert_eq!(code, Some(69), "{stderr}");
}
