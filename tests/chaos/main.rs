//! What is lost, comes twice or out of order when things fail: Forebay, and beside it the bridge without a disk
//! (`naive.rs`), against a real Kafka, under load, with a ledger of every answer.
//!
//! Method: each scenario has a broker, a topic and a process of its own. Four connections send 200 signed webhooks a
//! second to 40 streams; the fault comes two seconds later, and must be felt; the load ends two seconds after it has
//! passed. Then everything has a minute to arrive, and an oracle compares the ledger with the topic. *Due*: what was
//! to be sent in that time; a connection that gets no answer sends nothing meanwhile. *200*: answered so. *Lost*:
//! answered 200, and not in the topic. *Gone*: due, and neither; the sender does not send again. *Twice*: messages
//! whose event was there before. *Order*: each stream's events are first seen in the order in which they were sent.
//! *Back after*: from the end of the fault until all that will arrive was there.
//!
//! `tests/chaos/run.sh [--quick|--full]`; `--full` has longer faults, and writes docs/loss-matrix.md.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stdout, reason = "it is what the program is for")]

mod naive;
mod report;
mod scenarios;
mod subject;

use std::process::ExitCode;

use report::MatrixRow;
use scenarios::{SCENARIOS, Scale};
use subject::SubjectKind;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let scale = match words[..] {
        ["naive", listen, brokers, topic] => {
            naive::serve(listen.parse().unwrap(), brokers, topic).unwrap();
            return ExitCode::SUCCESS;
        }
        [] | ["--quick"] => Scale::Quick,
        ["--full"] => Scale::Full,
        _ => {
            println!("chaos [--quick|--full]");
            return ExitCode::from(64);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let mut rows: Vec<MatrixRow> = Vec::new();
    for scenario in SCENARIOS {
        for subject in [SubjectKind::Forebay, SubjectKind::Naive] {
            let row = runtime.block_on(scenarios::run(scenario, subject, scale));
            println!("{}", row.line());
            rows.push(row);
        }
    }
    if scale == Scale::Full {
        report::write(&rows);
    }
    let wrong: Vec<_> = rows.iter().filter(|row| row.is_wrong()).collect();
    for row in &wrong {
        println!("WRONG: {}", row.line());
    }
    match wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}
