//! What the chart's files say of themselves.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::support::chart::{CHART, documents_of, root};

/// The suites of unit tests.
pub fn suites() -> Vec<Value> {
    let dir = root().join(CHART).join("tests");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|path| path.is_file()).collect();
    files.sort();
    files.iter().flat_map(|file| documents_of(file)).collect()
}

/// The dotted names of all values. What is empty, or a list, is one value.
pub fn leaves(values: &Value) -> Vec<String> {
    let mut leaves = Vec::new();
    collect(values, "", &mut leaves);
    leaves
}

fn collect(value: &Value, name: &str, leaves: &mut Vec<String>) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            for (member, value) in members {
                let dot = if name.is_empty() { "" } else { "." };
                collect(value, &format!("{name}{dot}{member}"), leaves);
            }
        }
        _ => leaves.push(name.to_owned()),
    }
}

/// The values that tests set, except those that only see a template fail.
pub fn set_by(suites: &[Value]) -> Vec<String> {
    let tests = suites.iter().flat_map(|suite| suite["tests"].as_array().unwrap());
    let telling = tests.filter(|test| {
        let asserts = test["asserts"].as_array().unwrap();
        asserts.iter().all(|assert| assert["failedTemplate"].is_null())
    });
    telling
        .filter(|test| test["set"].is_object())
        .flat_map(|test| leaves(&test["set"]))
        .collect()
}

/// The values that nobody sets, neither them nor something in them.
pub fn unset(leaves: &[String], set: &[String]) -> Vec<String> {
    let is_set = |leaf: &str| {
        set.iter()
            .any(|set| set == leaf || set.starts_with(&format!("{leaf}.")))
    };
    leaves.iter().filter(|leaf| !is_set(leaf)).cloned().collect()
}

/// The names after `--set` in a text that are no values.
pub fn unknown(text: &str, leaves: &[String]) -> Vec<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._".contains(c);
    let set = text.split("--set").skip(1).filter_map(|rest| {
        let rest = rest.trim_start_matches([' ', '\'', '"', '=']);
        rest.split(|c| !is_name(c)).next()
    });
    let exists = |name: &str| {
        leaves
            .iter()
            .any(|leaf| leaf == name || name.starts_with(&format!("{leaf}.")))
    };
    set.filter(|name| !exists(name)).map(str::to_owned).collect()
}

/// The files below a directory, by their paths in it.
pub fn files(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(next) = dirs.pop() {
        let Ok(entries) = fs::read_dir(next) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            match path.is_dir() {
                true => dirs.push(path),
                false => drop(found.insert(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned())),
            }
        }
    }
    found
}

/// The files that are not the same in both directories.
pub fn different(one: &Path, other: &Path, files: &BTreeSet<String>) -> Vec<String> {
    let read = |dir: &Path, file: &str| fs::read(dir.join(file)).ok();
    files
        .iter()
        .filter(|file| read(one, file) != read(other, file))
        .cloned()
        .collect()
}
