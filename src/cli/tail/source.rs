//! What is followed: topics of a Kafka, or an exchange of a RabbitMQ.

use std::{collections::BTreeMap, time::Duration};

use super::{TailArgs, show::ShownMessage};
use crate::{
    cli::{CommandFailure, secret::warn_of_uri},
    config::{self, Config, RabbitMqConfig, RabbitMqTls, SinkKind, TextSource, TopicTemplate, Unroutable, process_env},
    sink::{kafka, rabbitmq},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// What to follow, of either broker.
pub enum TailSource {
    Kafka(kafka::tail::KafkaTailOptions),
    RabbitMq(Box<rabbitmq::tail::RabbitMqTailOptions>),
}

/// What is followed.
pub enum BrokerTail {
    Kafka(kafka::tail::KafkaTail),
    RabbitMq(Box<rabbitmq::tail::RabbitMqTail>),
}

impl BrokerTail {
    /// Connects. Messages that arrive after it returned are not missed.
    pub async fn open(source: TailSource) -> Result<Self, CommandFailure> {
        match source {
            TailSource::Kafka(options) => kafka::tail::KafkaTail::open(options)
                .await
                .map(Self::Kafka)
                .map_err(|error| CommandFailure::unavailable(error.to_string())),
            TailSource::RabbitMq(options) => rabbitmq::tail::RabbitMqTail::open(*options)
                .await
                .map(|tail| Self::RabbitMq(Box::new(tail)))
                .map_err(|error| CommandFailure::unavailable(error.to_string())),
        }
    }

    /// The next message; waits for it as long as it takes. After an `Err` the tail is over.
    pub async fn next(&mut self) -> Result<ShownMessage, CommandFailure> {
        match self {
            Self::Kafka(tail) => match tail.next().await {
                Ok(tailed) => Ok(tailed.into()),
                Err(error) => Err(CommandFailure::unavailable(error.to_string())),
            },
            Self::RabbitMq(tail) => match tail.next().await {
                Ok(tailed) => Ok(tailed.into()),
                Err(error) => Err(CommandFailure::unavailable(error.to_string())),
            },
        }
    }
}

impl TailSource {
    /// What the arguments mean.
    pub fn of(args: &TailArgs) -> Result<Self, CommandFailure> {
        let source = match (&args.config, &args.amqp) {
            (Some(path), _) => configured(args, &Config::load(path, process_env())?)?,
            (None, Some(uri)) => amqp(args, uri)?,
            (None, None) => brokers(args)?,
        };
        match source {
            Self::RabbitMq(_) if args.from_start => Err(CommandFailure::usage(
                "--from-start: what a queue of RabbitMQ holds is its consumers', and reading it would take it away; a tail shows \
                 what arrives from now on",
            )),
            source => Ok(source),
        }
    }

    /// What is followed, in words.
    pub fn what(&self) -> String {
        match self {
            Self::Kafka(options) => options
                .topics
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(", "),
            Self::RabbitMq(options) => match &options.source {
                rabbitmq::tail::RabbitMqSource::Queue(queue) => format!("the bindings of queue {queue}"),
                rabbitmq::tail::RabbitMqSource::Exchange { name, bindings } => {
                    format!("exchange {name}, {}", bindings.join(", "))
                }
            },
        }
    }
}

fn brokers(args: &TailArgs) -> Result<TailSource, CommandFailure> {
    let checked = args.brokers.iter().try_for_each(|broker| config::broker(broker));
    checked.map_err(|error| CommandFailure::usage(format!("--brokers: {error}")))?;
    let topic = args.topic.as_deref().unwrap_or_default();
    let topic = TopicTemplate::parse(topic).map_err(|error| CommandFailure::usage(format!("--topic: {error}")))?;
    let kafka = config::KafkaConfig {
        brokers: args.brokers.clone(),
        properties: BTreeMap::new(),
        create_topics: None,
    };
    Ok(of_kafka(args, kafka, vec![topic]))
}

fn of_kafka(args: &TailArgs, kafka: config::KafkaConfig, topics: Vec<TopicTemplate>) -> TailSource {
    TailSource::Kafka(kafka::tail::KafkaTailOptions {
        kafka,
        topics,
        from_start: args.from_start,
        deadline: CONNECT_DEADLINE,
    })
}

fn amqp(args: &TailArgs, uri: &str) -> Result<TailSource, CommandFailure> {
    let wrong = |text: String| CommandFailure::usage(format!("--amqp: {text}"));
    let uri_source = TextSource::parse(uri);
    warn_of_uri("--amqp", uri);
    let text = uri_source.read().map_err(|error| wrong(error.to_string()))?;
    rabbitmq::uri::check(&text).map_err(wrong)?;
    let management = args.management.as_deref().map(config::management_url).transpose();
    let management = management.map_err(|error| CommandFailure::usage(format!("--management: {error}")))?;
    let rabbitmq = RabbitMqConfig {
        uris: vec![uri_source],
        username: None,
        password: None,
        tls: RabbitMqTls {
            ca_file: args.ca_file.clone(),
            ..RabbitMqTls::default()
        },
        exchange: args.exchange.clone().unwrap_or_default(),
        partitions: 1,
        declare: false,
        unroutable: Unroutable::DeadLetter,
        management,
    };
    let source = match (&args.queue, &args.exchange) {
        (Some(queue), _) => rabbitmq::tail::RabbitMqSource::Queue(queue.clone()),
        (None, Some(exchange)) => of_exchange(exchange, &args.bindings),
        (None, None) => return Err(CommandFailure::usage("--amqp needs --queue or --exchange")),
    };
    Ok(of_rabbitmq(rabbitmq, source))
}

fn of_exchange(name: &str, bindings: &[String]) -> rabbitmq::tail::RabbitMqSource {
    rabbitmq::tail::RabbitMqSource::Exchange {
        name: name.to_owned(),
        bindings: match bindings {
            [] => vec!["#".to_owned()],
            bindings => bindings.to_vec(),
        },
    }
}

/// To follow a source with a sink's own settings.
pub fn of_rabbitmq(rabbitmq: RabbitMqConfig, source: rabbitmq::tail::RabbitMqSource) -> TailSource {
    let deadline = CONNECT_DEADLINE;
    TailSource::RabbitMq(Box::new(rabbitmq::tail::RabbitMqTailOptions {
        rabbitmq,
        source,
        deadline,
    }))
}

/// The sink and the topics of a route, or of all routes, which must then have the same sink.
fn configured(args: &TailArgs, config: &Config) -> Result<TailSource, CommandFailure> {
    let names = || {
        config
            .routes
            .iter()
            .map(|route| route.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let wanted = |name: &str| args.route.as_deref().is_none_or(|route| route == name);
    let routes: Vec<_> = config.routes.iter().filter(|route| wanted(&route.name)).collect();
    let Some(first) = routes.first() else {
        return Err(CommandFailure::usage(format!(
            "--route: there is no such route; known: {}",
            names()
        )));
    };
    if routes.iter().any(|route| route.sink != first.sink) {
        return Err(CommandFailure::usage(format!(
            "--route is needed, for the routes have several sinks: {}",
            names()
        )));
    }
    let sink = config.sinks.iter().find(|sink| sink.name == first.sink);
    match &sink.expect("a route's sink exists").kind {
        SinkKind::Kafka(kafka) => {
            let mut topics: Vec<TopicTemplate> = Vec::new();
            for topic in routes.iter().filter_map(|route| route.topic.as_ref()) {
                if !topics.contains(topic) {
                    topics.push(topic.clone());
                }
            }
            Ok(of_kafka(args, kafka.clone(), topics))
        }
        SinkKind::RabbitMq(rabbitmq) => {
            // A routing key begins with the partition, so that a route's kinds are second.
            let of_kinds = |kinds: &[String]| kinds.iter().map(|kind| format!("*.{kind}.#")).collect::<Vec<_>>();
            let all = routes.iter().any(|route| route.matches.kinds.is_empty());
            let bindings = if all {
                Vec::new()
            } else {
                routes.iter().flat_map(|r| of_kinds(&r.matches.kinds)).collect()
            };
            Ok(of_rabbitmq(
                rabbitmq.clone(),
                of_exchange(&rabbitmq.exchange, &bindings),
            ))
        }
    }
}
