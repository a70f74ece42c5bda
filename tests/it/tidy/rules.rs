//! The rules for sources. Each returns its findings: path, line, what is wrong, and what to do.

use super::source::{Source, close, is_name, words};

type Rule = fn(&Source) -> Vec<String>;

pub const RULES: &[(&str, Rule)] = &[
    ("modules import downwards", arrows),
    ("foreign crates stay at home", homes),
    ("some things are never called", never),
    ("nothing is unwrapped", unwraps),
    (
        "senders and brokers are named at home, and where they are registered",
        named,
    ),
    ("files stay readable", lengths),
];

/// Sources that break a rule: the rule, a path, a text, a part of the one finding.
pub const BROKEN: &[(&str, &str, &str, &str)] = &[
    (
        "modules import downwards",
        "src/sink/a.rs",
        "use crate::spool::Spool;",
        "src/sink/a.rs:1: sink imports spool",
    ),
    (
        "modules import downwards",
        "src/ingress/a.rs",
        "\nuse crate::{spool::Spool, sink::{Sink}};",
        "a.rs:2: ingress imports sink",
    ),
    (
        "modules import downwards",
        "src/sink/unrouted.rs",
        "fn a() { crate::job::b() }",
        "sink imports job",
    ),
    (
        "modules import downwards",
        "src/lifecycle/mod.rs",
        "use super::spool::Spool;",
        "lifecycle imports spool",
    ),
    (
        "modules import downwards",
        "src/lifecycle/time.rs",
        "use super::super::config;",
        "lifecycle imports config",
    ),
    (
        "modules import downwards",
        "src/node/mod.rs",
        "use crate::cli;",
        "node imports cli",
    ),
    (
        "modules import downwards",
        "src/main.rs",
        "use forebay::spool::Spool;",
        "main imports spool",
    ),
    ("modules import downwards", "src/new/mod.rs", "", "new has no place"),
    (
        "modules import downwards",
        "src/node/a.rs",
        "use crate::millicast_api::WebhookClient;",
        "node imports millicast_api",
    ),
    (
        "foreign crates stay at home",
        "src/job/a.rs",
        "use actix_web::web::Bytes;",
        "actix_web",
    ),
    (
        "foreign crates stay at home",
        "src/job/spans.rs",
        "use opentelemetry::trace::Span;",
        "opentelemetry",
    ),
    (
        "foreign crates stay at home",
        "crates/log/src/writer.rs",
        "use std::{fs::File, io};",
        "std::fs",
    ),
    (
        "foreign crates stay at home",
        "crates/log/src/writer.rs",
        "std::fs::write(a, b)",
        "std::fs",
    ),
    (
        "foreign crates stay at home",
        "crates/log/src/writer.rs",
        "rustix::fs::fdatasync(a)",
        "rustix",
    ),
    (
        "foreign crates stay at home",
        "src/sink/mod.rs",
        "fn a() -> anyhow::Result<()> {}",
        "anyhow",
    ),
    (
        "some things are never called",
        "crates/rabbitmq/src/a.rs",
        "channel.wait_for_confirms().await",
        "wait_for_confirms",
    ),
    (
        "some things are never called",
        "crates/kafka/src/a.rs",
        "use rdkafka::producer::FutureProducer;",
        "FutureProducer",
    ),
    (
        "nothing is unwrapped",
        "crates/event/src/a.rs",
        "fn a() { b()\n.unwrap() }",
        "a.rs:2",
    ),
    (
        "senders and brokers are named at home, and where they are registered",
        "src/cli/send/mod.rs",
        "use crate::senders::millicast::Millicast;",
        "mod.rs:1",
    ),
    (
        "senders and brokers are named at home, and where they are registered",
        "crates/senders/src/receiver.rs",
        "fn a() { Millicast }",
        "receiver.rs:1",
    ),
    (
        "senders and brokers are named at home, and where they are registered",
        "src/node/jobs.rs",
        "use crate::sink::kafka;",
        "jobs.rs:1",
    ),
    (
        "senders and brokers are named at home, and where they are registered",
        "crates/kafka-next/src/lib.rs",
        "fn a() { RabbitMq }",
        "lib.rs:1",
    ),
    (
        "files stay readable",
        "src/main.rs",
        include_str!("source.rs"),
        "more than 60",
    ),
    (
        "files stay readable",
        "crates/event/src/a.rs",
        concat!(
            include_str!("source.rs"),
            include_str!("source.rs"),
            include_str!("source.rs")
        ),
        "more than 500",
    ),
];

