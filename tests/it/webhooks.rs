//! `forebay webhooks`, with a fake of the provider that holds every request against the provider's own description.

mod changes;
mod description;
mod errors;
mod provider;
mod terminal;

use std::process::Output;

use serde_json::{Value, json};

use self::provider::{FakeProvider, PageHabit};
use crate::support::{program, secrets::API_TOKEN};

const MASK: &str = "********";

/// What a command came to.
struct WebhooksOutput {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl WebhooksOutput {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let (stdout, stderr) = (text(output.stdout), text(output.stderr));
        for said in [&stdout, &stderr] {
            assert!(!said.contains(API_TOKEN), "{said}");
        }
        Self {
            code: output.status.code(),
            stdout,
            stderr,
        }
    }

    fn assert(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The objects on stdout, a line each.
    fn objects(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }
}

fn command(provider: &FakeProvider, arguments: &[&str]) -> program::Program {
    let mut command = program::forebay();
    command
        .arg("webhooks")
        .args(arguments)
        .args(["--api", &provider.url()])
        .env("MILLICAST_TOKEN", API_TOKEN)
        .env("NO_PROXY", "127.0.0.1");
    command
}

/// Runs `forebay webhooks` with the token of the account.
fn webhooks(provider: &FakeProvider, arguments: &[&str]) -> WebhooksOutput {
    let mut command = command(provider, arguments);
    WebhooksOutput::new(command.args(["--token", "env:MILLICAST_TOKEN"]).output().unwrap())
}

#[test]
fn they_are_listed_as_a_table_and_as_json_with_their_secrets_masked() {
    let provider = FakeProvider::start();
    assert_eq!(webhooks(&provider, &["list"]).assert(0).stdout, "no webhooks\n");
    assert_eq!(webhooks(&provider, &["list", "--json"]).assert(0).stdout, "");

    let first = provider.has(json!({ "isFeedHooks": true, "isMediaHooks": true, "filter": "^live-" }));
    let second = provider.has(json!({ "isViewerConnectionHooks": true }));
    provider.disable(second, "2026-01-31T12:00:00Z", "too many\u{1b}[2J time-outs");
    let table = webhooks(&provider, &["list"]).assert(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    for part in [
        "100  https://hooks.example/100",
        "feeds,media",
        "^live-",
        "enabled",
        MASK,
    ] {
        assert!(lines[1].contains(part), "{table}");
    }
    let state = "viewer-connection  -       disabled until 2026-01-31T12:00:00Z: too many\u{fffd}[2J time-outs";
    assert!(lines[2].contains(state), "{table}");

    let listed = webhooks(&provider, &["list", "--json"]).assert(0).objects();
    let mut expected = provider.webhook(first);
    expected["secret"] = MASK.into();
    assert_eq!(listed[0], expected);
    assert_eq!(listed[1]["disabled"]["until"], "2026-01-31T12:00:00Z");
    let listed = webhooks(&provider, &["list", "--json", "--show-secret"])
        .assert(0)
        .objects();
    assert_eq!(listed[1]["secret"], *provider.secret(second));
}

#[test]
fn a_list_is_followed_to_its_end_however_it_is_cut() {
    let provider = FakeProvider::start();
    let all: Vec<u64> = (0..25).map(|_| provider.has(json!({ "isFeedHooks": true }))).collect();
    let listed = |arguments: &[&str]| -> Vec<u64> {
        let listed = webhooks(&provider, &[&["list", "--json"], arguments].concat()).assert(0);
        listed
            .objects()
            .iter()
            .map(|webhook| webhook["id"].as_u64().unwrap())
            .collect()
    };
    for has_start in [true, false] {
        for items_max in [2, 10, 100] {
            provider.cut_lists(PageHabit { has_start, items_max });
            assert_eq!(listed(&[]), all);
            assert_eq!(listed(&["--item-count", "100"]), all);
        }
    }
    let mut reversed = listed(&["--descending", "--item-count", "2"]);
    reversed.reverse();
    assert_eq!(reversed, all);
}
