//! The brokers that faults are done to.

use std::{
    net::TcpStream,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    forebay::{EXCHANGE, wait_until},
    kafka::{self, Listener},
    process::reset_connections,
    rabbitmq::{self, QUORUM, Vhost},
};
use serde_json::Value;
use tokio::runtime::Runtime;

/// The stream's place at the broker is one of so many.
pub const PARTITIONS: usize = 3;
/// How long a broker may take to answer before it counts as one that does not.
const ANSWERS: Duration = Duration::from_secs(1);
const SEEN: Duration = Duration::from_secs(30);

/// Which broker, and how it is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokerPlan {
    pub kind: BrokerKind,
    pub nodes: usize,
    /// Forebay is a user of it, with a password, and rights.
    pub login: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BrokerKind {
    Kafka(kafka::Version),
    RabbitMq(rabbitmq::Version),
}

impl BrokerKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka(kafka::Version::V3) => "Kafka 3.9",
            Self::Kafka(kafka::Version::Usual) => "Kafka 4.1",
            Self::Kafka(kafka::Version::Newest) => "Kafka 4.3",
            Self::RabbitMq(rabbitmq::Version::Usual) => "RabbitMQ 3.10",
            Self::RabbitMq(rabbitmq::Version::V4) => "RabbitMQ 4.0",
        }
    }
}

/// A message that a broker holds.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Arrived {
    /// Whose number it has; nothing where nobody numbers.
    pub replica: String,
    /// Where the broker keeps order: a partition, a queue.
    pub place: String,
    pub stream: String,
    pub feed: String,
}

/// One that runs.
pub enum Broker {
    Kafka {
        cluster: kafka::Cluster,
        login: bool,
    },
    RabbitMq {
        // Before its cluster: it goes with a request.
        vhost: Vhost,
        cluster: rabbitmq::Cluster,
        queues: Vec<String>,
    },
}

/// What is in a route's password file.
const USER: &str = "chaos";
const PASSWORD: &str = "first-horse";
pub const NEXT_PASSWORD: &str = "second-horse";

impl Broker {
    pub fn start(plan: BrokerPlan, runtime: &Runtime, topics: &[&str]) -> Self {
        match plan.kind {
            BrokerKind::Kafka(version) => {
                let mut options = kafka::Options::default().nodes(plan.nodes).version(version);
                if plan.nodes > 2 {
                    options = options.property("min.insync.replicas", "2");
                }
                if plan.login {
                    options = options.listener(Listener::Scram).authorized();
                }
                let cluster = kafka::Cluster::start(&options);
                let this = Self::Kafka {
                    cluster,
                    login: plan.login,
                };
                for topic in topics {
                    this.make_topic(runtime, topic);
                    if plan.login {
                        this.grant(topic, "");
                    }
                }
                this
            }
            BrokerKind::RabbitMq(version) => {
                let cluster = rabbitmq::Cluster::start(&rabbitmq::Options {
                    nodes: plan.nodes,
                    version,
                    ..rabbitmq::Options::default()
                });
                let vhost = cluster.vhost("chaos");
                vhost.admit(USER, PASSWORD);
                let queues = vhost.topology(EXCHANGE, PARTITIONS, QUORUM);
                Self::RabbitMq { vhost, cluster, queues }
            }
        }
    }

    /// What publishes to it, in TOML. Secrets are in files of `dir`.
    pub fn route(&self, topic: &str, dir: &Path) -> String {
        match self {
            Self::Kafka { cluster, login } => {
                let listener = if *login { Listener::Scram } else { Listener::Plaintext };
                let mut properties = String::new();
                if *login {
                    properties = format!(
                        r#"
                        [sinks.main.properties]
                        "security.protocol" = "sasl_plaintext"
                        "sasl.mechanisms" = "SCRAM-SHA-512"
                        "sasl.username" = "{}"
                        "sasl.password" = "file:{}"
                        "#,
                        kafka::USER,
                        self.write_password(dir, None).display(),
                    );
                }
                format!(
                    r#"
                    [sinks.main]
                    type = "kafka"
                    brokers = {:?}
                    {properties}
                    [routes.events]
                    sink = "main"
                    topic = "{topic}"
                    "#,
                    cluster.brokers(listener),
                )
            }
            Self::RabbitMq { vhost, .. } => {
                let password = self.write_password(dir, None);
                let uris: Vec<String> = vhost
                    .broker
                    .nodes
                    .iter()
                    .map(|node| format!("amqp://{node}/{}", vhost.name))
                    .collect();
                format!(
                    r#"
                    [sinks.main]
                    type = "rabbitmq"
                    uri = {uris:?}
                    username = "{USER}"
                    password = "file:{}"
                    exchange = "{EXCHANGE}"
                    partitions = {PARTITIONS}

                    [routes.events]
                    sink = "main"
                    "#,
                    password.display(),
                )
            }
        }
    }

