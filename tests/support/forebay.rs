//! Runs the real binary, as its users do.

use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use super::{
    http,
    process::{free_port, private_dir},
    program::{self, Program},
    secrets,
};

pub use super::secrets::WEBHOOK as SECRET;

/// The path of the endpoint that [`Setup`] configures.
pub const PATH: &str = "/millicast/acme";
/// RabbitMQ's exchange in it.
pub const EXCHANGE: &str = "forebay";

/// `forebay send` of webhooks of these kinds, signed with [`SECRET`].
pub fn send_command(url: &str, kinds: &[&str]) -> Program {
    let mut command = program::forebay();
    command
        .args(["send", "--url", url, "--secret", "env:WEBHOOK_SECRET"])
        .env("WEBHOOK_SECRET", SECRET);
    for kind in kinds {
        command.args(["--kind", kind]);
    }
    command
}

/// Waits for a condition, or fails with what was waited for.
pub fn wait_until(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The sink `main` and a route to a topic, in TOML.
pub fn kafka_route(name: &str, brokers: &str, topic: &str) -> String {
    let brokers: Vec<&str> = brokers.split(',').collect();
    format!(
        r#"
        [sinks.main]
        type = "kafka"
        brokers = {brokers:?}

        [routes.no_pictures]
        discard = true
        match = {{ kinds = ["thumbnail"] }}

        [routes.{name}]
        sink = "main"
        match = {{ not_kinds = ["thumbnail"] }}
        topic = "{topic}"
        "#
    )
}

/// The sink `rabbit` and a route to the exchange `forebay`, in TOML.
pub fn rabbitmq_route(name: &str, uris: &[String], partitions: usize) -> String {
    format!(
        r#"
        [sinks.rabbit]
        type = "rabbitmq"
        uri = {uris:?}
        exchange = "{EXCHANGE}"
        partitions = {partitions}

        [routes.no_pictures_to_rabbit]
        discard = true
        match = {{ kinds = ["thumbnail"] }}

        [routes.{name}]
        sink = "rabbit"
        match = {{ not_kinds = ["thumbnail"] }}
        "#
    )
}

/// A configuration on disk, its spool, and the ports that a restart keeps.
pub struct Setup {
    pub dir: tempfile::TempDir,
    pub public: SocketAddr,
    pub admin: SocketAddr,
    spool: PathBuf,
    replica: String,
    /// TOML: sinks and routes.
    routes: String,
    /// Where the endpoint's secrets come from.
    pub secrets: Vec<String>,
    /// A program and its arguments that run the binary (strace, faketime).
    pub wrapper: Vec<String>,
    /// Of the command line, before `serve`.
    pub options: Vec<String>,
    pub env: Vec<(String, String)>,
    /// The listening socket that each process is handed, as systemd would.
    handed: Option<TcpListener>,
}

/// A shell that is the process that it runs: what it has as its input it hands over as a listening socket.
const HAND_OVER: &str = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_FDNAMES=ingress LISTEN_PID=$$ exec \"$@\"";

impl Setup {
    /// Everything but pictures into a topic of Kafka's, by the route `events`.
    pub fn new(brokers: &str, topic: &str) -> Self {
        Self::publishing(&kafka_route("events", brokers, topic))
    }

    /// Everything but pictures into the exchange `forebay`, by the route `events`.
    pub fn rabbitmq(uris: &[String], partitions: usize) -> Self {
        Self::publishing(&rabbitmq_route("events", uris, partitions))
    }

    /// What sinks and routes of the caller's own say, in TOML.
    pub fn publishing(routes: &str) -> Self {
        let dir = private_dir();
        let local = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            public: local(free_port()),
            admin: local(free_port()),
            spool: dir.path().join("spool"),
            replica: "replica-0".into(),
            dir,
            routes: routes.into(),
            secrets: vec![format!("base64:{SECRET}")],
            wrapper: Vec::new(),
            options: Vec::new(),
            env: Vec::new(),
            handed: None,
        }
    }

    /// Opens the socket for webhooks itself, and hands it to every process that it starts.
    pub fn handing_over(mut self) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        self.public = socket.local_addr().expect("an address");
        self.handed = Some(socket);
        self.wrapper = ["sh", "-c", HAND_OVER, "sh"].map(str::to_owned).to_vec();
        self
    }

    /// Keeps the spool there instead of in the temporary directory.
    pub fn spool_at(mut self, dir: &Path) -> Self {
        self.spool = dir.into();
        self
    }

    /// Calls itself that instead of `replica-0`.
    pub fn replica(mut self, name: &str) -> Self {
        self.replica = name.into();
        self
    }

    /// Appends TOML to the configuration.
    pub fn with(mut self, toml: &str) -> Self {
        self.routes.push_str(toml);
        self
    }

    /// Other sinks and routes in the configuration that is written next, in TOML.
    pub fn change(&mut self, routes: &str) {
        self.routes = routes.into();
    }

    /// Sets configuration by the environment, as in `FOREBAY__SPOOL__BYTES_MAX=16MiB`.
    pub fn environment(mut self, variables: &[&str]) -> Self {
        self.wrapper.push("env".into());
        self.wrapper
            .extend(variables.iter().map(|variable| (*variable).to_owned()));
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
        let toml = format!(
            r#"
            server.listen = "{}"
            server.drain_delay = "100ms"
            admin.listen = "{}"
            spool.dir = "{}"
            spool.replica = "{}"

            [endpoints.acme]
            path = "{PATH}"
            secrets = {:?}

            {}
            "#,
            self.public,
            self.admin,
            self.spool.display(),
            self.replica,
            self.secrets,
            self.routes
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
        self.launch_within(&[])
    }

    /// Starts `forebay serve` by a program and its arguments.
    pub fn launch_within(&self, program: &[String]) -> Forebay {
        self.launch_with(program, &[], &self.config())
    }

    /// Starts `forebay serve` with these options, on another file than [`Setup::config`] writes.
    pub fn serve(&self, options: &[&str], config: &Path) -> Forebay {
        self.launch_with(&[], options, config)
    }

    fn launch_with(&self, program: &[String], options: &[&str], config: &Path) -> Forebay {
        let mut program = program::forebay_by(&[program, &self.wrapper].concat());
        for (name, value) in &self.env {
            program.env(name, value);
        }
        let stdin = match &self.handed {
            Some(socket) => OwnedFd::from(socket.try_clone().expect("a descriptor")).into(),
            None => Stdio::null(),
        };
        let mut child = program
            .args(&self.options)
            .args(["serve", "--config"])
            .arg(config)
            .args(options)
            .env_remove("RUST_LOG")
            .spawn_with(stdin);
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
        let answer = http::request(self.admin, "GET", path, "", "")?;
        secrets::assert_none(path, answer.body.as_bytes());
        Some((answer.code, answer.body))
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

    /// The sum over all label values of a metric.
    pub fn metrics_sum(&self, name: &str) -> f64 {
        let (_, body) = self.get("/metrics").expect("the admin server answers");
        let values = body.lines().filter_map(|line| {
            let labels = line.strip_prefix(name)?;
            labels
                .starts_with(['{', ' '])
                .then(|| line.rsplit(' ').next()?.parse::<f64>().ok())?
        });
        values.sum()
    }

    /// How many messages the route `events` has published.
    pub fn published(&self) -> f64 {
        self.metric("forebay_published_total{route=\"events\"}")
    }

    /// What `/status` says that the first route is blocked by; null when it is not.
    pub fn blocked(&self) -> serde_json::Value {
        self.status()["routes"][0]["blocked"].take()
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

    /// Stops every thread of the process, and waits until none is in the kernel any more.
    pub fn freeze(&self) {
        self.signal("STOP");
        wait_until("every thread is stopped", Duration::from_secs(30), || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
            threads.flatten().all(|thread| {
                let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
                let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
                matches!(state, Some('T' | 't'))
            })
        });
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