/// Sources that look as if they broke a rule, and do not.
pub const SOUND: &[(&str, &str)] = &[
    (
        "crates/log/src/a.rs",
        "// use crate::event::Event;\n/* rustix::fs */ const A: &str = \"std::fs .unwrap()\";",
    ),
    (
        "src/sink/a.rs",
        "const A: &str = r#\"crate::event \"quoted\" .unwrap()\"#; const B: char = '\"';",
    ),
    (
        "src/lifecycle/a.rs",
        "fn a() {}\n#[cfg(test)]\nmod tests { use crate::config; fn b() { c().unwrap() } }",
    ),
    (
        "crates/log/src/file_system.rs",
        "use std::fs::File; use rustix::fs::fdatasync;",
    ),
    (
        "crates/log/src/writer/mod.rs",
        "use super::super::log::State; use super::Options;",
    ),
    (
        "src/config/a.rs",
        "fn a<'s>(b: &'s str) { std::fs::read_to_string(b) } // \"quote\n",
    ),
    (
        "src/job/mod.rs",
        "use crate::{event, senders, sink::{Message, Sink}, spool, telemetry::Metrics};",
    ),
    (
        "src/main.rs",
        "use forebay::cli; fn main() { cli::run().unwrap_or_else(|e| e.exit()) }",
    ),
];

/// The crates below `crates/`, by the names that they have in the package. What they import the compiler holds.
const CRATES: &[&str] = &["broker", "event", "millicast_api", "order", "senders", "spool"];

/// Which module of the package may import which module or crate. `lib` names all of them, for its reader.
#[rustfmt::skip]
const ARROWS: &[(&str, &[&str])] = &[
    ("telemetry", &["event"]),
    ("lifecycle", &[]),
    ("settings", &["broker", "event", "senders", "spool"]),
    ("sink", &["broker", "settings"]),
    ("config", &["event", "senders", "settings", "spool", "sink"]),
    ("http", &["config", "telemetry"]),
    ("ingress", &["http", "event", "senders", "spool", "config", "telemetry", "lifecycle"]),
    ("job", &["event", "order", "senders", "spool", "sink", "config", "telemetry", "lifecycle"]),
    ("admin", &["http", "spool", "config", "telemetry", "lifecycle"]),
    ("api", &["http", "job", "spool"]),
    ("node", &["event", "order", "senders", "spool", "sink", "config", "telemetry", "lifecycle", "ingress", "job", "admin", "api"]),
    ("cli", &["event", "millicast_api", "order", "senders", "spool", "sink", "config", "telemetry", "lifecycle", "ingress", "job", "admin", "api", "node"]),
    ("main", &["cli", "telemetry"]),
];

fn arrows(source: &Source) -> Vec<String> {
    let module = module(source);
    let own = module.first().copied().unwrap_or("lib");
    if own == "lib" || source.path.starts_with("crates/") {
        return Vec::new();
    }
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == own) else {
        return vec![format!(
            "{}: {own} has no place among the modules: give it one in ARROWS",
            source.path
        )];
    };
    imports(source, &module)
        .into_iter()
        .filter(|(_, other)| {
            let is_known = CRATES.contains(&other.as_str()) || ARROWS.iter().any(|(name, _)| name == other);
            other != own && is_known
        })
        .filter(|(_, other)| !allowed.contains(&other.as_str()))
        .map(|(at, other)| {
            let line = source.line(at);
            format!(
                "{}:{line}: {own} imports {other}, but may import only {allowed:?}",
                source.path
            )
        })
        .collect()
}

/// The module that a file is, below the crate.
fn module(source: &Source) -> Vec<&str> {
    let path = source.path.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').filter(|part| !matches!(*part, "mod" | "lib")).collect()
}

/// The modules directly below the crate that the code names, and where.
fn imports(source: &Source, module: &[&str]) -> Vec<(usize, String)> {
    let code = &source.code;
    let to_root = format!("{}::", vec!["super"; module.len()].join("::"));
    let mut found = Vec::new();
    for root in ["crate::", "forebay::", &to_root] {
        for (at, _) in code.match_indices(root) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| is_name(c) || c == ':' || c == '$') {
                continue;
            }
            found.extend(heads(&code[at + root.len()..]).into_iter().map(|head| (at, head)));
        }
    }
    found.sort();
    found
}

