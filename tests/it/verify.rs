//! `forebay verify`, on what a real Kafka and a real RabbitMQ hold: sound, and with each kind of mistake made on
//! purpose.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use serde_json::{Value, json};

use crate::support::{
    forebay::{EXCHANGE, Setup, send_command},
    kafka::{self, Read, create_topic},
    program,
    rabbitmq::{self, QUORUM, STREAM},
};

const DRAINED: Duration = Duration::from_secs(60);
const COUNT: usize = 300;

/// Runs `forebay verify`; the exit code and what it found.
pub fn verify(arguments: &[&str]) -> (Option<i32>, Value) {
    let output = program::forebay()
        .arg("verify")
        .args(arguments)
        .arg("--json")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| json!({ "said": said }));
    (output.status.code(), report)
}

/// Sends events of every kind but pictures and recordings, and waits until they are published.
fn send(setup: &Setup) {
    let forebay = setup.start();
    let status = send_command(&setup.url(), &["feeds", "media", "transcoder"])
        .args(["--seed", "3", "--count", &COUNT.to_string(), "--streams", "9"])
        .status();
    assert!(status.unwrap().success());
    forebay.wait_until_drained(DRAINED);
}

fn write(topic: &str, records: &[Read]) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka::shared())
        .create()
        .unwrap();
    for record in records {
        let headers = record
            .headers
            .iter()
            .fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(value),
                })
            });
        let message = BaseRecord::to(topic)
            .key(&record.key)
            .payload(&record.value)
            .partition(record.partition)
            .headers(headers);
        producer.send(message).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(DRAINED).unwrap();
}

/// Two neighbours of one stream, the first of which is not the first of all.
fn neighbours(records: &[Read]) -> (usize, usize) {
    let of_stream = |key: &str| -> Vec<usize> { (0..records.len()).filter(|n| records[*n].key == key).collect() };
    let places = of_stream(&records[records.len() / 2].key);
    (places[1], places[2])
}

type Change = fn(&mut Vec<Read>);

/// Each kind of mistake: its name, and how it is made.
const MISTAKES: &[(&str, Change)] = &[
    ("missing", |records| {
        let (at, _) = neighbours(records);
        records.remove(at);
    }),
    ("steps_back", |records| {
        let (one, other) = neighbours(records);
        records.swap(one, other);
    }),
    ("several_partitions", |records| {
        let (_, at) = neighbours(records);
        records[at].partition = (records[at].partition + 1) % 3;
    }),
    ("schema_violations", |records| {
        let (at, _) = neighbours(records);
        change(&mut records[at], |event| event["data"] = json!("text"));
    }),
    ("clashes", |records| {
        let (one, other) = neighbours(records);
        let (sequence, header) = (
            json!(records[one].headers["sequence"]),
            records[one].headers["sequence"].clone(),
        );
        change(&mut records[other], |event| event["replicasequence"] = sequence.clone());
        records[other].headers.insert("sequence".to_owned(), header);
    }),
    ("not_events", |records| {
        let (at, _) = neighbours(records);
        records[at].value = b"hello".to_vec();
    }),
];

