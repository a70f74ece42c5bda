//! The services of `examples/consumers`, with the vectors and with real brokers.

mod instances;
mod replicas;

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::{Value, json};

use crate::support::{
    ROOT,
    consumers::{self, Broker, Service, Source},
    forebay::{EXCHANGE, Forebay, SECRET, Setup, kafka_route, rabbitmq_route, wait_until},
    kafka::{self, create_topic},
    oracle, program,
    rabbitmq::{self, QUORUM, Vhost, read_all},
    topic::read_to_end,
};

const DRAINED: Duration = Duration::from_secs(60);
/// How soon everything is stored, once everything is published.
const CAUGHT_UP: Duration = Duration::from_secs(90);
/// How long webhooks come at most, while services are killed.
const SENT_MAX: Duration = Duration::from_secs(240);
/// Webhooks of a sending, and how many come in a second.
const BATCH: u64 = 1_000;
const RATE: u64 = 500;

#[test]
fn every_consumer_passes_the_vectors() {
    let vectors = Path::new(ROOT).join("docs/ordering/vectors.json");
    let cases: Value = serde_json::from_str(&std::fs::read_to_string(&vectors).unwrap()).unwrap();
    let expected = format!("ok {}\n", cases["cases"].as_array().unwrap().len());
    for consumer in consumers::ALL {
        let Some(command) = consumer.command() else { continue };
        let output = run_vectors(&command, &vectors);
        assert_eq!(output, (Some(0), expected.clone()), "{}", consumer.name);
    }
}

#[test]
fn every_consumer_names_the_case_that_differs() {
    let vectors = std::fs::read_to_string(Path::new(ROOT).join("docs/ordering/vectors.json")).unwrap();
    let vectors: Value = serde_json::from_str(&vectors).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let no_transition = |case: &mut Value| case["transitions"][0] = json!([]);
    let no_state = |case: &mut Value| case["state"] = json!({});
    for (name, spoil) in [("transition", no_transition as fn(&mut Value)), ("state", no_state)] {
        let mut wrong = vectors.clone();
        spoil(&mut wrong["cases"][2]);
        let path = dir.path().join(name);
        std::fs::write(&path, wrong.to_string()).unwrap();
        for consumer in consumers::ALL {
            let Some(command) = consumer.command() else { continue };
            let (code, said) = run_vectors(&command, &path);
            let case = wrong["cases"][2]["name"].as_str().unwrap();
            assert_eq!(code, Some(1), "{}, another {name}: {said}", consumer.name);
            assert!(said.contains(case), "{}, another {name}: {said}", consumer.name);
        }
    }
}

/// The exit code, and what was said: on stdout if it went well.
fn run_vectors(command: &[String], vectors: &Path) -> (Option<i32>, String) {
    let mut command_line = Command::new(&command[0]);
    let output = command_line
        .args(&command[1..])
        .arg("--vectors")
        .arg(vectors)
        .output()
        .unwrap();
    let mut said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        said.push_str(&String::from_utf8_lossy(&output.stderr));
    }
    (output.status.code(), said)
}

/// Each folder is complete, so that it can be copied; what two of them share is the same.
#[test]
fn the_files_that_two_consumers_of_a_language_share_are_the_same() {
    let java = "src/main/java/com/example/streams";
    let java = ["Event", "StreamState", "Store", "CommandLine", "Vectors"].map(|class| format!("{java}/{class}.java"));
    let shared = java
        .iter()
        .map(|file| ("java", file.as_str()))
        .chain([("python", "streams.py")]);
    for (language, file) in shared {
        let read = |folder: String| std::fs::read_to_string(Path::new(ROOT).join("examples/consumers").join(folder));
        let (one, other) = (format!("{language}/{file}"), format!("{language}-rabbitmq/{file}"));
        assert!(
            read(one.clone()).unwrap() == read(other.clone()).unwrap(),
            "copy one: {one}, {other}"
        );
    }
}

