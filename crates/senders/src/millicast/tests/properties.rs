use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        (1_600_000_000_000_i64..1_700_000_000_000).prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[A-Z]{0,2}/?[a-z/]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn known_name() -> impl Strategy<Value = String> {
    let names = vec![
        "streamId",
        "accountId",
        "streamName",
        "name",
        "feedId",
        "started",
        "startedAt",
        "ended",
        "recordedOn",
        "removedOn",
        "createdOn",
        "createdAt",
        "expiration",
        "startTime",
        "envelope",
        "active",
    ];
    prop_oneof![4 => proptest::sample::select(names).prop_map(str::to_owned), 1 => any::<String>()]
}

fn members_of(object: &str) -> Vec<(String, crate::json::JsonValue<'_>)> {
    let members = crate::json::JsonValue::check(object.as_bytes())
        .unwrap()
        .members()
        .unwrap();
    members
        .map(|member| (member.name().into_owned(), member.value))
        .collect()
}

proptest! {
    #[test]
    fn no_signed_bytes_make_it_panic(body: Vec<u8>, content_type: Option<Vec<u8>>, stream_id: Vec<u8>, timestamp: Vec<u8>) {
        let content_type = content_type.unwrap_or_else(|| b"image/jpeg".to_vec());
        let headers = [("Content-Type", &content_type[..]), (STREAM_ID, &stream_id), (TIMESTAMP, &timestamp)];
        check(&post(&receiver(), &headers, &body));
    }

    #[test]
    fn no_signed_json_makes_it_panic(body in json_value()) {
        check(&post_json(&receiver(), &body.to_string()));
    }

    #[test]
    fn no_damaged_sample_makes_it_panic(at: proptest::sample::Index, to: u8, cut: bool) {
        let mut body = FEEDS.as_bytes().to_vec();
        let index = at.index(body.len());
        if cut { body.truncate(index) } else { body[index] = to }
        check(&post(&receiver(), &[], &body));
    }

    #[test]
    fn no_signature_header_makes_it_panic(header: Vec<u8>) {
        let headers = Given(vec![(signature::HEADER, header)]);
        let request = UnverifiedRequest { headers: &headers, body: Bytes::new(), received: RECEIVED };
        prop_assert!(receiver().verify(request).is_err());
    }

    #[test]
    fn nothing_in_the_data_is_lost(
        kind in proptest::sample::select(vec!["feeds", "media", "recordings", "transcoder", "viewerConnection", "new"]),
        members in proptest::collection::vec((known_name(), json_value()), 0..8),
        extra in proptest::option::of(json_value()),
    ) {
        let members: Vec<_> = members.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
        let extra = extra.map(|extra| format!(",\"extra\":{extra}")).unwrap_or_default();
        let data = format!("{{{}}}", members.join(","));
        let body = format!(r#"{{"type":"{kind}","event":"x","timestamp":1638463486489,"data":{data}{extra}}}"#);
        let event = post_json(&receiver(), &body);
        check(&event);

        let normalized = normalized(&event);
        let mut left = members_of(&normalized);
        for (name, value) in members_of(&data) {
            let moved = |name: &str| match name {
                "name" => "streamName",
                "started" | "startTime" => "startedAt",
                "ended" => "endedAt",
                "recordedOn" => "recordedAt",
                "removedOn" => "removedAt",
                "createdOn" => "createdAt",
                "expiration" => "expiresAt",
                _ => "-",
            };
            let rfc3339 = payload::time(value).map(|time| format!("\"{}\"", time.to_rfc3339()));
            let same = left.iter().position(|left| *left == (name.clone(), value));
            let found = same.or_else(|| {
                left.iter().position(|(left_name, left_value)| {
                    left_name == moved(&name) && (*left_value == value || Some(left_value.raw()) == rfc3339.as_deref())
                })
            });
            prop_assert!(found.is_some(), "{name} of {body} is not in {normalized}");
            left.swap_remove(found.unwrap());
        }
        let only_new = left.iter().all(|(name, _)| name == "accountId" || name == "streamName" || name.starts_with("envelope"));
        prop_assert!(only_new, "{left:?} of {body}");
        prop_assert_eq!(left.iter().any(|(name, _)| name.starts_with("envelope")), !extra.is_empty());
    }
}
