//! Every secret that the tests give to Forebay, and how to find one in what it says.

use std::path::Path;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::kafka;

/// The webhook's secret of MILLICAST's vectors, in base64.
pub const WEBHOOK: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
/// The one that comes after it, in base64.
pub const NEXT_WEBHOOK: &str = "ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA=";
/// What it is, and the text.
pub const ALL: &[(&str, &str)] = &[
    ("the webhook's secret", WEBHOOK),
    ("the webhook's next secret", NEXT_WEBHOOK),
    // RabbitMQ's as well.
    ("the brokers' password", kafka::PASSWORD),
    ("a password that is wrong", "wrong-horse"),
    ("a password that was changed", "a-new-one"),
    ("a collector's token", COLLECTOR_TOKEN),
    ("a token of the provider's API", API_TOKEN),
    ("a password in a wrong place", MISPLACED),
    ("what the search itself plants", PLANTED),
];

/// What a collector wants to see.
pub const COLLECTOR_TOKEN: &str = "collector-token-4f1c2a";
/// What the provider's API knows an account by.
pub const API_TOKEN: &str = "api-token-7c3e9a51f2";
/// Stands where no password belongs.
pub const MISPLACED: &str = "misplaced-hunter2-5d0c";
/// In no output but that of the test that plants it.
pub const PLANTED: &str = "planted-9d81b6e0";

/// Where a secret stands.
#[derive(Debug, PartialEq, Eq)]
pub struct Leak {
    pub secret: &'static str,
    pub file: String,
    pub line: usize,
}

/// The forms in which a secret may be told: as it is, in base64 and decoded from it, percent-encoded, in hexadecimal
/// digits.
fn forms(secret: &str) -> Vec<Vec<u8>> {
    let mut raw = vec![secret.as_bytes().to_vec()];
    raw.extend(STANDARD.decode(secret));
    let mut forms = Vec::new();
    for raw in raw {
        // As a part of a longer text it may begin at any of three places.
        for skipped in 0..3 {
            let shifted = STANDARD.encode([&b"~~~"[..skipped], &raw].concat());
            // Without the characters that its neighbours have a part in.
            let begin = (skipped * 8).div_ceil(6);
            let end = (skipped + raw.len()) * 8 / 6;
            forms.push(shifted.as_bytes()[begin..end].to_vec());
        }
        forms.push(raw.iter().flat_map(|byte| format!("{byte:02x}").into_bytes()).collect());
        let escaped = raw.iter().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(*byte).to_string(),
            byte => format!("%{byte:02X}"),
        });
        forms.push(escaped.collect::<String>().into_bytes());
        forms.push(raw);
    }
    forms.sort();
    forms.dedup();
    forms
}

/// The secrets in these bytes, each with its line.
pub fn find(bytes: &[u8]) -> Vec<(&'static str, usize)> {
    let mut found = Vec::new();
    for (name, secret) in ALL {
        let at = forms(secret)
            .iter()
            .filter_map(|form| bytes.windows(form.len()).position(|window| window == &form[..]))
            .min();
        if let Some(at) = at {
            found.push((*name, 1 + bytes[..at].iter().filter(|byte| **byte == b'\n').count()));
        }
    }
    found
}

/// Fails where a page, or whatever else is not kept, tells a secret.
pub fn assert_none(what: &str, bytes: &[u8]) {
    let found = find(bytes);
    assert!(found.is_empty(), "{what} tells {found:?}");
}

/// The secrets in all files of a directory.
pub fn search(dir: &Path) -> Vec<Leak> {
    let mut leaks = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory of output") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).expect("a file of output");
        let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        leaks.extend(find(&bytes).into_iter().map(|(secret, line)| Leak {
            secret,
            file: file.clone(),
            line,
        }));
    }
    leaks
}
