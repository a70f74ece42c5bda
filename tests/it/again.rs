//! Much of it: a hundred thousand events of five thousand streams, of which a broker refuses a thousand, redriven while
//! others come in, and replayed, on both brokers.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use serde_json::Value;

use crate::support::{
    forebay::{EXCHANGE, Forebay, PATH, Setup, send_command, wait_until},
    http,
    kafka::{self, create_topic, set_topic},
    program,
    rabbitmq::{self, QUORUM},
    sender::{Sender, sign, webhook},
    topic::read_to_end,
};

const EVENTS: usize = 99_000;
const REFUSED: usize = 1_000;
const STREAMS: usize = 5_000;
const RATE: usize = 1_000;
const DRAINED: Duration = Duration::from_secs(300);

/// A message, as far as it matters here.
struct Message {
    key: String,
    place: String,
    id: String,
    sequence: u64,
    /// `replayed`, `redriven`, or nothing.
    mark: &'static str,
}

impl Message {
    fn new(place: String, headers: &BTreeMap<String, String>, body: &[u8]) -> Self {
        let event: Value = serde_json::from_slice(body).unwrap();
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let marks = ["replayed", "redriven"];
        let mark = marks.into_iter().find(|mark| event[*mark] == true).unwrap_or_default();
        for known in marks {
            let header = headers.get(known).map(String::as_str);
            assert_eq!(header, (known == mark).then_some("true"), "{event}");
        }
        Self {
            key: text("partitionkey"),
            place,
            id: text("id"),
            sequence: headers["sequence"].parse().unwrap(),
            mark,
        }
    }
}

/// Those with a mark, of which each stream's numbers rise within one place.
fn marked<'m>(messages: &'m [Message], mark: &str) -> Vec<&'m Message> {
    let found: Vec<&Message> = messages.iter().filter(|message| message.mark == mark).collect();
    let mut newest: HashMap<&str, (&str, u64)> = HashMap::new();
    for message in &found {
        let before = newest.insert(&message.key, (&message.place, message.sequence));
        let is_next = |(place, sequence): (&str, u64)| place == message.place && sequence < message.sequence;
        assert!(before.is_none_or(is_next), "{} {}", message.key, message.sequence);
    }
    found
}

fn ids(messages: &[&Message]) -> BTreeSet<String> {
    messages.iter().map(|message| message.id.clone()).collect()
}

/// Runs a command, and returns its exit code with what it said with its last line.
fn run(setup: &Setup, arguments: &[&str]) -> (Option<i32>, Value) {
    let mut command = program::forebay();
    command
        .args(arguments)
        .arg("--config")
        .arg(setup.config())
        .arg("--json");
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().map(serde_json::from_str);
    let said = last.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said.unwrap())
}

