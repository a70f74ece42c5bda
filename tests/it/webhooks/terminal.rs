//! What is asked of a person at a terminal: a token, which is not shown, and whether a removal is meant.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{
    command,
    provider::{FakeProvider, PlannedAnswer},
};
use crate::support::{secrets::API_TOKEN, terminal::TestTerminal};

#[test]
fn a_token_is_asked_for_and_not_shown() {
    let provider = FakeProvider::start();
    let terminal = TestTerminal::open();
    let asked = terminal.start(command(&provider, &["list"]), "Token of the API");
    assert!(!terminal.shows_what_is_typed());
    terminal.type_in(&format!("{API_TOKEN}\n"));
    let (code, said) = asked.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("no webhooks") && !said.contains(API_TOKEN), "{said}");
    assert!(terminal.shows_what_is_typed());
    let shown = terminal.shown();
    assert!(!shown.contains(API_TOKEN), "{shown:?}");
}

#[test]
fn whoever_stops_it_finds_a_terminal_that_shows_what_is_typed_and_nothing_changed() {
    let provider = FakeProvider::start();
    let terminal = TestTerminal::open();
    provider.has(json!({ "isFeedHooks": true }));
    let with_token = |arguments: &[&str]| {
        let mut command = command(&provider, arguments);
        command.args(["--token", "env:MILLICAST_TOKEN"]);
        command
    };
    let limited = PlannedAnswer::error(429, "soon").with("Retry-After", "20");
    for (asked, planned, question) in [
        (command(&provider, &["list"]), None, "Token of the API"),
        (with_token(&["remove", "100"]), None, "Remove it? [y/N]"),
        (with_token(&["list"]), Some(limited), "asking again in"),
    ] {
        provider.plan(planned);
        let asked = terminal.start(asked, question);
        kill_process(Pid::from_child(&asked.child), Signal::INT).unwrap();
        let (code, said) = asked.end();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("forebay: stopped; a change"), "{said}");
        assert!(terminal.shows_what_is_typed());
    }
    assert_eq!(provider.count(), 1);
}

#[test]
fn a_removal_is_asked_for_and_done_only_when_it_is_meant() {
    let provider = FakeProvider::start();
    provider.has(json!({ "isFeedHooks": true }));
    let terminal = TestTerminal::open();
    for (answer, code, told, left) in [
        ("n\n", 1, "nothing was removed", 1),
        ("\n", 1, "nothing was removed", 1),
        ("y\n", 0, "webhook 100 is removed", 0),
    ] {
        let mut command = command(&provider, &["remove", "100"]);
        command.args(["--token", "env:MILLICAST_TOKEN"]);
        let question = "Webhook 100 to https://hooks.example/100, which sends feeds, will be gone for good.";
        let asked = terminal.start(command, question);
        terminal.type_in(answer);
        let (ended, said) = asked.end();
        assert_eq!((ended, provider.count()), (Some(code), left), "{said}");
        assert!(said.contains(told), "{said}");
    }
}
