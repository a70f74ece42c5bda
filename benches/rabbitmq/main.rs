//! Confirmed messages per second: Forebay's RabbitMQ sink beside a program on RabbitMQ's own Java client.
//! `docs/benchmarks.md` says what is measured, how and why so.
//!
//! `cargo bench --bench rabbitmq`. Needs what the tests need for RabbitMQ, a JDK and Maven. Loopback only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]

mod forebay;
mod samples;

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::BTreeMap,
    fmt, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Parser, Subcommand};
use forebay_test_support::{fetched, process, rabbitmq};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use support::{arguments::Turns, median};

const EXCHANGE: &str = "bench";
/// As many queues, and as many channels.
const PARTITIONS: u32 = 8;
const IN_FLIGHT: u64 = 10_000;
/// What a program may take beside warming up and publishing.
const END_DEADLINE: Duration = Duration::from_secs(90);
const COUNT_DEADLINE: Duration = Duration::from_secs(30);

/// Measures the way out, into a real RabbitMQ.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// How often each program takes its turn; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// How long each publishes before: the compilers of Java and of RabbitMQ, the batches of Forebay.
    #[arg(long, default_value_t = 4)]
    warm_up_seconds: u64,
    #[command(flatten)]
    turns: Turns,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Forebay's sink, in a process of its own.
    #[command(hide = true)]
    Publish(forebay::Task),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Java,
    Forebay,
}

/// What a program tells of its turn.
#[derive(Debug, Serialize, Deserialize)]
struct Published {
    /// Confirmed while it was measured.
    during: u64,
    seconds: f64,
    cpu_seconds: f64,
    /// In all.
    confirmed: u64,
    published: u64,
}

impl Published {
    fn rate(&self) -> f64 {
        self.during as f64 / self.seconds
    }

    fn cpu_us_per_message(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.during as f64
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Java => "java",
            Self::Forebay => "forebay",
        })
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let Some(Role::Publish(task)) = &arguments.role {
        println!("{}", serde_json::to_string(&forebay::run(task)?)?);
        return Ok(());
    }
    let bench = Bench::new(&arguments)?;
    let mut results: BTreeMap<Kind, Vec<Published>> = BTreeMap::new();
    for round in 1..=arguments.rounds {
        for kind in [Kind::Java, Kind::Forebay] {
            let published = bench.turn(kind).with_context(|| format!("{kind}, round {round}"))?;
            eprintln!(
                "round {round}, {kind}: {:.0}/s, {:.1} µs CPU per message, {} confirmed and in the queues",
                published.rate(),
                published.cpu_us_per_message(),
                published.confirmed
            );
            results.entry(kind).or_default().push(published);
        }
    }
    report(&results);
    Ok(())
}

struct Bench<'a> {
    arguments: &'a Arguments,
    cluster: rabbitmq::Cluster,
    dir: tempfile::TempDir,
    jars: PathBuf,
}

impl<'a> Bench<'a> {
    fn new(arguments: &'a Arguments) -> Result<Self> {
        eprintln!("starting RabbitMQ");
        let bench = Self {
            arguments,
            cluster: rabbitmq::Cluster::single(),
            dir: tempfile::Builder::new().prefix("forebay-bench-").tempdir()?,
            jars: fetched::jars("benches/rabbitmq"),
        };
        let messages = samples::messages();
        let bytes: usize = messages.iter().map(|message| message.body.len()).sum();
        eprintln!(
            "{} keys, bodies of {} bytes, {PARTITIONS} queues",
            messages.len(),
            bytes / messages.len()
        );
        fs::write(bench.samples(), samples::lines(&messages, PARTITIONS)?)?;
        Ok(bench)
    }

    /// One program's turn, with new queues.
    fn turn(&self, kind: Kind) -> Result<Published> {
        let vhost = self.cluster.vhost(&kind.to_string());
        let uri = vhost.uri();
        forebay::declare(&uri, EXCHANGE, PARTITIONS)?;
        self.arguments.turns.wait_until_quiet()?;
        let said = self.run(self.command(kind, &uri)?)?;
        let published: Published = serde_json::from_str(said.trim()).with_context(|| format!("it said {said:?}"))?;
        ensure!(published.during > 0, "nothing was confirmed");
        ensure!(published.confirmed == published.published, "{published:?}");
        hold(&vhost, published.confirmed)?;
        Ok(published)
    }

    fn command(&self, kind: Kind, uri: &str) -> Result<Command> {
        let mut command = match kind {
            Kind::Java => {
                let mut java = process::mortal("java");
                java.arg("-Xmx512m")
                    .arg("-cp")
                    .arg(format!("{}/*", self.jars.display()))
                    .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/rabbitmq/Publish.java"))
                    .args([uri, EXCHANGE])
                    .arg(self.samples());
                java
            }
            Kind::Forebay => {
                let mut this = process::mortal(std::env::current_exe()?);
                this.args(["publish", uri, EXCHANGE]);
                this
            }
        };
        let numbers = [
            PARTITIONS.into(),
            IN_FLIGHT,
            self.arguments.warm_up_seconds,
            self.arguments.turns.seconds,
        ];
        command.args(numbers.map(|number: u64| number.to_string()));
        Ok(command)
    }

    /// What a program printed. It is killed when it does not end.
    fn run(&self, mut command: Command) -> Result<String> {
        let (said, complained) = (self.dir.path().join("said"), self.dir.path().join("complained"));
        command.stdin(Stdio::null()).stdout(fs::File::create(&said)?);
        command.stderr(fs::File::create(&complained)?);
        let mut child = process::spawn(command);
        let seconds = self.arguments.warm_up_seconds + self.arguments.turns.seconds;
        let deadline = Instant::now() + Duration::from_secs(seconds) + END_DEADLINE;
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                child.kill()?;
                child.wait()?;
                bail!("it did not end");
            }
            sleep(Duration::from_millis(50));
        };
        ensure!(status.success(), "{status}: {}", fs::read_to_string(&complained)?);
        Ok(fs::read_to_string(&said)?)
    }

    fn samples(&self) -> PathBuf {
        self.dir.path().join("samples")
    }
}

/// Waits until the queues hold exactly so many messages; the management API tells it some seconds later.
fn hold(vhost: &rabbitmq::Vhost, confirmed: u64) -> Result<()> {
    let path = format!("/queues/{}?columns=name,messages", vhost.name);
    let deadline = Instant::now() + COUNT_DEADLINE;
    loop {
        let queues = vhost.broker.api("GET", &path, &Value::Null);
        let queues = queues.as_array().context("the management API lists no queues")?;
        let found: u64 = queues.iter().filter_map(|queue| queue["messages"].as_u64()).sum();
        if found == confirmed {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{confirmed} messages were confirmed, and the queues hold {found}"
        );
        sleep(Duration::from_millis(500));
    }
}

fn report(results: &BTreeMap<Kind, Vec<Published>>) {
    let rate = |kind| median(results[&kind].iter().map(Published::rate));
    println!("| program | confirmed/s | of java | lowest–highest | CPU µs/message |");
    println!("|---|---|---|---|---|");
    for (kind, published) in results {
        let rates = || published.iter().map(Published::rate);
        println!(
            "| {kind} | {:.0} | {:.2} | {:.0}–{:.0} | {:.1} |",
            rate(*kind),
            rate(*kind) / rate(Kind::Java),
            rates().fold(f64::INFINITY, f64::min),
            rates().fold(0.0, f64::max),
            median(published.iter().map(Published::cpu_us_per_message)),
        );
    }
}
