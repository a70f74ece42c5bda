//! What the configuration says of a sink to Kafka, and of a route to it.

use std::{collections::BTreeMap, sync::Arc};

use forebay_section::{ConfigTable, Shown, Value, ValueKind, values};

pub use forebay_broker::TopicTemplate;
pub use forebay_section::TextSource;

use crate::properties::{SECRETS, check_properties};

/// Enough for an account each, and little enough for a cluster to bear.
const TOPICS_MAX: u64 = 200;

/// `type = "kafka"`
#[derive(Clone, PartialEq)]
pub struct KafkaConfig {
    pub brokers: Vec<String>,
    /// librdkafka's properties; none breaks a promise ([`check_properties`]).
    pub properties: BTreeMap<String, String>,
    /// Topics that do not exist are created, with this many partitions and replicas. `None`: they are not.
    pub create_topics: Option<CreateTopics>,
}

/// Without the properties' values: a password may be among them.
impl std::fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kafka")
            .field("brokers", &self.brokers)
            .field("properties", &self.properties.keys())
            .field("create_topics", &self.create_topics)
            .finish()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CreateTopics {
    pub partitions: i32,
    pub replication: i32,
    /// Where a route's topic is made from the event: with so many of its topics there, no more are made.
    pub topics_max: usize,
}

/// What becomes of a message whose topic is not there, and is not made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnknownTopic {
    /// It waits until the topic is there, and those for other topics do not.
    Hold,
    /// It goes to the route's dead letters.
    DeadLetter,
    /// It goes to this topic instead.
    Fallback(String),
}

/// Where a route's messages go.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteTopics {
    pub template: TopicTemplate,
    pub unknown: UnknownTopic,
    /// The topic of all events, where it is one.
    literal: Option<Arc<str>>,
}

impl RouteTopics {
    pub fn new(template: TopicTemplate, unknown: UnknownTopic) -> Self {
        Self {
            literal: template.literal().map(Into::into),
            template,
            unknown,
        }
    }

    /// The topic of all events, where it is one.
    pub fn literal(&self) -> Option<&Arc<str>> {
        self.literal.as_ref()
    }
}

impl KafkaConfig {
    /// One without properties.
    ///
    /// # Errors
    ///
    /// What is not a broker's address.
    pub fn of_brokers(brokers: &[String]) -> Result<Self, String> {
        brokers.iter().try_for_each(|address| broker(address))?;
        Ok(Self {
            brokers: brokers.to_vec(),
            properties: BTreeMap::new(),
            create_topics: None,
        })
    }

    pub(crate) fn read(mut table: ConfigTable<'_>) -> Option<Self> {
        let brokers = table.require("brokers", |value| {
            let brokers = values::list(value)?;
            brokers.iter().try_for_each(|address| broker(address))?;
            if brokers.is_empty() {
                Err("empty".to_owned())
            } else {
                Ok(brokers)
            }
        });
        let properties = properties(&mut table);
        let create_topics = table.optional_table("create_topics").map(|mut topics| {
            let partitions = topics.require("partitions", values::whole(1..=10_000));
            let replication = topics.require("replication", values::whole(1..=100));
            let topics_max = topics.take_or("topics_max", TOPICS_MAX, values::whole(1..=100_000));
            topics.finish();
            Some(CreateTopics {
                partitions: partitions?.try_into().expect("within the bounds"),
                replication: replication?.try_into().expect("within the bounds"),
                topics_max: topics_max as usize,
            })
        });
        table.finish();
        Some(Self {
            brokers: brokers?,
            properties,
            create_topics: create_topics.flatten(),
        })
    }

    /// The keys of the section that hold a secret as it is.
    pub(crate) fn inline_secrets(&self) -> Vec<String> {
        let is_secret = |name: &&String| {
            ["password", "secret", "passphrase", "key.pem"]
                .iter()
                .any(|word| name.contains(word))
        };
        let secret = self.properties.keys().filter(is_secret);
        secret.map(|name| format!("properties.{name}")).collect()
    }
}

/// librdkafka's properties, by their dotted names, however the file nests them.
fn properties(table: &mut ConfigTable<'_>) -> BTreeMap<String, String> {
    let mut properties = BTreeMap::new();
    let mut table = table.table("properties");
    for (name, value) in table.leaves() {
        match property(&value) {
            Ok(value) => drop(properties.insert(name, value)),
            Err(text) => table.problem(&name, text),
        }
    }
    for name in SECRETS {
        if let Some(source) = properties.get(name).map(|text| TextSource::parse(text))
            && let Err(reason) = table.read(&source)
        {
            table.problem(name, reason);
        }
    }
    for (name, reason) in check_properties(&properties) {
        table.problem(&name, reason);
    }
    properties
}

/// Where a route's messages go, of its keys.
pub(crate) fn topics(table: &mut ConfigTable<'_>) -> Option<RouteTopics> {
    let template = table.require("topic", |value| TopicTemplate::parse(&values::text(value)?));
    let unknown = unknown_topic(table, template.as_ref());
    Some(RouteTopics::new(template?, unknown))
}

/// What becomes of an event whose topic is not there. A topic that the event names may be anybody's invention, so that
/// only such a one is given up where nothing is said.
fn unknown_topic(table: &mut ConfigTable<'_>, topic: Option<&TopicTemplate>) -> UnknownTopic {
    let by_event = topic.is_some_and(|topic| topic.literal().is_none());
    let both = table.has("unknown_topic") && table.has("topic_fallback");
    let holds = table.take("unknown_topic", values::word(&[("dead_letter", false), ("hold", true)]));
    let fallback = table.take("topic_fallback", |value| {
        let fallback = TopicTemplate::parse(&values::text(value)?)?;
        let literal = fallback.literal().map(str::to_owned);
        literal.ok_or_else(|| "a topic without placeholders: it is for events whose own topic is not there".to_owned())
    });
    if both {
        table.problem(
            "topic_fallback",
            "says what becomes of such an event, and so does unknown_topic: remove one",
        );
    }
    match fallback {
        Some(fallback) => UnknownTopic::Fallback(fallback),
        None if holds.unwrap_or(!by_event) => UnknownTopic::Hold,
        None => UnknownTopic::DeadLetter,
    }
}

/// The value of a librdkafka property, which may be a password: it is in no message.
fn property(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        ValueKind::Boolean(value) => Ok(value.to_string()),
        ValueKind::I64(number) => Ok(number.to_string()),
        ValueKind::U64(number) => Ok(number.to_string()),
        ValueKind::Float(number) => Ok(number.to_string()),
        other => Err(format!(
            "expected a text, a number, true or false, found {}",
            values::kind(other)
        )),
    }
}

/// `host`, `host:port` or `[v6]:port`.
fn broker(text: &str) -> Result<(), String> {
    if text.contains("://") {
        return Err(format!(
            "{:?} has a protocol; it goes under properties, as security.protocol",
            Shown(text)
        ));
    }
    if text.contains('@') {
        return Err(format!(
            "{:?} has a user; it goes under properties, as sasl.username and sasl.password",
            Shown(text)
        ));
    }
    let wrong = || format!(r#"{:?} is not a broker such as "kafka-1.example:9092""#, Shown(text));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => (text, "9092"),
    };
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
    };
    (port_is_good && host_is_good).then_some(()).ok_or_else(wrong)
}
