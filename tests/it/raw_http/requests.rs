//! What a connection brings: each case follows from a seed and a number.

use crate::support::{
    forebay::PATH,
    rng::Rng,
    sender::{sign, webhook},
};

/// What is to become of a request.
pub enum Expected {
    /// It is in order, and has this mark.
    Taken(String),
    /// It may be taken or refused, for it was damaged.
    Perhaps,
    /// An authentic request that is no request where it stands: with this mark.
    Never(String),
}

/// The bytes of one connection.
pub struct Case {
    pub bytes: Vec<u8>,
    /// Where they are cut into writes.
    cuts: Vec<usize>,
    pub pauses: bool,
    pub expected: Vec<Expected>,
    /// So many requests in order come first.
    pub honest: usize,
    /// Something was damaged, so that the number of requests is not known.
    pub is_damaged: bool,
}

impl Case {
    /// A request is hidden in another's body. Behind what was damaged nobody can say where it stands.
    fn hide(&mut self, mark: String) {
        self.expected.push(match self.is_damaged {
            false => Expected::Never(mark),
            true => Expected::Perhaps,
        });
    }

    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let ends = self.cuts.iter().copied().chain([self.bytes.len()]);
        let mut start = 0;
        ends.map(move |end| {
            let piece = &self.bytes[start..end];
            start = end;
            piece
        })
    }
}

/// The mark that a body has.
pub fn mark_in(body: &str) -> String {
    let at = body.find("mark-").unwrap_or_else(|| panic!("no mark: {body}"));
    let mark = body[at..]
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '-')
        .next();
    mark.unwrap_or_default().to_owned()
}

pub fn case(rng: &mut Rng, seed: u64, number: u64) -> Case {
    let mut case = Case {
        bytes: Vec::new(),
        cuts: Vec::new(),
        pauses: rng.one_in(4),
        expected: Vec::new(),
        honest: 0,
        is_damaged: false,
    };
    let count = 1 + rng.below(5);
    let mut in_order = true;
    for at in 0..count {
        let mark = format!("mark-{seed}-{number}-{at}");
        let request = match rng.below(8) {
            0..=3 => {
                let request = honest(rng, &mark);
                case.honest += usize::from(in_order);
                case.expected.push(Expected::Taken(mark));
                request
            }
            4 => {
                let hidden = format!("{mark}-hidden");
                let request = unsigned(rng, &hidden);
                case.hide(hidden);
                in_order = false;
                request
            }
            5 => {
                let hidden = format!("{mark}-hidden");
                let request = ambiguous(rng, &mark, &hidden);
                case.hide(hidden);
                (in_order, case.is_damaged) = (false, true);
                request
            }
            _ => {
                let mut request = honest(rng, &mark);
                for _ in 0..1 + rng.below(3) {
                    damage(rng, &mut request);
                }
                case.expected.push(Expected::Perhaps);
                (in_order, case.is_damaged) = (false, true);
                request
            }
        };
        case.bytes.extend_from_slice(&request);
    }
    if rng.one_in(3) {
        let mut cuts: Vec<usize> = (0..1 + rng.below(12))
            .map(|_| rng.below(case.bytes.len() + 1))
            .collect();
        cuts.sort_unstable();
        case.cuts = cuts;
    }
    case
}

/// A header's name in any case, and space where it may be.
fn header(rng: &mut Rng, name: &str, value: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if rng.one_in(3) { c.to_ascii_uppercase() } else { c })
        .collect();
    let (before, after) = (rng.pick(&["", " ", "  ", "\t"]), rng.pick(&["", "", " ", "\t "]));
    format!("{name}:{before}{value}{after}\r\n")
}

fn chunked(rng: &mut Rng, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = body;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at(1 + rng.below(rest.len()));
        let size = match rng.below(3) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("000{:x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        let extension = rng.pick(&["", "", ";a", ";a=b", ";a=\"b c\""]);
        out.extend_from_slice(format!("{size}{extension}\r\n").as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    let trailer = rng.pick(&["", "", "x-trailer: y\r\n"]);
    out.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
    out
}

