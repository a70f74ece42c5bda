//! Follows a topic of Forebay's, keeps the state of each stream in SQLite, and prints what changes as JSON lines.
//!
//! The README beside this file tells how to run it and what to look at.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is what the program is for")]

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use forebay_consumer::{Stream, StreamEvent, Transition};
use rdkafka::{
    ClientConfig, Message as _,
    consumer::{BaseConsumer, Consumer as _},
    message::BorrowedMessage,
};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// How long to wait for a message before looking whether to stop.
const POLL: Duration = Duration::from_millis(200);
/// How many messages share a transaction, if so many are there.
const BATCH_MESSAGES_MAX: usize = 500;

static STOPPING: AtomicBool = AtomicBool::new(false);

#[derive(Parser)]
struct Arguments {
    /// host:port, with commas between them
    #[arg(long, required_unless_present = "vectors")]
    brokers: Option<String>,
    #[arg(long, required_unless_present = "vectors")]
    topic: Option<String>,
    /// The consumer group
    #[arg(long, default_value = "stream-states")]
    group: String,
    /// The SQLite file
    #[arg(long, default_value = "streams.db")]
    db: PathBuf,
    /// Check the rules against this file instead, docs/ordering/vectors.json
    #[arg(long)]
    vectors: Option<PathBuf>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(file) = &arguments.vectors {
        return check(file);
    }
    stop_on_signals()?;
    let mut db = open(&arguments.db)?;
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", arguments.brokers.context("--brokers is missing")?)
        .set("group.id", &arguments.group)
        .set("auto.offset.reset", "earliest")
        // The partitions of an instance that was killed go to the next one after this long.
        .set("session.timeout.ms", "10000")
        // Offsets are committed in the background, but only those that were stored: see below.
        .set("enable.auto.offset.store", "false")
        .create()?;
    consumer.subscribe(&[&arguments.topic.context("--topic is missing")?])?;
    while !STOPPING.load(Ordering::Relaxed) {
        let messages = poll(&consumer);
        let transitions = store(&mut db, messages.iter().filter_map(event))?;
        print(&transitions)?;
        for message in &messages {
            // A partition that was taken away meanwhile has a new consumer, which starts where this one had committed.
            let _ = consumer.store_offset_from_message(message);
        }
    }
    // Dropping the consumer commits what was stored, and leaves the group.
    Ok(ExitCode::SUCCESS)
}

fn stop_on_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = terminate.recv() => (), _ = interrupt.recv() => () }
        });
        STOPPING.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Waits for a message, and takes with it those that are there already.
fn poll(consumer: &BaseConsumer) -> Vec<BorrowedMessage<'_>> {
    let mut messages = Vec::new();
    let mut wait = POLL;
    while messages.len() < BATCH_MESSAGES_MAX {
        match consumer.poll(wait) {
            None => break,
            Some(Ok(message)) => messages.push(message),
            // librdkafka goes on by itself.
            Some(Err(error)) => {
                eprintln!("kafka: {error}");
                break;
            }
        }
        wait = Duration::ZERO;
    }
    messages
}

/// The event in a message. What is none is told, and passed over.
fn event(message: &BorrowedMessage<'_>) -> Option<StreamEvent> {
    let event = StreamEvent::from_structured(message.payload().unwrap_or_default());
    let place = || format!("{}/{}@{}", message.topic(), message.partition(), message.offset());
    event
        .inspect_err(|error| eprintln!("skipped {}: {error}", place()))
        .ok()
}

fn open(file: &Path) -> Result<Connection> {
    let db = Connection::open(file).with_context(|| format!("opening {}", file.display()))?;
    db.execute_batch(
        "PRAGMA journal_mode = WAL;
         CREATE TABLE IF NOT EXISTS streams (key TEXT PRIMARY KEY, state TEXT NOT NULL);",
    )?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

/// Applies events to the states in the database, all in one transaction, and returns what that changed.
fn store(db: &mut Connection, events: impl Iterator<Item = StreamEvent>) -> Result<Vec<Transition>> {
    let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    let mut transitions = Vec::new();
    for event in events {
        let state: Option<String> = transaction
            .query_row("SELECT state FROM streams WHERE key = ?1", [&event.key], |row| {
                row.get(0)
            })
            .optional()?;
        let before: Stream = state.map_or_else(|| Ok(Stream::default()), |state| serde_json::from_str(&state))?;
        let mut stream = before.clone();
        transitions.extend(stream.apply(&event));
        // A time can change without a transition.
        if stream != before {
            transaction.execute(
                "INSERT OR REPLACE INTO streams (key, state) VALUES (?1, ?2)",
                params![event.key, serde_json::to_string(&stream)?],
            )?;
        }
    }
    transaction.commit()?;
    Ok(transitions)
}

fn print(transitions: &[Transition]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    for transition in transitions {
        writeln!(stdout, "{}", serde_json::to_string(transition)?)?;
    }
    Ok(stdout.flush()?)
}

fn check(file: &Path) -> Result<ExitCode> {
    let vectors: Value = serde_json::from_slice(&fs::read(file)?)?;
    let cases = vectors["cases"].as_array().context("no cases")?;
    for case in cases {
        if let Err(difference) = check_case(case) {
            eprintln!("{}: {difference}", case["name"]);
            return Ok(ExitCode::FAILURE);
        }
    }
    println!("ok {}", cases.len());
    Ok(ExitCode::SUCCESS)
}

/// Runs a case through the same database code that messages go through.
fn check_case(case: &Value) -> Result<()> {
    let mut db = open(Path::new(":memory:"))?;
    let mut transitions = Vec::new();
    for event in case["events"].as_array().context("no events")? {
        let event = StreamEvent::from_structured(event.to_string().as_bytes())?;
        transitions.push(store(&mut db, [event].into_iter())?);
    }
    ensure!(
        json!(transitions) == case["transitions"],
        "transitions: {}",
        json!(transitions)
    );
    let mut statement = db.prepare("SELECT key, state FROM streams")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows = rows.collect::<rusqlite::Result<BTreeMap<String, String>>>()?;
    let parsed = rows
        .iter()
        .map(|(key, state)| Ok((key, serde_json::from_str::<Value>(state)?)));
    let states = parsed.collect::<Result<BTreeMap<_, _>>>()?;
    ensure!(json!(states) == case["state"], "state: {}", json!(states));
    Ok(())
}
