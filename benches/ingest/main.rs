//! Acknowledged requests per second, CPU per event and latency at a fixed rate: Forebay, a handler that does nothing,
//! and the bridge that one writes in an afternoon. `docs/benchmarks.md` says what is measured, how and why so.
//!
//! `cargo bench --bench ingest`. Needs `wrk`, `vegeta` and what the tests need for Kafka. Loopback only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]

mod instructions;
mod load;
mod report;
mod servers;

#[path = "../support/mod.rs"]
mod support;

use std::{
    ffi::OsStr,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use forebay_test_support::kafka;

use load::Load;
use report::{Drain, Fixed, Report, Sample};
use servers::{Kind, Server, Target};
use support::arguments::Turns;
use tempfile::TempDir;

/// Measures the way in, against a real Kafka.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// How often each server takes its turn; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    #[arg(long, value_delimiter = ',', default_values_t = [64, 512])]
    connections: Vec<usize>,
    /// Requests per second of the measurement at a fixed rate; 0 leaves it out.
    #[arg(long, default_value_t = 5000)]
    rate: u64,
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = [Kind::Bare, Kind::Forebay, Kind::Afternoon])]
    servers: Vec<Kind>,
    /// The binary that is measured, of `cargo build --release`. Without it that of `cargo bench`, in which tokio has a
    /// clock that tests can stop, which costs some 5 %.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_forebay"), hide_default_value = true)]
    forebay: PathBuf,
    /// The binary of another build, for the server `before`.
    #[arg(long)]
    before: Option<PathBuf>,
    /// How long each Forebay takes in events beside a Kafka that is away, whose publishing is measured then; 0 leaves
    /// it out.
    #[arg(long, default_value_t = 6)]
    backlog_seconds: u64,
    /// Count the instructions per event of each Forebay instead, under valgrind's callgrind.
    #[arg(long)]
    instructions: bool,
    /// Where the spool is. Must be a disk of the kind that matters: a fsync to memory costs nothing.
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    dir: PathBuf,
    #[command(flatten)]
    turns: Turns,
}

/// The servers to compare with, in processes of their own.
#[derive(Debug, Subcommand)]
enum Role {
    #[command(hide = true)]
    Bare { port: u16 },
    #[command(hide = true)]
    Afternoon { port: u16, brokers: String, topic: String },
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match &arguments.role {
        Some(Role::Bare { port }) => servers::bare::run(*port),
        Some(Role::Afternoon { port, brokers, topic }) => servers::afternoon::run(*port, brokers, topic),
        None => measure(&arguments),
    }
}

fn measure(arguments: &Arguments) -> Result<()> {
    load::check_tools(arguments.rate > 0)?;
    let kafka = kafka::Cluster::single();
    let bench = Bench {
        arguments,
        brokers: kafka.bootstrap(),
        load: Load::new()?,
        runtime: tokio::runtime::Runtime::new()?,
    };
    let mut report = Report::default();
    if arguments.instructions {
        for round in 1..=arguments.rounds {
            for &kind in arguments.servers.iter().filter(|kind| kind.is_forebay()) {
                let per_event = bench.instructions(kind, round)?;
                eprintln!("round {round}, {kind}: {per_event:.0} instructions per event");
                report.add_instructions(kind, per_event);
            }
        }
        println!("{report}");
        return Ok(());
    }
    for &connections in &arguments.connections {
        for round in 1..=arguments.rounds {
            for &kind in &arguments.servers {
                let sample = bench.closed(kind, connections, round)?;
                eprintln!("{connections} connections, round {round}, {kind}: {sample}");
                report.add(kind, connections, sample);
            }
        }
    }
    if arguments.rate > 0 {
        for round in 1..=arguments.rounds {
            for &kind in &arguments.servers {
                let fixed = bench.fixed(kind, round)?;
                eprintln!("{} requests/s, round {round}, {kind}: {fixed}", arguments.rate);
                report.add_fixed(kind, fixed);
            }
        }
    }
    if arguments.backlog_seconds > 0 {
        for round in 1..=arguments.rounds {
            for &kind in arguments.servers.iter().filter(|kind| kind.is_forebay()) {
                let drain = bench.backlog(kind, round)?;
                eprintln!("backlog, round {round}, {kind}: {drain}");
                report.add_drain(kind, drain);
            }
        }
    }
    println!("{report}");
    report.check()
}