/// Sends webhooks of every kind, out of order and some twice.
fn send(url: &str, seed: u64) {
    let mut command = program::forebay();
    command.args(["send", "--url", url, "--secret", SECRET, "--seed", &seed.to_string()]);
    command.args(["--count", &BATCH.to_string(), "--rate", &RATE.to_string()]);
    // A stream's next event is as many webhooks away as there are streams.
    command.args([
        "--streams",
        "40",
        "--concurrency",
        "40",
        "--shuffle",
        "400",
        "--duplicates",
        "10",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Sends other webhooks again and again, until `done`.
fn send_until(done: &AtomicBool, url: &str) {
    let began = Instant::now();
    for seed in 1.. {
        send(url, seed);
        if done.load(Ordering::Relaxed) {
            return;
        }
        assert!(
            began.elapsed() < SENT_MAX,
            "the services were not killed within {SENT_MAX:?}"
        );
    }
}

/// Kills each service twice while webhooks come, each time when there is something that it has read and could not
/// store.
fn kill_twice(services: &mut [Service], setup: &Setup, forebay: &Forebay) {
    let done = AtomicBool::new(false);
    let finished = AtomicU64::new(0);
    let count = services.len() as u64;
    let published = || forebay.published();
    thread::scope(|scope| {
        scope.spawn(|| send_until(&done, &setup.url()));
        for service in services {
            scope.spawn(|| {
                // Whatever becomes of it, the sending ends.
                let _guard = Finished {
                    finished: &finished,
                    count,
                    done: &done,
                };
                for _ in 0..2 {
                    service.wait_for_more(200);
                    service.kill_before_it_can_store(|| {
                        let goal = published() + 500.0;
                        wait_until("more is published", DRAINED, || published() >= goal);
                    });
                }
                service.wait_for_more(1);
            });
        }
    });
}

/// Counts a service that has had its kills; with the last one it is done.
struct Finished<'a> {
    finished: &'a AtomicU64,
    count: u64,
    done: &'a AtomicBool,
}

impl Drop for Finished<'_> {
    fn drop(&mut self) {
        if self.finished.fetch_add(1, Ordering::Relaxed) + 1 == self.count {
            self.done.store(true, Ordering::Relaxed);
        }
    }
}

/// What lies between the structured events: pictures, and events in binary mode.
fn with_binary_routes(events: String, sink: &str, topic: &str) -> String {
    let topic = if topic.is_empty() {
        String::new()
    } else {
        format!("topic = \"{topic}\"")
    };
    let route = |name: &str| {
        format!(
            "\n[routes.{name}]\nsink = \"{sink}\"\nmatch = {{ kinds = [\"{name}\"] }}\nmode = \"binary\"\noverlap = true\n{topic}\n"
        )
    };
    events + &route("thumbnail") + &route("media")
}

fn assert_all_stored(services: Vec<Service>, expected: &BTreeMap<String, Value>) {
    assert!(expected.len() >= 80, "only {} streams", expected.len());
    consumers::assert_states(&services, expected, CAUGHT_UP);
    for service in services {
        let log = service.log();
        assert!(
            log.contains("skipped"),
            "{}: what is not structured is told:\n{log}",
            service.name
        );
        service.terminate();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_consumer_of_kafka_ends_as_the_oracle_though_it_is_killed() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "consumers", 4, &[]).await;
    let routes = with_binary_routes(kafka_route("events", &brokers, &topic), "main", &topic);
    let setup = Setup::publishing(&routes);
    let forebay = setup.start();
    let source = Source::Kafka {
        brokers: brokers.clone(),
        topic: topic.clone(),
    };
    let mut services: Vec<Service> = consumers::of(Broker::Kafka)
        .filter_map(|one| one.start(&source))
        .collect();
    kill_twice(&mut services, &setup, &forebay);
    forebay.wait_until_drained(DRAINED);
    let expected = oracle::states(&read_to_end(&brokers, &topic));
    let names: Vec<&str> = services.iter().map(|service| service.name).collect();
    assert_all_stored(services, &expected);
    for name in names {
        assert_committed(&brokers, &topic, &consumers::group(name, &topic));
    }
}

/// The group has committed everything: it will not start from the beginning.
fn assert_committed(brokers: &str, topic: &str, group: &str) {
    let mut config = ClientConfig::new();
    let config = config.set("bootstrap.servers", brokers).set("group.id", group);
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..kafka::partitions(brokers, topic) {
        partitions.add_partition(topic, i32::try_from(partition).unwrap());
    }
    let committed = consumer.committed_offsets(partitions, DRAINED).unwrap();
    for partition in committed.elements() {
        let (_, end) = consumer
            .fetch_watermarks(topic, partition.partition(), DRAINED)
            .unwrap();
        assert_eq!(partition.offset(), Offset::Offset(end), "{group}: {partition:?}");
    }
}

/// Queues of a consumer's own, so that each consumer gets everything, one for each partition. Returns their names.
fn queues_of(name: &str, vhost: &Vhost, partitions: usize) -> Vec<String> {
    let bind = |n| {
        let queue = format!("{name}.{n:02}");
        vhost.declare_queue(&queue, QUORUM, &json!({"x-single-active-consumer": true}));
        vhost.bind(EXCHANGE, &queue, &format!("{n:02}.#"));
        queue
    };
    (0..partitions).map(bind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_consumer_of_rabbitmq_ends_as_the_oracle_though_it_is_killed() {
    let vhost = rabbitmq::shared().vhost("consumers");
    let everything = vhost.topology(EXCHANGE, 2, QUORUM);
    let routes = with_binary_routes(rabbitmq_route("events", &vhost.uris(), 2), "rabbit", "");
    let setup = Setup::publishing(&routes);
    let forebay = setup.start();
    let mut services: Vec<Service> = consumers::of(Broker::RabbitMq)
        .filter_map(|consumer| {
            consumer.start(&Source::RabbitMq {
                uri: vhost.uri(),
                queues: queues_of(consumer.name, &vhost, 2),
            })
        })
        .collect();
    kill_twice(&mut services, &setup, &forebay);
    forebay.wait_until_drained(DRAINED);
    let expected = oracle::states(&read_all(&vhost.uri(), &everything).await);
    let names: Vec<&str> = services.iter().map(|service| service.name).collect();
    assert_all_stored(services, &expected);
    for name in names {
        let left = read_all(&vhost.uri(), &queues_of(name, &vhost, 2)).await.len();
        assert_eq!(left, 0, "{name}: all is acknowledged");
    }
}
