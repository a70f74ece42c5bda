//! The schemas of `docs/schemas/` and the examples of `docs/events.md` say what the code does.
//!
//! `FOREBAY_UPDATE_SCHEMAS=1` rewrites both.

pub mod definitions;

use std::{collections::HashMap, env, fs, path::PathBuf};

use bytes::Bytes;
use forebay::{
    event::{
        Event, Time,
        render::{EventStamp, RenderMode, render},
    },
    senders::{
        self, EndpointReceiver, HeaderLookup, RoutePayload, Sample, SampleKind, SampleParameters, Secret,
        UnverifiedRequest, data, millicast::Millicast,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::schemas::{dir, validate};

struct Given(HashMap<String, String>);

impl HeaderLookup for Given {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.0.get(&name.to_ascii_lowercase()).map(String::as_bytes)
    }
}

pub fn receive(content_type: &str, headers: &[(&str, String)], body: &[u8]) -> Event {
    let secret = Secret::from_base64("MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=").unwrap();
    let mut given: HashMap<_, _> = headers
        .iter()
        .map(|(name, value)| (name.to_lowercase(), value.clone()))
        .collect();
    for (name, value) in senders::usual().sign(&secret, body) {
        given.insert(name.to_lowercase(), value);
    }
    given.insert("content-type".to_owned(), content_type.to_owned());
    let receiver = EndpointReceiver::new(&Millicast, "acme", Some("ZG6NWV"), vec![secret]);
    let (headers, body) = (Given(given), Bytes::copy_from_slice(body));
    let request = UnverifiedRequest {
        headers: &headers,
        body,
        received: Time(1_638_463_486_512),
    };
    receiver.event(receiver.verify(request).ok().unwrap())
}

pub fn receive_sample(kind: SampleKind) -> Event {
    let parameters = SampleParameters {
        account: "ZG6NWV",
        stream_name: "sample_stream",
        feed_id: Uuid::from_u128(0x369e_4a86_f937_4254_bd9f_99dc_484d_2bd6),
        sent: Time(1_638_463_486_489),
        counter: 1,
    };
    let Sample {
        content_type,
        headers,
        body,
        ..
    } = senders::usual().sample(kind, &parameters);
    receive(content_type, &headers, &body)
}

/// The event as a JSON text: structured, or where it is binary, its attributes.
pub fn published(event: &Event) -> String {
    let stamp = EventStamp {
        provider: senders::usual().provider(),
        sequence: 42,
        replica: "forebay-0",
        again: None,
    };
    let rendered = render(
        event,
        stamp,
        RenderMode::Structured,
        data(event, RoutePayload::Normalized),
    );
    if rendered.attributes.is_empty() {
        return String::from_utf8(rendered.body.to_vec()).unwrap();
    }
    let members = rendered
        .attributes
        .iter()
        .map(|(name, value)| format!("{}:{}", json!(name), json!(value)));
    format!("{{{}}}", members.collect::<Vec<_>>().join(","))
}

pub fn parse(json: &str) -> Value {
    serde_json::from_str(json).unwrap()
}

/// Compares `path` with what it should hold, or writes it where that was asked for.
fn assert_current(path: PathBuf, expected: &str) {
    if env::var_os("FOREBAY_UPDATE_SCHEMAS").is_some() {
        fs::write(&path, expected).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == expected,
        "{} is stale: run the tests with FOREBAY_UPDATE_SCHEMAS=1",
        path.display()
    );
}

#[test]
fn the_schemas_are_those_of_the_definitions() {
    let schemas = definitions::schemas();
    for (name, schema) in &schemas {
        let text = serde_json::to_string_pretty(schema).unwrap() + "\n";
        assert_current(dir().join(format!("{name}.schema.json")), &text);
    }
    assert_eq!(
        fs::read_dir(dir()).unwrap().count(),
        schemas.len(),
        "a schema without a definition"
    );
}

#[test]
fn every_sample_obeys_the_schema_of_its_kind() {
    for kind in senders::usual().samples().iter().copied() {
        let event = parse(&published(&receive_sample(kind)));
        assert_eq!(validate(&event), Ok(()), "{event}");
    }
}

#[test]
fn unknown_kinds_and_unreadable_bodies_obey_theirs() {
    for (body, type_) in [
        (
            r#"{"type":"Billing v2","event":"é","timestamp":"soon","data":[1]}"#,
            "com.millicast.billing-v2.-",
        ),
        (r#"{"type":"new","event":"x"}"#, "com.millicast.new.x"),
        (r#"{"type":"thumbnail","event":"x"}"#, "com.millicast.thumbnail.x"),
        (
            r#"{"type":"feeds","event":"x","data":{"streamId":"A/s","feedId":"f"},"new":1}"#,
            "com.millicast.feeds.x",
        ),
        ("hello", "com.millicast.unreadable"),
        ("", "com.millicast.unreadable"),
        ("[1]", "com.millicast.unreadable"),
    ] {
        let event = parse(&published(&receive("application/json", &[], body.as_bytes())));
        assert_eq!(event["type"], type_);
        assert_eq!(validate(&event), Ok(()), "{event}");
    }
}

#[test]
fn the_schemas_find_what_is_wrong() {
    let sound = parse(&published(&receive_sample(
        senders::find(senders::usual().samples(), "feeds", Some("started"))[0],
    )));
    for (member, value) in [
        ("specversion", json!("0.3")),
        ("id", json!("42")),
        ("type", json!("com.millicast.Feeds")),
        ("time", json!(1_638_463_486)),
        ("time", json!("yesterday")),
        ("replicasequence", json!("42")),
        ("partitionkey", json!("")),
        ("account", Value::Null),
        ("data", json!("text")),
    ] {
        let mut event = sound.clone();
        event[member] = value;
        assert!(validate(&event).is_err(), "{event}");
    }
    for (member, value) in [
        ("streamId", json!(1)),
        ("streamName", Value::Null),
        ("startedAt", json!(1_638_463_486_359_i64)),
    ] {
        let mut event = sound.clone();
        event["data"][member] = value;
        assert!(validate(&event).is_err(), "{event}");
    }
    for required in [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "partitionkey",
        "replicasequence",
        "data",
    ] {
        let mut event = sound.clone();
        event.as_object_mut().unwrap().remove(required);
        assert!(validate(&event).is_err(), "without {required}");
    }
}

/// Each `<!-- example: KIND EVENT -->` of the page is followed by the sample of that kind as it is published.
#[test]
fn the_examples_are_what_the_code_publishes() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/events.md");
    let page = fs::read_to_string(&path).unwrap();
    let mut expected = String::new();
    let mut rest = page.as_str();
    let mut kinds = Vec::new();
    while let Some((before, after)) = rest.split_once("<!-- example: ") {
        let (name, after) = after.split_once(" -->\n").expect("the marker is a line");
        let (kind, event) = name.split_once(' ').expect("kind and event");
        let body = after
            .strip_prefix("\n```json\n")
            .expect("a block of JSON follows the marker");
        let (_, after) = body.split_once("\n```\n").expect("the block ends");
        let sample = senders::find(senders::usual().samples(), kind, Some(event));
        let json = indent(&published(&receive_sample(sample[0])));
        expected.push_str(&format!("{before}<!-- example: {name} -->\n\n```json\n{json}\n```\n"));
        kinds.push(kind.to_owned());
        rest = after;
    }
    expected.push_str(rest);
    assert_current(path, &expected);
    for kind in senders::usual().samples().iter().copied() {
        assert!(
            kinds.iter().any(|documented| documented == kind.kind),
            "no example of {}",
            kind.kind
        );
    }
}

/// Breaks a JSON text into lines, leaving the order of its members.
fn indent(json: &str) -> String {
    let (mut text, mut depth, mut quoted, mut escaped) = (String::new(), 0, false, false);
    let line = |text: &mut String, depth: usize| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth));
    };
    for c in json.chars() {
        if quoted {
            text.push(c);
            quoted = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '{' | '[' => {
                text.push(c);
                depth += 1;
                line(&mut text, depth);
            }
            '}' | ']' => {
                depth -= 1;
                let empty = text.trim_end().ends_with(['{', '[']);
                text.truncate(text.trim_end().len());
                if !empty {
                    line(&mut text, depth);
                }
                text.push(c);
            }
            ',' => {
                text.push(c);
                line(&mut text, depth);
            }
            ':' => text.push_str(": "),
            _ => {
                quoted = c == '"';
                text.push(c);
            }
        }
    }
    text
}
