//! Requests as a sender might make them, and as nobody should: each follows from a seed and a number.

use bytes::Bytes;
use forebay::{
    event::Time,
    senders::{self, SampleParameters},
};
use uuid::Uuid;

use crate::support::rng::Rng;

/// Headers and body, without the signature.
pub struct Request {
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Bytes,
}

const KINDS: &[&str] = &[
    "feeds",
    "media",
    "recordings",
    "recording",
    "transcoder",
    "viewerConnection",
    "thumbnail",
    "new",
    "",
    "é",
    "Feeds",
    "unreadable",
    "a b",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];
const EVENTS: &[&str] = &[
    "started",
    "ended",
    "deleted",
    "completed",
    "ACTIVE",
    "ViewerAttempt",
    "captured",
    "",
    "a/b",
    "\u{1f600}",
];
const NAMES: &[&str] = &[
    "accountId",
    "streamId",
    "streamName",
    "name",
    "feedId",
    "started",
    "ended",
    "startedAt",
    "endedAt",
    "recordedOn",
    "removedOn",
    "removedAt",
    "createdOn",
    "createdAt",
    "startTime",
    "expiration",
    "expiresAt",
    "channelId",
    "transcoderId",
    "active",
    "envelope",
    "envelope_",
    "data",
    "data_base64",
    "specversion",
    "id",
    "source",
    "type",
    "time",
    "",
    "__proto__",
    "str\\u0065amId",
    "a\\ud800",
    "\\u0000",
];
/// The insides of JSON strings.
const TEXTS: &[&str] = &[
    "A/s",
    "B/s",
    "A",
    "B",
    "s",
    "/",
    "A/",
    "/s",
    "A/ ",
    " ",
    "",
    "//",
    "\\t",
    "\\u0000",
    "\\u0085",
    "\\u00a0",
    "\\ufeff",
    "\\ufffe",
    "\\ud800",
    "\\udc00A",
    "\\ud83d\\ude00",
    "\u{1f600}",
    "\u{a0}",
    "\u{feff}",
    "\u{ffff}",
    "\u{7f}",
    "\u{2028}",
    "%",
    "%zz",
    "<>&'",
    "\\\"",
    "\\\\",
    "1638463486489",
    "1638463486.4",
    "2021-12-02T16:44:46.359Z",
    "0000-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999Z",
    "0001-01-01T00:00:00+14:00",
    "2021-12-02T16:44:60Z",
    "-000001-01-01T00:00:00Z",
    "+012021-12-02T16:44:46Z",
    "true",
    "null",
];
const NUMBERS: &[&str] = &[
    "0",
    "-0",
    "-0.0",
    "1",
    "1638463486489",
    "1638463486",
    "-62135596800000",
    "-62135596800001",
    "-62167219200000",
    "253402207200000",
    "253402300799999",
    "253402300800000",
    "99999999999",
    "100000000000",
    "-1",
    "1e5",
    "1E+2",
    "1e-400",
    "1e308",
    "1.7976931348623157e308",
    "1.8e308",
    "1e999",
    "-1e999",
    "1e00000000000000000012",
    "1638463486489.999999",
    "123456789012345678901234567890",
    "9223372036854775808",
    "18446744073709551616",
    "0.1e1",
    "2e-7",
];
/// Where a mutation may put something of JSON, or of what resembles it.
const WORDS: &[&str] = &[
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "\\",
    "null",
    "true",
    "{}",
    "[]",
    "1e999",
    "NaN",
    "Infinity",
    "-Infinity",
    "\\u0000",
    "\\ud800",
    "\u{feff}",
    "/*",
    "//",
    "'",
    "\u{0}",
    "\n",
    "\u{b}",
    "é",
    "0x1",
    "01",
    "-",
    "1e",
    ".5",
    "[[[[[[[[[[",
    "]]]]]]]]]]",
];
const CONTENT_TYPES: &[&[u8]] = &[
    b"application/json",
    b"application/json; charset=utf-8",
    b"image/jpeg",
    b"text/plain",
    b"text/plain; charset=\"utf-8\"",
    b"text/html;",
    b"application/cloudevents+json",
    b"application/cloudevents-batch+json",
    b"application/cloudevents",
    b"APPLICATION/CloudEvents+XML; a=b",
    b"application/problem+json",
    b"application/vnd.a.b+json;q=1",
    b"garbage",
    b"",
    b" ",
    b"a/b;c=d;C=e",
    b"a/b;c*0=d;c*1=e",
    b"a/b;c*=utf-8''%e9",
    b"a/b; c=\"d;e\"",
    b"a/b; c=\"\\\"\"",
    b"a/b;c=\"\xff\"",
    b"\xc3\xa9/\xc3\xbc",
    b"\xff/\xfe",
    b"a/b, c/d",
    b"multipart/mixed; boundary=x",
    b"a / b",
    b"*/*",
    b"text/*",
    b"a/b ; c=d",
    b"a/b;charset=utf-8;charset=latin-1",
    b"text/xml",
];
const STREAM_IDS: &[&[u8]] = &[
    b"A/s",
    b"B/s",
    b"/",
    b"s",
    b" ",
    b"A/\xc3\xa9",
    b"\xff\xfe",
    b"A/a b",
    b"%2f",
    b"",
];