    /// Puts the password where the route reads it: the first one, or another.
    pub fn write_password(&self, dir: &Path, password: Option<&str>) -> std::path::PathBuf {
        let first = match self {
            Self::Kafka { .. } => kafka::PASSWORD,
            Self::RabbitMq { .. } => PASSWORD,
        };
        let file = dir.join("password");
        std::fs::write(&file, password.unwrap_or(first)).unwrap();
        file
    }

    /// Addresses for clients that need no password.
    pub fn bootstrap(&self) -> String {
        match self {
            Self::Kafka { cluster, .. } => cluster.bootstrap(),
            Self::RabbitMq { .. } => String::new(),
        }
    }

    /// RabbitMQ, where it is one.
    pub fn rabbitmq(&self) -> (&rabbitmq::Cluster, &Vhost) {
        match self {
            Self::RabbitMq { cluster, vhost, .. } => (cluster, vhost),
            Self::Kafka { .. } => panic!("this is done to RabbitMQ"),
        }
    }

    pub fn nodes(&self) -> usize {
        match self {
            Self::Kafka { cluster, .. } => cluster.brokers(Listener::Plaintext).len(),
            Self::RabbitMq { cluster, .. } => cluster.nodes(),
        }
    }

    fn ports(&self) -> Vec<u16> {
        match self {
            Self::Kafka { cluster, login } => {
                let listener = if *login { Listener::Scram } else { Listener::Plaintext };
                let port = |address: String| address.rsplit(':').next().unwrap().parse().unwrap();
                cluster.brokers(listener).into_iter().map(port).collect()
            }
            Self::RabbitMq { cluster, .. } => (0..cluster.nodes()).map(|node| cluster.address(node).port()).collect(),
        }
    }

    /// As `kill -9`.
    pub fn kill(&mut self, node: usize) {
        match self {
            Self::Kafka { cluster, .. } => cluster.kill(node),
            Self::RabbitMq { cluster, .. } => cluster.kill(node),
        }
    }

    pub fn restart(&mut self, node: usize) {
        match self {
            Self::Kafka { cluster, .. } => cluster.restart(node),
            Self::RabbitMq { cluster, .. } => cluster.restart(&[node]),
        }
    }

    /// One node after the other, as an operator updates them.
    pub fn roll(&mut self) {
        for node in 0..self.nodes() {
            match self {
                Self::Kafka { cluster, .. } => {
                    cluster.stop(node);
                    cluster.restart(node);
                }
                Self::RabbitMq { cluster, .. } => {
                    cluster.stop_app(node);
                    cluster.start_app(node);
                }
            }
        }
    }

    /// SIGSTOP of every node.
    pub fn freeze(&self) {
        for node in 0..self.nodes() {
            match self {
                Self::Kafka { cluster, .. } => cluster.freeze(node),
                Self::RabbitMq { cluster, .. } => cluster.freeze(node),
            }
        }
    }

    pub fn thaw(&self) {
        for node in 0..self.nodes() {
            match self {
                Self::Kafka { cluster, .. } => cluster.thaw(node),
                Self::RabbitMq { cluster, .. } => cluster.thaw(node),
            }
        }
    }

    /// Nobody answers for it.
    pub fn assert_away(&self) {
        let answers = match self {
            Self::Kafka { .. } => kafka::wait_for_brokers(&self.bootstrap(), 1, ANSWERS).is_ok(),
            Self::RabbitMq { cluster, .. } => (0..cluster.nodes()).any(|node| greets(cluster.address(node))),
        };
        assert!(!answers, "the broker answers");
    }

    /// Resets every connection of clients, again and again for a while. Returns how many.
    pub fn reset_connections(&self, period: Duration, interval: Duration) -> usize {
        let began = Instant::now();
        let mut reset = 0;
        while began.elapsed() < period {
            reset += self.ports().into_iter().map(reset_connections).sum::<usize>();
            sleep(interval);
        }
        reset
    }

