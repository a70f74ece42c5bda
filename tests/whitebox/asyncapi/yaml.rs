//! Writes a JSON value as YAML for people: blocks, plain texts where nothing else could be read, long ones folded.

use serde_json::{Map, Value};

/// A text is folded here, in columns.
const WIDTH: usize = 118;
/// What comes first in an object, in this order; the rest is in the order of the alphabet.
const FIRST: &[&str] = &[
    "asyncapi",
    "$ref",
    "info",
    "defaultContentType",
    "servers",
    "channels",
    "operations",
    "components",
    "name",
    "action",
    "host",
    "protocol",
    "address",
    "is",
    "title",
    "version",
    "summary",
    "description",
    "contentType",
    "type",
    "channel",
    "parameters",
    "headers",
    "payload",
];

/// The document, ending in a line feed. Its root is an object that is not empty.
pub fn write(root: &Value, comment: &str) -> String {
    let mut text = format!("# {comment}\n");
    let Value::Object(members) = root else {
        panic!("the root is an object");
    };
    object(&mut text, members, 0);
    text
}

fn object(text: &mut String, members: &Map<String, Value>, depth: usize) {
    let rank = |name: &str| FIRST.iter().position(|first| *first == name).unwrap_or(FIRST.len());
    let mut sorted: Vec<_> = members.iter().collect();
    sorted.sort_by_key(|(name, _)| (rank(name), *name));
    for (at, (name, value)) in sorted.into_iter().enumerate() {
        // The first member of an object in a list stands beside the list's dash.
        if at > 0 || text.ends_with('\n') {
            text.push_str(&"  ".repeat(depth));
        }
        text.push_str(&line(name));
        text.push(':');
        member(text, value, depth + 1);
    }
}

fn member(text: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(members) if !members.is_empty() => {
            text.push('\n');
            object(text, members, depth);
        }
        Value::Array(items) if !items.is_empty() => {
            text.push('\n');
            list(text, items, depth);
        }
        Value::String(long) if is_foldable(long, depth) => {
            text.push_str(" >-\n");
            fold(text, long, depth);
        }
        Value::String(short) => text.push_str(&format!(" {}\n", line(short))),
        other => text.push_str(&format!(" {other}\n")),
    }
}

fn list(text: &mut String, items: &[Value], depth: usize) {
    for item in items {
        text.push_str(&"  ".repeat(depth));
        text.push('-');
        match item {
            Value::Object(members) if !members.is_empty() => {
                text.push(' ');
                object(text, members, depth + 1);
            }
            other => member(text, other, depth + 1),
        }
    }
}

/// Folding gives back what has single spaces between words, and nothing that ends a line.
fn is_foldable(text: &str, depth: usize) -> bool {
    let words = text.split(' ').all(|word| !word.is_empty());
    words && !text.contains(char::is_control) && depth * 2 + text.chars().count() > WIDTH - 20
}

fn fold(text: &mut String, long: &str, depth: usize) {
    let indent = "  ".repeat(depth);
    let mut line = indent.clone();
    for word in long.split(' ') {
        let is_first = line.len() == indent.len();
        if !is_first && line.chars().count() + 1 + word.chars().count() > WIDTH {
            text.push_str(&line);
            text.push('\n');
            line.clone_from(&indent);
        } else if !is_first {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(&line);
    text.push('\n');
}

/// A text in one line: plain, or in quotes as JSON has them where it could be read as something else.
fn line(text: &str) -> String {
    let harmless = |c: char| c.is_alphanumeric() || " _-./,;()'`+=$".contains(c);
    let constants = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '$')
        && text.chars().all(harmless)
        && !text.ends_with(' ')
        && !constants.contains(&text.to_ascii_lowercase().as_str());
    if is_plain {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}
