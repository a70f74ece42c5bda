//! What is read of an event; grace, forgetting, and many streams.

use serde_json::json;

use crate::{
    Change, MediaPhase, ParseError, RecordingPhase, Stream, StreamEvent, Streams, TranscoderStatus, Transition,
    ViewersStatus,
};
use forebay_event::Time;

const KEY: &str = "ZG6NWV/sample_stream";

fn feed(event: &str, feed: &str, ms: i64) -> StreamEvent {
    let feed = feed.to_owned();
    StreamEvent {
        id: format!("{event} {feed} {ms}"),
        key: KEY.to_owned(),
        time: Time(ms),
        change: match event {
            "started" => Change::FeedStarted { feed },
            _ => Change::FeedEnded { feed },
        },
    }
}

fn types(transitions: &[Transition]) -> Vec<String> {
    let types = transitions
        .iter()
        .map(|transition| json!(transition)["type"].to_string());
    types.map(|type_| type_.trim_matches('"').to_owned()).collect()
}

#[test]
fn structured_and_binary_events_are_read_alike() {
    let recording = |id: serde_json::Value| json!({ "recordFileId": id });
    let completed = |recording: &str| Change::Recording {
        recording: recording.to_owned(),
        phase: RecordingPhase::Completed,
    };
    for (type_, feed, data, expected) in [
        (
            "com.millicast.feeds.started",
            Some("f"),
            json!({}),
            Change::FeedStarted { feed: "f".to_owned() },
        ),
        (
            "com.millicast.feeds.ended",
            Some("f"),
            json!(null),
            Change::FeedEnded { feed: "f".to_owned() },
        ),
        ("com.millicast.feeds.ended", None, json!({}), Change::None),
        ("com.millicast.feeds.paused", Some("f"), json!({}), Change::None),
        (
            "com.millicast.recordings.completed",
            None,
            recording(json!(1_000_001)),
            completed("1000001"),
        ),
        (
            "com.millicast.recordings.completed",
            None,
            recording(json!("a\"b\u{e9}")),
            completed("a\"b\u{e9}"),
        ),
        (
            "com.millicast.recordings.completed",
            None,
            recording(json!(null)),
            Change::None,
        ),
        (
            "com.millicast.recordings.completed",
            None,
            recording(json!([1])),
            Change::None,
        ),
        (
            "com.millicast.recordings.completed",
            None,
            json!([recording(json!(1))]),
            Change::None,
        ),
        ("com.millicast.recordings.new", None, recording(json!(1)), Change::None),
        (
            "com.millicast.media.errored",
            None,
            json!({ "mediaAssetId": "m", "metadata": { "mediaAssetId": "other" } }),
            Change::Media {
                media: "m".to_owned(),
                phase: MediaPhase::Errored,
            },
        ),
        (
            "com.millicast.transcoder.stopped",
            None,
            json!({ "transcoderId": "t" }),
            Change::Transcoder {
                transcoder: "t".to_owned(),
                status: TranscoderStatus::Stopped,
            },
        ),
        (
            "com.millicast.viewerconnection.noactiveviewers",
            None,
            json!({}),
            Change::Viewers {
                status: ViewersStatus::NoActiveViewers,
            },
        ),
        ("com.millicast.thumbnail.captured", Some("f"), json!({}), Change::None),
        ("com.millicast.unreadable", None, json!({}), Change::None),
        ("unreadable", None, json!({}), Change::None),
    ] {
        let mut event = json!({
            "specversion": "1.0", "id": "1", "type": type_, "time": "2021-12-02T16:44:46.359Z", "partitionkey": KEY, "data": data, "new": [1],
        });
        if let Some(feed) = feed {
            event["feedid"] = json!(feed);
        }
        let structured = StreamEvent::from_structured(event.to_string().as_bytes()).unwrap();
        let expected = StreamEvent {
            id: "1".to_owned(),
            key: KEY.to_owned(),
            time: Time(1_638_463_486_359),
            change: expected,
        };
        assert_eq!(structured, expected, "{event}");
        for prefix in ["", "ce_", "cloudEvents:", "cloudEvents_"] {
            let texts = event.as_object().unwrap().iter().filter_map(|(name, value)| {
                let value = value.as_str()?;
                Some((format!("{prefix}{name}"), value))
            });
            let attributes: Vec<_> = texts.collect();
            let attributes = attributes.iter().map(|(name, value)| (name.as_str(), *value));
            let binary = StreamEvent::from_binary(attributes, data.to_string().as_bytes()).unwrap();
            assert_eq!(binary, expected, "{prefix}: {event}");
        }
    }
}

