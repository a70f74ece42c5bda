//! What goes out is read by the official CloudEvents SDKs, whatever a signed body holds. `tests/cloudevents/README.md`
//! says how.

mod bodies;
mod readers;

use std::{
    collections::BTreeMap,
    env, fs,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use forebay::{
    event::{
        Content, Event, Time,
        render::{BOOLEANS, EventStamp, RenderMode, RenderedEvent, render},
    },
    senders::{
        self, EndpointAccounts, EndpointReceiver, HeaderLookup, RoutePayload, Secret, UnverifiedRequest, data,
        millicast::Millicast,
    },
};
use serde_json::{Value, json};

use self::{
    bodies::Request,
    readers::{Answer, Reader, sdks},
};
use crate::support::rng::Rng;

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const SEED: u64 = 1;
/// Of the suite's run; a run of a given time goes on in rounds of it.
const ROUND_BODIES: u64 = 3000;
/// Handed to the readers at once.
const BATCH_BODIES: u64 = 200;

impl HeaderLookup for Request {
    fn value(&self, name: &str) -> Option<&[u8]> {
        let mut found = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.as_slice())
    }
}

/// One message, and what a reader must find in it.
struct Sent {
    /// Which body it is of, and how it was rendered.
    what: String,
    line: String,
    attributes: BTreeMap<&'static str, String>,
}

/// How many bodies became what.
#[derive(Debug, Default)]
struct Tally {
    messages: usize,
    envelopes: usize,
    unreadable: usize,
    pictures: usize,
}

#[test]
fn none_of_the_sdks_refuses_an_event_whatever_the_body() {
    let Some(mut readers) = sdks() else { return };
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seed = number("FOREBAY_FUZZ_SEED").unwrap_or(SEED);
    let lasts = number("FOREBAY_FUZZ_SECONDS").map(Duration::from_secs);
    let mut tally = Tally::default();
    let kept = corpus().into_iter().map(|(name, request)| (name, request, 0));
    judge(kept, &mut readers, &mut tally);
    let (began, mut next) = (Instant::now(), 0);
    while next < ROUND_BODIES || lasts.is_some_and(|lasts| began.elapsed() < lasts) {
        let generated = (next..next + BATCH_BODIES).map(|number| {
            let mut rng = Rng::new(seed, number);
            (format!("seed {seed}, body {number}"), bodies::request(&mut rng), number)
        });
        judge(generated, &mut readers, &mut tally);
        next += BATCH_BODIES;
    }
    println!("seed {seed}: {next} bodies in {:?}: {tally:?}", began.elapsed());
    let enough = usize::try_from(next / 20).unwrap();
    assert!(
        tally.envelopes > enough && tally.unreadable > enough && tally.pictures > 0,
        "{tally:?}"
    );
}

