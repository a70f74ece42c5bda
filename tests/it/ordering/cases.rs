//! The cases of the vectors: events in the order in which they arrive.

use std::collections::HashMap;

use forebay_event::Time;
use serde_json::{Value, json};

pub struct Case {
    pub name: &'static str,
    pub events: Vec<Value>,
}

const STREAM: &str = "ZG6NWV/sample_stream";
const FEED: &str = "369e4a86-f937-4254-bd9f-99dc484d2bd6";
const BACKUP: &str = "5b0d1f3c-88c1-4f0e-9a51-0f4b3d1f7a20";
const RECORDING: u64 = 1_000_001;
const ASSET: &str = "369e4a86f9374254bd9f99dc484d2bd7";
const TRANSCODER: &str = "7c1e4a86f9374254bd9f99dc484d2b00";

pub fn all() -> Vec<Case> {
    let mut cases = feeds();
    cases.extend(redelivered());
    cases.extend(settling());
    cases.extend(latest());
    cases.extend(streams());
    for case in &mut cases {
        number(&mut case.events);
    }
    cases
}

fn case(name: &'static str, events: Vec<Value>) -> Case {
    Case { name, events }
}

fn feeds() -> Vec<Case> {
    let (started, ended) = (feed("started", FEED, 0), feed("ended", FEED, 60_000));
    vec![
        case("a feed starts and ends", vec![started.clone(), ended.clone()]),
        case(
            "a feed that is seen ended first never goes live",
            vec![ended.clone(), started.clone()],
        ),
        case(
            "an encoder that reconnects has a new feed",
            vec![
                started.clone(),
                ended.clone(),
                feed("started", BACKUP, 61_000),
                feed("ended", BACKUP, 90_000),
            ],
        ),
        case(
            "the end of the first feed arrives after the start of the second",
            vec![started.clone(), feed("started", BACKUP, 61_000), ended.clone()],
        ),
        case(
            "with two encoders the stream is live until the last one ends",
            vec![
                started.clone(),
                feed("started", BACKUP, 500),
                ended.clone(),
                feed("ended", BACKUP, 61_000),
            ],
        ),
        case(
            "of two encoders one is seen ended first",
            vec![
                feed("ended", BACKUP, 30_000),
                started.clone(),
                feed("started", BACKUP, 500),
                ended.clone(),
            ],
        ),
        case(
            "of several times of a start or an end the earliest counts",
            vec![
                feed("started", FEED, 5000),
                started,
                feed("started", FEED, 9000),
                feed("ended", FEED, 70_000),
                ended,
                feed("ended", FEED, 80_000),
            ],
        ),
        case(
            "an end with an earlier time than its start is an end all the same",
            vec![feed("started", FEED, 60_000), feed("ended", FEED, 0)],
        ),
    ]
}

fn redelivered() -> Vec<Case> {
    let (started, ended) = (feed("started", FEED, 0), feed("ended", FEED, 60_000));
    let second = |event: &str, ms| elsewhere(feed(event, BACKUP, ms));
    vec![
        case(
            "duplicates tell nothing twice",
            vec![
                started.clone(),
                started.clone(),
                ended.clone(),
                started.clone(),
                ended.clone(),
                ended.clone(),
            ],
        ),
        case(
            "a start that is repeated after the end starts nothing",
            vec![
                ended.clone(),
                started.clone(),
                started.clone(),
                ended.clone(),
                started.clone(),
            ],
        ),
        case(
            "after a crash a stretch of the stream comes again",
            vec![
                started.clone(),
                recording("started", 1000),
                ended.clone(),
                started.clone(),
                recording("started", 1000),
                ended.clone(),
                recording("completed", 62_000),
            ],
        ),
        case(
            "two replicas interleave, and both took in the same webhook",
            vec![
                second("ended", 59_000),
                started.clone(),
                elsewhere(started),
                second("started", 500),
                ended,
                elsewhere(feed("started", "a0c7c9a4-2f0e-4a61-8b25-55f1f8a0b001", 61_000)),
            ],
        ),
    ]
}

