//! `forebay spool`, on the spools of the real binary: in use, whole, damaged.
//!
//! No broker listens, unless a test starts one that is part of its own process: what was taken in stays in the spool.

mod look;
mod repair;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    forebay::{Forebay, PATH, Setup, wait_until},
    http, program,
    sender::{sign, webhook},
};

const SOON: Duration = Duration::from_secs(30);
const NOWHERE: &str = "127.0.0.1:1";
const FEEDS_ONLY: &str = "match = { kinds = [\"feeds\"] }";

/// A Forebay that publishes feeds to the topic `events` of these brokers; what else comes in is unrouted, and a dead
/// letter.
fn setup(brokers: &str) -> Setup {
    Setup::publishing(&routes(brokers)).environment(&[
        "FOREBAY__SERVER__SHUTDOWN_DEADLINE=1s",
        "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
        // Segments are small: they are copied and garbled.
        "FOREBAY__SPOOL__BYTES_MAX=16MiB",
    ])
}

fn routes(brokers: &str) -> String {
    let brokers: Vec<&str> = brokers.split(',').collect();
    format!(
        "[sinks.main]\ntype = \"kafka\"\nbrokers = {brokers:?}\n[routes.events]\nsink = \"main\"\ntopic = \"events\"\n{FEEDS_ONLY}\n"
    )
}

/// The feed id of a webhook.
fn feed(number: usize) -> String {
    format!("feed-of-the-spool-{number:04}")
}

fn post(setup: &Setup, body: &str) {
    let headers = format!("X-Millicast-Signature: {}\r\n", sign(body.as_bytes()));
    let answer = http::request(setup.public, "POST", PATH, &headers, body).expect("an answer");
    assert_eq!(answer.code, 200, "{}", answer.body);
}

/// Posts the webhooks of these numbers, of three streams in turn.
fn post_feeds(setup: &Setup, numbers: std::ops::Range<usize>) {
    for number in numbers {
        post(setup, &webhook(number % 3, &feed(number)));
    }
}

/// Posts one that no route wants.
fn post_media(setup: &Setup, number: usize) {
    post(
        setup,
        &webhook(0, &feed(number)).replace("\"type\":\"feeds\"", "\"type\":\"media\""),
    );
}

/// A spool with twelve records of a route, and two dead letters; its process was killed.
fn stranded() -> Setup {
    let setup = setup(NOWHERE);
    let mut forebay = setup.start();
    post_feeds(&setup, 0..12);
    for number in [100, 101] {
        post_media(&setup, number);
    }
    wait_until("what no route wants is a dead letter", SOON, || {
        forebay.metric("forebay_dead_letters{route=\"unrouted\"}") == 2.0
    });
    wait_until_durable(&setup, &forebay);
    forebay.kill();
    setup
}

/// Waits until the page has that the two that nobody wants are settled for the route.
fn wait_until_durable(setup: &Setup, forebay: &Forebay) {
    wait_until("the page is written", SOON, || {
        let found = inspect(setup.spool(), &[]);
        let cursor = of_type(&found.lines, "cursor").find(|cursor| cursor["name"] == "unrouted");
        cursor.is_some_and(|cursor| cursor["needs_records"] == 0) || forebay.log().contains("panicked")
    });
}

/// What a subcommand printed.
struct Said {
    code: Option<i32>,
    lines: Vec<Value>,
    stdout: String,
    stderr: String,
}

fn spool(verb: &str, arguments: &[&str]) -> Said {
    let output = program::forebay()
        .args(["spool", verb])
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let stdout = text(&output.stdout);
    Said {
        code: output.status.code(),
        lines: stdout
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .collect(),
        stdout,
        stderr: text(&output.stderr),
    }
}

fn in_json(verb: &str, dir: &Path, more: &[&str]) -> Said {
    let said = spool(verb, &[&[dir.to_str().unwrap(), "--json"], more].concat());
    assert_eq!(said.lines.len(), said.stdout.lines().count(), "{}", said.stdout);
    said
}

fn inspect(dir: &Path, more: &[&str]) -> Said {
    let said = in_json("inspect", dir, more);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    said
}

fn of_type<'l>(lines: &'l [Value], what: &'static str) -> impl Iterator<Item = &'l Value> {
    lines.iter().filter(move |line| line["type"] == what)
}

/// What `verify` says, and its last line.
fn verify(dir: &Path) -> (Said, Value) {
    let said = in_json("verify", dir, &[]);
    let summary = said.lines.last().cloned().unwrap_or_default();
    assert_eq!(summary["type"], "summary", "{}{}", said.stdout, said.stderr);
    (said, summary)
}

/// The records of the events' log, by their feed's number.
fn numbers(dir: &Path) -> Vec<(usize, u64)> {
    let found = inspect(dir, &["--records"]);
    let records = of_type(&found.lines, "record").filter(|record| record["log"] == "events");
    records
        .filter_map(|record| {
            let feed = record["event"]["feed_id"].as_str()?.rsplit('-').next()?.parse().ok()?;
            Some((feed, record["number"].as_u64()?))
        })
        .collect()
}

fn number_of(dir: &Path, feed: usize) -> u64 {
    let found = numbers(dir).into_iter().find(|(found, _)| *found == feed);
    found.expect("the record is there").1
}

/// The only segment of the events' log.
fn segment(dir: &Path) -> PathBuf {
    let entries: Vec<_> = fs::read_dir(dir.join("segments")).unwrap().collect();
    assert_eq!(entries.len(), 1);
    entries[0].as_ref().unwrap().path()
}

/// Garbles a byte of a record's body.
fn damage(dir: &Path, number: usize) {
    let path = segment(dir);
    let mut bytes = fs::read(&path).unwrap();
    let feed = feed(number);
    let at = bytes.windows(feed.len()).position(|window| window == feed.as_bytes());
    bytes[at.expect("the body is there") + 3] ^= 0x20;
    fs::write(path, bytes).unwrap();
}

/// All files below a directory with what they hold.
fn files(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            // Not the socket by which a process is asked.
            false if path.is_file() => found.push((path.clone(), fs::read(&path).unwrap())),
            false => {}
        }
    }
    found.sort();
    found
}

/// A copy of a spool's directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (path, bytes) in files(from) {
        let to = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::write(to, bytes).unwrap();
    }
}