#[test]
fn what_is_no_event_is_told_and_not_taken_for_one() {
    let parse = |text: &str| StreamEvent::from_structured(text.as_bytes());
    let sound = r#"{"id":"1","type":"com.millicast.feeds.started","time":"2021-12-02T16:44:46.359Z","partitionkey":"A/s","feedid":"f"}"#;
    assert!(parse(sound).is_ok());
    for text in ["", "[]", "{", "\u{0}", r#"{"id":1}"#] {
        assert!(matches!(parse(text), Err(ParseError::Json(_))), "{text:?}");
    }
    for name in ["id", "type", "time", "partitionkey"] {
        let without = sound.replace(&format!("\"{name}\":"), "\"other\":");
        assert!(matches!(parse(&without), Err(ParseError::Missing(missing)) if missing == name));
    }
    let no_time = sound.replace("2021-12-02T16:44:46.359Z", "1638463486359");
    assert!(matches!(parse(&no_time), Err(ParseError::Time(_))));
    // Half of a surrogate pair, which a payload may have, is no reason to lose the event.
    let odd = sound.replace(r#""feedid""#, r#""data":{"name":"\ud800"},"feedid""#);
    assert_eq!(parse(&odd).unwrap(), parse(sound).unwrap());
}

#[test]
fn an_encoder_that_reconnects_within_the_grace_time_does_not_take_the_stream_offline() {
    let mut stream = Stream::default();
    let mut apply = |event, ms: i64| types(&stream.apply_with_grace(&event, Time(ms + 5000)));
    assert_eq!(apply(feed("started", "a", 0), 0), ["FeedStarted", "WentLive"]);
    assert_eq!(apply(feed("ended", "a", 1000), 1000), ["FeedEnded"]);
    assert_eq!(apply(feed("started", "b", 3000), 3000), ["FeedStarted"]);
    assert_eq!(apply(feed("ended", "b", 4000), 4000), ["FeedEnded"]);
    // What is held back survives the process.
    let text = serde_json::to_string(&stream).unwrap();
    assert!(text.contains(r#""offlineDue":"1970-01-01T00:00:09.000Z""#), "{text}");
    let mut stream: Stream = serde_json::from_str(&text).unwrap();
    assert_eq!((stream.is_live(), stream.due_at()), (false, Some(Time(9000))));
    assert_eq!(stream.due(KEY, Time(8999)), None);
    assert_eq!(
        stream.due(KEY, Time(9000)),
        Some(Transition::WentOffline { key: KEY.to_owned() })
    );
    assert_eq!(stream.due(KEY, Time(9001)), None);
    let after = types(&stream.apply(&feed("started", "c", 10_000)));
    assert_eq!(after, ["FeedStarted", "WentLive"]);
}

#[test]
fn a_merge_takes_back_what_was_held_back_and_does_not_take_over_what_another_holds_back() {
    let mut held = Stream::default();
    held.apply(&feed("started", "a", 0));
    held.apply_with_grace(&feed("ended", "a", 1000), Time(6000));
    let mut fresh = Stream::default();
    assert_eq!(types(&fresh.merge_with_grace(KEY, &held, Time(7000))), ["FeedEnded"]);
    assert_eq!(fresh.due_at(), None);
    let mut live = Stream::default();
    live.apply(&feed("started", "b", 2000));
    assert_eq!(types(&held.merge(KEY, &live)), ["FeedStarted"]);
    assert_eq!((held.is_live(), held.due_at()), (true, None));
    assert_eq!(types(&live.merge_with_grace(KEY, &held, Time(7000))), ["FeedEnded"]);
}

#[test]
fn what_ended_or_settled_is_forgotten_and_what_is_under_way_is_not() {
    let stored = json!({
        "feeds": {
            "old": { "startedAt": at(0), "endedAt": at(9) }, "ended first": { "endedAt": at(9) },
            "new": { "startedAt": at(0), "endedAt": at(10) }, "open": { "startedAt": at(0) },
        },
        "recordings": {
            "1": { "phase": "started", "at": at(0) }, "2": { "phase": "completed", "at": at(9) },
            "3": { "phase": "error", "at": at(9) }, "4": { "phase": "deleted", "at": at(10) },
        },
        "media": { "1": { "phase": "processing", "at": at(0) }, "2": { "phase": "deleted", "at": at(9) } },
        "transcoders": {
            "1": { "status": "stopped", "at": at(0), "id": "1" }, "2": { "status": "deleted", "at": at(9), "id": "1" },
        },
        "viewers": { "status": "noactiveviewers", "at": at(0), "id": "1" },
    });
    let mut stream: Stream = serde_json::from_value(stored.clone()).unwrap();
    assert_eq!(json!(stream), stored);
    stream.forget(Time(10));
    let mut expected = stored;
    for (member, ids) in [
        ("feeds", &["old", "ended first"][..]),
        ("recordings", &["2", "3"]),
        ("media", &["2"]),
        ("transcoders", &["2"]),
    ] {
        for id in ids {
            expected[member].as_object_mut().unwrap().remove(*id);
        }
    }
    assert_eq!(json!(stream), expected);
    assert!(stream.is_live());
}

fn at(ms: i64) -> String {
    Time(ms).to_rfc3339()
}

#[test]
fn streams_are_kept_apart_stored_together_and_go_when_nothing_is_left_to_know() {
    let mut streams = Streams::default();
    let mut other = feed("started", "a", 0);
    other.key = "A/other".to_owned();
    assert_eq!(
        types(&streams.apply(&feed("started", "a", 0))),
        ["FeedStarted", "WentLive"]
    );
    assert_eq!(types(&streams.apply(&other)), ["FeedStarted", "WentLive"]);
    other.change = Change::None;
    other.key = "A/picture".to_owned();
    assert!(streams.apply(&other).is_empty());
    assert_eq!(streams.len(), 2);

    let mut read: Streams = serde_json::from_value(json!(streams)).unwrap();
    assert_eq!(read, streams);
    assert!(read.merge(&streams).is_empty());
    let ended = feed("ended", "a", 1000);
    assert_eq!(types(&read.apply_with_grace(&ended, Time(6000))), ["FeedEnded"]);
    read.forget(Time(2000));
    assert_eq!(read.len(), 2, "one is live, the other has something to tell");
    let due = read.due(Time(6000));
    assert_eq!((types(&due), due[0].key()), (vec!["WentOffline".to_owned()], KEY));
    read.forget(Time(2000));
    assert_eq!((read.len(), read.get(KEY)), (1, None));
}