fn settling() -> Vec<Case> {
    vec![
        case(
            "a recording goes through its phases",
            vec![
                recording("started", 0),
                recording("completed", 60_000),
                recording("deleted", 90_000),
            ],
        ),
        case(
            "a recording is seen completed before it is seen started",
            vec![recording("completed", 60_000), recording("started", 0)],
        ),
        case(
            "a recording is seen deleted before it is seen completed",
            vec![
                recording("started", 0),
                recording("deleted", 90_000),
                recording("completed", 60_000),
            ],
        ),
        case(
            "a recording fails and is completed after all",
            vec![
                recording("started", 0),
                recording("error", 30_000),
                recording("completed", 60_000),
                recording("error", 31_000),
            ],
        ),
        case(
            "of several events of a phase the earliest time counts",
            vec![
                recording("completed", 62_000),
                recording("completed", 60_000),
                recording("completed", 61_000),
            ],
        ),
        case(
            "a media asset is seen completed before it is seen processing, and goes",
            vec![
                media("completed", ASSET, 60_000),
                media("processing", ASSET, 0),
                media("deleted", ASSET, 90_000),
                media("completed", ASSET, 60_000),
            ],
        ),
        case(
            "of two media assets one fails",
            vec![
                media("processing", ASSET, 0),
                media("processing", "0123456789abcdef0123456789abcdef", 100),
                media("errored", ASSET, 10_000),
                media("completed", "0123456789abcdef0123456789abcdef", 10_100),
            ],
        ),
    ]
}

fn latest() -> Vec<Case> {
    vec![
        case(
            "a transcoder is what its latest event says, not the last to arrive",
            vec![
                transcoder("stopped", 60_000),
                transcoder("active", 0),
                transcoder("active", 90_000),
                transcoder("deleted", 80_000),
                transcoder("deleted", 99_000),
            ],
        ),
        case(
            "of two events of the same time the one with the greater id wins",
            vec![
                with_id(transcoder("active", 0), 2),
                with_id(transcoder("stopped", 0), 1),
                with_id(transcoder("stopped", 0), 3),
                with_id(transcoder("deleted", 0), 2),
            ],
        ),
        case(
            "a status that stays the same tells nothing, and its time goes on",
            vec![
                viewers("viewerattempt", 0),
                viewers("viewerattempt", 10_000),
                viewers("firstviewerconnection", 5000),
                viewers("firstviewerconnection", 15_000),
                viewers("noactiveviewers", 90_000),
            ],
        ),
        case(
            "viewers of the same time, with different ids",
            vec![
                with_id(viewers("firstviewerconnection", 0), 9),
                with_id(viewers("noactiveviewers", 0), 7),
            ],
        ),
    ]
}

fn streams() -> Vec<Case> {
    const OTHER: &str = "ZG6NWV/other_stream";
    const NAMED: &str = "ZG6NWV/Bühne 1/日本 😀";
    let mut unknown = feed("started", FEED, 2000);
    unknown["type"] = json!("com.millicast.feeds.paused");
    let mut newer = feed("started", BACKUP, 3000);
    newer["type"] = json!("com.millicast.billing.started");
    let mut thumbnail = feed("started", BACKUP, 4000);
    thumbnail["type"] = json!("com.millicast.thumbnail.captured");
    thumbnail.as_object_mut().unwrap().remove("data");
    let mut nameless = recording("started", 5000);
    nameless["data"].as_object_mut().unwrap().remove("recordFileId");
    vec![
        case(
            "two streams interleave and have nothing to do with each other",
            vec![
                of(STREAM, feed("started", FEED, 0)),
                of(OTHER, feed("ended", BACKUP, 10_000)),
                of(STREAM, feed("ended", FEED, 20_000)),
                of(OTHER, feed("started", BACKUP, 1000)),
                of(OTHER, feed("started", "a0c7c9a4-2f0e-4a61-8b25-55f1f8a0b002", 30_000)),
            ],
        ),
        case(
            "kinds and events that are not known, pictures and missing ids change nothing",
            vec![feed("started", FEED, 0), unknown, newer, thumbnail, nameless],
        ),
        case(
            "a name with a slash, spaces and characters outside ASCII",
            vec![
                of(NAMED, feed("started", FEED, 0)),
                of(NAMED, feed("ended", FEED, 60_000)),
            ],
        ),
        case(
            "an afternoon, out of order",
            vec![
                transcoder("stopped", 3_600_000),
                viewers("firstviewerconnection", 4000),
                recording("completed", 62_000),
                feed("ended", FEED, 60_000),
                viewers("viewerattempt", 1000),
                feed("started", FEED, 2000),
                feed("started", BACKUP, 58_000),
                transcoder("active", 1500),
                recording("started", 2500),
                viewers("noactiveviewers", 120_000),
                feed("ended", BACKUP, 61_000),
                media("completed", ASSET, 65_000),
                media("processing", ASSET, 61_500),
                recording("deleted", 86_400_000),
            ],
        ),
    ]
}

