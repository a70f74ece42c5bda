//! What is at a broker, as the command line names it for who has no configuration.

use std::path::PathBuf;

use clap::Args;

use super::{CommandFailure, secret::warn_of_process_list};
use crate::{
    config::TextSource,
    sink::{
        EventSource, MessageReading, MessageTail, ReadError, ReadOptions, TailOptions, TopicTemplate,
        kafka::{KafkaConfig, read_topics, tail_topics},
        rabbitmq::{RabbitMqConfig, RabbitMqSource, read_queues, settings::management_url, tail_source, uri},
    },
};

/// What `tail` follows.
#[derive(Args)]
pub struct FollowedFlags {
    /// Kafka's brokers, host:port, separated by commas
    #[arg(long, value_name = "LIST", requires = "topic", value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// The topic
    #[arg(long, value_name = "NAME", requires = "brokers")]
    pub topic: Option<String>,
    /// RabbitMQ: env:NAME, file:PATH, or amqp(s)://user:password@host:port/vhost, which then stands in the list of
    /// processes
    #[arg(long, value_name = "URI", requires = "followed")]
    pub amqp: Option<String>,
    /// What this queue gets: its bindings are copied, as the management API tells them
    #[arg(long, value_name = "NAME", requires = "amqp")]
    pub queue: Option<String>,
    /// What this exchange gets
    #[arg(long, value_name = "NAME", requires = "amqp")]
    pub exchange: Option<String>,
    /// Only what this binding takes, such as 03.# or *.feeds.#; may be repeated; # when none is given
    #[arg(long = "binding", value_name = "KEY", requires = "exchange")]
    pub bindings: Vec<String>,
    /// RabbitMQ's management API [default: the same host, port 15672, with TLS 15671]
    #[arg(long, value_name = "URL", requires = "amqp")]
    pub management: Option<String>,
    /// CAs in PEM that are trusted beside the system's, for amqps://
    #[arg(long, value_name = "FILE", requires = "amqp")]
    pub ca_file: Option<PathBuf>,
}

/// What `verify` reads.
#[derive(Args)]
pub struct VerifiedFlags {
    /// Kafka's brokers, host:port, separated by commas
    #[arg(long, value_name = "LIST", requires = "topics", value_delimiter = ',')]
    pub brokers: Vec<String>,
    /// A topic; may be repeated
    #[arg(long = "topic", id = "topics", value_name = "NAME", requires = "brokers")]
    pub topics: Vec<String>,
    /// RabbitMQ: env:NAME, file:PATH, or amqp(s)://user:password@host:port/vhost, which then stands in the list of
    /// processes
    #[arg(long, value_name = "URI", requires = "queues")]
    pub amqp: Option<String>,
    /// A queue or stream; may be repeated
    #[arg(long = "queue", id = "queues", value_name = "NAME", requires = "amqp")]
    pub queues: Vec<String>,
    /// RabbitMQ's management API [default: the same host, port 15672, with TLS 15671]
    #[arg(long, value_name = "URL", requires = "amqp")]
    pub management: Option<String>,
    /// CAs in PEM that are trusted beside the system's, for amqps://
    #[arg(long, value_name = "FILE", requires = "amqp")]
    pub ca_file: Option<PathBuf>,
}

impl FollowedFlags {
    /// What is to be followed.
    pub fn source(&self, options: TailOptions) -> Result<EventSource<dyn MessageTail>, CommandFailure> {
        let Some(uri) = &self.amqp else {
            let kafka = kafka(&self.brokers)?;
            let topic = topic(self.topic.as_deref().unwrap_or_default())?;
            return Ok(tail_topics(kafka, vec![topic], options));
        };
        let source = match (&self.queue, &self.exchange) {
            (Some(queue), _) => RabbitMqSource::Queue(queue.clone()),
            (None, Some(exchange)) => RabbitMqSource::exchange(exchange, self.bindings.clone()),
            (None, None) => return Err(CommandFailure::usage("--amqp needs --queue or --exchange")),
        };
        let rabbitmq = rabbitmq(uri, self.ca_file.clone(), self.management.as_deref())?;
        Ok(tail_source(rabbitmq, source, options)?)
    }
}

impl VerifiedFlags {
    /// What is to be read, and its name.
    pub fn source(&self, options: ReadOptions) -> Result<(EventSource<dyn MessageReading>, String), CommandFailure> {
        let Some(uri) = &self.amqp else {
            let kafka = kafka(&self.brokers)?;
            let topics = self.topics.iter().map(|name| topic(name)).collect::<Result<_, _>>()?;
            return Ok((read_topics(kafka, topics, options), self.topics.join(", ")));
        };
        let rabbitmq = rabbitmq(uri, self.ca_file.clone(), self.management.as_deref())?;
        let source = read_queues(rabbitmq, self.queues.clone(), options)?;
        Ok((source, self.queues.join(", ")))
    }
}

fn kafka(brokers: &[String]) -> Result<KafkaConfig, CommandFailure> {
    KafkaConfig::of_brokers(brokers).map_err(|error| CommandFailure::usage(format!("--brokers: {error}")))
}

fn topic(name: &str) -> Result<TopicTemplate, CommandFailure> {
    TopicTemplate::parse(name).map_err(|error| CommandFailure::usage(format!("--topic: {error}")))
}

fn rabbitmq(given: &str, ca_file: Option<PathBuf>, management: Option<&str>) -> Result<RabbitMqConfig, CommandFailure> {
    let wrong = |text: String| CommandFailure::usage(format!("--amqp: {text}"));
    warn_of_uri("--amqp", given);
    let source = TextSource::parse(given);
    let text = source.read().map_err(|error| wrong(error.to_string()))?;
    uri::check(&text).map_err(wrong)?;
    let management = management.map(management_url).transpose();
    let management = management.map_err(|error| CommandFailure::usage(format!("--management: {error}")))?;
    Ok(RabbitMqConfig::of_uri(source, ca_file, management))
}

/// Warns of an AMQP URI of the command line that has a password in it.
pub(super) fn warn_of_uri(option: &str, given: &str) {
    let node = match TextSource::parse(given) {
        TextSource::Inline(given) => uri::parse(&given).ok(),
        _ => None,
    };
    // Of the user `guest` everybody knows it.
    if node.is_some_and(|node| node.password.is_some_and(|password| password != "guest")) {
        warn_of_process_list(option);
    }
}

impl From<ReadError> for CommandFailure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Usage(text) => Self::usage(text),
            ReadError::Unavailable(text) => Self::unavailable(text),
        }
    }
}
