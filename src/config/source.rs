//! The file and the environment, as one tree of values that know where they come from.

use std::path::Path;

use config::{FileFormat, Source, Value, ValueKind};

use forebay_section::{ConfigTree, ENV_PREFIX, FoundProblems};

/// Reads the file. `None`, with the problem in `found`, when it cannot be read or is not TOML or YAML.
pub(super) fn file(path: &Path, found: &FoundProblems) -> Option<ConfigTree> {
    let origin = path.display().to_string();
    let format = match path.extension().and_then(|e| e.to_str()) {
        Some("toml") => FileFormat::Toml,
        Some("yaml" | "yml") => FileFormat::Yaml,
        _ => {
            found.add(
                &origin,
                "",
                "not a configuration file: its name must end in .toml, .yaml or .yml",
            );
            return None;
        }
    };
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) => {
            found.add(&origin, "", format!("cannot be read: {error}"));
            return None;
        }
    };
    match config::File::from_str(&text, format).collect() {
        Ok(tree) => Some(tree),
        Err(error) => {
            found.add(&origin, "", syntax(&error));
            None
        }
    }
}

/// How errors begin that quote a value of the file, which may be all of it, and what is said instead.
const QUOTING: [(&str, &str); 3] = [
    (
        "invalid type: ",
        "not a table of keys and values: is it of the format that its name says?",
    ),
    ("Cannot parse ", "a key that is a list, a table or nothing"),
    ("Parsing ", "a number that cannot be read"),
];

/// A syntax error without what it quotes of the file: a secret may be there.
fn syntax(error: &config::ConfigError) -> String {
    let text = match error {
        config::ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    };
    if let Some((_, instead)) = QUOTING.iter().find(|(begins, _)| text.starts_with(begins)) {
        return (*instead).to_owned();
    }
    let quoted = |line: &str| {
        line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit())
            .starts_with('|')
    };
    let told: Vec<&str> = text.lines().filter(|line| !quoted(line)).map(str::trim).collect();
    told.join(": ")
}

/// Lays the environment over the tree. A key of the file is met in any case, and `_` meets its `-`.
pub(super) fn overlay(tree: &mut ConfigTree, env: &[(String, String)], found: &FoundProblems) {
    let mut variables: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        // An empty variable is an unset one, as compose files and charts leave them.
        if value.is_empty() {
            continue;
        }
        let segments: Vec<String> = name[ENV_PREFIX.len()..].split("__").map(str::to_lowercase).collect();
        if segments.iter().any(String::is_empty) {
            found.add(
                name,
                "",
                "not a key: two underscores stand between a table and its key, FOREBAY__SPOOL__DIR",
            );
            continue;
        }
        let segments = join_property(segments);
        let value = Value::new(Some(name), ValueKind::String(value.clone()));
        if let Err(table) = insert(tree, &segments, value) {
            found.add(name, &segments.join("."), format!("{table} is not a table"));
        }
    }
}

/// librdkafka's names have dots of their own: `…__PROPERTIES__COMPRESSION__TYPE` is `compression.type`, one key.
fn join_property(mut segments: Vec<String>) -> Vec<String> {
    if segments.len() > 4 && segments[0] == "sinks" && segments[2] == "properties" {
        let property = segments.split_off(3).join(".");
        segments.push(property);
    }
    segments
}

fn insert(tree: &mut ConfigTree, segments: &[String], value: Value) -> Result<(), String> {
    let (first, rest) = segments.split_first().expect("a split has at least one part");
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let name = tree
        .keys()
        .find(|name| plain(name) == plain(first))
        .unwrap_or(first)
        .clone();
    if rest.is_empty() {
        tree.insert(name, value);
        return Ok(());
    }
    let below = tree.entry(name.clone()).or_default();
    if matches!(below.kind, ValueKind::Nil) {
        *below = Value::new(
            value.origin().map(str::to_owned).as_ref(),
            ValueKind::Table(ConfigTree::new()),
        );
    }
    match &mut below.kind {
        ValueKind::Table(table) => insert(table, rest, value).map_err(|table| format!("{name}.{table}")),
        _ => Err(name),
    }
}
