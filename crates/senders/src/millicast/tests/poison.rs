//! What a consumer's parser would stumble over.

use super::*;

#[test]
fn an_unsigned_content_type_is_never_a_trap() {
    const OTHER: &str = "application/octet-stream";
    let long = format!("a/{}", "b".repeat(2000));
    for (sent, expected) in [
        (None, OTHER),
        (Some(""), OTHER),
        (Some(OTHER), OTHER),
        (Some("text/plain"), "text/plain"),
        (Some("text/plain; charset=utf-8"), "text/plain; charset=utf-8"),
        (Some("application/cloudevents+json"), OTHER),
        (Some("Application/CloudEvents-Batch+json; charset=utf-8"), OTHER),
        (Some("application/json"), OTHER),
        (Some("application/problem+JSON ; a=b"), OTHER),
        (Some("garbage"), OTHER),
        (Some("é/ü"), OTHER),
        (Some("text/html\t;x"), OTHER),
        (Some(long.as_str()), OTHER),
    ] {
        let headers: Vec<(&'static str, &[u8])> = sent.iter().map(|sent| ("Content-Type", sent.as_bytes())).collect();
        let event = post(&receiver(), &headers, b"?");
        check(&event);
        let json: Value = serde_json::from_slice(&structured(&event, RoutePayload::Normalized)).unwrap();
        assert_eq!(json["datacontenttype"], expected, "{sent:?}");
        let claimed = sent.filter(|sent| *sent != expected && !sent.is_empty());
        let claimed = claimed.map(|claimed| text::attribute(claimed).into_owned());
        let attribute = json.get("contenttypeclaimed").and_then(Value::as_str);
        assert_eq!(attribute, claimed.as_deref(), "{sent:?}");

        let stamp = EventStamp {
            provider: &PROVIDER,
            sequence: 1,
            replica: "r",
            again: None,
        };
        let binary = render::render(&event, stamp, RenderMode::Binary, data(&event, RoutePayload::Original));
        assert_eq!(binary.content_type, expected, "{sent:?}");
        let mut headers = binary.attributes.into_iter();
        let header = headers.find(|(name, _)| *name == "contenttypeclaimed");
        assert_eq!(header.map(|(_, value)| value), claimed, "{sent:?}");
    }
}

/// Each where any JSON may stand.
#[test]
fn what_a_parser_refuses_makes_a_body_unreadable() {
    let nested = "[".repeat(200) + &"]".repeat(200);
    let (digits, name) = ("9".repeat(5000), format!("{{\"{}\":1}}", "n".repeat(50_001)));
    for poison in [nested.as_str(), &digits, "1e999", "-1E400", "NaN", &name] {
        for (before, after) in [
            (
                r#"{"type":"feeds","event":"started","data":{"streamId":"A/s","x":"#,
                "}}",
            ),
            (r#"{"type":"feeds","event":"started","data":"#, "}"),
            (r#"{"type":"feeds","event":"started","timestamp":"#, r#","data":{}}"#),
            (r#"{"x":"#, r#","type":"feeds","event":"started","data":{}}"#),
            (r#"{"type":"#, r#","type":"feeds","event":"started"}"#),
        ] {
            let body = format!("{before}{poison}{after}");
            let event = post_json(&receiver(), &body);
            assert_eq!(
                event.type_(&PROVIDER),
                "com.millicast.unreadable",
                "{before}{}",
                &poison[..3]
            );
            assert_eq!(event.body, body);
            check(&event);
        }
    }
}

#[test]
fn data_that_base64_would_make_too_long_is_binary() {
    let stamp = EventStamp {
        provider: &PROVIDER,
        sequence: 1,
        replica: "r",
        again: None,
    };
    for (more, is_binary) in [(0, false), (1, true)] {
        let body = vec![b'x'; render::DATA_BASE64_BYTES_MAX + more];
        let event = post(&receiver(), &[], &body);
        let rendered = render::render(
            &event,
            stamp,
            RenderMode::Structured,
            data(&event, RoutePayload::Normalized),
        );
        assert_eq!(!rendered.attributes.is_empty(), is_binary, "{more}");
    }
}

#[test]
fn no_attribute_is_blank_or_too_long() {
    let long = "é".repeat(2000);
    for data in [
        r#"{"transcoderId":" "}"#.to_owned(),
        r#"{"accountId":"\u00a0","streamName":"\t"}"#.to_owned(),
        format!(r#"{{"accountId":"{long}","streamId":"{long}/{long}","feedId":"{long}"}}"#),
    ] {
        check(&post_json(
            &receiver(),
            &format!(r#"{{"type":"new","event":"x","data":{data}}}"#),
        ));
    }
}

/// A time that no calendar has is none, and the data keeps it as it came.
#[test]
fn a_time_outside_the_calendars_is_no_time() {
    for ms in ["-62167219200000", "-62135596800001", "253402300800000"] {
        let body = FEEDS.replace("1638463486359", ms).replace("1638463486489", ms);
        let event = post_json(&receiver(), &body);
        assert_eq!((event.time, event.sent), (RECEIVED, None), "{ms}");
        assert!(normalized(&event).contains(&format!(r#""started":{ms}"#)), "{ms}");
    }
}
