//! The AsyncAPI document of a Forebay whose configuration names a sink, and leaves the rest as it is.

use forebay::{
    config::Config,
    event::render::{RenderMode, STRUCTURED_CONTENT_TYPE},
    senders,
    sink::rabbitmq::RabbitMqConfig,
};
use serde_json::{Map, Value, json};

use super::schemas;
use crate::schemas::{definitions, parse, published, receive_sample};

const AMQP_BINDING: &str = "0.3.0";
const KAFKA_BINDING: &str = "0.5.0";
const PERSISTENT: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Broker {
    Kafka,
    RabbitMq,
}

/// The document. `kafka` and `rabbitmq` are configurations with one sink each.
pub fn document(kafka: &Config, rabbitmq: &Config) -> Value {
    let mut channels = Map::new();
    let mut operations = Map::new();
    for route in &kafka.routes {
        let topic = route.template().and_then(|topic| topic.literal()).unwrap();
        let name = format!("{}Topic", route.name);
        operations.insert(format!("publishTo{}", capital(&name)), send(&name, &json!({})));
        channels.insert(name, topic_channel(topic, route.mode));
    }
    let sink: &RabbitMqConfig = rabbitmq.sinks[0].settings.downcast().expect("a sink of RabbitMQ");
    let published = json!({ "amqp": {
        "deliveryMode": PERSISTENT,
        "mandatory": true,
        "timestamp": true,
        "bindingVersion": AMQP_BINDING,
    } });
    operations.insert("publishToExchange".into(), send("exchange", &published));
    channels.insert("exchange".into(), exchange(&sink.exchange));
    let words: Vec<String> = (0..sink.partitions).map(|n| format!("{n:02}")).collect();
    channels.insert("queues".into(), queues(&sink.exchange, &words));
    channels.insert("deadLetters".into(), dead_letters(&sink.exchange));
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Forebay",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What Forebay publishes, with the names that it has where the configuration gives none: Millicast webhooks as CloudEvents, \
                in order per stream. What the attributes mean, and which fields the provider promises, is in docs/events.md. Kinds and fields that are new \
                are published too, so a consumer takes in what it does not know.",
            "license": { "name": env!("CARGO_PKG_LICENSE") },
        },
        "defaultContentType": STRUCTURED_CONTENT_TYPE,
        "servers": {
            "kafka": { "host": "kafka.example.com:9092", "protocol": "kafka", "description": "A broker of yours." },
            "rabbitmq": { "host": "rabbitmq.example.com:5672", "protocol": "amqp", "description": "A node of yours, RabbitMQ 3.10 or newer." },
        },
        "channels": channels,
        "operations": operations,
        "components": {
            "schemas": schemas::components(),
            "messageBindings": { "record": { "kafka": {
                "key": reference("key"),
                "bindingVersion": KAFKA_BINDING,
            } } },
        },
    })
}

fn topic_channel(topic: &str, mode: RenderMode) -> Value {
    let (title, messages) = match mode {
        RenderMode::Structured => ("All events but pictures", events(Broker::Kafka)),
        RenderMode::Binary => ("Pictures", picture(Broker::Kafka)),
    };
    json!({
        "address": topic,
        "title": title,
        "description": "Records of a stream have the same key, and so the same partition (murmur2), and are in order in it.",
        "servers": [{ "$ref": "#/servers/kafka" }],
        "messages": messages,
        "bindings": { "kafka": {
            "topic": topic,
            "topicConfiguration": { "cleanup.policy": ["delete"] },
            "bindingVersion": KAFKA_BINDING,
        } },
    })
}

fn exchange(exchange: &str) -> Value {
    let escaped = "`.`, `*`, `#`, `%`, spaces and control characters are escaped as `%2E` and so on";
    rabbitmq_channel(json!({
        "address": "{partition}.{kind}.{event}.{account}.{stream}",
        "title": "The exchange",
        "description": format!("The address is the routing key. Bind a queue of your own to what you need of it: `*.feeds.#` are the feeds. In all words {escaped}."),
        "parameters": {
            "partition": { "description": "Murmur2 of the stream's key, two digits or more: events of a stream have the same." },
            "kind": { "description": "The kind, as in the event's type.", "examples": ["feeds", "recordings"] },
            "event": { "description": "What happened, as in the event's type, or `-`.", "examples": ["started", "ended"] },
            "account": { "description": "The account, or `unknown`.", "examples": ["ZG6NWV"] },
            "stream": { "description": "The stream's name. Of a routing key of more than 255 bytes it ends in `~` and a hash.", "examples": ["sample_stream"] },
        },
        "bindings": { "amqp": {
            "is": "routingKey",
            "exchange": { "name": exchange, "type": "topic", "durable": true, "autoDelete": false },
            "bindingVersion": AMQP_BINDING,
        } },
    }))
}

