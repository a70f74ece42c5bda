//! Two replicas that are restarted one after the other, again and again, as a StatefulSet is rolled.

use std::{process::Command, time::Duration};

use super::{DRAINED, STOPPED};
use crate::support::{
    census::assert_in_order,
    forebay::{Forebay, PATH, Setup, send_command},
    kafka::{self, create_topic},
    proxy::RoundRobin,
    time::last_for,
    topic::read_to_end,
};

const ROLLS: usize = 10;
const RATE: u64 = 1_000;
/// How long after a pod stops being ready, or begins to be, the proxy knows.
const ENDPOINTS_LATE: Duration = Duration::from_secs(2);
/// Longer than that.
const DRAIN_DELAY: &str = "FOREBAY__SERVER__DRAIN_DELAY=3s";

struct Replica {
    setup: Setup,
    forebay: Forebay,
}

impl Replica {
    fn start(name: &str, brokers: &str, topic: &str) -> Self {
        let mut setup = Setup::new(brokers, topic).replica(name);
        setup.wrapper = vec!["env".into(), DRAIN_DELAY.into()];
        let forebay = setup.start();
        Self { setup, forebay }
    }

    /// Stops and starts it. Its address leaves the proxy while it already stops, and comes back when it has been ready
    /// for a while.
    async fn roll(&mut self, proxy: &RoundRobin, others: &[Replica]) {
        let others: Vec<_> = others.iter().map(|replica| replica.setup.public).collect();
        self.forebay.signal("TERM");
        last_for(ENDPOINTS_LATE).await;
        proxy.switch(others.clone());
        let status = self.forebay.wait(STOPPED);
        assert_eq!(status.code(), Some(0), "{}", self.forebay.log());
        self.forebay = self.setup.start();
        last_for(ENDPOINTS_LATE).await;
        proxy.switch([others, vec![self.setup.public]].concat());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sender_never_notices_that_the_replicas_are_rolled() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "rolls", 12, &[]).await;
    let mut replicas = ["replica-0", "replica-1"].map(|name| Replica::start(name, &brokers, &topic));
    let proxy = RoundRobin::start(replicas.iter().map(|replica| replica.setup.public).collect()).await;
    let mut command = send_command(&format!("http://{}{PATH}", proxy.address), &["feeds"]);
    command.args(["--rate", &RATE.to_string(), "--count", "100000000", "--streams", "1000"]);
    command.args(["--concurrency", "64", "--json"]);
    let sending = command.spawn();

    for _ in 0..ROLLS {
        let [first, second] = &mut replicas;
        first.roll(&proxy, std::slice::from_ref(second)).await;
        second.roll(&proxy, std::slice::from_ref(first)).await;
    }
    let interrupted = Command::new("kill").args(["-INT", &sending.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    let output = sending.wait_with_output().unwrap();
    let summary: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let sent = usize::try_from(summary["sent"].as_u64().unwrap()).unwrap();
    assert!(sent > 80 * RATE as usize, "it went on all the time: {summary}");
    assert_eq!(summary["answers"]["200"], sent, "only 200: {summary}");
    assert_eq!(summary["failed"], 0, "{summary}");

    for replica in &replicas {
        replica.forebay.wait_until_drained(DRAINED);
    }
    let census = assert_in_order(&read_to_end(&brokers, &topic));
    assert_eq!(census.ids.len(), sent, "every event is in the topic");
}
