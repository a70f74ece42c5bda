//! `docs/asyncapi.yaml` is made of the definitions of the schemas, and is what AsyncAPI's own tools can read.
//!
//! `FOREBAY_UPDATE_ASYNCAPI=1` rewrites it.

mod document;
mod schemas;
mod yaml;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use forebay::{config::Config, senders};
use jsonschema::{Draft, Validator};
use serde_json::{Value, json};

use crate::{
    schemas::{parse, published, receive, receive_sample},
    support::{consumers::runs, fetched},
};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const COMMENT: &str = "Made by the tests from the definitions of docs/schemas: FOREBAY_UPDATE_ASYNCAPI=1 rewrites it.";

fn config(sink: &str) -> Config {
    let text = format!(
        "[endpoints.acme]\npath = \"/acme\"\nsecrets = [\"base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=\"]\n[sinks.main]\n{sink}"
    );
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("forebay.toml");
    fs::write(&path, text).unwrap();
    Config::load(&path, std::iter::empty()).unwrap()
}

fn document() -> Value {
    document::document(
        &config("type = \"kafka\"\nbrokers = [\"localhost:9092\"]"),
        &config("type = \"rabbitmq\"\nuri = \"amqp://localhost\"\ndeclare = true"),
    )
}

#[test]
fn the_document_is_that_of_the_definitions() {
    let path = PathBuf::from(ROOT).join("docs/asyncapi.yaml");
    let expected = yaml::write(&document(), COMMENT);
    if env::var_os("FOREBAY_UPDATE_ASYNCAPI").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == expected,
        "{} is stale: run the tests with FOREBAY_UPDATE_ASYNCAPI=1",
        path.display()
    );
}

/// What AsyncAPI's parser makes of a document: the errors and warnings, and what the YAML says. `None`, said on stderr,
/// where this machine lacks something; in CI that is a failure.
fn judge(text: &str) -> Option<Judgement> {
    static DIR: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
        let is_new = "process.exit(Number(process.versions.node.split('.')[0]) >= 20 ? 0 : 1)";
        if !runs(&["node", "-e", is_new]) || !runs(&["npm", "--version"]) {
            let left_out = "LEFT OUT, for want of Node.js 20 or newer, with npm: AsyncAPI's parser";
            assert!(env::var_os("CI").is_none(), "{left_out}");
            // Not by `eprintln!`, which a test that passes keeps to itself.
            let _ = writeln!(std::io::stderr(), "{left_out}");
            return None;
        }
        Some(fetched::by("tests/npm.sh", &["tests/asyncapi"]))
    });
    let mut command = Command::new("node");
    command.arg(DIR.as_ref()?.join("validate.mjs"));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let mut child = command.spawn().unwrap();
    // All of it is read before anything is written.
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "validate.mjs: {}", output.status);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let problems = said["problems"].as_array().unwrap().iter();
    let problems = problems.filter(|problem| ["error", "warning"].map(Value::from).contains(&problem["severity"]));
    Some(Judgement {
        valid: said["valid"] == true,
        problems: problems.map(Value::to_string).collect(),
        read: said["read"].clone(),
    })
}

struct Judgement {
    valid: bool,
    problems: Vec<String>,
    read: Value,
}

#[test]
fn the_parser_of_asyncapi_finds_nothing_wrong_and_reads_what_was_meant() {
    let text = fs::read_to_string(Path::new(ROOT).join("docs/asyncapi.yaml")).unwrap();
    let Some(judgement) = judge(&text) else { return };
    assert!(judgement.valid, "{}", judgement.problems.join("\n"));
    assert_eq!(judgement.problems, Vec::<String>::new());
    assert_eq!(judgement.read, document());
}

#[test]
fn the_parser_of_asyncapi_finds_what_is_wrong() {
    let sound = document();
    for (at, member, value) in [
        ("", "info", json!({ "title": "Forebay" })),
        ("/channels/eventsTopic", "adress", json!("a")),
        ("/channels/eventsTopic/bindings/kafka", "partitions", json!("many")),
        ("/channels/queues/bindings/amqp", "is", json!("topic")),
        ("/operations/publishToExchange", "action", json!("publish")),
        (
            "/operations/publishToExchange",
            "channel",
            json!({ "$ref": "#/channels/gone" }),
        ),
        (
            "/channels/exchange/messages/feeds",
            "payload",
            json!({ "$ref": "#/components/schemas/gone" }),
        ),
        (
            "/components/schemas/attributes/properties/id",
            "type",
            json!("characters"),
        ),
    ] {
        let mut broken = sound.clone();
        let object = broken.pointer_mut(at).unwrap_or_else(|| panic!("{at}"));
        object[member] = value;
        let Some(judgement) = judge(&yaml::write(&broken, COMMENT)) else {
            return;
        };
        assert!(!judgement.valid && !judgement.problems.is_empty(), "{at}/{member}");
    }
}

/// Judges by the payload of a message of a channel, with what it refers to.
fn validator(document: &Value, channel: &str, message: &str) -> Validator {
    let payload = &document["channels"][channel]["messages"][message]["payload"];
    assert!(payload.is_object(), "{channel}, {message}");
    let schema = json!({ "allOf": [payload], "components": document["components"] });
    // The words of the schemas mean the same in draft 7, which AsyncAPI builds on; its formats lack `uuid`.
    let options = jsonschema::options().with_draft(Draft::Draft202012);
    options.should_validate_formats(true).build(&schema).unwrap()
}

#[test]
fn every_event_obeys_the_payload_of_its_message() {
    let document = document();
    let mut events: Vec<(String, Value)> = senders::usual()
        .samples()
        .iter()
        .map(|sample| (sample.kind.to_lowercase(), parse(&published(&receive_sample(*sample)))))
        .filter(|(kind, _)| kind != "thumbnail")
        .collect();
    for (kind, body) in [("unreadable", "hello"), ("event", r#"{"type":"new","event":"x"}"#)] {
        let event = receive("application/json", &[], body.as_bytes());
        events.push((kind.to_owned(), parse(&published(&event))));
    }
    for (kind, event) in events {
        for channel in ["eventsTopic", "exchange", "queues", "deadLetters"] {
            let validator = validator(&document, channel, &kind);
            assert!(validator.is_valid(&event), "{channel}, {kind}: {event}");
            for member in ["id", "time", "replicasequence", "type"] {
                let mut wrong = event.clone();
                wrong[member] = "wrong".into();
                assert!(!validator.is_valid(&wrong), "{channel}, {kind}, {member}");
                wrong.as_object_mut().unwrap().remove(member);
                assert!(!validator.is_valid(&wrong), "{channel}, {kind}, without {member}");
            }
        }
    }
}
