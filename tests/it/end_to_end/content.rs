//! What becomes of bodies that are authentic, and not what an honest sender sends.

use std::fs;

use serde_json::{Value, json};

use super::DRAINED;
use crate::support::{
    forebay::{Forebay, PATH, Setup, kafka_route, wait_until},
    http,
    kafka::{self, create_topic},
    sender::sign,
    topic::read_to_end,
};

fn post(setup: &Setup, headers: &str, body: &[u8]) {
    let headers = format!("X-Millicast-Signature: {}\r\n{headers}", sign(body));
    let answer = http::request(setup.public, "POST", PATH, &headers, body).unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_of_another_account_is_published_under_the_endpoints_own() {
    let brokers = kafka::shared();
    let own = create_topic(&brokers, "accounts", 1, &[]).await;
    let accounts = format!("FOREBAY__ENDPOINTS__ACME__ACCOUNTS={own}");
    let setup = Setup::publishing(
        &kafka_route("events", &brokers, "{account}").replace("match = { not_kinds = [\"thumbnail\"] }", ""),
    )
    .environment(&[&accounts]);
    let forebay = setup.start();
    let body = |account: &str| {
        let data = json!({ "accountId": account, "streamId": format!("{account}/s") });
        json!({ "type": "feeds", "event": "started", "timestamp": 1_638_463_486_489_i64, "data": data }).to_string()
    };
    post(&setup, "", body(&own).as_bytes());
    post(&setup, "", body("other").as_bytes());
    post(&setup, "X-Millicast-Stream-Id: other/s\r\n", b"\xff\xd8\xff");
    // As a picture it is what it was.
    post(
        &setup,
        "Content-Type: image/jpeg\r\nX-Millicast-Stream-Id: other/cam\r\n",
        body("other").as_bytes(),
    );
    forebay.wait_until_drained(DRAINED);

    let records = read_to_end(&brokers, &own);
    assert_eq!(records.len(), 4);
    let claimed = [None, Some("other"), Some("other"), Some("other")];
    let repeated = [false, false, false, true];
    for ((record, claimed), repeated) in records.iter().zip(claimed).zip(repeated) {
        assert_eq!(record.key, format!("{own}/s"));
        let is_picture = record.headers["content-type"] == "image/jpeg";
        let attribute = |name: &str| {
            let event = if is_picture {
                Value::Null
            } else {
                serde_json::from_slice(&record.value).unwrap()
            };
            let header = record.headers.get(&format!("ce_{name}")).cloned();
            if is_picture {
                header
            } else {
                event
                    .get(name)
                    .map(|value: &Value| value.as_str().unwrap_or("true").to_owned())
            }
        };
        assert_eq!(attribute("account").as_deref(), Some(own.as_str()));
        assert_eq!(attribute("source"), Some(format!("//millicast.com/accounts/{own}")));
        assert_eq!(attribute("accountclaimed").as_deref(), claimed);
        assert_eq!(attribute("repeated").is_some(), repeated);
        assert_eq!(attribute("stale").is_some(), !is_picture);
    }
    assert_eq!(forebay.metrics_sum("forebay_other_account_events_total"), 3.0);
    let log = forebay.log();
    assert!(
        log.contains("took an event of another account") && log.contains("other"),
        "{log}"
    );
}

/// The most memory that a process ever had, in MiB.
fn peak_mib(forebay: &Forebay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", forebay.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
}

/// 840,000 members, which took 56 bytes each and more, when the body came and when it was published.
#[tokio::test(flavor = "multi_thread")]
async fn the_memory_that_a_body_takes_is_bounded_by_its_size() {
    const BODY_MIB: u64 = 4;
    const PER_MIB: u64 = 15;
    // No broker is there: the event is rendered all the same, and waits.
    let setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none"));
    let forebay = setup.start();
    post(&setup, "", br#"{"type":"feeds","event":"started","data":{}}"#);
    wait_until("the first one waits", DRAINED, || {
        forebay.metric("forebay_in_flight_records{route=\"events\"}") >= 1.0
    });
    let before = peak_mib(&forebay);

    let members = vec!["\"\":0"; ((BODY_MIB as usize) << 20) / 5].join(",");
    let body = format!(r#"{{"type":"feeds","event":"started","timestamp":1,"data":{{{members}}}}}"#);
    post(&setup, "", body.as_bytes());
    wait_until("it was rendered", DRAINED, || {
        forebay.metric("forebay_in_flight_records{route=\"events\"}") >= 2.0
    });
    let grown = peak_mib(&forebay) - before;
    assert!(grown < BODY_MIB * PER_MIB, "{grown} MiB for a body of {BODY_MIB} MiB");
}
