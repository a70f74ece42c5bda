//! What is read: the topics or queues of each route, or those that were named.

use std::{collections::BTreeMap, time::Duration};

use super::{EventPlace, VerifyArgs};
use crate::{
    cli::{CommandFailure, secret::warn_of_uri, tail::ShownMessage},
    config::{
        self, Config, KafkaConfig, RabbitMqConfig, RabbitMqTls, RouteConfig, SinkKind, TextSource, TopicTemplate,
        Unroutable, process_env,
    },
    event::Time,
    senders::RoutePayload,
    sink::{kafka, rabbitmq},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(30);

/// Everything that is to be read.
pub struct VerifyPlan {
    pub parts: Vec<VerifyPart>,
    /// Every record of a spool is in one of the parts, or a dead letter, or still in the spool.
    pub is_whole: bool,
}

/// What is judged together: the topics of a route, or all queues of a sink.
pub struct VerifyPart {
    /// The route, the routes, or what was named.
    pub name: String,
    pub is_original: bool,
    /// `sequence` may step back where `time` does not.
    pub is_reordered: bool,
    source: VerifySource,
}

enum VerifySource {
    Kafka(KafkaConfig, Vec<TopicTemplate>),
    RabbitMq(Box<rabbitmq::read::ReadOptions>),
}

/// Reads RFC 3339, or a duration back from now; milliseconds since the Unix epoch.
pub fn time(text: &str) -> Result<i64, String> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(Time::now()
            .0
            .saturating_sub(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX)));
    }
    let time = Time::parse(text).filter(|_| text.contains('-'));
    time.map(|time| time.0)
        .ok_or_else(|| "neither a time, such as 2026-01-31T12:00:00Z, nor a duration, such as 2h".to_owned())
}

impl VerifyPlan {
    /// What the arguments mean.
    pub fn of(args: &VerifyArgs) -> Result<Self, CommandFailure> {
        let plan = match (&args.config, &args.amqp) {
            (Some(path), _) => configured(args, &Config::load(path, process_env())?)?,
            (None, Some(uri)) => Self::named(args, amqp(args, uri)?, args.queues.join(", ")),
            (None, None) => Self::named(args, brokers(args)?, args.topics.join(", ")),
        };
        let has_queues = plan
            .parts
            .iter()
            .any(|part| matches!(part.source, VerifySource::RabbitMq(_)));
        match args.from {
            Some(_) if has_queues => Err(CommandFailure::usage("--from: RabbitMQ's queues are read as a whole")),
            _ => Ok(plan),
        }
    }

    fn named(args: &VerifyArgs, source: VerifySource, name: String) -> Self {
        Self {
            parts: vec![VerifyPart {
                name,
                is_original: args.original,
                is_reordered: args.reordered,
                source,
            }],
            is_whole: false,
        }
    }
}

fn brokers(args: &VerifyArgs) -> Result<VerifySource, CommandFailure> {
    let checked = args.brokers.iter().try_for_each(|broker| config::broker(broker));
    checked.map_err(|error| CommandFailure::usage(format!("--brokers: {error}")))?;
    let topic =
        |name: &String| TopicTemplate::parse(name).map_err(|error| CommandFailure::usage(format!("--topic: {error}")));
    let topics = args.topics.iter().map(topic).collect::<Result<_, _>>()?;
    let kafka = KafkaConfig {
        brokers: args.brokers.clone(),
        properties: BTreeMap::new(),
        create_topics: None,
    };
    Ok(VerifySource::Kafka(kafka, topics))
}

fn amqp(args: &VerifyArgs, uri: &str) -> Result<VerifySource, CommandFailure> {
    let wrong = |text: String| CommandFailure::usage(format!("--amqp: {text}"));
    warn_of_uri("--amqp", uri);
    let uri = TextSource::parse(uri);
    let text = uri.read().map_err(|error| wrong(error.to_string()))?;
    rabbitmq::uri::check(&text).map_err(wrong)?;
    let management = args.management.as_deref().map(config::management_url).transpose();
    let management = management.map_err(|error| CommandFailure::usage(format!("--management: {error}")))?;
    let rabbitmq = RabbitMqConfig {
        uris: vec![uri],
        username: None,
        password: None,
        tls: RabbitMqTls {
            ca_file: args.ca_file.clone(),
            ..RabbitMqTls::default()
        },
        exchange: String::new(),
        partitions: 1,
        declare: false,
        unroutable: Unroutable::DeadLetter,
        management,
    };
    Ok(queues(args, rabbitmq, args.queues.clone()))
}

fn queues(args: &VerifyArgs, rabbitmq: RabbitMqConfig, queues: Vec<String>) -> VerifySource {
    let spend_delivery = args.spend_delivery;
    VerifySource::RabbitMq(Box::new(rabbitmq::read::ReadOptions {
        rabbitmq,
        queues,
        spend_delivery,
    }))
}

