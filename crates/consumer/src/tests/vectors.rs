//! The vectors, which implementations in other languages take for the rules: the kit agrees with them, and a wrong rule
//! does not.

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Map, Value, json};

use super::model::{Model, Wrong};
use crate::StreamEvent;

#[test]
fn the_vectors_hold_of_the_kit() {
    assert_eq!(differing(None), [""; 0]);
}

/// Without this, an implementation with a wrong rule could pass.
#[test]
fn a_wrong_rule_turns_the_vectors_red() {
    for wrong in Wrong::OF_ONE_STATE {
        assert!(!differing(Some(wrong)).is_empty(), "{wrong:?} was not found out");
    }
}

/// The names of the cases that come out otherwise.
fn differing(wrong: Option<Wrong>) -> Vec<String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/ordering/vectors.json");
    let vectors: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = vectors["cases"].as_array().unwrap().iter();
    let differing = cases.filter(|case| run(wrong, case) != (case["transitions"].clone(), case["state"].clone()));
    differing
        .map(|case| case["name"].as_str().unwrap().to_owned())
        .collect()
}

fn run(wrong: Option<Wrong>, case: &Value) -> (Value, Value) {
    let mut models: BTreeMap<String, Model> = BTreeMap::new();
    let events = case["events"].as_array().unwrap().iter();
    let transitions = events.map(|event| {
        let event = StreamEvent::from_structured(event.to_string().as_bytes()).unwrap();
        let model = models.entry(event.key.clone()).or_insert_with(|| Model::new(wrong));
        json!(model.apply(&event))
    });
    let transitions: Vec<Value> = transitions.collect();
    let known = models.into_iter().filter(|(_, model)| !model.stream.is_empty());
    let states: Map<String, Value> = known.map(|(key, model)| (key, json!(model.stream))).collect();
    (transitions.into(), states.into())
}
