//! `forebay dev`: the first minute of a newcomer, with the clients that the guide names.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::{forebay::wait_until, program, venv};

const SOON: Duration = Duration::from_secs(30);
const STOPPED: Duration = Duration::from_secs(5);
const TOPICS: [&str; 2] = ["millicast.events", "millicast.thumbnails"];

/// Every kind and event that the provider documents.
const TYPES: [&str; 17] = [
    "feeds.ended",
    "feeds.started",
    "media.completed",
    "media.deleted",
    "media.errored",
    "media.processing",
    "recordings.completed",
    "recordings.deleted",
    "recordings.error",
    "recordings.started",
    "thumbnail.captured",
    "transcoder.active",
    "transcoder.deleted",
    "transcoder.stopped",
    "viewerconnection.firstviewerconnection",
    "viewerconnection.noactiveviewers",
    "viewerconnection.viewerattempt",
];

/// A running `forebay dev`, and what it has printed; killed when dropped.
struct Dev {
    child: Child,
    printed: Arc<Mutex<Vec<String>>>,
    said: Arc<Mutex<Vec<String>>>,
}

/// Where a message lies, and its key.
type Place = (String, i64, i64, String);

impl Dev {
    fn start(more: &[&str]) -> Self {
        let mut child = program::forebay()
            .args(["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .args(more)
            .env_remove("RUST_LOG")
            .spawn();
        Self {
            printed: collect(child.stdout.take().unwrap()),
            said: collect(child.stderr.take().unwrap()),
            child,
        }
    }

    fn printed(&self) -> Vec<String> {
        self.printed.lock().unwrap().clone()
    }

    fn wait_until(&self, what: &str, holds: impl Fn(&[String]) -> bool) {
        let deadline = Instant::now() + SOON;
        while !holds(&self.printed()) {
            let said = self.said.lock().unwrap().clone();
            assert!(Instant::now() < deadline, "{what}: {:#?}\n{said:#?}", self.printed());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ctrl-C, and the exit code.
    fn interrupt(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut status = None;
        wait_until("the end after Ctrl-C", STOPPED, || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap().code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(from: impl std::io::Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            sink.lock().unwrap().push(line);
        }
    });
    lines
}

/// The events of the output for people: `<time> com.millicast.<type> <key> <topic> partition <n> offset <n> sequence
/// <n>`.
fn shown(printed: &[String]) -> Vec<(String, Place)> {
    let event = |line: &String| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [
            _,
            type_,
            key,
            topic,
            "partition",
            partition,
            "offset",
            offset,
            "sequence",
            _,
        ] = words[..]
        else {
            return None;
        };
        let type_ = type_.strip_prefix("com.millicast.")?.to_owned();
        let place = (
            topic.to_owned(),
            partition.parse().ok()?,
            offset.parse().ok()?,
            key.to_owned(),
        );
        Some((type_, place))
    };
    printed.iter().filter_map(event).collect()
}

/// The line that begins so, from there on.
fn line_with<'a>(printed: &'a [String], start: &str) -> Option<&'a str> {
    printed
        .iter()
        .map(|line| line.trim())
        .find(|line| line.starts_with(start))
}

/// The program's output, which it must have written within the deadline, and exit code 0.
fn output(command: &mut Command) -> String {
    let mut bounded = Command::new("timeout");
    bounded
        .arg(SOON.as_secs().to_string())
        .arg(command.get_program())
        .args(command.get_args());
    let Output { status, stdout, stderr } = bounded.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    assert!(
        status.success(),
        "{command:?}: {status}\n{text}\n{}",
        String::from_utf8_lossy(&stderr)
    );
    text
}

#[test]
fn a_newcomer_sees_every_kind_and_adds_an_event_and_kcat_reads_the_same() {
    let mut dev = Dev::start(&[]);
    dev.wait_until("a sample of every kind, and the guide", |printed| {
        shown(printed).len() >= TYPES.len() && line_with(printed, "Waiting for webhooks").is_some()
    });
    let printed = dev.printed();
    let types: BTreeSet<String> = shown(&printed).into_iter().map(|(type_, _)| type_).collect();
    assert_eq!(types.iter().map(String::as_str).collect::<Vec<_>>(), TYPES);

    let curl = line_with(&printed, "curl ").unwrap().to_owned();
    let answer = output(Command::new("sh").args(["-c", &curl]));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    dev.wait_until("one event more", |printed| shown(printed).len() == TYPES.len() + 1);
    let all = shown(&dev.printed());
    let (type_, (topic, _, _, key)) = all.last().unwrap();
    assert_eq!(
        (type_.as_str(), topic.as_str(), key.as_str()),
        ("viewerconnection.viewerattempt", TOPICS[0], "ZG6NWV/my_stream")
    );

    let kcat = line_with(&printed, "kcat -b ").unwrap();
    let brokers = kcat.split_whitespace().nth(2).unwrap();
    let mut read = BTreeSet::new();
    for topic in TOPICS {
        let arguments = ["-b", brokers, "-t", topic, "-C", "-e", "-q", "-f", "%t %p %o %k\n"];
        for line in output(Command::new("kcat").args(arguments)).lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            let number = |at: usize| words[at].parse::<i64>().unwrap();
            read.insert((words[0].to_owned(), number(1), number(2), words[3].to_owned()));
        }
    }
    let expected: BTreeSet<Place> = all.into_iter().map(|(_, place)| place).collect();
    assert_eq!(read, expected);
    assert_eq!(dev.interrupt(), Some(0));
}

