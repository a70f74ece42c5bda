use serde_json::{Value, json};

use super::*;

/// The rows of the provider's table, and every contradiction between its sources.
#[test]
fn every_kind_and_event_is_understood_as_documented() {
    const SENT: &str = "2021-12-02T16:44:46.489Z";
    let sent = 1_638_463_486_489_i64;
    let early = 1_638_463_486_000_i64;
    const EARLY: &str = "2021-12-02T16:44:46.000Z";
    let feed = |more: Value| {
        let mut data = json!({"feedId": "f-1", "accountId": "A", "name": "s", "streamId": "A/s"});
        data.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        data
    };
    let viewer = json!({"name": "s", "accountId": "A", "streamId": "A/s"});
    let recording = json!({"recordFileId": 1, "tokenId": 2, "streamName": "s", "recordedOn": early});
    let asset = json!({"mediaAssetId": "m", "type": "clip", "startTime": early, "streamId": "A/s", "streamName": "s"});
    let transcoder = json!({"transcoderId": "t-1", "transcoderName": "n", "createdOn": "2021-12-02T16:44:46Z"});
    // type, event, data; then type, key, time
    let table: Vec<(&str, &str, Value, &str, &str, &str)> = vec![
        (
            "feeds",
            "started",
            feed(json!({"started": early, "active": true})),
            "feeds.started",
            "A/s",
            EARLY,
        ),
        (
            "feeds",
            "ended",
            feed(json!({"started": 1, "ended": early})),
            "feeds.ended",
            "A/s",
            EARLY,
        ),
        (
            "feeds",
            "ended",
            feed(json!({"ended": early})),
            "feeds.ended",
            "A/s",
            EARLY,
        ),
        (
            "feeds",
            "ended",
            feed(json!({"started": early})),
            "feeds.ended",
            "A/s",
            SENT,
        ),
        (
            "feeds",
            "started",
            feed(json!({"ended": early})),
            "feeds.started",
            "A/s",
            SENT,
        ),
        (
            "feeds",
            "started",
            feed(json!({"started": 1e300})),
            "feeds.started",
            "A/s",
            SENT,
        ),
        (
            "feeds",
            "paused",
            feed(json!({"started": early})),
            "feeds.paused",
            "A/s",
            SENT,
        ),
        (
            "Feeds",
            "STARTED",
            feed(json!({"started": 1_638_463_486})),
            "feeds.started",
            "A/s",
            EARLY,
        ),
        ("media", "processing", asset.clone(), "media.processing", "A/s", SENT),
        ("media", "completed", asset.clone(), "media.completed", "A/s", SENT),
        (
            "media",
            "errored",
            json!({"channelId": "c-1"}),
            "media.errored",
            "c-1",
            SENT,
        ),
        (
            "media",
            "deleted",
            json!({"channelId": "c", "streamId": "A/s"}),
            "media.deleted",
            "A/s",
            SENT,
        ),
        (
            "transcoder",
            "ACTIVE",
            transcoder.clone(),
            "transcoder.active",
            "t-1",
            SENT,
        ),
        (
            "transcoder",
            "STOPPED",
            transcoder.clone(),
            "transcoder.stopped",
            "t-1",
            SENT,
        ),
        (
            "transcoder",
            "DELETED",
            transcoder.clone(),
            "transcoder.deleted",
            "t-1",
            SENT,
        ),
        (
            "transcoder",
            "ERROR",
            json!({"transcoderId": 7}),
            "transcoder.error",
            "7",
            SENT,
        ),
        (
            "viewerConnection",
            "ViewerAttempt",
            viewer.clone(),
            "viewerconnection.viewerattempt",
            "A/s",
            SENT,
        ),
        (
            "viewerConnection",
            "viewerAttempt",
            viewer.clone(),
            "viewerconnection.viewerattempt",
            "A/s",
            SENT,
        ),
        (
            "viewerconnection",
            "firstViewerConnection",
            viewer.clone(),
            "viewerconnection.firstviewerconnection",
            "A/s",
            SENT,
        ),
        (
            "ViewerConnection",
            "NoActiveViewers",
            viewer,
            "viewerconnection.noactiveviewers",
            "A/s",
            SENT,
        ),
        (
            "recordings",
            "started",
            recording.clone(),
            "recordings.started",
            "unknown/s",
            SENT,
        ),
        (
            "recording",
            "completed",
            recording.clone(),
            "recordings.completed",
            "unknown/s",
            SENT,
        ),
        ("Recording", "error", recording, "recordings.error", "unknown/s", SENT),
        (
            "recordings",
            "deleted",
            json!({"streamName": "s", "removedOn": early}),
            "recordings.deleted",
            "unknown/s",
            EARLY,
        ),
        (
            "recordings",
            "deleted",
            json!({"streamName": "s"}),
            "recordings.deleted",
            "unknown/s",
            SENT,
        ),
        (
            "Billing v2",
            "über_limit!",
            json!({"accountId": "A"}),
            "billing-v2.-ber-limit-",
            "A",
            SENT,
        ),
        ("new", "", json!({}), "new.unknown", "acme", SENT),
        ("", "x", json!([1]), "unknown.x", "acme", SENT),
        ("new", "x", json!({"streamId": "A/s/t"}), "new.x", "A/s/t", SENT),
        (
            "new",
            "x",
            json!({"streamId": "s", "accountId": "A"}),
            "new.x",
            "A/s",
            SENT,
        ),
        ("new", "x", json!({"streamId": "/s/t"}), "new.x", "unknown/s/t", SENT),
        ("new", "x", json!({"streamId": "A/"}), "new.x", "A", SENT),
        (
            "new",
            "x",
            json!({"streamId": "", "streamName": ""}),
            "new.x",
            "acme",
            SENT,
        ),
        ("new", "x", json!({"streamId": "A/a\nb"}), "new.x", "A/a\u{FFFD}b", SENT),
    ];
    for (kind, name, data, type_, key, time_) in table {
        let body = json!({"type": kind, "event": name, "timestamp": sent, "data": data}).to_string();
        let event = post_json(&receiver(), &body);
        let actual = (event.type_(&PROVIDER), event.key.as_str(), event.time.to_rfc3339());
        assert_eq!(
            actual,
            (format!("com.millicast.{type_}"), key, time_.to_owned()),
            "{body}"
        );
        assert_eq!(event.sent, Some(time(SENT)), "{body}");
        assert_eq!((event.content, event.recorded), (Content::Json, RECEIVED), "{body}");
    }
}
