//! `docs/ordering/vectors.json` says what the kit does, for implementations in other languages.
//!
//! `FOREBAY_UPDATE_VECTORS=1` rewrites it.

mod cases;

use std::{collections::BTreeSet, env, fmt::Write as _, fs, path::PathBuf, process::Command};

use forebay_consumer::{StreamEvent, Streams, Transition};
use serde_json::{Value, json};

use crate::support::{ROOT, schemas::validate, target};

const DESCRIPTION: &str = "What a consumer makes of events, whatever their order: see docs/ordering.md. `events` are structured CloudEvents in the order of \
     arrival; `transitions` has a list for each of them, in order; `state` is what is known at the end, by `partitionkey`. Members that are empty are left out, \
     and so are streams of which nothing is known. The order of members has no meaning.";

#[test]
fn the_vectors_are_what_the_kit_does() {
    let path = PathBuf::from(ROOT).join("docs/ordering/vectors.json");
    let expected = vectors();
    if env::var_os("FOREBAY_UPDATE_VECTORS").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let current = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        current == expected,
        "{} is stale: run the tests with FOREBAY_UPDATE_VECTORS=1",
        path.display()
    );
    let read: Value = serde_json::from_str(&current).unwrap();
    assert_eq!(read["cases"].as_array().map(Vec::len), Some(cases::all().len()));
}

#[test]
fn the_events_of_the_vectors_obey_the_schemas() {
    for case in cases::all() {
        for event in case.events {
            assert_eq!(validate(&event), Ok(()), "{}: {event}", case.name);
        }
    }
}

/// What makes the vectors worth running: each thing that can happen, happens.
#[test]
fn the_vectors_have_every_transition() {
    let cases = cases::all();
    let transitions = cases.iter().flat_map(|case| run(&case.events).0).flatten();
    let types: BTreeSet<String> = transitions
        .map(|transition| json!(transition)["type"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(types.len(), 14, "{types:?}");
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name).collect();
    assert_eq!(names.len(), cases.len(), "two cases have the same name");
}

/// The page has the events as they arrive, and after them what the kit makes of them.
#[test]
fn the_worked_example_is_what_the_kit_does() {
    let page = fs::read_to_string(PathBuf::from(ROOT).join("docs/ordering.md")).unwrap();
    let block = |name: &str| -> Vec<Value> {
        let (_, after) = page.split_once(&format!("<!-- {name} -->\n\n```json\n")).unwrap();
        let (json, _) = after.split_once("```").unwrap();
        let values = serde_json::Deserializer::from_str(json).into_iter();
        values.collect::<Result<_, _>>().unwrap()
    };
    let (transitions, streams) = run(&block("arrivals"));
    let transitions: Vec<Value> = transitions.iter().map(|list| json!(list)).collect();
    assert_eq!(transitions, block("transitions"));
    assert_eq!(vec![json!(streams)], block("state"));
}

/// What a team would copy passes what it should.
#[test]
fn the_rust_consumer_passes_the_vectors() {
    let output = Command::new(target::example("consumer"))
        .args(["--vectors", "docs/ordering/vectors.json"])
        .current_dir(ROOT)
        .output()
        .unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(stdout, format!("ok {}\n", cases::all().len()));
}

fn run(events: &[Value]) -> (Vec<Vec<Transition>>, Streams) {
    let mut streams = Streams::default();
    let transitions = events.iter().map(|event| {
        let event = StreamEvent::from_structured(event.to_string().as_bytes()).unwrap();
        streams.apply(&event)
    });
    (transitions.collect(), streams)
}

/// One line for each event, each list of transitions and each stream, so that people can read it and compare versions.
fn vectors() -> String {
    let mut text = format!("{{\n\"description\": {},\n\"cases\": [", json!(DESCRIPTION));
    for (at, case) in cases::all().iter().enumerate() {
        let (transitions, streams) = run(&case.events);
        let lines = |values: Vec<String>| values.join(",\n    ");
        let events = lines(case.events.iter().map(Value::to_string).collect());
        let transitions = lines(transitions.iter().map(|list| json!(list).to_string()).collect());
        let Value::Object(states) = json!(streams) else {
            panic!("the states are an object");
        };
        let states = states.iter().map(|(key, state)| format!("{}: {state}", json!(key)));
        let states = lines(states.collect());
        write!(
            text,
            "{}\n{{\n  \"name\": {},\n  \"events\": [\n    {events}\n  ],\n  \"transitions\": [\n    {transitions}\n  ],\n  \"state\": {{\n    {states}\n  }}\n}}",
            if at == 0 { "" } else { "," },
            json!(case.name),
        )
        .unwrap();
    }
    text + "\n]\n}\n"
}