fn queues(exchange: &str, words: &[String]) -> Value {
    rabbitmq_channel(json!({
        "address": format!("{exchange}.{{partition}}"),
        "title": "The queues of the partitions",
        "description": "With `declare = true`: quorum queues, each with a part of the streams, in order, and with a single active consumer.",
        "parameters": {
            "partition": { "description": "The first word of the routing key.", "enum": words, "default": words[0] },
        },
        "bindings": { "amqp": queue_binding(&format!("{exchange}.{{partition}}")) },
    }))
}

fn dead_letters(exchange: &str) -> Value {
    let name = format!("{exchange}.dead-letters");
    rabbitmq_channel(json!({
        "address": name,
        "title": "Dead letters of the queues",
        "description": "With `declare = true`: what a consumer rejected, or got too often.",
        "bindings": { "amqp": queue_binding(&name) },
    }))
}

fn queue_binding(name: &str) -> Value {
    json!({
        "is": "queue",
        "queue": { "name": name, "durable": true, "exclusive": false, "autoDelete": false },
        "bindingVersion": AMQP_BINDING,
    })
}

fn rabbitmq_channel(mut channel: Value) -> Value {
    let mut messages = events(Broker::RabbitMq);
    messages.extend(picture(Broker::RabbitMq));
    channel["servers"] = json!([{ "$ref": "#/servers/rabbitmq" }]);
    channel["messages"] = messages.into();
    channel
}

/// Messages of structured events, by kind.
fn events(broker: Broker) -> Map<String, Value> {
    let kinds = definitions::schemas();
    let structured = kinds.iter().filter(|(kind, _)| *kind != "thumbnail");
    let message = |(kind, schema): &(&'static str, Value)| {
        let headers = match broker {
            Broker::Kafka => "recordHeaders",
            Broker::RabbitMq => "messageHeaders",
        };
        let mut message = message(kind, broker, headers, &reference(kind));
        message["title"] = schema["title"].clone();
        if *kind == "event" {
            message["title"] = "An event of a kind that is not known".into();
        }
        // One broker's are enough to see what an event looks like.
        let sample = senders::usual()
            .samples()
            .iter()
            .find(|sample| sample.kind.to_lowercase() == *kind);
        if let (Broker::Kafka, Some(sample)) = (broker, sample) {
            let payload = parse(&published(&receive_sample(*sample)));
            message["examples"] = json!([{ "name": payload["type"], "payload": payload }]);
        }
        ((*kind).to_owned(), message)
    };
    structured.map(message).collect()
}

fn picture(broker: Broker) -> Map<String, Value> {
    let headers = match broker {
        Broker::Kafka => "pictureRecordHeaders",
        Broker::RabbitMq => "pictureMessageHeaders",
    };
    let mut message = message("thumbnail", broker, headers, &reference("picture"));
    message["title"] = "A picture of a stream".into();
    message["contentType"] = "image/jpeg".into();
    Map::from_iter([("thumbnail".to_owned(), message)])
}

fn message(name: &str, broker: Broker, headers: &str, payload: &Value) -> Value {
    let mut message = json!({
        "name": name,
        "contentType": STRUCTURED_CONTENT_TYPE,
        "headers": reference(headers),
        "payload": payload,
    });
    if broker == Broker::Kafka {
        message["bindings"] = json!({ "$ref": "#/components/messageBindings/record" });
    } else {
        message["description"] =
            "The property `message_id` is the event's `id`, `timestamp` its `time` in seconds.".into();
    }
    message
}

/// What Forebay does.
fn send(channel: &str, bindings: &Value) -> Value {
    let mut operation = json!({
        "action": "send",
        "channel": { "$ref": format!("#/channels/{channel}") },
        "summary": "At least once: after a failure a stretch of a stream can come again, with the same ids.",
    });
    if *bindings != json!({}) {
        operation["bindings"] = bindings.clone();
    }
    operation
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn capital(name: &str) -> String {
    let (first, rest) = name.split_at(1);
    first.to_uppercase() + rest
}
