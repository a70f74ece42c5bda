//! Real Kafka for tests: brokers in processes of their own, on free ports, in a temporary directory, gone with the
//! test.
//!
//! Most tests share one broker ([`shared`]): the one of `FOREBAY_TEST_KAFKA`, else one that is started for the run.
//! Tests that kill, stop or reconfigure a broker start a [`Cluster`] of their own.

mod client;
mod java;

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use super::{
    fetched,
    process::{Process, directory, free_port},
    tls::Certificates,
};
pub use client::{
    Read, add_partitions, create_topic, create_topic_named, delete_topic, leader, partitions, read, read_all,
    read_with, set_topic, wait_for_brokers, wait_for_replicas_in_sync,
};
use tempfile::TempDir;

/// How long a broker may take to come up, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(90);

/// Of a cluster's directory; then comes the id of the process that it belongs to.
const DIR_PREFIX: &str = "forebay-kafka-";

/// The user that SASL listeners know.
pub const USER: &str = "forebay";
pub const PASSWORD: &str = "correct-horse";

/// A door of a broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// No TLS, no authentication: always there.
    Plaintext,
    /// SASL/PLAIN without TLS.
    Plain,
    /// SASL/SCRAM-SHA-512 without TLS.
    Scram,
    /// SASL/OAUTHBEARER without TLS, with tokens that nobody signed.
    OAuth,
    /// TLS, clients by certificate.
    MutualTls,
}

impl Listener {
    const ALL: [Listener; 5] = [Self::Plaintext, Self::Plain, Self::Scram, Self::OAuth, Self::MutualTls];

    fn name(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Plain => "PLAIN",
            Self::Scram => "SCRAM",
            Self::OAuth => "OAUTH",
            Self::MutualTls => "MTLS",
        }
    }

    fn protocol(self) -> &'static str {
        match self {
            Self::Plaintext => "PLAINTEXT",
            Self::Plain | Self::Scram | Self::OAuth => "SASL_PLAINTEXT",
            Self::MutualTls => "SSL",
        }
    }
}

/// Brokers that belong to one test.
pub struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
    certificates: Option<Certificates>,
}

struct Node {
    jars: PathBuf,
    config: PathBuf,
    log: PathBuf,
    /// By [`Listener::ALL`]; none where the listener is off.
    ports: [Option<u16>; 5],
    process: Option<Process>,
}

/// What a [`Cluster`] is to be.
#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: usize,
    pub listeners: Vec<Listener>,
    /// More of `server.properties`.
    pub properties: Vec<(String, String)>,
    pub version: Version,
}

/// Whose jars a broker is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// That of most tests.
    Usual,
    /// The last one of 3.
    V3,
    Newest,
}

impl Version {
    pub const ALL: [Version; 3] = [Self::V3, Self::Usual, Self::Newest];

    fn jars(self) -> PathBuf {
        match self {
            Self::Usual => java::jars().to_owned(),
            Self::V3 => fetched::jars("tests/kafka-3.9"),
            Self::Newest => fetched::jars("tests/kafka-4.3"),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            listeners: vec![Listener::Plaintext],
            properties: Vec::new(),
            version: Version::Usual,
        }
    }
}

impl Options {
    pub fn nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    pub fn version(mut self, version: Version) -> Self {
        self.version = version;
        self
    }

    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// Who says who he is has the rights that he was granted; who does not has all.
    pub fn authorized(self) -> Self {
        let authorizer = "org.apache.kafka.metadata.authorizer.StandardAuthorizer";
        self.property("authorizer.class.name", authorizer)
            .property("super.users", "User:ANONYMOUS")
    }

    pub fn property(mut self, key: &str, value: &str) -> Self {
        self.properties.push((key.into(), value.into()));
        self
    }
}

impl Cluster {
    /// Starts brokers and waits until all of them are there.
    pub fn start(options: &Options) -> Self {
        super::process::brokers_are_allowed("Kafka");
        let dir = directory(DIR_PREFIX);
        let certificates = options
            .listeners
            .contains(&Listener::MutualTls)
            .then(|| Certificates::make(dir.path()));
        let controllers: Vec<u16> = (0..options.nodes).map(|_| free_port()).collect();
        let mut nodes: Vec<Node> = (0..options.nodes)
            .map(|i| Node::write(dir.path(), i, &controllers, options, certificates.as_ref()))
            .collect();
        let formatting: Vec<Process> = nodes.iter().map(Node::format).collect();
        formatting.into_iter().for_each(Process::finish);
        nodes.iter_mut().for_each(Node::start);
        let cluster = Self {
            dir,
            nodes,
            certificates,
        };
        cluster.wait_until_ready();
        cluster
    }

    /// One plain broker.
    pub fn single() -> Self {
        Self::start(&Options::default())
    }

    /// The addresses of a listener, for `bootstrap.servers`.
    pub fn brokers(&self, listener: Listener) -> Vec<String> {
        self.nodes
            .iter()
            .map(|node| format!("127.0.0.1:{}", node.port(listener)))
            .collect()
    }

