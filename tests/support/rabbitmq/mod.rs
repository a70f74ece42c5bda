//! Real RabbitMQ for tests: nodes in processes of their own, on free ports, in a temporary directory, gone with the
//! test.
//!
//! Most tests share one node ([`shared`]) and take a virtual host each: the one of `FOREBAY_TEST_AMQP`, else one that
//! is started for the run. Tests that kill, stop or reconfigure a node start a [`Cluster`] of their own.

mod client;
mod namespace;
mod node;
mod vhost;

use std::{
    net::{SocketAddr, ToSocketAddrs},
    sync::LazyLock,
    time::{Duration, Instant},
};

pub use client::{Read, read, read_all, read_slowly, read_streams};
pub use namespace::{Namespace, can_isolate};
pub use vhost::{Broker, CLASSIC, QUORUM, STREAM, Vhost};

use super::{
    process::{Process, directory},
    tls::Certificates,
};
use node::{Node, Surroundings};
use tempfile::TempDir;

/// How long a node may take to come up, on a busy machine.
const READY_DEADLINE: Duration = Duration::from_secs(120);

/// Of a cluster's directory; then comes the id of the process that it belongs to.
const DIR_PREFIX: &str = "forebay-rabbitmq-";

/// The user that every node knows, an administrator.
pub const USER: &str = "forebay";
pub const PASSWORD: &str = "correct-horse";
/// The user that the client's certificate names. See [`Vhost::admit`].
pub const CERTIFIED_USER: &str = "client";

/// What a [`Cluster`] is to be.
#[derive(Debug, Clone)]
pub struct Options {
    pub nodes: usize,
    /// Another listener, with TLS; clients may show a certificate.
    pub tls: bool,
    /// In a network namespace of its own, whose packets can be dropped. Needs root.
    pub isolated: bool,
    pub version: Version,
}

/// Which RabbitMQ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The distribution's.
    Usual,
    /// A newer distribution's, in a root directory of its own (`tests/rabbitmq-4.sh`). Needs root.
    V4,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 1,
            tls: false,
            isolated: false,
            version: Version::Usual,
        }
    }
}

/// Nodes that belong to one test.
pub struct Cluster {
    nodes: Vec<Node>,
    /// Where nodes find each other. Ours, because the one that they would start stays for ever.
    _epmd: Process,
    certificates: Option<Certificates>,
    namespace: Option<Namespace>,
    _dir: TempDir,
}

impl Cluster {
    /// Starts nodes, joins them, and waits until all of them are there.
    pub fn start(options: &Options) -> Self {
        super::process::brokers_are_allowed("RabbitMQ");
        let dir = directory(DIR_PREFIX);
        let namespace = options.isolated.then(|| Namespace::make(dir.path()));
        let certificates = options.tls.then(|| Certificates::make(dir.path()));
        let surroundings =
            Surroundings::prepare(dir.path(), options.version, namespace.as_ref(), certificates.as_ref());
        let epmd = surroundings.epmd();
        let nodes = (0..options.nodes)
            .map(|number| Node::write(&surroundings, number))
            .collect();
        let mut cluster = Self {
            nodes,
            _epmd: epmd,
            certificates,
            namespace,
            _dir: dir,
        };
        cluster.nodes.iter_mut().for_each(Node::start);
        cluster
            .nodes
            .iter()
            .for_each(|node| node.wait_until_ready(READY_DEADLINE));
        for number in 1..options.nodes {
            cluster.stop_app(number);
            cluster.ctl(number, &["join_cluster", &cluster.nodes[0].name]);
            cluster.start_app(number);
        }
        cluster
    }

    /// One node without TLS.
    pub fn single() -> Self {
        Self::start(&Options::default())
    }

