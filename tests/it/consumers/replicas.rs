//! Two replicas of Forebay behind a proxy that gives them the webhooks in turn: out of order they go in, and every
//! consumer has the state that the true order gives.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::SocketAddr,
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    census::{Delivered, assert_in_order},
    consumers::{self, Broker, Service, Source},
    forebay::{EXCHANGE, Forebay, PATH, Setup, send_command},
    kafka::{self, create_topic},
    oracle,
    proxy::RoundRobin,
    rabbitmq::{self, QUORUM, Vhost, read_all},
    topic::read_to_end,
};

const COUNT: usize = 20_000;
const STREAMS: usize = 500;
const DRAINED: Duration = Duration::from_secs(60);
/// How soon everything is stored, once everything is published.
const CAUGHT_UP: Duration = Duration::from_secs(120);
const QUEUES: usize = 8;

/// Two replicas that run, each with a spool and a name of its own.
fn start_replicas(setup: impl Fn() -> Setup) -> Vec<(Setup, Forebay)> {
    let start = |name| {
        let setup = setup().replica(name);
        let forebay = setup.start();
        (setup, forebay)
    };
    ["replica-0", "replica-1"].map(start).into()
}

/// Sends what happens in the streams, out of order and some of it twice, through the proxy, and waits until all of it
/// is published.
async fn send_through_proxy(replicas: &[(Setup, Forebay)]) {
    let proxy = RoundRobin::start(replicas.iter().map(|(setup, _)| setup.public).collect()).await;
    let address = proxy.address;
    tokio::task::spawn_blocking(move || send(address)).await.unwrap();
    for (_, forebay) in replicas {
        forebay.wait_until_drained(DRAINED);
    }
}

fn send(to: SocketAddr) {
    let kinds = ["feeds", "media", "viewerConnection", "recordings", "transcoder"];
    let mut command = send_command(&format!("http://{to}{PATH}"), &kinds);
    command.args(["--count", &COUNT.to_string(), "--streams", &STREAMS.to_string()]);
    // A stream's next event is as many webhooks away as there are streams: only a longer shuffle changes their order.
    command.args(["--shuffle", &(4 * STREAMS).to_string(), "--duplicates", "5"]);
    command.args(["--concurrency", "32", "--seed", "5", "--json"]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// All of it is there, from both replicas, with duplicates, and badly out of order. Returns the states that the true
/// order gives.
fn true_states(messages: &[impl Delivered]) -> BTreeMap<String, Value> {
    let census = assert_in_order(messages);
    assert_eq!(census.ids.len(), COUNT);
    assert_eq!(census.messages, COUNT + COUNT / 20, "the duplicates are there too");
    let replicas: BTreeSet<&str> = messages.iter().map(Delivered::replica).collect();
    assert_eq!(replicas, ["replica-0", "replica-1"].into());
    let late = count_late(messages);
    assert!(
        late > COUNT / 5,
        "only {late} events come after a later one of their stream"
    );
    let states = oracle::states(messages);
    assert!(states.len() >= STREAMS, "{} streams", states.len());
    states
}

/// How many events come after one of their stream that happened later.
fn count_late(messages: &[impl Delivered]) -> usize {
    let mut newest: HashMap<&str, String> = HashMap::new();
    let mut late = 0;
    for message in messages {
        let event: Value = serde_json::from_slice(message.body()).unwrap();
        let time = event["time"].as_str().unwrap();
        let newest = newest.entry(message.key()).or_default();
        if time < newest.as_str() {
            late += 1;
        } else {
            time.clone_into(newest);
        }
    }
    late
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_two_replicas_every_consumer_of_kafka_ends_as_one_who_saw_the_true_order() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "replicas", 6, &[]).await;
    let replicas = start_replicas(|| Setup::new(&brokers, &topic));
    let source = Source::Kafka {
        brokers: brokers.clone(),
        topic: topic.clone(),
    };
    let start = |consumer: &consumers::Consumer| consumer.start(&source);
    let services: Vec<Service> = consumers::of(Broker::Kafka).filter_map(start).collect();
    send_through_proxy(&replicas).await;
    let expected = true_states(&read_to_end(&brokers, &topic));
    consumers::assert_states(&services, &expected, CAUGHT_UP);
}

/// Queues of a consumer's own, so that each consumer gets everything. Returns their names.
fn queues_of(name: &str, vhost: &Vhost) -> Vec<String> {
    let bind = |n| {
        let queue = format!("{name}.{n:02}");
        vhost.declare_queue(&queue, QUORUM, &json!({"x-single-active-consumer": true}));
        vhost.bind(EXCHANGE, &queue, &format!("{n:02}.#"));
        queue
    };
    (0..QUEUES).map(bind).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_two_replicas_every_consumer_of_rabbitmq_ends_as_one_who_saw_the_true_order() {
    let vhost = rabbitmq::shared().vhost("replicas");
    let everything = vhost.topology(EXCHANGE, QUEUES, QUORUM);
    let replicas = start_replicas(|| Setup::rabbitmq(&vhost.uris(), QUEUES));
    let start = |consumer: &consumers::Consumer| {
        consumer.start(&Source::RabbitMq {
            uri: vhost.uri(),
            queues: queues_of(consumer.name, &vhost),
        })
    };
    let services: Vec<Service> = consumers::of(Broker::RabbitMq).filter_map(start).collect();
    send_through_proxy(&replicas).await;
    let expected = true_states(&read_all(&vhost.uri(), &everything).await);
    consumers::assert_states(&services, &expected, CAUGHT_UP);
}
