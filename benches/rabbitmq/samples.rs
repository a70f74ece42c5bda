//! What is published: the same by both programs.

use std::{fmt::Write as _, sync::Arc};

use anyhow::{Context, Result};
use bytes::Bytes;
use forebay::{
    event::render::STRUCTURED_CONTENT_TYPE,
    sink::{Message, partition::partition_of, rabbitmq::routing_key},
};
use serde_json::json;
use uuid::Uuid;

/// Keys, each with a message of its own.
const KEYS: usize = 512;
const TIME_MS: i64 = 1_638_463_486_489;

/// The messages, one for each key, to be numbered when they are published.
pub fn messages() -> Vec<Message> {
    let replica: Arc<str> = "bench-0".into();
    (0..KEYS)
        .map(|number| {
            let name = format!("stream-{number:04}");
            let id = Uuid::from_u128(0x369e_4a86_f937_4254_bd9f_99dc_484d_0000 + number as u128);
            let body = json!({
                "specversion": "1.0", "id": id, "source": "/millicast/bench", "type": "com.millicast.feeds.started",
                "subject": format!("ZG6NWV/{name}"), "time": "2021-12-02T16:44:46.489Z",
                "datacontenttype": "application/json", "partitionkey": format!("ZG6NWV/{name}"),
                "replicasequence": "00000000000000000001", "replica": "bench-0",
                "data": {
                    "feedId": id, "accountId": "ZG6NWV", "name": name, "streamId": format!("ZG6NWV/{name}"), "active": true
                }
            });
            Message {
                sequence: 0,
                replica: replica.clone(),
                id,
                address: routing_key::words("feeds", Some("started"), Some("ZG6NWV"), &name).into(),
                key: format!("ZG6NWV/{name}"),
                content_type: STRUCTURED_CONTENT_TYPE.into(),
                attributes: Vec::new(),
                body: Bytes::from(body.to_string()),
                time_ms: TIME_MS,
                trace: None,
                again: None,
            }
        })
        .collect()
}

/// For the Java program, a line for each message: partition, routing key, key, id and body, with tabs between them.
pub fn lines(messages: &[Message], partitions: u32) -> Result<String> {
    let mut lines = String::new();
    for message in messages {
        let partition = partition_of(message.key.as_bytes(), partitions);
        let routing_key = format!("{partition:02}.{}", message.address);
        let body = std::str::from_utf8(&message.body).context("a body that is no text")?;
        writeln!(
            lines,
            "{partition}\t{routing_key}\t{}\t{}\t{body}",
            message.key, message.id
        )?;
    }
    Ok(lines)
}
