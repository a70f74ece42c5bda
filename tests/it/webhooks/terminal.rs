//! What is asked of a person at a terminal: a token, which is not shown, and whether a removal is meant.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    process::{Child, Stdio},
};

use rustix::{
    fs::OFlags,
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, tcgetattr},
};
use serde_json::json;

use super::{
    command,
    provider::{FakeProvider, PlannedAnswer},
};
use crate::support::{program::Program, secrets::API_TOKEN};

/// A terminal, and the keyboard before it.
struct TestTerminal {
    person: File,
    program: File,
}

impl TestTerminal {
    fn open() -> Self {
        let person: OwnedFd = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&person).unwrap();
        unlockpt(&person).unwrap();
        let path = ptsname(&person, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        options
            .read(true)
            .write(true)
            .custom_flags(OFlags::NOCTTY.bits() as i32);
        Self {
            person: person.into(),
            program: options.open(path.to_str().unwrap()).unwrap(),
        }
    }

    /// Starts a command at it, and waits until it has asked.
    fn start(&self, mut command: Program, question: &str) -> AskedProgram {
        let mut child = command.spawn_with(Stdio::from(self.program.try_clone().unwrap()));
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains(question) {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "it did not ask: {said}");
        }
        AskedProgram { child, stderr, said }
    }

    fn type_in(&self, text: &str) {
        (&self.person).write_all(text.as_bytes()).unwrap();
    }

    /// All that it has shown.
    fn shown(&self) -> String {
        (&self.program).write_all(b"the end").unwrap();
        let mut shown = Vec::new();
        while !shown.ends_with(b"the end") {
            let mut byte = [0];
            (&self.person).read_exact(&mut byte).unwrap();
            shown.push(byte[0]);
        }
        String::from_utf8(shown).unwrap()
    }

    fn shows_what_is_typed(&self) -> bool {
        tcgetattr(&self.program).unwrap().local_modes.contains(LocalModes::ECHO)
    }
}

struct AskedProgram {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    said: String,
}

impl AskedProgram {
    /// Its exit code, and all that it said.
    fn end(mut self) -> (Option<i32>, String) {
        self.stderr.read_to_string(&mut self.said).unwrap();
        let output = self.child.wait_with_output().unwrap();
        let said = self.said + &String::from_utf8(output.stdout).unwrap();
        (output.status.code(), said)
    }
}

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
