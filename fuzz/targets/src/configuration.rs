//! The configuration: any text becomes one, or a list of what is wrong, and no secret in it is shown.
//!
//! The input has a file, of TOML or YAML, some variables, and a line with a secret between two parts of the file,
//! wherever that comes to stand. Then:
//!
//! - the file is read, or has at least one problem, and each problem is one line that names the file or the variable;
//! - it is the same when it is read again;
//! - the secret is neither in a problem, nor in a warning, nor in the debug text of what was read, unless it stands
//!   where none belongs: in the value of another key, or in a name.

use std::fs;

use config::{Value, ValueKind};
use forebay::config::Config;

use crate::InputReader;

const SECRET: &str = "c2VjcmV0LW9mLXRoZS1mdXp6ZXItb2YtdGhlLWZ1enplcg==";
/// So much of it is too much.
const SECRET_BEGINS: &str = "c2VjcmV0LW9m";
/// Lines with a secret, of TOML and of YAML.
const LINES: [&str; 8] = [
    "",
    "secrets = [\"base64:{}\"]",
    "properties = { \"sasl.password\" = \"{}\" }",
    "uri = \"amqp://forebay:{}@localhost/%2f\"",
    "password = \"{}\"",
    "    secrets: [\"base64:{}\"]",
    "      sasl.password: \"{}\"",
    "    uri: \"amqp://forebay:{}@localhost/%2f\"",
];
/// Where a secret belongs.
const SECRET_KEYS: [&str; 4] = ["secrets", "sasl.password", "uri", "password"];
/// Variables, and whether they hold a secret.
const VARIABLES: [(&str, bool); 6] = [
    ("FOREBAY__SERVER__LISTEN", false),
    ("FOREBAY__SPOOL__BYTES_MAX", false),
    ("FOREBAY__SINKS__MAIN__BROKERS", false),
    ("FOREBAY__SINKS__MAIN__PROPERTIES__SASL__PASSWORD", true),
    ("FOREBAY__ENDPOINTS__ACME__SECRETS", true),
    ("FOREBAY__ROUTES__EVENTS__MATCH__KINDS", false),
];
/// Stands between the two parts of the file.
const SEPARATOR: u8 = 0;

/// See the module.
pub fn configuration(input: &[u8]) {
    let mut input = InputReader::new(input);
    let (extension, format) = match input.below(2) {
        0 => (".toml", config::FileFormat::Toml),
        _ => (".yaml", config::FileFormat::Yaml),
    };
    let line = LINES[input.below(LINES.len())].replace("{}", SECRET);
    let is_set = input.byte();
    let set = (0..).zip(VARIABLES).filter(|(at, _)| is_set >> at & 1 == 1);
    let env: Vec<_> = set
        .map(|(_, (name, is_secret))| {
            let secret = if is_secret {
                format!("base64:{SECRET}")
            } else {
                String::new()
            };
            // In front of it there may be what says that it is no secret, but the name of one.
            (name.to_owned(), secret + &harmless(input.piece()))
        })
        .collect();
    let parts: Vec<_> = input
        .rest()
        .splitn(2, |byte| *byte == SEPARATOR)
        .map(harmless)
        .collect();
    let text = parts.join(&format!("\n{line}\n"));
    let file = tempfile::Builder::new().suffix(extension).tempfile();
    let file = file.expect("there is room for a file");
    fs::write(file.path(), &text).expect("there is room for a text");

    let load = || Config::load(file.path(), env.iter().cloned());
    let loaded = load();
    let shown = match &loaded {
        Ok(config) => format!("{config:?}"),
        Err(problems) => {
            assert!(problems.iter().all(|problem| !problem.text.is_empty()), "{problems}");
            let lines = problems.to_string().lines().count();
            assert_eq!(lines, problems.iter().count() + 1, "a line for each: {problems}");
            problems.to_string()
        }
    };
    let again = load().map_or_else(|problems| problems.to_string(), |config| format!("{config:?}"));
    assert_eq!(shown, again);
    let is_shown = shown.contains(SECRET_BEGINS);
    assert!(!is_shown || has_secret_elsewhere(&text, format), "{shown}");
}

/// A part of a file, which names no file of the machine's and has not got the secret from elsewhere.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.replace("file:", "file:/nowhere/")
        .replace("/dev", "/nowhere")
        .replace("/proc", "/nowhere")
        .replace(SECRET_BEGINS, "")
}

/// Whether a secret stands where none belongs.
fn has_secret_elsewhere(text: &str, format: config::FileFormat) -> bool {
    let tree = config::Config::builder()
        .add_source(config::File::from_str(text, format))
        .build();
    let tree = tree.and_then(|config| config.try_deserialize::<Value>());
    tree.is_ok_and(|tree| is_misplaced(&tree))
}

fn is_misplaced(value: &Value) -> bool {
    match &value.kind {
        ValueKind::Table(table) => table.iter().any(|(key, value)| {
            let is_expected = SECRET_KEYS.contains(&key.as_str());
            key.contains(SECRET_BEGINS) || (!is_expected && is_misplaced(value))
        }),
        ValueKind::Array(values) => values.iter().any(is_misplaced),
        ValueKind::String(text) => text.contains(SECRET_BEGINS),
        _ => false,
    }
}
