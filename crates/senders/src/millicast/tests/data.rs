use super::*;

#[test]
fn data_is_normalised_in_every_kind() {
    for (kind, data, expected) in [
        (
            "feeds",
            r#"{"active":false,"ended":1638463486359,"name":"s","priority":1.50,"simulcastId":"","streamId":"A/s"}"#,
            r#"{"streamId":"A/s","accountId":"A","streamName":"s","endedAt":"2021-12-02T16:44:46.359Z","active":false,"priority":1.50,"simulcastId":""}"#,
        ),
        (
            "viewerConnection",
            r#"{"name":"a/b","accountId":"A","streamId":"A/a/b"}"#,
            r#"{"streamId":"A/a/b","accountId":"A","streamName":"a/b"}"#,
        ),
        (
            "recordings",
            r#"{"recordFileId":12345678901234567890,"streamName":"s","recordedOn":1638463486,"removedOn":"1638463486359"}"#,
            r#"{"streamName":"s","recordedAt":"2021-12-02T16:44:46.000Z","removedAt":"2021-12-02T16:44:46.359Z","recordFileId":12345678901234567890}"#,
        ),
        (
            "media",
            r#"{"mediaAssetId":"m","startTime":1638463486359,"expiration":1638463486359,"streamId":"A/s","metadata":{ }}"#,
            r#"{"streamId":"A/s","accountId":"A","streamName":"s","startedAt":"2021-12-02T16:44:46.359Z","expiresAt":"2021-12-02T16:44:46.359Z","mediaAssetId":"m","metadata":{ }}"#,
        ),
        (
            "transcoder",
            r#"{"transcoderId":"t","transcoderName":"n","createdOn":"2021-12-02T17:44:46+01:00"}"#,
            r#"{"createdAt":"2021-12-02T16:44:46.000Z","transcoderId":"t","transcoderName":"n"}"#,
        ),
        // What cannot be renamed without losing something keeps its name.
        (
            "transcoder",
            r#"{"createdOn":"last week"}"#,
            r#"{"createdOn":"last week"}"#,
        ),
        (
            "feeds",
            r#"{"started":1e300,"ended":null}"#,
            r#"{"started":1e300,"ended":null}"#,
        ),
        (
            "feeds",
            r#"{"name":"a","streamName":"b"}"#,
            r#"{"streamName":"b","name":"a"}"#,
        ),
        ("feeds", r#"{"name":"a","name":"b"}"#, r#"{"name":"a","name":"b"}"#),
        (
            "feeds",
            r#"{"name":null,"streamId":"A/s"}"#,
            r#"{"streamId":"A/s","accountId":"A","streamName":"s","name":null}"#,
        ),
        ("feeds", r#"{"n\u0061me":"\ud800x"}"#, r#"{"streamName":"\ufffdx"}"#),
        // Not ours to touch.
        (
            "billing",
            r#"{"started":1638463486359,"name":"a"}"#,
            r#"{"started":1638463486359,"name":"a"}"#,
        ),
        ("billing", "[1, 2.0]", "[1, 2.0]"),
        (
            "billing",
            r#"["\ud800", "\ud83d\ude00"]"#,
            r#"["\ufffd", "\ud83d\ude00"]"#,
        ),
        ("feeds", "null", "null"),
    ] {
        let body = format!(r#"{{"type":"{kind}","event":"x","timestamp":1638463486489,"data":{data}}}"#);
        assert_eq!(normalized(&post_json(&receiver(), &body)), expected, "{body}");
    }
}

#[test]
fn what_the_envelope_holds_and_no_attribute_carries_is_kept() {
    for (body, expected) in [
        (r#"{"type":"feeds","event":"x"}"#, r#"{}"#),
        (
            r#"{"type":"feeds","event":"x","timestamp":1,"data":{"a":1},"hook":1.0}"#,
            r#"{"a":1,"envelope":{"hook":1.0}}"#,
        ),
        (
            r#"{"type":"new","event":"x","hook":1,"data":{"envelope":2}}"#,
            r#"{"envelope":2,"envelope_":{"hook":1}}"#,
        ),
        (
            r#"{"type":"new","event":"x","hook":1,"data":[2]}"#,
            r#"{"data":[2],"envelope":{"hook":1}}"#,
        ),
        (
            r#"{"type":"n w","event":"X","timestamp":"?"}"#,
            r#"{"envelope":{"type":"n w","timestamp":"?"}}"#,
        ),
        (
            r#"{"type":"old","type":"feeds","event":"x"}"#,
            r#"{"envelope":{"type":"old"}}"#,
        ),
    ] {
        assert_eq!(normalized(&post_json(&receiver(), body)), expected, "{body}");
    }
}

#[test]
fn of_several_members_with_a_name_the_last_is_still_the_last() {
    for (data, expected) in [
        (
            r#"{"x":1,"streamId":"A/s","feedId":1,"streamId":"B/t","feedId":2}"#,
            r#"{"streamId":"A/s","accountId":"B","streamName":"t","feedId":1,"x":1,"streamId":"B/t","feedId":2}"#,
        ),
        (r#"{"started":1,"started":2}"#, r#"{"started":1,"started":2}"#),
        (
            r#"{"envelope__":1,"envelope":2,"envelopes":3}"#,
            r#"{"envelope__":1,"envelope":2,"envelopes":3,"envelope___":{"hook":1}}"#,
        ),
    ] {
        let hook = if data.contains("envelope") { r#","hook":1"# } else { "" };
        let body = format!(r#"{{"type":"feeds","event":"x","timestamp":1638463486489,"data":{data}{hook}}}"#);
        assert_eq!(normalized(&post_json(&receiver(), &body)), expected, "{body}");
    }
}

#[test]
fn data_of_an_unknown_kind_is_not_copied() {
    let event = post_json(
        &receiver(),
        r#"{"type":"new","event":"x","timestamp":1,"data": [1, 2] }"#,
    );
    let EventData::Json(json) = data(&event, RoutePayload::Normalized) else {
        panic!("no JSON")
    };
    assert_eq!(json, "[1, 2]");
    assert!(event.body.as_ptr_range().contains(&json.as_ptr()));
}