/// A request as HTTP allows it.
fn honest(rng: &mut Rng, mark: &str) -> Vec<u8> {
    let body = webhook(rng.below(50), mark);
    let target = match rng.below(4) {
        0 => format!("http://forebay{PATH}"),
        _ => PATH.to_owned(),
    };
    let content_type = rng.pick(&["application/json", "text/plain", "application/json; charset=utf-8"]);
    let is_chunked = rng.one_in(2);
    let mut headers = vec![
        header(rng, "host", "forebay"),
        header(rng, "content-type", content_type),
        format!("{}\r\n", signature(rng, body.as_bytes())),
        match is_chunked {
            true => header(rng, "transfer-encoding", "chunked"),
            false => header(rng, "content-length", &body.len().to_string()),
        },
    ];
    if rng.one_in(6) {
        headers.push(header(rng, "expect", "100-continue"));
    }
    if rng.one_in(6) {
        headers.push(header(rng, "upgrade", "h2c"));
        headers.push(header(rng, "connection", "Upgrade, HTTP2-Settings"));
        headers.push(header(rng, "http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"));
    } else if rng.one_in(3) {
        headers.push(header(rng, "connection", "keep-alive"));
    }
    for number in 0..rng.below(4) {
        let value = "v".repeat(rng.below(300));
        headers.push(header(rng, &format!("x-more-{number}"), &value));
    }
    for at in (1..headers.len()).rev() {
        headers.swap(at, rng.below(at + 1));
    }
    let mut request = format!("POST {target} HTTP/1.1\r\n{}\r\n", headers.concat()).into_bytes();
    match is_chunked {
        true => request.extend(chunked(rng, body.as_bytes())),
        false => request.extend_from_slice(body.as_bytes()),
    }
    request
}

fn signature(rng: &mut Rng, body: &[u8]) -> String {
    let line = header(rng, "x-millicast-signature", &sign(body));
    line.trim_end_matches("\r\n").to_owned()
}

/// A request that nobody signed, whose body is a request that somebody did.
fn unsigned(rng: &mut Rng, hidden: &str) -> Vec<u8> {
    let body = honest(rng, hidden);
    let signature = rng.pick(&[
        "",
        "x-millicast-signature: sha1=0000000000000000000000000000000000000000\r\n",
        "x-millicast-signature: sha1=00\r\n",
    ]);
    let (framing, body) = match rng.one_in(2) {
        true => ("transfer-encoding: chunked".to_owned(), chunked(rng, &body)),
        false => (format!("content-length: {}", body.len()), body),
    };
    let path = rng.pick(&[PATH, PATH, "/nobody"]);
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: forebay\r\n{signature}{framing}\r\n\r\n").into_bytes();
    request.extend(body);
    request
}

/// A request that two servers could cut differently; what one of them would take for the next one is signed.
fn ambiguous(rng: &mut Rng, mark: &str, hidden: &str) -> Vec<u8> {
    let body = webhook(1, mark);
    let smuggled = honest(rng, hidden);
    let whole = body.len() + smuggled.len();
    let length = format!("content-length: {}", body.len());
    let longer = format!("content-length: {whole}");
    let framing = match rng.below(9) {
        0 => format!("{length}\r\n{longer}"),
        1 => format!("{length}\r\ntransfer-encoding: chunked"),
        2 => format!("transfer-encoding: chunked\r\n{longer}"),
        3 => format!("content-length: +{}", body.len()),
        4 => format!("content-length: {}, {}", body.len(), body.len()),
        5 => format!("{length}\r\ntransfer-encoding : chunked"),
        6 => format!("{length}\r\ntransfer-encoding: identity"),
        7 => format!("{length}\r\nx: a\rtransfer-encoding: chunked"),
        _ => format!("{length}\r\nx: a\r\n transfer-encoding: chunked"),
    };
    let signature = sign(body.as_bytes());
    let head =
        format!("POST {PATH} HTTP/1.1\r\nhost: forebay\r\nx-millicast-signature: {signature}\r\n{framing}\r\n\r\n");
    let mut request = head.into_bytes();
    request.extend_from_slice(body.as_bytes());
    request.extend(smuggled);
    request
}

fn damage(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.below(bytes.len());
    let end = (at + 1 + rng.below(40)).min(bytes.len());
    match rng.below(8) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let again = bytes[at..end].to_vec();
            bytes.splice(at..at, again);
        }
        3 => {
            let word = rng.pick(&[
                "\r\n",
                "\n",
                "\r",
                "\0",
                "0\r\n\r\n",
                ":",
                " ",
                "\u{fffd}",
                "\r\n\r\n",
                "chunked",
                "ffffffffffffffff",
            ]);
            bytes.splice(at..at, word.bytes());
        }
        4 => {
            let text = String::from_utf8_lossy(bytes).replacen("\r\n", "\n", 1 + rng.below(3));
            *bytes = text.into_bytes();
        }
        5 => bytes.truncate(at.max(1)),
        6 => {
            if let Some(digit) = bytes.iter_mut().skip(at).find(|byte| byte.is_ascii_digit()) {
                *digit = b'0' + rng.below(10) as u8;
            }
        }
        _ => {
            let filler = vec![b'f'; rng.pick(&[100, 5_000, 20_000])];
            bytes.splice(at..at, filler);
        }
    }
}