/// The first names of a path, or of the paths in braces.
fn heads(path: &str) -> Vec<String> {
    let name = |text: &str| -> String { text.trim_start().chars().take_while(|&c| is_name(c)).collect() };
    if !path.starts_with('{') {
        return vec![name(path)];
    }
    let mut heads = Vec::new();
    let mut depth = 0;
    let mut start = 0;
    for (at, c) in path[..close(path, 0)].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            heads.push(name(&path[start..at]));
        }
        if (c == ',' || c == '{') && depth == 1 {
            start = at + 1;
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// Crates, and where they may be named: paths that begin so.
const HOMES: &[(&str, &[&str])] = &[
    (
        "actix_web",
        &["src/http", "src/ingress", "src/admin", "src/api", "src/node"],
    ),
    (
        "actix_http",
        &["src/http", "src/ingress", "src/admin", "src/api", "src/node"],
    ),
    (
        "actix_rt",
        &["src/http", "src/ingress", "src/admin", "src/api", "src/node"],
    ),
    (
        "actix_server",
        &["src/http", "src/ingress", "src/admin", "src/api", "src/node"],
    ),
    (
        "actix_service",
        &["src/http", "src/ingress", "src/admin", "src/api", "src/node"],
    ),
    ("opentelemetry", &["src/telemetry/traces"]),
    ("opentelemetry_http", &["src/telemetry/traces"]),
    ("opentelemetry_otlp", &["src/telemetry/traces"]),
    ("opentelemetry_sdk", &["src/telemetry/traces"]),
    ("anyhow", &["src/main.rs", "src/cli"]),
];

/// What is asked for where it is registered, and named nowhere else.
struct NamedAtHome {
    what: &'static str,
    names: &'static [&'static str],
    /// Paths that begin so may name it.
    homes: &'static [&'static str],
}

const NAMED_AT_HOME: &[NamedAtHome] = &[
    NamedAtHome {
        what: "a sender is asked for by `senders`",
        names: &["millicast", "Millicast"],
        homes: &[
            "crates/senders/src/millicast/",
            "crates/senders/src/lib.rs",
            "crates/millicast-api/",
        ],
    },
    NamedAtHome {
        what: "a broker is asked for by `sink::brokers`",
        names: &[
            "kafka",
            "Kafka",
            "forebay_kafka",
            "rabbitmq",
            "RabbitMq",
            "forebay_rabbitmq",
        ],
        homes: &[
            "crates/kafka/",
            "crates/rabbitmq/",
            // The consumer's kit reads what each of them delivers.
            "crates/consumer/",
            "src/sink/mod.rs",
            // What the command line is told of a broker without a configuration, and what `dev` brings.
            "src/cli/brokers.rs",
            "src/cli/dev",
        ],
    },
];

fn named(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for NamedAtHome { what, names, homes } in NAMED_AT_HOME {
        if homes.iter().any(|home| source.path.starts_with(home)) {
            continue;
        }
        for at in names.iter().flat_map(|name| source.words(name)).take(1) {
            let line = source.line(at);
            findings.push(format!("{}:{line}: {what}, not named", source.path));
        }
    }
    findings
}

const FILE_SYSTEM_OF_THE_LOG: &str = "crates/log/src/file_system";

fn homes(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, homes) in HOMES {
        if !homes.iter().any(|home| source.path.starts_with(home)) {
            findings.extend(crate_names(source, name).map(|at| {
                let line = source.line(at);
                format!("{}:{line}: {name} belongs to {}", source.path, homes.join(", "))
            }));
        }
    }
    if source.path.starts_with("crates/log/") && !source.path.starts_with(FILE_SYSTEM_OF_THE_LOG) {
        let calls = (words(&source.code, "rustix").map(|at| (at, "rustix")))
            .chain(words(&source.code, "tempfile").map(|at| (at, "tempfile")))
            .chain(std_fs(source).map(|at| (at, "std::fs")));
        findings.extend(calls.map(|(at, name)| {
            let line = source.line(at);
            format!(
                "{}:{line}: {name} belongs to {FILE_SYSTEM_OF_THE_LOG}: tests must be able to fail it",
                source.path
            )
        }));
    }
    findings
}

/// Where a crate is named, as in `name::` or `use name;`, and not a module of ours that is called the same.
fn crate_names<'a>(source: &'a Source, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    source.words(name).filter(move |&at| {
        let after = &source.code[at + name.len()..];
        let path = after.starts_with("::") || after.starts_with(';') || after.starts_with(" as ");
        path && !source.code[..at].ends_with("::") && !source.code[..at].ends_with("mod ")
    })
}