fn change(record: &mut Read, change: impl FnOnce(&mut Value)) {
    let mut event = serde_json::from_slice(&record.value).unwrap();
    change(&mut event);
    record.value = event.to_string().into_bytes();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_topic_passes_and_each_kind_of_mistake_is_named() {
    let brokers = kafka::shared();
    let sound = create_topic(&brokers, "verified", 3, &[]).await;
    let setup = Setup::new(&brokers, &sound);
    send(&setup);
    let config = setup.config();
    let (code, report) = verify(&["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["routes"][0]["events"], COUNT);
    assert_eq!(report["routes"][0]["route"], "events");
    assert_eq!(report["replicas"][0]["missing"], 0);

    let records = kafka::read_all(&brokers, &sound);
    assert_eq!(records.len(), COUNT);
    for (name, change) in MISTAKES {
        let topic = create_topic(&brokers, "mistaken", 3, &[]).await;
        let mut wrong = records.clone();
        change(&mut wrong);
        write(&topic, &wrong);
        // All kinds are wanted, so that nothing may be missing.
        let toml = format!(
            "[sinks.main]\ntype = \"kafka\"\nbrokers = [{brokers:?}]\n[routes.all]\nsink = \"main\"\ntopic = {topic:?}\n"
        );
        let other = Setup::publishing(&toml);
        let config = other.config();
        let (code, report) = verify(&["--config", config.to_str().unwrap()]);
        assert_eq!(code, Some(1), "{name}: {report:#}");
        for (kind, found) in report["routes"][0]["mistakes"].as_object().unwrap() {
            assert_eq!(found["count"], u64::from(kind == name), "{name}: {report:#}");
        }
        let is_missing = ["missing", "clashes", "not_events"].contains(name);
        assert_eq!(
            report["replicas"][0]["missing"],
            u64::from(is_missing),
            "{name}: {report:#}"
        );
        if *name == "missing" {
            let (code, report) = verify(&["--config", config.to_str().unwrap(), "--dead-letters", "1"]);
            assert_eq!(code, Some(0), "a dead letter that is known: {report:#}");
            let (code, report) = verify(&["--brokers", &brokers, "--topic", &topic]);
            assert_eq!(code, Some(0), "without all routes it is only reported: {report:#}");
        }
    }
}

/// Everything by one route, and feeds by another as well.
#[tokio::test(flavor = "multi_thread")]
async fn what_routes_that_overlap_publish_twice_is_named() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "overlapped", 3, &[]).await;
    let more = |overlap: &str| {
        format!("[routes.feeds]\nsink = \"main\"\ntopic = {topic:?}\nmatch = {{ kinds = [\"feeds\"] }}\n{overlap}\n")
    };
    let setup = Setup::new(&brokers, &topic).with(&more("overlap = true"));
    send(&setup);
    let config = setup.config();
    for arguments in [
        ["--brokers", &brokers, "--topic", &topic].as_slice(),
        &["--config", config.to_str().unwrap()],
    ] {
        // One of the routes may be ahead of the other, which is out of order as well.
        let (_, report) = verify(arguments);
        let types = report["routes"][0]["repeated_types"].as_array().unwrap();
        assert!(!types.is_empty(), "{report:#}");
        for of_type in types {
            let name = of_type["type"].as_str().unwrap();
            assert!(name.starts_with("com.millicast.feeds."), "{name}");
            assert_eq!(of_type["records"], of_type["repeats"], "{report:#}");
        }
    }
    let unmeant = Setup::new(&brokers, &topic).with(&more(""));
    let config = unmeant.config();
    let output = program::forebay()
        .args(["check", "--config", config.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(
        said.contains("routes.feeds: publishes to the same place as routes.events"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_and_what_was_before_the_time_are_no_mistakes() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "repeated", 3, &[]).await;
    send(&Setup::new(&brokers, &topic));
    let records = kafka::read_all(&brokers, &topic);
    write(&topic, &records[10..20]);
    let (code, report) = verify(&["--brokers", &brokers, "--topic", &topic]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["routes"][0]["repeats"], 10);
    assert_eq!(report["routes"][0]["repeated_types"], json!([]));
    assert_eq!(report["routes"][0]["events"], COUNT + 10);
    let (code, report) = verify(&[
        "--brokers",
        &brokers,
        "--topic",
        &topic,
        "--from",
        "2999-01-01T00:00:00Z",
    ]);
    assert_eq!(
        (code, &report["routes"][0]["events"]),
        (Some(0), &json!(0)),
        "{report:#}"
    );
}

/// The event's number is called `sequence` in what earlier builds published, structured and binary.
#[tokio::test(flavor = "multi_thread")]
async fn events_of_earlier_builds_are_read_beside_newer_ones() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "renamed", 3, &[]).await;
    send(&Setup::new(&brokers, &topic));
    let mut records = kafka::read_all(&brokers, &topic);
    for (number, record) in records.iter_mut().take(COUNT / 2).enumerate() {
        change(record, |event| {
            let event = event.as_object_mut().unwrap();
            let value = event.remove("replicasequence").unwrap();
            event.insert("sequence".to_owned(), value);
        });
        if number.is_multiple_of(2) {
            make_binary(record);
        }
    }
    let mixed = create_topic(&brokers, "mixed", 3, &[]).await;
    write(&mixed, &records);
    let arguments = ["--brokers", &brokers, "--topic", &mixed];
    let (code, report) = verify(&arguments);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["routes"][0]["events"], COUNT);
    write(&mixed, &records[..10]);
    let (code, report) = verify(&arguments);
    assert_eq!(
        (code, &report["routes"][0]["repeats"]),
        (Some(0), &json!(10)),
        "{report:#}"
    );
}

/// Makes a structured record one in binary mode.
fn make_binary(record: &mut Read) {
    let event: Value = serde_json::from_slice(&record.value).unwrap();
    for (name, value) in event.as_object().unwrap() {
        match (name.as_str(), value) {
            ("data", data) => record.value = data.to_string().into_bytes(),
            ("datacontenttype", content_type) => {
                let content_type = content_type.as_str().unwrap().to_owned();
                record.headers.insert("content-type".to_owned(), content_type);
            }
            (name, value) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                record.headers.insert(format!("ce_{name}"), text);
            }
        }
    }
}