struct Bench<'a> {
    arguments: &'a Arguments,
    brokers: String,
    load: Load,
    runtime: tokio::runtime::Runtime,
}

impl Bench<'_> {
    /// As fast as so many connections can: throughput.
    fn closed(&self, kind: Kind, connections: usize, round: usize) -> Result<Sample> {
        let server = self.start(kind, &format!("{kind}-{connections}-{round}"))?;
        self.load.wrk(server.url(), connections, 1)?;
        server.drained()?;
        let before = server.usage()?;
        let wrk = self.load.wrk(server.url(), connections, self.arguments.turns.seconds)?;
        let after = server.usage()?;
        let started = Instant::now();
        server.drained()?;
        let drained = server.usage()?;
        ensure!(wrk.requests > 0, "{kind}: no request was answered");
        Ok(Sample {
            requests_per_second: wrk.requests as f64 / wrk.seconds,
            p99_ms: wrk.p99_ms,
            failed: wrk.failed,
            cpu_us_per_event: (drained.cpu - before.cpu).as_secs_f64() * 1e6 / wrk.requests as f64,
            published_meanwhile: after.published.zip(before.published).map(|(after, before)| {
                let share = (after - before) / wrk.requests as f64;
                share.min(1.0)
            }),
            drain: started.elapsed(),
        })
    }

    /// So many requests a second, whatever the answers take: latency.
    fn fixed(&self, kind: Kind, round: usize) -> Result<Fixed> {
        let server = self.start(kind, &format!("{kind}-fixed-{round}"))?;
        self.load.vegeta(server.url(), self.arguments.rate, 2)?;
        server.drained()?;
        let before = server.usage()?;
        let vegeta = self
            .load
            .vegeta(server.url(), self.arguments.rate, self.arguments.turns.seconds)?;
        server.drained()?;
        let after = server.usage()?;
        Ok(Fixed {
            cpu_us_per_event: (after.cpu - before.cpu).as_secs_f64() * 1e6 / vegeta.requests as f64,
            vegeta,
        })
    }

    /// What was taken in while Kafka was away, published by a new process.
    fn backlog(&self, kind: Kind, round: usize) -> Result<Drain> {
        self.arguments.turns.wait_until_quiet()?;
        let topic = self.topic(&format!("{kind}-backlog-{round}"));
        let away = Target {
            brokers: "127.0.0.1:1",
            topic: &topic,
        };
        let server = self.launch(kind, &[], away, self.dir()?)?;
        self.load.wrk(server.url(), 64, self.arguments.backlog_seconds)?;
        let dir = server.kill();
        let started = Instant::now();
        let there = Target {
            brokers: &self.brokers,
            ..away
        };
        let server = self.launch(kind, &[], there, dir)?;
        server.drained()?;
        let usage = server.usage()?;
        let events = usage.published.context("a Forebay has metrics")?;
        ensure!(events > 0.0, "{kind}: nothing was published");
        Ok(Drain {
            events,
            took: started.elapsed(),
            cpu: usage.cpu,
        })
    }

    fn start(&self, kind: Kind, name: &str) -> Result<Server> {
        self.arguments.turns.wait_until_quiet()?;
        let topic = if kind == Kind::Bare {
            String::new()
        } else {
            self.topic(name)
        };
        let target = Target {
            brokers: &self.brokers,
            topic: &topic,
        };
        self.launch(kind, &[], target, self.dir()?)
    }

    fn topic(&self, name: &str) -> String {
        let topic = format!("bench-{name}");
        let create = kafka::create_topic_named(&self.brokers, &topic, 12, &[]);
        self.runtime.block_on(create);
        topic
    }

    fn dir(&self) -> Result<TempDir> {
        let dir = tempfile::Builder::new()
            .prefix("forebay-bench-")
            .tempdir_in(&self.arguments.dir)?;
        Ok(dir)
    }

    /// `under`: the command that runs the one of a Forebay.
    fn launch(&self, kind: Kind, under: &[&OsStr], target: Target<'_>, dir: TempDir) -> Result<Server> {
        let before = self.arguments.before.as_deref().filter(|_| kind == Kind::Before);
        ensure!(
            kind != Kind::Before || before.is_some(),
            "give `--before` the other build's binary"
        );
        let forebay = before.unwrap_or(&self.arguments.forebay);
        let command = [under, &[forebay.as_os_str()]].concat();
        Server::start(kind, &command, target, dir, Duration::from_secs(30))
            .with_context(|| format!("failed to start {kind}"))
    }
}