/// Each of these is what Forebay never sends, so that it is seen that a reader would say so.
#[test]
fn the_sdks_refuse_what_is_wrong() {
    let Some(mut readers) = sdks() else { return };
    let structured = |time: &str, subject: &str, more: &str| {
        let attributes = format!(r#""id":"1","source":"//a","type":"t","time":"{time}","subject":"{subject}""#);
        let event = format!(r#"{{"specversion":"1.0",{attributes},"datacontenttype":"application/json",{more}}}"#);
        message(
            &json!({ "content-type": "application/cloudevents+json" }),
            "k",
            event.as_bytes(),
        )
    };
    let now = "2021-12-02T16:44:46.359Z";
    let (nested, digits) = ("[".repeat(20_000) + &"]".repeat(20_000), "9".repeat(5000));
    let binary = |content_type: &str| {
        let headers = json!({
            "content-type": content_type, "ce_specversion": "1.0", "ce_id": "1", "ce_source": "//a", "ce_type": "t",
        });
        message(&headers, "k", b"{")
    };
    let all = ["python", "java", "go"];
    let cases: [(&str, String, &[&str]); 8] = [
        ("nothing", structured(now, "s", r#""data":{}"#), &[]),
        ("nesting", structured(now, "s", &format!(r#""data":{nested}"#)), &all),
        ("digits", structured(now, "s", &format!(r#""data":{digits}"#)), &all),
        (
            "a number that no double holds",
            structured(now, "s", r#""data":1e999"#),
            &["go"],
        ),
        (
            "the year 0",
            structured("0000-01-01T00:00:00Z", "s", r#""data":{}"#),
            &["python"],
        ),
        ("a blank subject", structured(now, " ", r#""data":{}"#), &["go"]),
        ("a content type with a parameter twice", binary("a/b;c=d;C=e"), &["go"]),
        ("no JSON", binary("application/json"), &all),
    ];
    for (name, line, refused_by) in cases {
        for reader in &mut readers {
            let answers = reader.read(std::slice::from_ref(&line));
            let is_refused = matches!(answers[0], Answer::Refused(_));
            assert_eq!(
                is_refused,
                refused_by.contains(&reader.sdk),
                "{name}, {}: {answers:?}",
                reader.sdk
            );
        }
    }
}

/// Takes requests through Forebay, and has each reader read what comes out.
fn judge(requests: impl Iterator<Item = (String, Request, u64)>, readers: &mut [Reader], tally: &mut Tally) {
    let mut sent = Vec::new();
    for (name, request, number) in requests {
        let event = receive(&request, number);
        match event.content {
            Content::Json => tally.envelopes += 1,
            Content::Jpeg => tally.pictures += 1,
            Content::Opaque(_) => tally.unreadable += 1,
        }
        assert_eq!(event.body, request.body, "{name}");
        for (payload, mode) in [
            (RoutePayload::Normalized, RenderMode::Structured),
            (RoutePayload::Normalized, RenderMode::Binary),
            (RoutePayload::Original, RenderMode::Structured),
            (RoutePayload::Original, RenderMode::Binary),
        ] {
            sent.push(publish(&name, &event, payload, mode));
        }
    }
    tally.messages += sent.len();
    let lines: Vec<String> = sent.iter().map(|sent| sent.line.clone()).collect();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let read = |reader: &mut Reader| (reader.sdk, reader.read(&lines));
        let reading: Vec<_> = readers
            .iter_mut()
            .map(|reader| scope.spawn(move || read(reader)))
            .collect();
        reading.into_iter().map(|reading| reading.join().unwrap()).collect()
    });
    for (sdk, answers) in answers {
        assert_eq!(answers.len(), sent.len(), "{sdk} ended");
        for (sent, answer) in sent.iter().zip(answers) {
            sent.compare(sdk, &answer);
        }
    }
}

/// The event of a request, as it comes out of the spool.
fn receive(request: &Request, number: u64) -> Event {
    let secret = Secret::from_base64(SECRET).unwrap();
    let mut signed = Request {
        headers: request.headers.clone(),
        body: request.body.clone(),
    };
    for (name, value) in senders::usual().sign(&secret, &request.body) {
        signed.headers.push((name.to_owned(), value.into_bytes()));
    }
    let listed = |accounts: &[&str]| accounts.iter().map(|account| (*account).to_owned()).collect();
    let accounts = match number % 3 {
        0 => EndpointAccounts::default(),
        1 => EndpointAccounts {
            own: Some("A".to_owned()),
            listed: listed(&["A"]),
        },
        _ => EndpointAccounts {
            own: None,
            listed: listed(&["A", "B"]),
        },
    };
    let receiver = EndpointReceiver::new(&Millicast, "acme", None, vec![secret]).with_accounts(accounts);
    let verified = receiver.verify(UnverifiedRequest {
        body: signed.body.clone(),
        headers: &signed,
        received: Time(1_700_000_000_000),
    });
    let mut event = receiver.event(verified.ok().unwrap());
    event.is_stale = number.is_multiple_of(5);
    event.is_repeated = number.is_multiple_of(7);
    event.late_by_ms = number.is_multiple_of(11).then_some(number);
    let stored = Event::decode(&event.encode()).unwrap();
    assert_eq!(stored, event);
    stored
}

/// The message of an event, as Kafka has it.
fn publish(name: &str, event: &Event, payload: RoutePayload, mode: RenderMode) -> Sent {
    let stamp = EventStamp {
        provider: senders::usual().provider(),
        sequence: 42,
        replica: "forebay-0",
        again: None,
    };
    let rendered = render(event, stamp, mode, data(event, payload));
    assert_nothing_is_lost(event, payload, mode, &rendered);
    if (payload, &event.content) == (RoutePayload::Normalized, &Content::Json) {
        let error = serde_json::from_slice::<Value>(&rendered.body)
            .err()
            .map(|error| error.to_string());
        // It reads 127 levels, unless it is told otherwise.
        let error = error.filter(|error| !error.starts_with("recursion limit"));
        assert_eq!(error, None, "serde_json refuses {name}, {mode:?}");
    }
    let mut headers = json!({ "content-type": rendered.content_type, "sequence": "42", "replica": "forebay-0" });
    for (name, value) in &rendered.attributes {
        headers[format!("ce_{name}")] = json!(value);
    }
    let binary = render(event, stamp, RenderMode::Binary, data(event, payload));
    let mut attributes: BTreeMap<_, _> = binary.attributes.into_iter().collect();
    attributes.insert("datacontenttype", binary.content_type.into_owned());
    // Each SDK has a type of its own for it.
    attributes.remove("time");
    Sent {
        what: format!("{name}, {payload:?}, {mode:?}"),
        line: message(&headers, &event.key, &rendered.body),
        attributes,
    }
}

/// What is not normalised goes out byte for byte.
fn assert_nothing_is_lost(event: &Event, payload: RoutePayload, mode: RenderMode, rendered: &RenderedEvent) {
    let is_binary = !rendered.attributes.is_empty();
    match (&event.content, payload, is_binary) {
        (Content::Json, RoutePayload::Normalized, _) => {}
        (Content::Json, RoutePayload::Original, false) => {
            let end = [b"\"data\":", &event.body[..], b"}"].concat();
            assert!(rendered.body.ends_with(&end), "{mode:?}");
        }
        (_, _, true) => assert_eq!(rendered.body, event.body, "{mode:?}"),
        (_, _, false) => {
            let end = format!("\"data_base64\":\"{}\"}}", STANDARD.encode(&event.body));
            assert!(rendered.body.ends_with(end.as_bytes()), "{mode:?}");
        }
    }
}

/// A message as the readers take it: one line.
fn message(headers: &Value, key: &str, value: &[u8]) -> String {
    json!({ "headers": headers, "key": key, "value": STANDARD.encode(value) }).to_string()
}

impl Sent {
    fn compare(&self, sdk: &str, answer: &Answer) {
        let read = match answer {
            Answer::Refused(error) => panic!("{sdk} refuses {}: {error}\n{}", self.what, self.line),
            Answer::Read(attributes) => attributes,
        };
        for (name, value) in &self.attributes {
            let text = match &read[*name] {
                Value::Bool(true) if BOOLEANS.contains(name) => "true",
                other => other.as_str().unwrap_or_default(),
            };
            // Go's takes white space from the ends of some.
            assert_eq!(
                text.trim(),
                value.trim(),
                "{sdk} reads another {name} of {}\n{}",
                self.what,
                self.line
            );
        }
    }
}

/// Bodies that were refused once, or that show where the limits are.
fn corpus() -> Vec<(String, Request)> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloudevents/corpus");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let request = |path: &Path| Request {
        headers: Vec::new(),
        body: Bytes::from(fs::read(path).unwrap()),
    };
    files
        .iter()
        .map(|path| (path.display().to_string(), request(path)))
        .collect()
}
