//! Renders an event as a CloudEvent, structured or binary.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::Deserialize;

use super::{Content, Event, text};

/// How a CloudEvent travels in a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// One self-contained JSON text.
    Structured,
    /// Attributes as headers, the data as the body.
    Binary,
}

/// An event's data, as its provider's module rendered it for a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// A JSON text.
    Json(Bytes),
    /// Bytes of another content type.
    Binary(Bytes),
}

/// What the spool knows of an event: its place.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'a> {
    pub sequence: u64,
    pub replica: &'a str,
}

/// A CloudEvent, ready to be put into a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub content_type: Cow<'static, str>,
    /// In binary mode every CloudEvents attribute but `datacontenttype`, by its bare name; in structured mode none.
    pub attributes: Vec<(&'static str, String)>,
    pub body: Bytes,
}

/// The content type of a structured event.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";

/// Renders `event` with `data`. A picture is always binary.
pub fn render(event: &Event, stamp: Stamp<'_>, mode: Mode, data: Data) -> Rendered {
    let content_type = content_type(&event.content);
    if mode == Mode::Binary || event.content == Content::Jpeg {
        let (Data::Json(body) | Data::Binary(body)) = data;
        let mut attributes = Vec::with_capacity(16);
        each_attribute(event, stamp, |name, value| attributes.push((name, value.into_owned())));
        return Rendered {
            content_type,
            attributes,
            body,
        };
    }
    Rendered {
        content_type: Cow::Borrowed(STRUCTURED_CONTENT_TYPE),
        attributes: Vec::new(),
        body: structured(event, stamp, &content_type, &data),
    }
}

fn structured(event: &Event, stamp: Stamp<'_>, content_type: &str, data: &Data) -> Bytes {
    let (Data::Json(bytes) | Data::Binary(bytes)) = data;
    let mut json = Vec::with_capacity(1024 + bytes.len() * 4 / 3);
    json.push(b'{');
    each_attribute(event, stamp, |name, value| {
        member(&mut json, name, &value);
        if name == "time" {
            member(&mut json, "datacontenttype", content_type);
        }
    });
    match data {
        Data::Json(bytes) => {
            json.extend_from_slice(b"\"data\":");
            json.extend_from_slice(bytes);
        }
        Data::Binary(bytes) => {
            json.extend_from_slice(b"\"data_base64\":\"");
            json.extend_from_slice(STANDARD.encode(bytes).as_bytes());
            json.push(b'"');
        }
    }
    json.push(b'}');
    json.into()
}

/// Every attribute but `datacontenttype`, in the order in which a structured event has them.
fn each_attribute<'a>(event: &'a Event, stamp: Stamp<'a>, mut attribute: impl FnMut(&'static str, Cow<'a, str>)) {
    attribute("specversion", "1.0".into());
    attribute("id", event.id.hyphenated().to_string().into());
    attribute("source", event.source().into());
    attribute("type", event.type_().into());
    attribute("subject", event.key.as_str().into());
    attribute("time", event.time.to_rfc3339().into());
    attribute("partitionkey", event.key.as_str().into());
    attribute("sequence", format!("{:020}", stamp.sequence).into());
    attribute("replica", text::attribute(stamp.replica));
    attribute("endpoint", event.endpoint.as_str().into());
    let optional = [
        ("account", &event.account),
        ("streamname", &event.stream_name),
        ("feedid", &event.feed_id),
        ("tokenid", &event.token_id),
    ];
    for (name, value) in optional {
        if let Some(value) = value {
            attribute(name, value.as_str().into());
        }
    }
    if let Some(sent) = event.sent {
        attribute("senttime", sent.to_rfc3339().into());
    }
    attribute("recordedtime", event.recorded.to_rfc3339().into());
    if let Some(late_by_ms) = event.late_by_ms {
        attribute("lateby", late_by_ms.to_string().into());
    }
    if let Some(trace) = event.trace {
        attribute("traceparent", trace.to_string().into());
    }
}

/// Appends `"name":"value",`.
fn member(json: &mut Vec<u8>, name: &str, value: &str) {
    json.push(b'"');
    json.extend_from_slice(name.as_bytes());
    json.extend_from_slice(b"\":");
    serde_json::to_writer(&mut *json, value).expect("a text is always serialized into memory");
    json.push(b',');
}

fn content_type(content: &Content) -> Cow<'static, str> {
    match content {
        Content::Json => Cow::Borrowed("application/json"),
        Content::Jpeg => Cow::Borrowed("image/jpeg"),
        Content::Opaque(content_type) => Cow::Owned(content_type.clone()),
    }
}