    pub fn make_topic(&self, runtime: &Runtime, topic: &str) {
        let partitions = i32::try_from(PARTITIONS).unwrap();
        runtime.block_on(kafka::create_topic_named(&self.bootstrap(), topic, partitions, &[]));
    }

    /// Lets Forebay write, or, with a minus as `sign`, not any more.
    pub fn grant(&self, topic: &str, sign: &str) {
        match self {
            Self::Kafka { cluster, .. } => {
                let rights = ["WRITE", "DESCRIBE"].map(|right| format!("{sign}{right}:{topic}"));
                kafka::java(
                    "Grant.java",
                    &[&cluster.bootstrap(), kafka::USER, &rights[0], &rights[1]],
                );
            }
            // What a channel was allowed, it remembers.
            Self::RabbitMq { vhost, .. } if sign.is_empty() => vhost.permit(USER, ".*"),
            Self::RabbitMq { vhost, .. } => {
                vhost.permit(USER, "^$");
                self.forget_clients();
            }
        }
    }

    /// From now on the broker knows Forebay by another password, and has forgotten who was there.
    pub fn change_password(&self) {
        match self {
            Self::Kafka { cluster, .. } => cluster.set_scram_password(NEXT_PASSWORD),
            Self::RabbitMq { vhost, .. } => vhost.admit(USER, NEXT_PASSWORD),
        }
        self.forget_clients();
    }

    fn forget_clients(&self) {
        wait_until("there are connections to reset", SEEN, || {
            self.reset_connections(Duration::from_millis(1), Duration::from_millis(100)) > 0
        });
    }

    /// Takes no message above so many bytes.
    pub fn limit_messages(&self, runtime: &Runtime, topic: &str, bytes: usize) {
        match self {
            Self::Kafka { .. } => runtime.block_on(kafka::set_topic(
                &self.bootstrap(),
                topic,
                "max.message.bytes",
                &bytes.to_string(),
            )),
            Self::RabbitMq { cluster, .. } => {
                // 3 reads the first, 4 the second, which it makes of the first when it starts.
                let set = format!(
                    "application:set_env(rabbit, max_message_size, {bytes}), \
                     persistent_term:put(max_message_size, {bytes})."
                );
                for node in 0..cluster.nodes() {
                    cluster.ctl(node, &["eval", &set]);
                }
                // A channel has the limit that there was when it was opened.
                self.forget_clients();
            }
        }
    }

    /// What it holds; of queues, what they held since the last time.
    pub fn read(&self, runtime: &Runtime, topic: &str) -> Vec<Arrived> {
        let arrived = |replica: Option<&String>, place: String, stream: &str, body: &[u8]| {
            let event: Value = serde_json::from_slice(body).unwrap();
            Arrived {
                replica: replica.cloned().unwrap_or_default(),
                place,
                stream: stream.to_owned(),
                feed: event["data"]["feedId"].as_str().unwrap().to_owned(),
            }
        };
        match self {
            Self::Kafka { cluster, .. } => {
                let read = kafka::read_all(&cluster.bootstrap(), topic);
                let one = |read: &kafka::Read| {
                    let replica = read.headers.get("replica");
                    arrived(replica, read.partition.to_string(), &read.key, &read.value)
                };
                read.iter().map(one).collect()
            }
            Self::RabbitMq { vhost, queues, .. } => {
                let read = runtime.block_on(rabbitmq::read_all(&vhost.uri(), queues));
                let one = |read: &rabbitmq::Read| {
                    arrived(read.headers.get("replica"), read.queue.clone(), read.key(), &read.body)
                };
                read.iter().map(one).collect()
            }
        }
    }

    /// Whether what [`Broker::read`] gives is all of it each time.
    pub fn keeps_what_was_read(&self) -> bool {
        matches!(self, Self::Kafka { .. })
    }
}

/// Whether a RabbitMQ answers the head of the protocol.
fn greets(address: std::net::SocketAddr) -> bool {
    use std::io::{Read, Write};
    let Ok(mut stream) = TcpStream::connect_timeout(&address, ANSWERS) else {
        return false;
    };
    stream.set_read_timeout(Some(ANSWERS)).unwrap();
    stream.write_all(b"AMQP\0\0\x09\x01").is_ok() && stream.read(&mut [0; 8]).is_ok_and(|length| length > 0)
}
