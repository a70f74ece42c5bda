//! The operator's commands, on a process that runs and on a spool on which nothing does, with a real Kafka.

mod letters;
mod replay;
mod routes;
mod socket;

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::support::{
    forebay::{Forebay, PATH, Setup, wait_until},
    http,
    kafka::{self, Read, create_topic},
    program::{self, Program},
    sender::{sign, webhook},
    topic::read_to_end,
};

const SOON: Duration = Duration::from_secs(60);
const STREAMS: usize = 20;

/// What a command came to.
struct Said {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Said {
    /// The objects on stdout, a line each.
    fn objects(&self) -> Vec<Value> {
        let lines = self.stdout.lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// What it said with one line at its end: chosen, published, failed.
    fn counts(&self) -> [u64; 3] {
        let last = self
            .objects()
            .pop()
            .unwrap_or_else(|| panic!("{}{}", self.stdout, self.stderr));
        ["chosen", "published", "failed"].map(|name| last[name].as_u64().unwrap_or_else(|| panic!("{last}")))
    }

    fn assert(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.stdout, self.stderr);
        self
    }
}

/// A topic, what publishes to it, and what was posted.
struct Bench {
    setup: Setup,
    brokers: String,
    topic: String,
}

impl Bench {
    /// `limit`: the largest message that the topic takes.
    async fn new(name: &str, limit: &str, more: &str) -> Self {
        let brokers = kafka::shared();
        let topic = create_topic(&brokers, name, 3, &[("max.message.bytes", limit)]).await;
        let setup = Setup::new(&brokers, &topic).with(more);
        Self { setup, brokers, topic }
    }

    /// A subcommand of Forebay on the configuration.
    fn command(&self, arguments: &[&str]) -> Program {
        let mut command = program::forebay();
        let split = arguments
            .iter()
            .position(|word| word.starts_with("--"))
            .unwrap_or(arguments.len());
        command
            .args(&arguments[..split])
            .arg("--config")
            .arg(self.setup.config());
        command.args(&arguments[split..]);
        command
    }

    /// Runs one.
    fn run(&self, arguments: &[&str]) -> Said {
        let output = self.command(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code(),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Posts events with these numbers, each of the stream that its number says; large where it is asked for.
    fn post(&self, numbers: std::ops::Range<usize>, is_large: impl Fn(usize) -> bool) {
        for number in numbers {
            let mut event = webhook(number % STREAMS, &format!("feed-{number}"));
            if is_large(number) {
                let padding = format!("\"padding\":\"{}\",\"type\"", "x".repeat(6000));
                event = event.replacen("\"type\"", &padding, 1);
            }
            let headers = format!("X-Millicast-Signature: {}\r\n", sign(event.as_bytes()));
            let answer = http::request(self.setup.public, "POST", PATH, &headers, event.as_bytes()).unwrap();
            assert_eq!(answer.code, 200, "{}", answer.body);
        }
    }

    fn read(&self) -> Vec<Read> {
        read_to_end(&self.brokers, &self.topic)
    }

    /// What was published with this mark.
    fn marked(&self, mark: &str) -> Vec<Read> {
        self.read().into_iter().filter(|read| is_marked(read, mark)).collect()
    }
}

/// Whether an event has a mark, as a header and as an attribute, or neither.
fn is_marked(read: &Read, mark: &str) -> bool {
    let event: Value = serde_json::from_slice(&read.value).unwrap();
    let attribute = event.get(mark).map(|value| value.as_bool().expect("a Boolean"));
    let header = read.headers.get(mark).map(|value| value == "true");
    assert_eq!(attribute, header, "{event}");
    header.unwrap_or(false)
}

fn feed(read: &Read) -> usize {
    let event: Value = serde_json::from_slice(&read.value).unwrap();
    event["feedid"]
        .as_str()
        .unwrap()
        .trim_start_matches("feed-")
        .parse()
        .unwrap()
}

fn id(read: &Read) -> String {
    let event: Value = serde_json::from_slice(&read.value).unwrap();
    event["id"].as_str().unwrap().to_owned()
}

/// Each stream's numbers rise.
fn assert_streams_in_order(read: &[Read]) {
    let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
    for one in read {
        let before = newest.insert(&one.key, one.sequence());
        assert!(before.is_none_or(|before| before < one.sequence()), "{one:?}");
    }
}

fn letters_kept(forebay: &Forebay) -> f64 {
    forebay.metric("forebay_dead_letters{route=\"events\"}")
}
