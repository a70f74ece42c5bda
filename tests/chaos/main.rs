//! What is lost, comes twice or out of order when things fail: Forebay, and beside it the bridge without a disk
//! (`naive.rs`), against real brokers, under load, with a ledger of every answer.
//!
//! Method: each scenario has a broker of its own, and each subject a topic and a process. Four connections send 200
//! signed webhooks a second to 40 streams, unless it says otherwise; the fault comes two seconds later, and asserts
//! that it was felt; the load ends two seconds after it has passed. Then everything has two minutes to arrive, and an
//! oracle compares the ledger with what the broker holds and with the dead letters. *Due*: what was to be sent in that
//! time; a connection that gets no answer sends nothing meanwhile. *200*: answered so. *Lost*: answered 200, and
//! neither at the broker nor a dead letter. *Gone*: due, and neither; the sender does not send again. *Twice*: messages
//! whose event was there before. *Order*: each stream's events, of each replica, are first seen in the order in which
//! they were sent, all in one partition. *Back after*: from the end of the load until all that will arrive was there.
//! *p99*: of answers of 200, from when each was due.
//!
//! The bridge publishes to Kafka, so that it stands beside Forebay in what Kafka or its own process suffers.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

mod broker;
mod faults;
mod naive;
mod report;
mod scenario;
mod simulators;
mod subject;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Instant, SystemTime},
};

use forebay_test_support::target;
use report::MatrixRow;
use scenario::{Group, Scale, Scenario};

const HELP: &str = "\
chaos [--quick | --full] [GROUP...] [--only TEXT] [--seed NUMBER] [--list]

  --quick       some of the scenarios, with short faults (default)
  --full        all of them, with long ones; writes their rows to docs/loss-matrix.md
  GROUP         process, kafka, rabbitmq, disk, front, simulators; default: all
  --only TEXT   those whose name contains it
  --seed NUMBER makes the moments of faults that it made before; each run prints its own
  --list        tells what there is";

/// What is asked for.
struct Asked {
    scale: Scale,
    groups: Vec<Group>,
    only: Option<String>,
    seed: u64,
    list: bool,
    /// The next seeds of the simulators are run too.
    simulators: bool,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["naive", listen, brokers, topic] = words[..] {
        naive::serve(listen.parse().unwrap(), brokers, topic).unwrap();
        return ExitCode::SUCCESS;
    }
    match asked(&words) {
        Some(asked) => try_all(&asked),
        None => {
            println!("{HELP}");
            ExitCode::from(64)
        }
    }
}

fn asked(words: &[&str]) -> Option<Asked> {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap();
    let mut asked = Asked {
        scale: Scale::Quick,
        groups: Vec::new(),
        only: None,
        seed: now.as_secs(),
        list: false,
        simulators: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "--quick" => asked.scale = Scale::Quick,
            "--full" => asked.scale = Scale::Full,
            "--list" => asked.list = true,
            "simulators" => asked.simulators = true,
            "--only" => asked.only = Some((*words.next()?).to_owned()),
            "--seed" => asked.seed = words.next()?.parse().ok()?,
            word => asked
                .groups
                .push(Group::ALL.into_iter().find(|group| group.word() == word)?),
        }
    }
    if asked.groups.is_empty() && !asked.simulators {
        asked.groups = Group::ALL.into();
        asked.simulators = asked.scale == Scale::Full && asked.only.is_none() && !asked.list;
    }
    Some(asked)
}

impl Asked {
    fn has(&self, scenario: &Scenario) -> bool {
        let named = self
            .only
            .as_ref()
            .is_none_or(|only| scenario.name.contains(only.as_str()));
        let is_scale = scenario.quick || self.scale == Scale::Full || self.only.is_some();
        self.groups.contains(&scenario.group) && named && is_scale
    }
}

fn try_all(asked: &Asked) -> ExitCode {
    let scenarios: Vec<Scenario> = faults::all()
        .into_iter()
        .filter(|scenario| asked.has(scenario))
        .collect();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    println!(
        "seed {}: {} scenarios of {}",
        asked.seed,
        scenarios.len(),
        target::binary().display()
    );
    let mut wrong = Vec::new();
    for group in &asked.groups {
        let mut rows: Vec<MatrixRow> = Vec::new();
        for scenario in scenarios.iter().filter(|scenario| scenario.group == *group) {
            if asked.list {
                println!("{}: {} ({})", group.word(), scenario.name, scenario.broker.kind.name());
                continue;
            }
            let began = Instant::now();
            println!("{}: {} …", group.word(), scenario.name);
            // A fault that was not felt is a failure, of that scenario.
            let run = || scenario::run(scenario, &runtime, asked.scale, asked.seed);
            let Ok(found) = catch_unwind(AssertUnwindSafe(run)) else {
                wrong.push(format!(
                    "{}, {}: it could not be tried",
                    scenario.name,
                    scenario.broker.kind.name()
                ));
                continue;
            };
            for row in found {
                println!("{}", row.line());
                if !row.wrong.is_empty() {
                    wrong.push(format!("{}, {}: {}", row.fault, row.broker, row.wrong.join("; ")));
                }
                rows.push(row);
            }
            println!("  {:.0} s", began.elapsed().as_secs_f64());
        }
        if asked.scale == Scale::Full && !asked.list {
            let all: Vec<Scenario> = faults::all()
                .into_iter()
                .filter(|scenario| scenario.group == *group)
                .collect();
            report::write(*group, &rows, &all);
        }
    }
    if asked.simulators && !report::write_simulators() {
        wrong.push("a simulator has found something".into());
    }
    for one in &wrong {
        println!("WRONG (seed {}): {one}", asked.seed);
    }
    match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
