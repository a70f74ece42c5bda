//! Prints messages, whichever broker has them.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Map, Value, json};

use crate::cli::{out, printable};
use crate::event::render::BOOLEANS;
use crate::sink::{ReadMessage, header};

/// A message, whichever broker had it.
pub struct ShownMessage(pub ReadMessage);

impl ShownMessage {
    /// Whether it is of this stream.
    pub fn is_of(&self, stream: &str) -> bool {
        self.0.key.as_deref() == Some(stream.as_bytes())
    }

    /// Where it was found, for people.
    pub fn place(&self) -> &str {
        &self.0.place
    }

    /// Its stream's key, as the broker has it.
    pub fn key(&self) -> Option<&[u8]> {
        self.0.key.as_deref()
    }

    /// A line for people: time, type, stream, place.
    fn line(&self) -> String {
        let event = self.event().unwrap_or_default();
        let text = |name: &str| event.get(name).and_then(Value::as_str);
        let key = self.0.key.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        let sequence = header(&self.0.headers, "sequence").unwrap_or_default();
        format!(
            "{}  {:<52}  {}  {} sequence {}",
            text("time").unwrap_or("-"),
            text("type").unwrap_or("(no CloudEvent)"),
            printable(&key),
            printable(&self.0.place),
            match sequence.trim_start_matches('0') {
                "" => "-",
                digits => digits,
            },
        )
    }

    /// The message as one JSON object, with the CloudEvent that it is as `event`, whatever its mode.
    fn json(&self) -> Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = self
            .0
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), json!(text(value))));
        let mut line = Value::Object(self.0.fields.clone());
        line["key"] = json!(self.0.key.as_deref().map(text));
        line["headers"] = headers.collect::<Map<_, _>>().into();
        match self.event() {
            Some(event) => line["event"] = event.into(),
            None => line["body_base64"] = STANDARD.encode(&self.0.payload).into(),
        }
        line
    }

    /// The CloudEvent, of either mode; `None` when it is none.
    pub fn event(&self) -> Option<Map<String, Value>> {
        if self.0.content_type.starts_with("application/cloudevents+json") {
            return serde_json::from_slice(&self.0.payload).ok();
        }
        header(&self.0.headers, &format!("{}specversion", self.0.attribute_prefix))?;
        let attributes = self.0.headers.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix(self.0.attribute_prefix)?;
            let value = match value.as_slice() {
                b"true" if BOOLEANS.contains(&name) => Value::Bool(true),
                text => json!(String::from_utf8_lossy(text)),
            };
            Some((name.to_owned(), value))
        });
        let mut event: Map<String, Value> = attributes.collect();
        match serde_json::from_slice(&self.0.payload) {
            Ok(data) if self.0.content_type.contains("json") => event.insert("data".to_owned(), data),
            _ => event.insert("data_base64".to_owned(), STANDARD.encode(&self.0.payload).into()),
        };
        event.insert("datacontenttype".to_owned(), self.0.content_type.as_str().into());
        Some(event)
    }
}

/// Prints messages to stdout.
pub struct EventPrinter {
    json: bool,
}

impl EventPrinter {
    /// For people, or as one JSON object a line.
    pub fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints one message. `Err` when nobody reads any more.
    pub fn message(&mut self, message: &ShownMessage) -> std::io::Result<()> {
        match self.json {
            true => out(format_args!("{}\n", message.json())),
            false => out(format_args!("{}\n", message.line())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{kafka::KafkaTailed, rabbitmq::RabbitMqTailed};

    fn message(headers: &[(&str, &str)], payload: &[u8]) -> ShownMessage {
        ShownMessage(ReadMessage::from(KafkaTailed {
            topic: "t".to_owned(),
            partition: 3,
            offset: 17,
            timestamp_ms: Some(5),
            key: Some(b"ZG6NWV/s\x1b[2J".to_vec()),
            headers: headers
                .iter()
                .map(|(n, v)| ((*n).to_owned(), v.as_bytes().to_vec()))
                .collect(),
            payload: payload.to_vec(),
        }))
    }

    #[test]
    fn both_modes_are_shown_as_the_same_event() {
        let structured = message(
            &[("content-type", "application/cloudevents+json; charset=utf-8"), ("sequence", "00000000000000000042")],
            br#"{"specversion":"1.0","type":"com.millicast.feeds.started","time":"2021-12-02T16:44:46.359Z","datacontenttype":"application/json","stale":true,"streamname":"true","data":{"a":1}}"#,
        );
        let binary = message(
            &[
                ("ce_stale", "true"),
                ("ce_streamname", "true"),
                ("content-type", "application/json"),
                ("ce_specversion", "1.0"),
                ("ce_type", "com.millicast.feeds.started"),
                ("ce_time", "2021-12-02T16:44:46.359Z"),
                ("sequence", "00000000000000000042"),
            ],
            br#"{"a":1}"#,
        );
        assert_eq!(structured.json()["event"], binary.json()["event"]);
        assert_eq!(structured.line(), binary.line());
        let line = binary.line();
        for part in [
            "2021-12-02T16:44:46.359Z",
            "com.millicast.feeds.started",
            "partition 3 offset 17 sequence 42",
        ] {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\x1b'), "a name cannot move the cursor");
    }

    #[test]
    fn a_picture_is_base64_and_another_body_is_no_event() {
        let picture = message(
            &[("content-type", "image/jpeg"), ("ce_specversion", "1.0")],
            b"\xff\xd8\xff",
        );
        assert_eq!(picture.json()["event"]["data_base64"], "/9j/");
        let other = message(&[], b"abc");
        assert_eq!(other.json()["body_base64"], "YWJj");
        assert!(other.json().get("event").is_none());
    }

    #[test]
    fn a_message_of_rabbitmq_is_shown_as_the_same_event() {
        let headers = |more: &[(&str, &str)]| -> Vec<(String, Vec<u8>)> {
            [
                &[("sequence", "00000000000000000042"), ("partitionkey", "ZG6NWV/s")],
                more,
            ]
            .concat()
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect()
        };
        let message = |content_type: &str, more: &[(&str, &str)], payload: &str| {
            ShownMessage(ReadMessage::from(RabbitMqTailed {
                exchange: "forebay".to_owned(),
                routing_key: "03.feeds.started.ZG6NWV.s".to_owned(),
                content_type: Some(content_type.to_owned()),
                timestamp_s: Some(5),
                headers: headers(more),
                payload: payload.into(),
            }))
        };
        let structured = message(
            "application/cloudevents+json; charset=utf-8",
            &[],
            r#"{"specversion":"1.0","type":"com.millicast.feeds.started","datacontenttype":"application/json","data":{"a":1}}"#,
        );
        let attributes = [
            ("cloudEvents:specversion", "1.0"),
            ("cloudEvents:type", "com.millicast.feeds.started"),
        ];
        let binary = message("application/json", &attributes, r#"{"a":1}"#);
        assert_eq!(structured.json()["event"], binary.json()["event"]);
        assert_eq!(structured.line(), binary.line());
        assert!(
            binary
                .line()
                .ends_with("ZG6NWV/s  forebay 03.feeds.started.ZG6NWV.s sequence 42"),
            "{}",
            binary.line()
        );
        assert_eq!(binary.json()["timestamp"], 5000);
        assert!(binary.is_of("ZG6NWV/s") && !binary.is_of("ZG6NWV/t"));
    }
}
