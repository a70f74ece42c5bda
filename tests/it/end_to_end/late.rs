//! Events that come late say so.

use std::collections::HashMap;

use serde_json::Value;

use super::DRAINED;
use crate::support::{
    forebay::{SECRET, Setup},
    kafka::{self, create_topic},
    program,
    topic::read_to_end,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_late_event_carries_its_distance_to_the_newest_of_its_stream() {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "late", 3, &[]).await;
    let setup = Setup::new(&brokers, &topic);
    let forebay = setup.start();
    let output = program::forebay()
        .args(["send", "--url", &setup.url(), "--secret", SECRET, "--seed", "7"])
        // One at a time: the order in the log is the order in which they came.
        .args(["--count", "600", "--streams", "6", "--concurrency", "1"])
        .args(["--kind", "feeds", "--shuffle", "30", "--duplicates", "5"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    forebay.wait_until_drained(DRAINED);

    let mut records = read_to_end(&brokers, &topic);
    records.sort_by_key(kafka::Read::sequence);
    let mut newest: HashMap<String, i64> = HashMap::new();
    let mut late = 0;
    for record in &records {
        let event: Value = serde_json::from_slice(&record.value).unwrap();
        let time: jiff::Timestamp = event["time"].as_str().unwrap().parse().unwrap();
        let time = time.as_millisecond();
        let newest = newest.entry(record.key.clone()).or_insert(time);
        let expected = (time < *newest).then(|| (*newest - time).to_string());
        assert_eq!(event["lateby"].as_str(), expected.as_deref(), "{event:#}");
        *newest = time.max(*newest);
        late += usize::from(expected.is_some());
    }
    assert!(
        late > 100,
        "{late} of {} are late, for the sender shuffles",
        records.len()
    );
    assert_eq!(forebay.metrics_sum("forebay_late_events_total"), late as f64);
    let config = setup.config();
    let (code, report) = crate::verify::verify(&["--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{report:#}");
    assert_eq!(report["routes"][0]["late"]["count"], late as u64, "{report:#}");
}