#[test]
fn what_cannot_be_read_is_named() {
    let brokers = kafka::shared();
    for (arguments, code, part) in [
        (
            vec!["--brokers", &brokers, "--topic", "not-there"],
            69,
            "there is no topic not-there",
        ),
        (
            vec!["--brokers", "127.0.0.1:1", "--topic", "a", "--from", "soon"],
            64,
            "neither a time",
        ),
        (vec![], 64, "required"),
    ] {
        let (found, report) = verify(&arguments);
        assert_eq!(found, Some(code), "{arguments:?}: {report}");
        assert!(
            report["said"].as_str().unwrap().contains(part),
            "{arguments:?}: {report}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queues_are_read_and_left_as_they_were() {
    let vhost = rabbitmq::shared().vhost("verify");
    let management = vhost.broker.management();
    let queues = vhost.topology(EXCHANGE, 2, QUORUM);
    let toml = format!(
        "[sinks.rabbit]\ntype = \"rabbitmq\"\nuri = {:?}\nexchange = \"{EXCHANGE}\"\npartitions = 2\nmanagement = {management:?}\n",
        vhost.uri()
    );
    let setup = Setup::publishing(&toml);
    send(&setup);
    let config = setup.config();
    for _ in 0..2 {
        let (code, report) = verify(&["--config", config.to_str().unwrap(), "--route", "events"]);
        assert_eq!(code, Some(0), "{report:#}");
        assert_eq!(
            report["routes"][0]["events"], COUNT,
            "they are there for the next one: {report:#}"
        );
    }
    vhost.declare_queue("limited", QUORUM, &json!({"x-delivery-limit": 3}));
    let limited = [
        "--amqp",
        &vhost.uri(),
        "--queue",
        "limited",
        "--management",
        &management,
    ];
    let (code, report) = verify(&limited);
    assert_eq!(code, Some(69), "{report:#}");
    assert!(
        report["said"].as_str().unwrap().contains("--spend-delivery"),
        "{report:#}"
    );
    let (code, report) = verify(&[&limited[..], &["--spend-delivery"]].concat());
    assert_eq!(code, Some(0), "{report:#}");

    let records = rabbitmq::read_all(&vhost.uri(), &queues).await;
    assert_eq!(records.len(), COUNT, "nothing was taken away");
    for pair in records
        .windows(2)
        .filter(|pair| pair[0].queue == pair[1].queue && pair[0].key() == pair[1].key())
    {
        assert!(pair[0].sequence() < pair[1].sequence(), "and nothing is out of order");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_read_by_their_offsets() {
    let vhost = rabbitmq::shared().vhost("verify-stream");
    vhost.topology(EXCHANGE, 1, STREAM);
    let management = vhost.broker.management();
    let setup = Setup::rabbitmq(&vhost.uris(), 1);
    send(&setup);
    let queue = format!("{EXCHANGE}.00");
    let (code, report) = verify(&["--amqp", &vhost.uri(), "--queue", &queue, "--management", &management]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["routes"][0]["events"], COUNT);
}