fn send(setup: &Setup, kind: &str, count: usize, seed: &str) {
    let output = send_command(&setup.url(), &[kind])
        .args(["--seed", seed, "--count", &count.to_string(), "--concurrency", "32"])
        .args(["--streams", &STREAMS.min(count).to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Waits until what is refused is a dead letter, and all else is published.
fn wait_for_refused(forebay: &Forebay) {
    wait_until("what is refused is a dead letter", DRAINED, || {
        forebay.metric("forebay_dead_letters{route=\"events\"}") == REFUSED as f64
    });
    forebay.wait_until_drained(DRAINED);
}

/// Redrives all of it while a thousand a second come in; returns how many those were.
fn redrive(setup: &Setup, forebay: &Forebay) -> usize {
    let sender = Sender::start(setup.public, 8, RATE, STREAMS);
    sender.wait_until_acknowledged(RATE);
    let (code, said) = run(setup, &["dead-letters", "redrive", "--all"]);
    let counts = ["chosen", "published", "failed"].map(|name| said[name].as_u64().unwrap());
    assert_eq!((code, counts), (Some(0), [REFUSED as u64, REFUSED as u64, 0]));
    let outcome = sender.stop();
    assert_eq!(outcome.answers.keys().copied().collect::<Vec<_>>(), [200]);
    forebay.wait_until_drained(DRAINED);
    assert_eq!(forebay.metric("forebay_dead_letters{route=\"events\"}"), 0.0);
    outcome.acknowledged.len()
}

fn assert_redriven(messages: &[Message], sent: usize) {
    let redriven = marked(messages, "redriven");
    assert_eq!((redriven.len(), ids(&redriven).len()), (REFUSED, REFUSED));
    let others = marked(messages, "");
    assert_eq!(others.len(), EVENTS + sent, "each once");
}

fn from_kafka(brokers: &str, topic: &str) -> Vec<Message> {
    let read = read_to_end(brokers, topic).into_iter();
    read.map(|read| Message::new(read.partition.to_string(), &read.headers, &read.value))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_kafka_refused_is_redriven_and_what_is_retained_is_replayed_also_after_a_kill() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "again", 8, &[("max.message.bytes", "5000")]).await;
    let setup = Setup::new(&brokers, &topic).environment(&["FOREBAY__SPOOL__RETAIN=1h"]);
    let mut forebay = setup.start();
    send(&setup, "feeds", EVENTS / 2, "1");
    for number in 0..REFUSED {
        let event = webhook(number % 700, &format!("large-{number}"));
        let padding = format!("\"padding\":\"{}\",\"type\"", "x".repeat(8000));
        let event = event.replacen("\"type\"", &padding, 1);
        let headers = format!("X-Millicast-Signature: {}\r\n", sign(event.as_bytes()));
        let answer = http::request(setup.public, "POST", PATH, &headers, event.as_bytes()).unwrap();
        assert_eq!(answer.code, 200, "{}", answer.body);
    }
    send(&setup, "media", EVENTS - EVENTS / 2, "2");
    wait_for_refused(&forebay);
    set_topic(&brokers, &topic, "max.message.bytes", "1000000").await;
    let sent = redrive(&setup, &forebay);
    let messages = from_kafka(&brokers, &topic);
    assert_redriven(&messages, sent);
    assert_eq!(run(&setup, &["verify"]).0, Some(0));

    // One stream of the five thousand, one id, ten minutes.
    let all = EVENTS + REFUSED + sent;
    let key = &messages[0].key;
    let of_stream = messages.iter().filter(|message| message.key == *key).count();
    let replay = |selection: &[&str]| {
        let (code, said) = run(&setup, &[&["replay", "--route", "events"], selection].concat());
        (code, said["chosen"].as_u64().unwrap() as usize)
    };
    assert_eq!(replay(&["--stream", key]), (Some(0), of_stream));
    assert_eq!(replay(&["--id", &messages[7].id]), (Some(0), 1));
    assert_eq!(replay(&["--from", "1h", "--dry-run"]), (Some(0), all));

    // All of it, killed on the way.
    let before = messages.len() + of_stream + 1;
    let begun = run(
        &setup,
        &[
            "replay", "--route", "events", "--from", "1h", "--rate", "20000", "--detach",
        ],
    );
    let job = begun.1["job"].as_str().unwrap().to_owned();
    wait_until("most of it is replayed", DRAINED, || {
        forebay.metric("forebay_replayed_total{route=\"events\"}") >= (all / 10 * 8) as f64
    });
    forebay.kill();
    let forebay = setup.start();
    wait_until("the rest is replayed", DRAINED, || {
        let jobs = forebay.status()["jobs"].as_array().unwrap().clone();
        jobs.iter()
            .any(|one| one["id"] == job.as_str() && one["state"] == "done")
    });
    let again = from_kafka(&brokers, &topic);
    let replayed: Vec<&Message> = again.iter().filter(|message| message.mark == "replayed").collect();
    let events: Vec<&Message> = messages.iter().collect();
    assert_eq!(ids(&replayed), ids(&events), "each is there again");
    // Half a second, longer on a busy machine, and what was in flight, come twice.
    let most = before + all + 60_000 + 2_000;
    assert!(
        (before + all..=most).contains(&again.len()),
        "{} of {most}",
        again.len()
    );
    assert_eq!(run(&setup, &["verify"]).0, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rabbitmq_returned_is_redriven_once_there_is_a_queue_for_it() {
    let vhost = rabbitmq::shared().vhost("again");
    vhost.declare_exchange(EXCHANGE);
    let queues: Vec<String> = (0..8).map(|n| format!("{EXCHANGE}.{n:02}")).collect();
    for (n, queue) in queues.iter().enumerate() {
        let arguments = serde_json::json!({"x-single-active-consumer": true, "x-overflow": "reject-publish"});
        vhost.declare_queue(queue, QUORUM, &arguments);
        vhost.bind(EXCHANGE, queue, &format!("{n:02}.feeds.#"));
    }
    let setup = Setup::rabbitmq(&vhost.uris(), 8);
    let forebay = setup.start();
    send(&setup, "feeds", EVENTS / 2, "1");
    send(&setup, "media", REFUSED, "3");
    send(&setup, "feeds", EVENTS - EVENTS / 2, "2");
    wait_for_refused(&forebay);
    for (n, queue) in queues.iter().enumerate() {
        vhost.bind(EXCHANGE, queue, &format!("{n:02}.media.#"));
    }
    let sent = redrive(&setup, &forebay);
    let read = rabbitmq::read_all(&vhost.uri(), &queues).await.into_iter();
    let messages: Vec<Message> = read
        .map(|read| Message::new(read.queue.clone(), &read.headers, &read.body))
        .collect();
    assert_redriven(&messages, sent);
}