    pub fn bootstrap(&self) -> String {
        self.brokers(Listener::Plaintext).join(",")
    }

    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("started with a TLS listener")
    }

    /// Waits until every broker that runs is registered and answers.
    pub fn wait_until_ready(&self) {
        let running = self.nodes.iter().filter(|node| node.process.is_some()).count();
        if let Err(error) = wait_for_brokers(&self.bootstrap(), running, READY_DEADLINE) {
            let logs: Vec<_> = self.nodes.iter().map(Node::log_tail).collect();
            panic!("{error}\n{}", logs.join("\n---\n"));
        }
    }

    /// As `kill -9`: at once, with nothing said.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].process.take().expect("it runs").kill();
    }

    /// As an operator stops it. Waits for its end.
    pub fn stop(&mut self, node: usize) {
        self.nodes[node].process.take().expect("it runs").terminate();
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].process.as_ref().expect("it runs").signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self, node: usize) {
        self.nodes[node].process.as_ref().expect("it runs").signal("CONT");
    }

    /// Starts a broker again, on the same ports and data.
    pub fn restart(&mut self, node: usize) {
        self.nodes[node].start();
        self.wait_until_ready();
    }

    /// Stops and starts one broker after the other.
    pub fn roll(&mut self) {
        for node in 0..self.nodes.len() {
            self.stop(node);
            self.restart(node);
        }
    }

    /// Changes the password of the SCRAM user.
    pub fn set_scram_password(&self, password: &str) {
        let change = format!("SCRAM-SHA-512=[password={password}]");
        let arguments = [
            "--bootstrap-server",
            &self.bootstrap(),
            "--alter",
            "--add-config",
            &change,
        ];
        let user = ["--entity-type", "users", "--entity-name", USER];
        let log = self.dir.path().join("config-command.log");
        java::run(
            java::jars(),
            "kafka.admin.ConfigCommand",
            &[&arguments[..], &user].concat(),
            &log,
        )
        .finish();
    }

    /// The process of a broker.
    pub fn pid(&self, node: usize) -> u32 {
        self.nodes[node].process.as_ref().expect("it runs").pid()
    }
}

impl Node {
    fn write(
        dir: &Path,
        i: usize,
        controllers: &[u16],
        options: &Options,
        certificates: Option<&Certificates>,
    ) -> Self {
        let ports = Listener::ALL.map(|listener| options.listeners.contains(&listener).then(free_port));
        let listeners: Vec<(Listener, u16)> = Listener::ALL
            .into_iter()
            .zip(ports)
            .filter_map(|(listener, port)| Some((listener, port?)))
            .collect();
        let addresses = listeners
            .iter()
            .map(|(listener, port)| format!("{}://127.0.0.1:{port}", listener.name()))
            .collect::<Vec<_>>()
            .join(",");
        let protocols: String = listeners
            .iter()
            .map(|(listener, _)| format!(",{}:{}", listener.name(), listener.protocol()))
            .collect();
        let voters = controllers
            .iter()
            .enumerate()
            .map(|(i, port)| format!("{}@127.0.0.1:{port}", i + 1))
            .collect::<Vec<_>>()
            .join(",");
        let replicas = controllers.len().min(3);
        let data = dir.join(format!("data-{i}"));
        let mut text = format!(
            "{template}\nnode.id={id}\nlisteners={addresses},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners={addresses}\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT{protocols}\n\
             controller.quorum.voters={voters}\nlog.dirs={data}\ndefault.replication.factor={replicas}\n\
             offsets.topic.replication.factor={replicas}\ntransaction.state.log.replication.factor={replicas}\n",
            template = include_str!("../../kafka/server.properties"),
            id = i + 1,
            controller = controllers[i],
            data = data.display(),
        );
        if let Some(certificates) = certificates {
            text.push_str(&server_properties(certificates));
        }
        for (key, value) in &options.properties {
            text.push_str(&format!("{key}={value}\n"));
        }
        let config = dir.join(format!("server-{i}.properties"));
        std::fs::write(&config, text).unwrap();
        Self {
            jars: options.version.jars(),
            config,
            log: dir.join(format!("server-{i}.log")),
            ports,
            process: None,
        }
    }

    fn port(&self, listener: Listener) -> u16 {
        self.ports[Listener::ALL.iter().position(|l| *l == listener).expect("one of all")]
            .expect("a listener that is on")
    }

    fn format(&self) -> Process {
        let scram = format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]");
        java::run(
            &self.jars,
            "kafka.tools.StorageTool",
            &[
                "format",
                "-t",
                "Zm9yZWJheS10ZXN0cy0wMQ",
                "--add-scram",
                &scram,
                "-c",
                &self.config.to_string_lossy(),
            ],
            &self.log,
        )
    }

    fn start(&mut self) {
        self.process = Some(java::run(
            &self.jars,
            "kafka.Kafka",
            &[&self.config.to_string_lossy()],
            &self.log,
        ));
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let from = text.char_indices().rev().nth(3000).map_or(0, |(at, _)| at);
        text[from..].to_string()
    }
}

fn server_properties(certificates: &Certificates) -> String {
    format!(
        "ssl.keystore.type=PEM\nssl.keystore.location={}\nssl.truststore.type=PEM\nssl.truststore.location={}\n\
         ssl.client.auth=required\n",
        certificates.path("server-keystore.pem").display(),
        certificates.path("ca.pem").display(),
    )
}

/// The broker that most tests share: `host:port`.
///
/// A test takes topics of its own ([`create_topic`] names them), so that none sees another's.
pub fn shared() -> String {
    static SHARED: OnceLock<(String, Option<Cluster>)> = OnceLock::new();
    SHARED
        .get_or_init(|| match std::env::var("FOREBAY_TEST_KAFKA") {
            Ok(address) if !address.is_empty() => (address, None),
            _ => {
                let cluster = Cluster::single();
                (cluster.bootstrap(), Some(cluster))
            }
        })
        .0
        .clone()
}

/// Runs a single-file program of `tests/kafka` with Kafka's own Java client, and returns what it printed.
pub fn java(program: &str, arguments: &[&str]) -> String {
    java::run_source(program, arguments)
}
