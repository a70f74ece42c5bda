use super::*;

const RECORDING: &str =
    r#"{"type":"recordings","event":"started","timestamp":1638463486489,"data":{"streamName":"s"}}"#;
const PICTURE: &[u8] = b"\xff\xd8\xff\xe0";

fn accounts(own: Option<&str>, listed: &[&str]) -> EndpointAccounts {
    EndpointAccounts {
        own: own.map(str::to_owned),
        listed: listed.iter().map(|account| (*account).to_owned()).collect(),
    }
}

#[test]
fn the_account_is_the_events_own_else_configured_else_learned() {
    let any = receiver().with_accounts(accounts(Some("CONF"), &[]));
    assert_eq!(post_json(&any, FEEDS).account.as_deref(), Some("ZG6NWV"));
    assert_eq!(post_json(&any, RECORDING).key, "CONF/s");

    let learning = receiver();
    let forged: [(&'static str, &[u8]); 1] = [(STREAM_ID, b"EVIL/s")];
    assert_eq!(post(&learning, &forged, PICTURE).account.as_deref(), Some("EVIL"));
    let before = post_json(&learning, RECORDING);
    assert_eq!(
        (before.account.as_deref(), before.key.as_str()),
        (None, "unknown/s"),
        "unsigned headers teach nothing"
    );
    assert_eq!(before.source(&PROVIDER), "//millicast.com/accounts/unknown");
    post_json(&learning, FEEDS);
    assert_eq!(post_json(&learning, RECORDING).key, "ZG6NWV/s");
    assert_eq!(learning.learned_account().as_deref(), Some("ZG6NWV"));

    let restarted = receiver();
    restarted.remember_account("ZG6NWV");
    assert_eq!(post_json(&restarted, RECORDING).key, "ZG6NWV/s");
    let of_another = EndpointReceiver::new(&Millicast, "acme", Some("A"), vec![secret()]);
    of_another.remember_account("ZG6NWV");
    post_json(&of_another, FEEDS);
    assert_eq!(of_another.learned_account(), None);
}

/// The account, the one that was claimed, and the key.
type Expected<'a> = (Option<&'a str>, Option<&'a str>, &'a str);

/// What becomes of an event of this data, and of a picture with this stream's id in an unsigned header.
struct Case<'a> {
    accounts: EndpointAccounts,
    data: &'a str,
    of_data: Expected<'a>,
    stream_id: &'a str,
    of_picture: Expected<'a>,
}

#[test]
fn an_endpoint_speaks_for_its_own_accounts_alone() {
    let case = |accounts, data, of_data, stream_id, of_picture| Case {
        accounts,
        data,
        of_data,
        stream_id,
        of_picture,
    };
    let (a, b, c) = (Some("A"), Some("B"), Some("C"));
    let (any, one, two) = (
        || accounts(None, &[]),
        || accounts(a, &["A"]),
        || accounts(None, &["A", "B"]),
    );
    for Case {
        accounts,
        data,
        of_data,
        stream_id,
        of_picture,
    } in [
        case(
            any(),
            r#"{"streamId":"B/s"}"#,
            (b, None, "B/s"),
            "C/s",
            (c, None, "C/s"),
        ),
        case(
            one(),
            r#"{"streamId":"A/s"}"#,
            (a, None, "A/s"),
            "A/s",
            (a, None, "A/s"),
        ),
        case(one(), r#"{"streamId":"B/s"}"#, (a, b, "A/s"), "B/s", (a, b, "A/s")),
        case(
            one(),
            r#"{"accountId":"B","streamName":"s"}"#,
            (a, b, "A/s"),
            "B/s/t",
            (a, b, "A/s/t"),
        ),
        case(
            one(),
            r#"{"accountId":"A","streamId":"B/s"}"#,
            (a, b, "A/s"),
            "/s",
            (a, None, "A/s"),
        ),
        case(
            one(),
            r#"{"accountId":" ","streamId":"A/s"}"#,
            (a, None, "A/s"),
            " /s",
            (a, None, "A/s"),
        ),
        case(
            one(),
            r#"{"accountId":"a","transcoderId":"t"}"#,
            (a, Some("a"), "t"),
            "s",
            (a, None, "A/s"),
        ),
        case(
            two(),
            r#"{"streamId":"B/s"}"#,
            (b, None, "B/s"),
            "B/s",
            (b, None, "B/s"),
        ),
        case(
            two(),
            r#"{"streamId":"C/s"}"#,
            (None, c, "unknown/s"),
            "C/s",
            (None, c, "unknown/s"),
        ),
        case(two(), r#"{"streamName":"s"}"#, (b, None, "B/s"), "s", (b, None, "B/s")),
        case(
            accounts(a, &["A", "B"]),
            r#"{"streamId":"C/s"}"#,
            (a, c, "A/s"),
            "B/s",
            (b, None, "B/s"),
        ),
        case(
            accounts(a, &[]),
            r#"{"streamId":"B/s"}"#,
            (b, None, "B/s"),
            "B/s",
            (a, b, "A/s"),
        ),
    ] {
        let receiver = receiver().with_accounts(accounts.clone());
        receiver.remember_account("B");
        let body = format!(r#"{{"type":"new","event":"x","timestamp":1638463486489,"data":{data}}}"#);
        let picture = post(&receiver, &[(STREAM_ID, stream_id.as_bytes())], PICTURE);
        for (event, expected) in [(picture, of_picture), (post_json(&receiver, &body), of_data)] {
            let actual = (
                event.account.as_deref(),
                event.account_claimed.as_deref(),
                event.key.as_str(),
            );
            assert_eq!(actual, expected, "{accounts:?}: {data}, {stream_id}");
            let source = format!("//millicast.com/accounts/{}", expected.0.unwrap_or("unknown"));
            assert_eq!(event.source(&PROVIDER), source);
            check(&event);
        }
    }
}

#[test]
fn only_what_begins_as_a_jpeg_does_is_a_picture() {
    let headers: [(&'static str, &[u8]); 2] = [("Content-Type", b"image/jpeg"), (STREAM_ID, b"B/cam")];
    let sent_again = post(&receiver(), &headers, FEEDS.as_bytes());
    assert_eq!(
        sent_again,
        post_json(&receiver(), FEEDS),
        "it is what was signed, whatever the headers say"
    );
    for body in [&b""[..], b"\xff\xd8", b"\xff\xd8\xfe", b" \xff\xd8\xff", b"\x89PNG"] {
        let event = post(&receiver(), &headers, body);
        assert_eq!(event.type_(&PROVIDER), "com.millicast.unreadable", "{body:?}");
    }
}
