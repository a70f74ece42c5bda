//! A record of a log, decoded as far as it can be.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::logs::{LogContent, SpoolLog};
use crate::{
    event::{Content, Event, Time},
    job::DeadLetter,
    senders,
    spool::{ImageRecord, RecordClass},
};

/// A record, with what it holds.
pub struct DecodedRecord {
    number: u64,
    class: RecordClass,
    /// As the log has it.
    pub raw: Bytes,
    letter: Option<DeadLetter>,
    event: Option<Event>,
    /// Why it could not be decoded.
    problem: Option<String>,
}

impl DecodedRecord {
    /// Decodes a record that was read with its bytes.
    pub fn new(log: &SpoolLog, record: ImageRecord) -> Self {
        let raw = record.bytes.unwrap_or_default();
        let mut decoded = Self {
            number: record.sequence,
            class: record.class,
            raw: raw.clone(),
            letter: None,
            event: None,
            problem: None,
        };
        let event = match log.content {
            LogContent::Events => raw,
            LogContent::DeadLetters => match DeadLetter::decode(&raw) {
                Ok(letter) => {
                    let event = letter.record.clone();
                    decoded.letter = Some(letter);
                    event
                }
                Err(error) => {
                    decoded.problem = Some(error.to_string());
                    return decoded;
                }
            },
        };
        match Event::decode(&event) {
            Ok(event) => decoded.event = Some(event),
            Err(error) => decoded.problem = Some(error.to_string()),
        }
        decoded
    }

    /// The number of the event in the log of the events: of a dead letter, that of its record.
    pub fn event_number(&self) -> u64 {
        self.letter.as_ref().map_or(self.number, |letter| letter.sequence)
    }

    pub fn is_of_stream(&self, key: &str) -> bool {
        self.event.as_ref().is_some_and(|event| event.key == key)
    }

    pub fn is_of_kind(&self, kind: &str) -> bool {
        self.event.as_ref().is_some_and(|event| event.kind == kind)
    }

    /// What there is to say of it, without its bytes.
    pub fn json(&self, log: &SpoolLog) -> Map<String, Value> {
        let event = self.event.as_ref();
        let line = json!({
            "log": log.name(),
            "number": self.number,
            "class": match self.class {
                RecordClass::Ordinary => "ordinary",
                RecordClass::Bulk => "bulk",
            },
            "size": self.raw.len(),
            "recorded": event.map(|event| event.recorded.to_rfc3339()),
            "endpoint": event.map(|event| &event.endpoint),
            "kind": event.map(|event| &event.kind),
            "event": event.map(event_json),
            "dead_letter": self.letter.as_ref().map(letter_json),
            "problem": self.problem,
        });
        match line {
            Value::Object(line) => line,
            _ => Map::new(),
        }
    }

    /// The body as it came, in base64.
    pub fn body(&self) -> Option<String> {
        self.event.as_ref().map(|event| STANDARD.encode(&event.body))
    }
}

/// An event without its body.
fn event_json(event: &Event) -> Value {
    let provider = senders::numbered(event.provider).map(|sender| sender.provider());
    json!({
        "id": event.id,
        "name": event.name,
        "type": provider.map(|provider| event.type_(provider)),
        "source": provider.map(|provider| event.source(provider)),
        "provider": provider.map(|provider| provider.name),
        "stream": event.key,
        "account": event.account,
        "account_claimed": event.account_claimed,
        "stream_name": event.stream_name,
        "feed_id": event.feed_id,
        "token_id": event.token_id,
        "time": event.time.to_rfc3339(),
        "sent": event.sent.map(Time::to_rfc3339),
        "late_by_ms": event.late_by_ms,
        "stale": event.is_stale,
        "repeated": event.is_repeated,
        "trace": event.trace.map(|trace| trace.trace_id_text()),
        "content": match &event.content {
            Content::Json => "json",
            Content::Jpeg => "jpeg",
            Content::Opaque(content_type) => content_type,
        },
        "body_bytes": event.body.len(),
    })
}

fn letter_json(letter: &DeadLetter) -> Value {
    json!({
        "route": letter.route,
        "number": letter.sequence,
        "reason": letter.reason,
        "text": letter.text,
        "at": Time(letter.at_ms).to_rfc3339(),
    })
}