/// Routes that share a topic, or an exchange, are judged together: whose a message there is cannot be told.
fn configured(args: &VerifyArgs, config: &Config) -> Result<VerifyPlan, CommandFailure> {
    let wanted = |route: &&RouteConfig| args.route.as_deref().is_none_or(|name| name == route.name);
    let mut parts: Vec<(String, Option<String>, VerifyPart)> = Vec::new();
    for route in config.routes.iter().filter(wanted) {
        let topic = route.topic.as_ref().map(ToString::to_string);
        let is_original = route.payload == RoutePayload::Original;
        let is_reordered = route.reorder_window.is_some();
        let shared = parts
            .iter_mut()
            .find(|(sink, known, _)| *sink == route.sink && *known == topic);
        if let Some((_, _, part)) = shared {
            part.name = format!("{}, {}", part.name, route.name);
            part.is_original |= is_original;
            part.is_reordered |= is_reordered;
            continue;
        }
        let sink = config.sinks.iter().find(|sink| sink.name == route.sink);
        let source = match &sink.expect("a route's sink exists").kind {
            SinkKind::Kafka(kafka) => VerifySource::Kafka(kafka.clone(), route.topic.iter().cloned().collect()),
            SinkKind::RabbitMq(rabbitmq) => queues(args, rabbitmq.clone(), Vec::new()),
        };
        let name = route.name.clone();
        parts.push((
            route.sink.clone(),
            topic,
            VerifyPart {
                name,
                is_original,
                is_reordered,
                source,
            },
        ));
    }
    if parts.is_empty() {
        let known: Vec<&str> = config.routes.iter().map(|route| route.name.as_str()).collect();
        let known = known.join(", ");
        return Err(CommandFailure::usage(format!(
            "--route: there is no such route; known: {known}"
        )));
    }
    Ok(VerifyPlan {
        parts: parts.into_iter().map(|(_, _, part)| part).collect(),
        is_whole: args.route.is_none() && wants_everything(config),
    })
}

/// Whether every event is wanted by some route: of each endpoint, each kind that a route names, and one that none does.
fn wants_everything(config: &Config) -> bool {
    let named = config
        .routes
        .iter()
        .flat_map(|route| route.matches.kinds.iter().chain(&route.matches.not_kinds));
    let kinds: Vec<&str> = named.map(String::as_str).chain(["?"]).collect();
    let taken = |kind: &str, endpoint: &str| config.routes.iter().any(|route| route.matches.accepts(kind, endpoint));
    config
        .endpoints
        .iter()
        .all(|endpoint| kinds.iter().all(|kind| taken(kind, &endpoint.name)))
}

/// A part that is being read.
pub enum VerifyReading {
    Kafka(kafka::read::TopicReading),
    RabbitMq(Box<rabbitmq::read::QueueReading>),
}

impl VerifyReading {
    /// Connects; tells the places and how many messages there are.
    pub async fn open(part: &VerifyPart, args: &VerifyArgs) -> Result<(Self, Vec<EventPlace>, u64), CommandFailure> {
        match &part.source {
            VerifySource::Kafka(kafka, topics) => {
                let options = kafka::tail::KafkaTailOptions {
                    kafka: config::KafkaConfig::clone(kafka),
                    topics: topics.clone(),
                    from_start: true,
                    deadline: CONNECT_DEADLINE,
                };
                let opened = kafka::read::TopicReading::open(options, args.from).await;
                let reading = opened.map_err(|error| CommandFailure::unavailable(error.to_string()))?;
                let places = reading.extents().iter().map(|extent| EventPlace {
                    name: format!("{}/{}", extent.topic, extent.partition),
                    is_cut: extent.is_cut,
                });
                let (places, messages) = (
                    places.collect(),
                    reading.extents().iter().map(|e| e.end - e.begin).sum::<i64>(),
                );
                Ok((Self::Kafka(reading), places, messages.unsigned_abs()))
            }
            VerifySource::RabbitMq(options) => {
                let opened = rabbitmq::read::QueueReading::open(options).await;
                let reading = opened.map_err(|error| CommandFailure::unavailable(error.to_string()))?;
                let places = reading.extents().iter().map(|extent| EventPlace {
                    name: extent.queue.clone(),
                    is_cut: extent.is_cut,
                });
                let (places, messages) = (places.collect(), reading.extents().iter().map(|e| e.messages).sum());
                Ok((Self::RabbitMq(Box::new(reading)), places, messages))
            }
        }
    }

    /// The next message and its place; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<(String, ShownMessage)>, CommandFailure> {
        match self {
            Self::Kafka(reading) => match reading.next().await {
                Ok(next) => Ok(next.map(|tailed| (format!("{}/{}", tailed.topic, tailed.partition), tailed.into()))),
                Err(error) => Err(CommandFailure::unavailable(error.to_string())),
            },
            Self::RabbitMq(reading) => match reading.next().await {
                Ok(next) => Ok(next.map(|(queue, tailed)| (queue, tailed.into()))),
                Err(error) => Err(CommandFailure::unavailable(error.to_string())),
            },
        }
    }

    /// Leaves everything as it was.
    pub async fn close(self) {
        if let Self::RabbitMq(reading) = self {
            reading.close().await;
        }
    }
}
