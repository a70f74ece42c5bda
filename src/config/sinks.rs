//! `[sinks.<name>]`: the brokers.

use std::{collections::BTreeMap, fs::File, path::PathBuf};

use config::Value;

use super::{
    CreateTopics, KafkaConfig, RabbitMqConfig, RabbitMqTls, Shown, SinkConfig, SinkKind, TextSource, Unroutable,
    load::{ConfigLoader, NamedSection},
    table::ConfigTable,
    values,
};
use crate::sink::{
    kafka::{SECRETS, check_properties},
    rabbitmq::uri,
};

/// Enough for an account each, and little enough for a cluster to bear.
const TOPICS_MAX: u64 = 200;

/// A sink as far as it could be read.
pub(super) struct DeclaredSink {
    /// `None` when its type is missing or wrong.
    pub broker: Option<SinkType>,
    /// `None` when something in it is not right.
    pub sink: Option<SinkConfig>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SinkType {
    Kafka,
    RabbitMq,
}

impl ConfigLoader<'_> {
    pub(super) fn sinks(&mut self, root: &mut ConfigTable<'_>) -> Vec<NamedSection<DeclaredSink>> {
        let sinks = self.named(root, "sinks", |loader, name, mut table| {
            let types = values::word(&[("kafka", SinkType::Kafka), ("rabbitmq", SinkType::RabbitMq)]);
            let broker = table.require("type", types);
            let kind = match broker {
                Some(SinkType::Kafka) => loader.kafka(table).map(SinkKind::Kafka),
                Some(SinkType::RabbitMq) => loader.rabbitmq(table).map(SinkKind::RabbitMq),
                // Of another type, the other keys say nothing that could be checked.
                None => None,
            };
            let name = name.to_owned();
            Some(DeclaredSink {
                broker,
                sink: kind.map(|kind| SinkConfig { name, kind }),
            })
        });
        if sinks.is_empty() {
            let text = "missing: at least one sink, [sinks.<name>] with type and brokers (Kafka) or uri (RabbitMQ)";
            self.found.add(self.file, "sinks", text);
        }
        sinks
    }

    fn kafka(&self, mut table: ConfigTable<'_>) -> Option<KafkaConfig> {
        let brokers = table.require("brokers", |value| {
            let brokers = values::list(value)?;
            brokers.iter().try_for_each(|broker| values::broker(broker))?;
            if brokers.is_empty() {
                Err("empty".to_owned())
            } else {
                Ok(brokers)
            }
        });
        let properties = self.properties(&mut table);
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
        Some(KafkaConfig {
            brokers: brokers?,
            properties,
            create_topics: create_topics.flatten(),
        })
    }

    /// librdkafka's properties, by their dotted names, however the file nests them.
    fn properties(&self, table: &mut ConfigTable<'_>) -> BTreeMap<String, String> {
        let mut properties = BTreeMap::new();
        let mut origins = BTreeMap::new();
        let key = table.key("properties");
        for (name, origin, value) in table.table("properties").leaves() {
            if let Some(variable) = value.origin() {
                self.found.set_by(format!("{key}.{name}"), variable);
            }
            match values::property(&value) {
                Ok(value) => {
                    origins.insert(name.clone(), origin);
                    properties.insert(name, value);
                }
                Err(text) => self.found.add(&origin, &format!("{key}.{name}"), text),
            }
        }
        for name in SECRETS {
            if let Some(source) = properties.get(name).map(|text| TextSource::parse(text))
                && let Err(reason) = self.read(&source)
            {
                self.found.add(&origins[name], &format!("{key}.{name}"), reason);
            }
        }
        for (name, reason) in check_properties(&properties) {
            self.found.add(&origins[&name], &format!("{key}.{name}"), reason);
        }
        properties
    }