/// Reads topics to their ends; prints topic, partition, offset, key and event id of each message as JSON.
const READ: &str = r#"
import json, sys
from confluent_kafka import Consumer, TopicPartition
brokers, count, *topics = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": brokers, "group.id": "newcomer", "auto.offset.reset": "earliest"})
consumer.subscribe(topics)
for _ in range(int(count)):
    message = consumer.poll(20)
    if message is None or message.error():
        sys.exit(f"no message: {message and message.error()}")
    headers = {name: value.decode() for name, value in message.headers()}
    id = headers.get("ce_id") or json.loads(message.value())["id"]
    print(json.dumps([message.topic(), message.partition(), message.offset(), message.key().decode(), id]))
consumer.close()
"#;

#[test]
fn json_output_is_nothing_else_and_confluents_python_client_reads_the_same() {
    let mut dev = Dev::start(&["--json"]);
    dev.wait_until("a sample of every kind", |printed| printed.len() > TYPES.len());
    let lines: Vec<Value> = dev
        .printed()
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let guide = &lines[0]["listening"];
    assert_eq!(guide["topics"], serde_json::json!(TOPICS));
    let events = &lines[1..];
    let types: BTreeSet<&str> = events
        .iter()
        .map(|line| line["event"]["type"].as_str().unwrap())
        .collect();
    let expected: BTreeSet<String> = TYPES.iter().map(|type_| format!("com.millicast.{type_}")).collect();
    assert_eq!(types, expected.iter().map(String::as_str).collect());

    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let message = |line: &Value| {
        let place = [
            &line["topic"],
            &line["partition"],
            &line["offset"],
            &line["key"],
            &line["event"]["id"],
        ];
        serde_json::json!(place).to_string()
    };
    let shown: BTreeSet<String> = events.iter().map(message).collect();
    let count = TYPES.len().to_string();
    let brokers = text(&guide["brokers"]);
    let arguments = ["-c", READ, &brokers, &count, TOPICS[0], TOPICS[1]];
    let read: BTreeSet<String> = output(Command::new(venv::python()).args(arguments))
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap().to_string())
        .collect();
    assert_eq!(read, shown);

    assert_eq!(dev.interrupt(), Some(0));
    for line in dev.printed() {
        assert!(
            serde_json::from_str::<Value>(&line).is_ok_and(|value| value.is_object()),
            "{line}"
        );
    }
}
