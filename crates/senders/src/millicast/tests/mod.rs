mod accounts;
mod data;
mod poison;
mod properties;
mod table;

use serde_json::Value;

use super::*;
use crate::{EndpointAccounts, EndpointReceiver, RoutePayload, data};
use forebay_event::{
    EventDecodeError,
    render::{self, EventData, EventStamp, RenderMode},
};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const FEEDS: &str = r#"{"type":"feeds","event":"started","timestamp":1638463486489,"data":{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","accountId":"ZG6NWV","name":"sample_stream","streamId":"ZG6NWV/sample_stream","started":1638463486359,"active":true}}"#;
const RECEIVED: Time = Time(1_700_000_000_000);

pub struct Given(Vec<(&'static str, Vec<u8>)>);

impl HeaderLookup for Given {
    fn value(&self, name: &str) -> Option<&[u8]> {
        self.0
            .iter()
            .find(|(given, _)| given.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_slice())
    }
}

fn secret() -> Secret {
    Secret::from_base64(SECRET).unwrap()
}

fn receiver() -> EndpointReceiver {
    EndpointReceiver::new(&Millicast, "acme", None, vec![secret()])
}

fn post(receiver: &EndpointReceiver, headers: &[(&'static str, &[u8])], body: &[u8]) -> Event {
    let mut given: Vec<_> = headers.iter().map(|(name, value)| (*name, value.to_vec())).collect();
    given.push(("x-millicast-signature", signature::sign(&secret(), body).into_bytes()));
    let (headers, body) = (Given(given), Bytes::copy_from_slice(body));
    let verified = receiver.verify(UnverifiedRequest {
        headers: &headers,
        body,
        received: RECEIVED,
    });
    receiver.event(verified.expect("it is signed"))
}

fn post_json(receiver: &EndpointReceiver, body: &str) -> Event {
    post(receiver, &[("Content-Type", b"application/json")], body.as_bytes())
}

fn structured(event: &Event, payload: RoutePayload) -> Vec<u8> {
    let stamp = EventStamp {
        provider: &PROVIDER,
        sequence: 42,
        replica: "forebay-0",
        again: None,
    };
    let rendered = render::render(event, stamp, RenderMode::Structured, data(event, payload));
    assert_eq!(rendered.content_type, "application/cloudevents+json; charset=UTF-8");
    assert!(rendered.attributes.is_empty());
    rendered.body.to_vec()
}

fn normalized(event: &Event) -> String {
    match data(event, RoutePayload::Normalized) {
        EventData::Json(json) => String::from_utf8(json.to_vec()).unwrap(),
        EventData::Binary(bytes) => panic!("no JSON: {bytes:?}"),
    }
}

/// Asserts all that holds of an event whatever the request was.
fn check(event: &Event) {
    assert_eq!(
        Event::decode(&event.encode()).as_ref(),
        Ok::<_, &EventDecodeError>(event)
    );
    assert!(!event.key.is_empty() && event.key.len() <= text::ATTRIBUTE_BYTES_MAX);
    for payload in [RoutePayload::Normalized, RoutePayload::Original] {
        let stamp = EventStamp {
            provider: &PROVIDER,
            sequence: u64::MAX,
            replica: "r",
            again: None,
        };
        for mode in [RenderMode::Structured, RenderMode::Binary] {
            let rendered = render::render(event, stamp, mode, data(event, payload));
            if rendered.attributes.is_empty() {
                let json: Value = parse(&rendered.body);
                for required in [
                    "specversion",
                    "id",
                    "source",
                    "type",
                    "time",
                    "partitionkey",
                    "replicasequence",
                    "recordedtime",
                ] {
                    assert!(
                        json[required].as_str().is_some_and(|text| !text.trim().is_empty()),
                        "{required}"
                    );
                }
                let attributes = json.as_object().unwrap().iter();
                for (name, value) in attributes.filter(|(name, _)| !["data", "data_base64"].contains(&name.as_str())) {
                    assert!(
                        value
                            .as_str()
                            .is_none_or(|text| text.len() <= text::ATTRIBUTE_BYTES_MAX),
                        "{name}"
                    );
                }
            }
            for (name, value) in &rendered.attributes {
                assert!(value.len() <= text::ATTRIBUTE_BYTES_MAX, "{name}");
            }
            assert!(rendered.content_type.len() <= text::MEDIA_TYPE_BYTES_MAX);
        }
    }
}

/// Reads a structured event. Its data may hold half of a surrogate pair, which `serde_json` refuses.
fn parse(structured: &[u8]) -> Value {
    let text = str::from_utf8(structured).unwrap().replace("\\\\", "__");
    serde_json::from_str(&text.replace("\\ud", "\\u0").replace("\\uD", "\\u0")).expect("a structured event is JSON")
}

fn time(text: &str) -> Time {
    Time::parse(text).unwrap()
}

#[test]
fn the_first_feeds_event_becomes_the_documented_cloudevent() {
    let event = post_json(&receiver(), FEEDS);
    let expected = concat!(
        r#"{"specversion":"1.0","id":"ID","source":"//millicast.com/accounts/ZG6NWV","type":"com.millicast.feeds.started","#,
        r#""subject":"ZG6NWV/sample_stream","time":"2021-12-02T16:44:46.359Z","datacontenttype":"application/json","#,
        r#""partitionkey":"ZG6NWV/sample_stream","replicasequence":"00000000000000000042","replica":"forebay-0","endpoint":"acme","#,
        r#""account":"ZG6NWV","streamname":"sample_stream","feedid":"369e4a86-f937-4254-bd9f-99dc484d2bd6","#,
        r#""senttime":"2021-12-02T16:44:46.489Z","recordedtime":"2023-11-14T22:13:20.000Z","data":{"#,
        r#""streamId":"ZG6NWV/sample_stream","accountId":"ZG6NWV","streamName":"sample_stream","#,
        r#""feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","startedAt":"2021-12-02T16:44:46.359Z","active":true}}"#,
    );
    let actual = String::from_utf8(structured(&event, RoutePayload::Normalized)).unwrap();
    assert_eq!(actual, expected.replace("ID", &event.id.to_string()));
}

#[test]
fn an_original_payload_is_the_body_byte_for_byte() {
    let body = FEEDS.replace(":", " :\t");
    let event = post_json(&receiver(), &body);
    assert_eq!(
        data(&event, RoutePayload::Original),
        EventData::Json(body.clone().into())
    );
    assert!(structured(&event, RoutePayload::Original).ends_with(format!(",\"data\":{body}}}").as_bytes()));
}

#[test]
fn a_binary_event_has_its_attributes_beside_the_data() {
    let event = post_json(&receiver(), FEEDS);
    let stamp = EventStamp {
        provider: &PROVIDER,
        sequence: 7,
        replica: "r",
        again: None,
    };
    let rendered = render::render(&event, stamp, RenderMode::Binary, data(&event, RoutePayload::Original));
    assert_eq!(rendered.content_type, "application/json");
    assert_eq!(rendered.body, FEEDS);
    let names: Vec<_> = rendered.attributes.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names.join(" "),
        "specversion id source type subject time partitionkey replicasequence replica endpoint account streamname feedid \
         senttime recordedtime"
    );
    assert_eq!(
        rendered.attributes[7],
        ("replicasequence", "00000000000000000007".to_owned())
    );
}

#[test]
fn what_is_no_envelope_is_unreadable_and_kept_as_it_came() {
    for body in [
        &b""[..],
        b"hello",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"{\"type\":\"feeds\"}",
        b"{\"type\":1,\"event\":\"x\"}",
        b"{\"type\":\"a\",\"event\":null}",
    ] {
        let event = post(&receiver(), &[("content-type", b"text/plain; charset=x")], body);
        assert_eq!(event.type_(&PROVIDER), "com.millicast.unreadable");
        assert_eq!((event.key.as_str(), event.time, event.sent), ("acme", RECEIVED, None));
        assert_eq!(event.body, body);
        let json: Value = serde_json::from_slice(&structured(&event, RoutePayload::Normalized)).unwrap();
        assert_eq!(json["datacontenttype"], "text/plain; charset=x");
        use base64::Engine as _;
        let base64 = json["data_base64"].as_str().unwrap();
        assert_eq!(base64::engine::general_purpose::STANDARD.decode(base64).unwrap(), body);
    }
}

#[test]
fn a_picture_is_a_thumbnail_whose_headers_say_the_rest() {
    let headers: Vec<(&'static str, &[u8])> = vec![
        ("content-type", b"Image/JPEG; q=1"),
        ("X-MILLICAST-TIMESTAMP", b"1638463486359"),
        ("x-millicast-feed-id", b"f-1"),
        ("x-millicast-stream-id", "A/ü/b".as_bytes()),
        ("x-millicast-token-id", b"4711"),
    ];
    let body = b"\xff\xd8\xff\xe0";
    let event = post(&receiver(), &headers, body);
    assert_eq!(event.type_(&PROVIDER), "com.millicast.thumbnail.captured");
    assert_eq!((event.key.as_str(), event.account.as_deref()), ("A/ü/b", Some("A")));
    assert_eq!(
        (event.stream_name.as_deref(), event.feed_id.as_deref()),
        (Some("ü/b"), Some("f-1"))
    );
    assert_eq!(
        (event.token_id.as_deref(), event.time, event.sent),
        (Some("4711"), Time(1_638_463_486_359), None)
    );

    let stamp = EventStamp {
        provider: &PROVIDER,
        sequence: 1,
        replica: "r",
        again: None,
    };
    let rendered = render::render(
        &event,
        stamp,
        RenderMode::Structured,
        data(&event, RoutePayload::Normalized),
    );
    assert_eq!(
        (rendered.content_type.as_ref(), rendered.body.as_ref()),
        ("image/jpeg", &body[..])
    );
    assert!(rendered.attributes.contains(&("tokenid", "4711".to_owned())));

    assert_eq!(
        post(&receiver(), &[], body).content,
        Content::Jpeg,
        "a picture that does not say so is one all the same"
    );
}

#[test]
fn a_duplicate_has_the_same_id_and_nothing_else_has() {
    let id = |receiver: &EndpointReceiver, headers: &[(&'static str, &[u8])], body: &str| {
        post(receiver, headers, body.as_bytes()).id
    };
    let (acme, other) = (
        receiver(),
        EndpointReceiver::new(&Millicast, "other", None, vec![secret()]),
    );
    let picture = |headers: &[(&'static str, &[u8])]| post(&acme, headers, b"\xff\xd8\xffx").id;
    let ids = [
        id(&acme, &[], FEEDS),
        id(&other, &[], FEEDS),
        id(&acme, &[], &FEEDS.replace("489", "490")),
        picture(&[]),
        picture(&[(TIMESTAMP, b"1")]),
        picture(&[(TOKEN_ID, b"1")]),
        picture(&[(TOKEN_ID, b"")]),
        picture(&[(STREAM_ID, b"1")]),
        picture(&[(FEED_ID, b"1")]),
    ];
    for (index, one) in ids.iter().enumerate() {
        assert_eq!(one.get_version_num(), 5);
        assert!(!ids[..index].contains(one), "{index}");
    }
    assert_eq!(ids[0], id(&acme, &[("Content-Type", b"x"), (TIMESTAMP, b"2")], FEEDS));
    assert_eq!(
        ids[0].to_string(),
        "9e5ac2e3-7d2f-5d15-b5e4-a0d074e16394",
        "the ids of released versions never change"
    );
}

#[test]
fn secrets_are_replaced_while_running() {
    let receiver = receiver();
    let headers = Given(vec![(signature::HEADER, signature::sign(&secret(), b"x").into_bytes())]);
    let request = || UnverifiedRequest {
        headers: &headers,
        body: Bytes::from_static(b"x"),
        received: RECEIVED,
    };
    assert!(receiver.verify(request()).is_ok());
    receiver.set_secrets(vec![Secret::from_base64("b3RoZXI=").unwrap()]);
    assert_eq!(receiver.verify(request()).err(), Some(SignatureError::Wrong));
    receiver.set_secrets(vec![Secret::from_base64("b3RoZXI=").unwrap(), secret()]);
    assert!(receiver.verify(request()).is_ok());
}

#[test]
fn every_sample_is_taken_for_what_it_is() {
    let parameters = SampleParameters {
        account: "ZG6NWV",
        stream_name: "sample_stream",
        feed_id: Uuid::from_u128(1),
        sent: Time(1_638_463_486_489),
        counter: 3,
    };
    let receiver = receiver();
    for kind in samples::ALL {
        let sample = samples::sample(*kind, &parameters);
        let mut headers = vec![("Content-Type", sample.content_type.as_bytes())];
        headers.extend(sample.headers.iter().map(|(name, value)| (*name, value.as_bytes())));
        let event = post(&receiver, &headers, &sample.body);
        let expected = format!("com.millicast.{}.{}", kind.kind, kind.event).to_lowercase();
        assert_eq!(event.type_(&PROVIDER), expected);
        assert_eq!(sample, samples::sample(*kind, &parameters));
        let of_stream = kind.kind != "transcoder";
        assert_eq!(
            event.key == "ZG6NWV/sample_stream",
            of_stream,
            "{expected}: {}",
            event.key
        );
        check(&event);
    }
    assert_eq!(crate::find(samples::ALL, "FEEDS", None).len(), 2);
    assert_eq!(
        crate::find(samples::ALL, "viewerconnection", Some("viewerattempt")).len(),
        1
    );
    assert!(crate::find(samples::ALL, "nothing", None).is_empty());
}