    fn rabbitmq(&self, mut table: ConfigTable<'_>) -> Option<RabbitMqConfig> {
        let uris = table.require("uri", |value| self.uris(value));
        let username = table.take("username", |value| self.text_source(value));
        let password = table.take("password", |value| self.text_source(value));
        let exchange = table.take_or("exchange", "forebay".to_owned(), values::exchange);
        let partitions = table.take_or("partitions", 8, values::whole(1..=1000));
        let declare = table.take_or("declare", false, values::flag);
        if declare && exchange.starts_with("amq.") {
            let text = format!(
                "{:?} cannot be declared: RabbitMQ keeps names that begin with amq. to itself",
                Shown(&exchange)
            );
            table.problem("exchange", text);
        }
        let unroutable = table.take_or(
            "unroutable",
            Unroutable::DeadLetter,
            values::word(&[("dead_letter", Unroutable::DeadLetter), ("hold", Unroutable::Hold)]),
        );
        let management = table.take("management", values::management);
        let has_tls = table.has("tls");
        let tls = tls(table.table("tls"));
        if has_tls
            && uris
                .as_deref()
                .is_some_and(|uris| uris.iter().any(|uri| self.is_plain(uri)))
        {
            table.problem("tls", "of no use with an amqp:// URI, which has no TLS: amqps:// has");
        }
        table.finish();
        Some(RabbitMqConfig {
            uris: uris?,
            username,
            password,
            tls,
            exchange,
            partitions: partitions.try_into().expect("within the bounds"),
            declare,
            unroutable,
            management,
        })
    }

    /// Reads the sources, and each URI once. What is wrong with a URI never shows its password.
    fn uris(&self, value: &Value) -> Result<Vec<TextSource>, String> {
        let texts = values::uris(value)?;
        let mut wrong = Vec::new();
        let mut sources = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let source = TextSource::parse(text);
            let checked = match self.read(&source) {
                Ok(text) => uri::check(&text).map_err(|wrong| match &source {
                    TextSource::Inline(_) => wrong,
                    source => format!("{source:?}: {wrong}"),
                }),
                Err(wrong) => Err(wrong),
            };
            match checked {
                Ok(()) => sources.push(source),
                Err(text) if texts.len() == 1 => wrong.push(text),
                Err(text) => wrong.push(format!("number {}: {text}", index + 1)),
            }
        }
        match wrong.as_slice() {
            [] if sources.is_empty() => Err("empty".to_owned()),
            [] => Ok(sources),
            wrong => Err(wrong.join("; ")),
        }
    }

    /// A source whose text can be read and is not empty.
    fn text_source(&self, value: &Value) -> Result<TextSource, String> {
        let source = TextSource::parse(&values::text(value)?);
        match self.read(&source)?.as_str() {
            "" => Err(format!("{source:?}: empty")),
            _ => Ok(source),
        }
    }

    fn read(&self, source: &TextSource) -> Result<String, String> {
        source
            .read_with(|name| self.variable(name))
            .map_err(|error| error.to_string())
    }

    /// Whether a URI that was read before is one without TLS.
    fn is_plain(&self, source: &TextSource) -> bool {
        self.read(source)
            .is_ok_and(|uri| uri.to_ascii_lowercase().starts_with("amqp://"))
    }
}

/// Files that can be opened; what is in them is OpenSSL's to judge, at the first connection.
fn tls(mut table: ConfigTable<'_>) -> RabbitMqTls {
    let file = |value: &Value| -> Result<PathBuf, String> {
        let path = PathBuf::from(values::text(value)?);
        match File::open(&path) {
            Ok(_) => Ok(path),
            Err(error) => Err(format!("{} cannot be read: {error}", path.display())),
        }
    };
    let together = table.has("certificate_file") == table.has("key_file");
    let tls = RabbitMqTls {
        ca_file: table.take("ca_file", file),
        certificate_file: table.take("certificate_file", file),
        key_file: table.take("key_file", file),
    };
    if !together {
        table.problem("", "certificate_file and key_file go together: one is missing");
    }
    table.finish();
    tls
}