fn std_fs(source: &Source) -> impl Iterator<Item = usize> + '_ {
    source.code.match_indices("std::").filter_map(|(at, root)| {
        let after = &source.code[at + root.len()..];
        heads(after).iter().any(|head| head == "fs").then_some(at)
    })
}

/// Calls that break a promise, each with its reason.
const NEVER: &[(&str, &str)] = &[
    (
        "wait_for_confirms",
        "it discards plain nacks and completes on the last tag only: await every confirm",
    ),
    (
        "FutureProducer",
        "its send sleeps and enqueues again on a full queue, which reorders: one task, send_result",
    ),
    ("FutureRecord", "it is FutureProducer's: one task, send_result"),
];

fn never(source: &Source) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, reason) in NEVER {
        findings.extend(
            source
                .words(name)
                .map(|at| format!("{}:{}: {name}: {reason}", source.path, source.line(at))),
        );
    }
    findings
}

fn unwraps(source: &Source) -> Vec<String> {
    let calls = source.code.match_indices(".unwrap()");
    calls
        .map(|(at, _)| {
            let line = source.line(at);
            format!(
                "{}:{line}: unwrap(): return the error, or expect() with the invariant",
                source.path
            )
        })
        .collect()
}

fn lengths(source: &Source) -> Vec<String> {
    let max = if source.path == "src/main.rs" { 60 } else { 500 };
    let over = source.lines > max;
    over.then(|| format!("{}: {} lines, more than {max}", source.path, source.lines))
        .into_iter()
        .collect()
}

/// Tests that are switched off. What writes a fixture is a tool that needs a harness, not a test.
pub fn ignored(path: &str, text: &str) -> Vec<String> {
    let attribute = concat!("#[", "ignore");
    let lines = text.lines().enumerate();
    lines
        .filter_map(|(at, line)| Some((at, line.trim_start().strip_prefix(attribute)?)))
        .filter(|(_, reason)| !reason.starts_with(" = \"writes the fixture"))
        .map(|(at, _)| {
            format!(
                "{path}:{}: an ignored test proves nothing: fix it or take it out",
                at + 1
            )
        })
        .collect()
}

/// Sleeps of a second or more that do not say what they are for, by a name of their time or of a helper.
pub fn long_sleeps(path: &str, text: &str) -> Vec<String> {
    let is_long = |argument: &str| {
        let argument = argument.trim_start();
        let argument = argument.strip_prefix("std::time::").unwrap_or(argument);
        let units = [("Duration::from_secs(", 1), ("Duration::from_millis(", 1000)];
        units.iter().any(|(unit, second)| {
            let number = argument.strip_prefix(unit).and_then(|rest| rest.split(')').next());
            let number = number.and_then(|digits| digits.replace('_', "").parse::<u64>().ok());
            number.is_some_and(|number| number >= *second)
        })
    };
    text.match_indices("sleep(")
        .filter(|(at, call)| is_long(&text[at + call.len()..]))
        .map(|(at, _)| {
            let line = text[..at].matches('\n').count() + 1;
            format!(
                "{path}:{line}: sleeps for long: wait for a condition, or say what for by support::time or a constant"
            )
        })
        .collect()
}

/// Starts of the binary past `program::forebay`, which keeps what it says.
pub fn unkept(path: &str, text: &str) -> Vec<String> {
    let starts = [
        concat!("Command::new(", "binary()"),
        concat!("CARGO_BIN_", "EXE_forebay"),
    ];
    let lines = text.lines().enumerate();
    lines
        .filter(|(_, line)| starts.iter().any(|start| line.contains(start)))
        .map(|(at, _)| {
            format!(
                "{path}:{}: starts the binary by itself: program::forebay() keeps what it says",
                at + 1
            )
        })
        .collect()
}

/// What is left to do and not signed.
pub fn unowned(path: &str, text: &str) -> Vec<String> {
    let mut findings = Vec::new();
    for mark in ["TODO", "FIXME", "XXX"] {
        for at in words(text, mark).filter(|at| !text[at + mark.len()..].starts_with('(')) {
            let line = text[..at].matches('\n').count() + 1;
            findings.push(format!("{path}:{line}: {mark} without an owner: do it, or sign it"));
        }
    }
    findings
}
