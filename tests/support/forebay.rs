//! Runs the real binary, as its users do.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::kafka::free_port;

/// The secret of MILLICAST's vectors, in base64.
pub const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The path of the endpoint that [`Setup`] configures.
pub const PATH: &str = "/millicast/acme";

pub fn binary() -> &'static str {
    env!("CARGO_BIN_EXE_forebay")
}

/// Waits for a condition, or fails with what was waited for.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A configuration on disk, its spool, and the ports that a restart keeps.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    spool: PathBuf,
    brokers: String,
    topic: String,
    extra: String,
    /// A program and its arguments that run the binary (strace, faketime).
    pub wrapper: Vec<String>,
}

impl Setup {
    pub fn new(brokers: &str, topic: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            public: local(free_port()),
            admin: local(free_port()),
            spool: dir.path().join("spool"),
            dir,
            brokers: brokers.into(),
            topic: topic.into(),
            extra: String::new(),
            wrapper: Vec::new(),
        }
    }

    /// Keeps the spool there instead of in the temporary directory.
    pub fn spool_at(mut self, dir: &Path) -> Self {
        self.spool = dir.into();
        self
    }

    /// Appends TOML to the configuration.
    pub fn with(mut self, toml: &str) -> Self {
        self.extra.push_str(toml);
        self
    }

    pub fn spool(&self) -> &Path {
        &self.spool
    }

    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.public)
    }

    /// Writes the configuration and returns its path.
    pub fn config(&self) -> PathBuf {
        let path = self.dir.path().join("forebay.toml");
        let brokers: Vec<String> = self.brokers.split(',').map(|broker| format!("{broker:?}")).collect();
        let toml = format!(
            r#"
            server.listen = "{}"
            server.drain_delay = "100ms"
            admin.listen = "{}"
            spool.dir = "{}"
            spool.replica = "replica-0"

            [endpoints.acme]
            path = "{PATH}"
            secrets = ["base64:{SECRET}"]

            [sinks.main]
            type = "kafka"
            brokers = [{}]

            [routes.events]
            sink = "main"
            match = {{ not_kinds = ["thumbnail"] }}
            topic = "{}"
            {}
            "#,
            self.public,
            self.admin,
            self.spool.display(),
            brokers.join(", "),
            self.topic,
            self.extra
        );
        std::fs::write(&path, toml).expect("the configuration is written");
        path
    }

    /// Starts `forebay serve` and waits until it is ready.
    pub fn start(&self) -> Forebay {
        let forebay = self.launch();
        forebay.wait_until_ready();
        forebay
    }

    /// Starts `forebay serve`.
    pub fn launch(&self) -> Forebay {
        let mut words = self.wrapper.clone();
        words.push(binary().into());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(self.config())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("forebay starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let sink = log.clone();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                sink.lock().expect("no panic under the lock").push(line);
            }
        });
        Forebay {
            child,
            admin: self.admin,
            log,
        }
    }
}

/// A running `forebay serve`; killed when dropped.
pub struct Forebay {
    pub child: Child,
    admin: SocketAddr,
    log: Arc<Mutex<Vec<String>>>,
}

impl Forebay {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic under the lock").join("\n")
    }

    pub fn wait_until_ready(&self) {
        let start = Instant::now();
        while !matches!(self.get("/readyz"), Some((200, _))) {
            assert!(start.elapsed() < Duration::from_secs(30), "not ready:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The status code and body of a page of the admin server.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        http_get(self.admin, path)
    }

    pub fn status(&self) -> serde_json::Value {
        let (_, body) = self.get("/status").expect("the admin server answers");
        serde_json::from_str(&body).expect("/status is JSON")
    }

    /// The value of a metric, by its whole name with labels; 0 when it is not there.
    pub fn metric(&self, series: &str) -> f64 {
        let (_, body) = self.get("/metrics").expect("the admin server answers");
        body.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .map_or(0.0, |value| value.parse().expect("a metric's value is a number"))
    }

    /// Waits until every route has published everything.
    pub fn wait_until_drained(&self, deadline: Duration) {
        wait_until(&format!("an empty backlog: {}", self.status()), deadline, || {
            let status = self.status();
            let routes = status["routes"].as_array().expect("/status lists the routes");
            routes.iter().all(|route| route["backlog_records"] == 0)
        });
    }

    pub fn kill(&mut self) {
        self.child.kill().expect("kill -9");
        self.child.wait().expect("it is gone");
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args([&format!("-{name}"), &self.pid().to_string()])
            .status();
        assert!(status.expect("kill runs").success());
    }

    /// Sends SIGTERM and waits for the end.
    pub fn terminate(&mut self, deadline: Duration) -> ExitStatus {
        self.signal("TERM");
        self.wait(deadline)
    }

    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                return status;
            }
            assert!(
                start.elapsed() < deadline,
                "still running after {deadline:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Forebay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A plain GET; `None` when nobody answers.
pub fn http_get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let code = answer.get(9..12)?.parse().ok()?;
    let body = answer.split_once("\r\n\r\n")?.1;
    Some((code, dechunk(&answer, body)))
}

/// Takes a chunked body apart, where it is one.
fn dechunk(answer: &str, body: &str) -> String {
    if !answer.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let mut whole = String::new();
    let mut rest = body;
    while let Some((size, tail)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size.trim(), 16).unwrap_or(0);
        if size == 0 {
            break;
        }
        whole.push_str(&tail[..size]);
        rest = &tail[size + 2..];
    }
    whole
}