fn feed(event: &str, feed: &str, ms: i64) -> Value {
    let mut made = envelope("feeds", event, STREAM, ms, feed);
    let at = if event == "started" { "startedAt" } else { "endedAt" };
    made["feedid"] = json!(feed);
    made["data"] = json!({
        "streamId": STREAM, "accountId": "ZG6NWV", "streamName": "sample_stream", "feedId": feed,
        "active": event == "started", at: made["time"],
    });
    made
}

fn recording(event: &str, ms: i64) -> Value {
    let mut made = envelope("recordings", event, STREAM, ms, "");
    made["data"] = json!({ "recordFileId": RECORDING, "tokenId": 4711, "streamName": "sample_stream" });
    made
}

fn media(event: &str, asset: &str, ms: i64) -> Value {
    let mut made = envelope("media", event, STREAM, ms, asset);
    made["data"] = json!({
        "mediaAssetId": asset, "type": "clip", "streamId": STREAM, "accountId": "ZG6NWV", "streamName": "sample_stream", "tokenId": 4711,
    });
    made
}

fn transcoder(event: &str, ms: i64) -> Value {
    let mut made = envelope("transcoder", event, TRANSCODER, ms, "");
    made.as_object_mut().unwrap().remove("streamname");
    made["data"] = json!({ "transcoderId": TRANSCODER, "transcoderName": "sample_transcoder", "cluster": "phx-1" });
    made
}

fn viewers(event: &str, ms: i64) -> Value {
    let mut made = envelope("viewerconnection", event, STREAM, ms, "");
    made["data"] = json!({ "streamId": STREAM, "accountId": "ZG6NWV", "streamName": "sample_stream" });
    made
}

/// An event `ms` milliseconds into the afternoon. What differs in anything has another id.
fn envelope(kind: &str, event: &str, key: &str, ms: i64, subject: &str) -> Value {
    let time = |ms: i64| Time(1_638_463_486_359 + ms).to_rfc3339();
    // FNV-1a, which is the same with every version of Rust.
    let id = format!("{kind} {event} {ms} {subject}")
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let made = json!({
        "specversion": "1.0", "source": "//millicast.com/accounts/ZG6NWV", "type": format!("com.millicast.{kind}.{event}"),
        "subject": key, "time": time(ms), "datacontenttype": "application/json", "partitionkey": key, "replica": "forebay-0",
        "endpoint": "acme", "account": "ZG6NWV", "streamname": "sample_stream", "senttime": time(ms + 130),
        "recordedtime": time(ms + 150),
    });
    with_id(made, id)
}

fn with_id(mut event: Value, id: u64) -> Value {
    event["id"] = json!(format!(
        "{:08x}-{:04x}-5000-8000-{:012x}",
        id >> 32,
        id >> 16 & 0xffff,
        id & 0xffff
    ));
    event
}

fn elsewhere(mut event: Value) -> Value {
    event["replica"] = json!("forebay-1");
    event
}

fn of(key: &str, mut event: Value) -> Value {
    let (_, name) = key.split_once('/').unwrap();
    for attribute in ["subject", "partitionkey"] {
        event[attribute] = json!(key);
    }
    event["streamname"] = json!(name);
    event["data"]["streamId"] = json!(key);
    event["data"]["streamName"] = json!(name);
    event
}

/// Gives each event its place in the spool of its replica. What comes again has the place that it had.
fn number(events: &mut [Value]) {
    let mut places: HashMap<String, HashMap<String, usize>> = HashMap::new();
    for event in events {
        let text = |name: &str| event[name].as_str().unwrap().to_owned();
        let places = places.entry(text("replica")).or_default();
        let next = places.len() + 41;
        let place = *places.entry(text("id")).or_insert(next);
        event["replicasequence"] = json!(format!("{place:020}"));
    }
}
