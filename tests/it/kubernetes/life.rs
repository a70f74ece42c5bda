//! A replica's life as the manifests have it: it is checked, serves, is tested, is scaled down, and its volume is
//! drained.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    COMPLETE,
    pod::{Node, container, seconds, spec},
};
use crate::support::{
    chart::{CHART, documents, render},
    forebay::wait_until,
    http,
    kafka::{self, create_topic_named},
    process::free_port,
    topic::read_to_end,
};

const DEADLINE: Duration = Duration::from_secs(60);
/// What the cluster's DNS makes of the first pod's name: there is one Forebay here.
const FIRST_POD: &str = "forebay-0.forebay-headless.forebay.svc";

/// The manifests of a Forebay that publishes to the topic, on ports of its own.
struct Release {
    values: Vec<String>,
}

impl Release {
    fn new(topic: &str) -> Self {
        let listen = format!("config.server.listen=0.0.0.0:{}", free_port());
        let admin = format!("config.admin.listen=0.0.0.0:{}", free_port());
        let brokers = format!("config.sinks.main.brokers={{{}}}", kafka::shared());
        let topic = format!("config.routes.events.topic={topic}");
        let values = vec![listen, admin, brokers, topic, "config.server.drain_delay=1s".into()];
        Self { values }
    }

    fn manifests(&self, more: &[&str]) -> Vec<Value> {
        let values = self.values.iter().map(String::as_str).chain(more.iter().copied());
        let set: Vec<&str> = values.flat_map(|value| ["--set", value]).collect();
        documents(&render(CHART, &[COMPLETE[0]], &set).unwrap())
    }
}

/// Whether a container's probe passes, as the kubelet asks it.
fn passes(container: &Value, probe: &str) -> bool {
    let get = &container[probe]["httpGet"];
    let ports = container["ports"].as_array().unwrap();
    let port = ports.iter().find(|port| port["name"] == get["port"]).unwrap()["containerPort"].as_u64();
    let address = SocketAddr::from(([127, 0, 0, 1], u16::try_from(port.unwrap()).unwrap()));
    let answer = http::request(address, "GET", get["path"].as_str().unwrap(), "", "");
    answer.is_some_and(|answer| answer.code == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_replica_leaves_behind_is_drained_by_the_charts_job() {
    let topic = format!("stranded-by-scaling-{}", std::process::id());
    let release = Release::new(&topic);
    let dir = TempDir::new().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();

    let two = release.manifests(&["replicaCount=2"]);
    let node = Node::new(&two, "StatefulSet", "forebay-1", &data);
    let checked = node.run(container(&two, "StatefulSet", "check"));
    assert_eq!(checked.code, 0, "{checked:?}");
    let serving = container(&two, "StatefulSet", "forebay");
    let server = node.command(serving).serve();
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        wait_until(probe, DEADLINE, || passes(serving, probe));
    }

    // The topic is not there: the sample stays on the volume.
    let test = container(&two, "Pod", "send")
        .to_string()
        .replace(FIRST_POD, "127.0.0.1");
    let test: Value = serde_json::from_str(&test).unwrap();
    let helm_test = || Node::new(&two, "Pod", "forebay-test", &data).run(&test);
    let tested = helm_test();
    assert_eq!(tested.code, 0, "{tested:?}");

    let began = Instant::now();
    server.terminate();
    let grace = seconds(&spec(&two, "StatefulSet")["terminationGracePeriodSeconds"]);
    assert!(began.elapsed() < grace, "{:?} of {grace:?}", began.elapsed());
    let tested = helm_test();
    assert_ne!(tested.code, 0, "nobody is there: {tested:?}");

    create_topic_named(&kafka::shared(), &topic, 1, &[]).await;
    let one = release.manifests(&["replicaCount=1", "drain.ordinals={1}"]);
    let drained = Node::new(&one, "Job", "forebay-1", &data).run(container(&one, "Job", "forebay"));
    assert_eq!(drained.code, 0, "{drained:?}");
    assert!(drained.text.contains("route events: empty"), "{drained:?}");
    let records = read_to_end(&kafka::shared(), &topic);
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].headers["replica"], "forebay-1");
}
