//! What a configuration file and the environment make of each other, and how mistakes are told.

mod defaults;
mod environment;
mod misplaced;
mod mistakes;
mod overlaps;
mod rabbitmq;
mod secrets;

use std::path::PathBuf;

use forebay::config::{Config, ConfigProblems};

use crate::support::process::private_dir;

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The least that starts.
const LEAST: &str = r#"
[endpoints.acme]
path = "/millicast/acme"
secrets = ["base64:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]

[sinks.main]
type = "kafka"
brokers = ["localhost:9092"]
"#;

/// An endpoint, and a sink of this name with these lines.
fn with_sink(name: &str, lines: &str) -> String {
    let endpoint = LEAST.split("[sinks").next().unwrap();
    format!("{endpoint}[sinks.{name}]\n{lines}")
}

/// The block of the contract: every value that is not the user's own is the default.
const CONTRACT: &str = include_str!("../../docs/examples/defaults.toml");

struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(private_dir())
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

fn load_named(name: &str, text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
    let dir = Dir::new();
    let env = env
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(&dir.file(name, text), env)
}

fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigProblems> {
    load_named("forebay.toml", text, env)
}

/// The problems as `origin: key: text`, the file without its directory.
fn problems(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    let problems = load(text, env).expect_err(text);
    let short = |origin: &str| origin.rsplit('/').next().unwrap().to_owned();
    problems
        .iter()
        .map(|p| format!("{}: {}: {}", short(&p.origin), p.key, p.text))
        .collect()
}

/// `LEAST`, and `more` in front of it.
fn with(more: &str) -> String {
    format!("{more}\n{LEAST}")
}