    /// Three nodes.
    pub fn three() -> Self {
        Self::start(&Options {
            nodes: 3,
            ..Options::default()
        })
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Where clients of a node connect to.
    pub fn address(&self, node: usize) -> SocketAddr {
        self.nodes[node].amqp
    }

    /// What clients connect to: every node, in turn.
    pub fn broker(&self) -> Broker {
        Broker {
            nodes: self.nodes.iter().map(|node| node.amqp).collect(),
            management: self.nodes.iter().map(|node| node.management).collect(),
            user: USER.into(),
            password: PASSWORD.into(),
        }
    }

    /// A virtual host, to be worked in.
    pub fn vhost(&self, name: &str) -> Vhost {
        self.broker().vhost(name)
    }

    /// Where the first node listens with TLS.
    pub fn tls_address(&self) -> SocketAddr {
        self.nodes[0].tls.expect("started with TLS")
    }

    pub fn certificates(&self) -> &Certificates {
        self.certificates.as_ref().expect("started with TLS")
    }

    pub fn namespace(&self) -> &Namespace {
        self.namespace.as_ref().expect("started isolated")
    }

    /// Runs `rabbitmqctl` on a node and returns what it printed.
    pub fn ctl(&self, node: usize, arguments: &[&str]) -> String {
        self.nodes[node].ctl(arguments)
    }

    /// Stops RabbitMQ on a node, whose Erlang goes on.
    pub fn stop_app(&self, node: usize) {
        self.ctl(node, &["stop_app"]);
    }

    /// Starts RabbitMQ on a node again, and waits until it serves.
    pub fn start_app(&self, node: usize) {
        self.ctl(node, &["start_app"]);
        self.nodes[node].wait_until_ready(READY_DEADLINE);
    }

    /// As `kill -9`: at once, with nothing said.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].kill();
    }

    /// Starts nodes again, on the same ports and data, and waits until they serve.
    pub fn restart(&mut self, nodes: &[usize]) {
        for node in nodes {
            self.nodes[*node].start();
        }
        for node in nodes {
            self.nodes[*node].wait_until_ready(READY_DEADLINE);
        }
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn freeze(&self, node: usize) {
        self.nodes[node].signal("STOP");
    }

    /// SIGCONT.
    pub fn thaw(&self, node: usize) {
        self.nodes[node].signal("CONT");
    }

    /// Raises the memory alarm, which blocks every connection that publishes, or clears it.
    pub fn alarm(&self, node: usize, raised: bool) {
        self.ctl(
            node,
            &["set_vm_memory_high_watermark", if raised { "0" } else { "0.4" }],
        );
    }

    /// Does once a second, so many times, what `rabbitmqctl close_all_connections` does, whose own start takes longer
    /// than that. Returns how many connections there were to close, all in all.
    pub fn close_all_connections_every_second(&self, node: usize, times: usize) -> usize {
        let expression = format!(
            "lists:sum([begin timer:sleep(1000), Open = rabbit_networking:connections(), \
             [catch rabbit_networking:close_connection(One, <<\"a test closes it\">>) || One <- Open], length(Open) end \
             || _ <- lists:seq(1, {times})])."
        );
        let said = self.ctl(node, &["eval", &expression]);
        said.trim().parse().unwrap_or_else(|_| panic!("not a number: {said}"))
    }
}

/// The broker that most tests share.
pub fn shared() -> Broker {
    static SHARED: LazyLock<(Broker, Option<Cluster>)> = LazyLock::new(|| match std::env::var("FOREBAY_TEST_AMQP") {
        Ok(uri) if !uri.is_empty() => (given(&uri), None),
        _ => {
            let cluster = Cluster::single();
            (cluster.broker(), Some(cluster))
        }
    });
    SHARED.0.clone()
}

/// The broker of `FOREBAY_TEST_AMQP`, `amqp://user:password@host:port`.
fn given(uri: &str) -> Broker {
    let parts = || {
        let (login, place) = uri.strip_prefix("amqp://")?.split_once('@')?;
        let (user, password) = login.split_once(':')?;
        let place = place.split('/').next()?;
        let node = place.to_socket_addrs().ok()?.next()?;
        Some((user, password, node))
    };
    let (user, password, node) = parts()
        .unwrap_or_else(|| panic!("FOREBAY_TEST_AMQP is amqp://user:password@host:port, with a host that is found"));
    let management = match std::env::var("FOREBAY_TEST_AMQP_MANAGEMENT") {
        Ok(address) if !address.is_empty() => address
            .to_socket_addrs()
            .ok()
            .and_then(|mut addresses| addresses.next())
            .expect("FOREBAY_TEST_AMQP_MANAGEMENT is host:port"),
        _ => SocketAddr::new(node.ip(), 15672),
    };
    Broker {
        nodes: vec![node],
        management: vec![management],
        user: user.into(),
        password: password.into(),
    }
}

fn wait_until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> Result<(), String> {
    let deadline = Instant::now() + within;
    while !holds() {
        if Instant::now() >= deadline {
            return Err(format!("waited {within:?} in vain: {what}"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}
