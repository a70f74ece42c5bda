//! A route with a reorder window: what the sender shuffled is in the order of its times again.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;

use super::{DRAINED, STOPPED};
use crate::{
    support::{
        census::Delivered,
        forebay::{EXCHANGE, Forebay, Setup, kafka_route, rabbitmq_route, send_command, wait_until},
        kafka::{self, create_topic},
        rabbitmq::{self, QUORUM, read_all},
        topic::read_to_end,
    },
    verify::verify,
};

const COUNT: usize = 600;
const WINDOW: &str = "reorder_window = \"1s\"\n";
/// Nothing leaves by itself while a test lasts.
const LONG_WINDOW: &str = "reorder_window = \"60s\"\n";

/// Sends feeds, out of order but for a moment only.
fn send_shuffled(setup: &Setup) {
    let status = send_command(&setup.url(), &["feeds"])
        .args(["--seed", "5", "--count", &COUNT.to_string(), "--streams", "6"])
        .args(["--concurrency", "4", "--shuffle", "60"])
        .status();
    assert!(status.unwrap().success());
}

/// Of each stream, the times that step back, and the numbers that do.
fn steps_back(records: &[impl Delivered]) -> (usize, usize) {
    let mut newest: HashMap<&str, (String, u64)> = HashMap::new();
    let (mut times, mut numbers) = (0, 0);
    for record in records {
        let event: Value = serde_json::from_slice(record.body()).unwrap();
        let this = (event["time"].as_str().unwrap().to_owned(), record.sequence());
        if let Some(before) = newest.get(record.key()) {
            times += usize::from(this.0 < before.0);
            numbers += usize::from(this.1 < before.1);
        }
        newest.insert(record.key(), this);
    }
    (times, numbers)
}

fn assert_reordered(records: &[impl Delivered], forebay: &Forebay) {
    assert_eq!(records.len(), COUNT, "{}", forebay.status());
    let (times, numbers) = steps_back(records);
    assert_eq!(times, 0, "the times of a stream rise");
    assert!(numbers > 100, "only {numbers} were put in order: the sender shuffles");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shuffled_within_the_window_is_in_the_order_of_its_times() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "reordered", 3, &[]).await;
    let plain = create_topic(&brokers, "as-it-came", 3, &[]).await;
    let setup = Setup::publishing(&(kafka_route("events", &brokers, &topic) + WINDOW)).with(&format!(
        "[routes.plain]\nsink = \"main\"\nmatch = {{ not_kinds = [\"thumbnail\"] }}\ntopic = {plain:?}\n"
    ));
    let forebay = setup.start();
    send_shuffled(&setup);
    forebay.wait_until_drained(DRAINED);

    let records = read_to_end(&brokers, &topic);
    assert_reordered(&records, &forebay);
    assert!(forebay.metric("forebay_reordered_total{route=\"events\"}") > 100.0);
    assert_eq!(forebay.metric("forebay_reorder_records{route=\"events\"}"), 0.0);
    let (times, numbers) = steps_back(&read_to_end(&brokers, &plain));
    assert!(
        times > 100 && numbers == 0,
        "without a window it is as it came: {times}, {numbers}"
    );

    let config = setup.config();
    let (code, report) = verify(&["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{report:#}");
    assert!(report["routes"][0]["reordered"].as_u64().unwrap() > 100, "{report:#}");
    assert_eq!(report["routes"][1]["reordered"], 0, "{report:#}");
    let named = ["--brokers", &brokers, "--topic", &topic];
    assert_eq!(verify(&[&named[..], &["--reordered"]].concat()).0, Some(0));
    let (code, report) = verify(&named);
    assert_eq!(code, Some(1), "as a topic without a window it is out of order");
    assert!(
        report["routes"][0]["mistakes"]["steps_back"]["count"].as_u64() > Some(100),
        "{report:#}"
    );
    let (code, _) = verify(&["--brokers", &brokers, "--topic", &plain, "--reordered"]);
    assert_eq!(code, Some(0), "an order of arrival that was kept is no step back");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_so_in_queues_too() {
    let vhost = rabbitmq::shared().vhost("reordered");
    let queues = vhost.topology(EXCHANGE, 2, QUORUM);
    let setup = Setup::publishing(&(rabbitmq_route("events", &vhost.uris(), 2) + WINDOW));
    let forebay = setup.start();
    send_shuffled(&setup);
    forebay.wait_until_drained(DRAINED);
    assert_reordered(&read_all(&vhost.uri(), &queues).await, &forebay);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_inside_the_window_loses_nothing_and_a_stop_publishes_it_in_order() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "held", 3, &[]).await;
    let setup = Setup::publishing(&(kafka_route("events", &brokers, &topic) + LONG_WINDOW));
    let mut forebay = setup.start();
    let held = |forebay: &Forebay| forebay.metric("forebay_reorder_records{route=\"events\"}") == COUNT as f64;
    send_shuffled(&setup);
    wait_until("all is held back", DRAINED, || held(&forebay));
    forebay.kill();
    assert_eq!(
        read_to_end(&brokers, &topic).len(),
        0,
        "the kill came inside the window"
    );

    let mut forebay = setup.start();
    wait_until("it is held back again", DRAINED, || held(&forebay));
    let before = std::time::Instant::now();
    assert_eq!(forebay.terminate(STOPPED).code(), Some(0), "{}", forebay.log());
    assert!(before.elapsed() < Duration::from_secs(30), "a stop waits for no window");
    let records = read_to_end(&brokers, &topic);
    assert_eq!(records.len(), COUNT);
    assert_eq!(steps_back(&records).0, 0);
}
