//! What a reorder window does to the order in a topic, and what it costs in latency. `docs/benchmarks.md` says what is
//! measured and how.
//!
//! `cargo bench --bench reorder`. Needs what the tests need for Kafka. Loopback only.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a report is printed")]

mod sender;

#[path = "../support/server.rs"]
mod server;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use forebay_event::Time;
use forebay_test_support::{kafka, process};
use serde_json::Value;
use tempfile::TempDir;

/// Measures the share of events that are out of order in a topic, by window.
#[derive(Debug, Parser)]
struct Arguments {
    /// The windows, in milliseconds; 0 is none.
    #[arg(long, value_delimiter = ',', default_values_t = [0, 50, 100, 200, 500, 2000])]
    windows: Vec<u64>,
    /// Events a second, of all streams together.
    #[arg(long, default_value_t = 1000)]
    rate: u64,
    #[arg(long, default_value_t = 100)]
    streams: u64,
    /// How long each load lasts.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a topic is like.
struct Outcome {
    events: usize,
    /// Behind a later one of their stream.
    late: usize,
    /// Next to a later one of their stream that is before them.
    inversions: usize,
    /// From the spool to the producer, in milliseconds, sorted.
    waited_ms: Vec<i64>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let kafka = kafka::Cluster::single();
    let runtime = tokio::runtime::Runtime::new()?;
    println!("| window | events | late | of all | inversions | of all | p50 ms | p99 ms |");
    println!("|---|---|---|---|---|---|---|---|");
    for window in &arguments.windows {
        let outcome = runtime.block_on(measure(&arguments, *window, &kafka.bootstrap()))?;
        let share = |count: usize| 100.0 * count as f64 / outcome.events as f64;
        let quantile = |of: usize| outcome.waited_ms[(outcome.waited_ms.len() - 1) * of / 100];
        println!(
            "| {window} ms | {} | {} | {:.2} % | {} | {:.2} % | {} | {} |",
            outcome.events,
            outcome.late,
            share(outcome.late),
            outcome.inversions,
            share(outcome.inversions),
            quantile(50),
            quantile(99),
        );
    }
    Ok(())
}

async fn measure(arguments: &Arguments, window: u64, brokers: &str) -> Result<Outcome> {
    let topic = format!("window-{window}");
    kafka::create_topic_named(brokers, &topic, 12, &[]).await;
    let dir = TempDir::with_prefix("forebay-bench-")?;
    let (port, admin) = (server::free_port()?, server::free_port()?);
    let config = server::Config {
        port,
        admin,
        path: sender::PATH,
        secret: sender::SECRET,
        brokers,
        topic: &topic,
        route: &format!("reorder_window = \"{window}ms\""),
    };
    let mut command = process::mortal(env!("CARGO_BIN_EXE_forebay"));
    command.arg("serve").arg("--config").arg(config.write(dir.path())?);
    let _forebay = process::Process::run(command, &dir.path().join("log"));
    wait_until("ready", || Ok(server::is_ready(admin))).await?;
    let count = arguments.rate * arguments.seconds;
    let load = sender::Load {
        url: format!("http://127.0.0.1:{port}{}", sender::PATH),
        rate: arguments.rate,
        streams: arguments.streams,
        count,
    };
    // The same events with the same delays for every window.
    load.send().await?;
    wait_until("published", || {
        Ok(server::metric(admin, "forebay_route_backlog_records")? == 0.0)
    })
    .await?;
    let records = tokio::task::spawn_blocking({
        let brokers = brokers.to_owned();
        move || kafka::read_all(&brokers, &topic)
    })
    .await?;
    ensure!(records.len() as u64 == count, "{} records of {count}", records.len());
    outcome(&records)
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds()? {
        ensure!(Instant::now() < deadline, "not {what} after a minute");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn outcome(records: &[kafka::Read]) -> Result<Outcome> {
    let mut outcome = Outcome {
        events: records.len(),
        late: 0,
        inversions: 0,
        waited_ms: Vec::new(),
    };
    // Of a stream: the time of the event before, and the newest.
    let mut streams: HashMap<&str, (Time, Time)> = HashMap::new();
    for record in records {
        let event: Value = serde_json::from_slice(&record.value)?;
        let time = |name: &str| event[name].as_str().and_then(Time::from_rfc3339);
        let happened = time("time").context("an event has its time")?;
        let recorded = time("recordedtime").context("an event has its time of arrival")?;
        let published = record.timestamp_ms.context("a record has a time")?;
        outcome.waited_ms.push(published - recorded.0);
        let (before, newest) = streams.entry(&record.key).or_insert((happened, happened));
        outcome.late += usize::from(happened < *newest);
        outcome.inversions += usize::from(happened < *before);
        (*before, *newest) = (happened, happened.max(*newest));
    }
    outcome.waited_ms.sort_unstable();
    Ok(outcome)
}