/// Any request.
pub fn request(rng: &mut Rng) -> Request {
    let (mut headers, body) = match rng.below(10) {
        0 | 1 => sample(rng),
        2 => (Vec::new(), value(rng, 0).into_bytes()),
        3 => (Vec::new(), bytes(rng)),
        _ => (Vec::new(), envelope(rng).into_bytes()),
    };
    let mut body = body;
    if rng.one_in(2) {
        for _ in 0..=rng.below(4) {
            mutate(rng, &mut body);
        }
    }
    if rng.one_in(2) {
        headers.insert(0, ("Content-Type".to_owned(), rng.pick(CONTENT_TYPES).to_vec()));
    }
    for name in [
        "X-Millicast-Stream-Id",
        "X-Millicast-Feed-Id",
        "X-Millicast-Token-Id",
        "X-Millicast-Timestamp",
    ] {
        if rng.one_in(3) {
            let value = if rng.one_in(3) {
                rng.pick(NUMBERS).as_bytes()
            } else {
                rng.pick(STREAM_IDS)
            };
            headers.insert(0, (name.to_owned(), value.to_vec()));
        }
    }
    Request {
        headers,
        body: body.into(),
    }
}

type Parts = (Vec<(String, Vec<u8>)>, Vec<u8>);

fn sample(rng: &mut Rng) -> Parts {
    let parameters = SampleParameters {
        account: "A",
        stream_name: "s",
        feed_id: Uuid::from_u128(u128::from(rng.draw())),
        sent: Time(1_638_463_486_489),
        counter: rng.draw() >> 40,
    };
    let sample = senders::usual().sample(rng.pick(senders::usual().samples()), &parameters);
    let mut headers = vec![("Content-Type".to_owned(), sample.content_type.as_bytes().to_vec())];
    let own = sample.headers.into_iter();
    headers.extend(own.map(|(name, value)| (name.to_owned(), value.into_bytes())));
    (headers, sample.body)
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    let mut bytes = if rng.one_in(2) {
        b"\xff\xd8\xff".to_vec()
    } else {
        Vec::new()
    };
    for _ in 0..rng.below(60) {
        bytes.push(rng.draw() as u8);
    }
    bytes
}

/// An envelope, or nearly.
fn envelope(rng: &mut Rng) -> String {
    let mut members = vec![
        format!(r#""type":"{}""#, rng.pick(KINDS)),
        format!(r#""event":"{}""#, rng.pick(EVENTS)),
    ];
    if !rng.one_in(8) {
        members.push(format!(r#""timestamp":{}"#, rng.pick(NUMBERS)));
    }
    if !rng.one_in(8) {
        members.push(format!(r#""data":{}"#, data(rng)));
    }
    if rng.one_in(4) {
        members.push(member(rng, 1));
    }
    if rng.one_in(8) {
        let again = rng.pick(&["type", "event", "timestamp", "data"]);
        members.push(format!(r#""{again}":{}"#, value(rng, 1)));
    }
    if rng.one_in(3) {
        let other = rng.below(members.len());
        members.swap(0, other);
    }
    format!("{{{}}}", members.join(rng.pick(&[",", ", ", ",\n\t", " , "])))
}

fn data(rng: &mut Rng) -> String {
    if rng.one_in(10) {
        return value(rng, 1);
    }
    let members: Vec<_> = (0..rng.below(8)).map(|_| member(rng, 2)).collect();
    format!("{{{}}}", members.join(","))
}

fn member(rng: &mut Rng, depth: usize) -> String {
    if rng.one_in(300) {
        let name = "n".repeat(49_990 + rng.below(20));
        return format!("\"{name}\":1");
    }
    format!("\"{}\":{}", rng.pick(NAMES), value(rng, depth))
}

fn value(rng: &mut Rng, depth: usize) -> String {
    match rng.below(12) {
        0 if depth < 6 => {
            let values: Vec<_> = (0..rng.below(4)).map(|_| value(rng, depth + 1)).collect();
            format!("[{}]", values.join(","))
        }
        1 if depth < 6 => {
            let members: Vec<_> = (0..rng.below(4)).map(|_| member(rng, depth + 1)).collect();
            format!("{{{}}}", members.join(","))
        }
        2 if rng.one_in(6) => at_a_limit(rng),
        3 => rng.pick(&["null", "true", "false"]).to_owned(),
        4..=6 => rng.pick(NUMBERS).to_owned(),
        7 if rng.one_in(4) => format!("\"{}\"", rng.pick(TEXTS).repeat(1 + rng.below(700))),
        _ => format!(
            "\"{}{}\"",
            rng.pick(TEXTS),
            rng.pick(&["", "", "", "s", "/s", "\\u00e9"])
        ),
    }
}

/// Nesting or digits about where one parser or another gives up.
fn at_a_limit(rng: &mut Rng) -> String {
    let depth = match rng.below(4) {
        0 => 60 + rng.below(10),
        1 => 120 + rng.below(12),
        2 => 990 + rng.below(20),
        _ => 11_000,
    };
    match rng.below(5) {
        0 => "[".repeat(depth) + &"]".repeat(depth),
        1 => "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth),
        2 => "9".repeat(300 + rng.below(20)),
        3 => "1".repeat(rng.pick(&[999, 1000, 1001, 4300, 4301])),
        _ => format!("0.{}", "3".repeat(990 + rng.below(20))),
    }
}

fn mutate(rng: &mut Rng, body: &mut Vec<u8>) {
    let at = rng.below(body.len() + 1);
    let length = rng.below(20).min(body.len() - at);
    match rng.below(6) {
        0 => body.truncate(at),
        1 if at < body.len() => body[at] ^= 1 << rng.below(8),
        2 => drop(body.drain(at..at + length)),
        3 => {
            let again = body[at..at + length].to_vec();
            body.splice(at..at, again);
        }
        4 if at < body.len() => body[at] = rng.draw() as u8,
        _ => drop(body.splice(at..at, rng.pick(WORDS).bytes())),
    }
}
