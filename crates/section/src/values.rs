//! Reads single values: what is wrong with one fits after its key.

use std::{ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};

use crate::{ENV_PREFIX, Shown, closest};

/// What a value is, in a reader's words.
pub fn kind(value: &ValueKind) -> &'static str {
    match value {
        ValueKind::Nil => "nothing",
        ValueKind::Boolean(_) => "true or false",
        ValueKind::I64(_) | ValueKind::I128(_) | ValueKind::U64(_) | ValueKind::U128(_) => "a number",
        ValueKind::Float(_) => "a number with a fraction",
        ValueKind::String(_) => "a text",
        ValueKind::Table(_) => "a table",
        ValueKind::Array(_) => "a list",
    }
}

/// The value as text: a text itself, or a number for what takes both. `expected` says what it should have been.
fn scalar(value: &Value, expected: &str) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        ValueKind::I64(number) => Ok(number.to_string()),
        ValueKind::U64(number) => Ok(number.to_string()),
        other => Err(format!("expected {expected}, found {}", kind(other))),
    }
}

pub fn is_from_env(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(ENV_PREFIX))
}

pub fn text(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) if text.trim().is_empty() => Err("empty".to_owned()),
        ValueKind::String(text) => Ok(text.clone()),
        other => Err(format!("expected a text, found {}", kind(other))),
    }
}

/// A list of texts; from the environment `a,b` or `["a", "b"]`.
pub fn list(value: &Value) -> Result<Vec<String>, String> {
    match &value.kind {
        ValueKind::Array(values) => values.iter().map(text).collect(),
        ValueKind::String(json) if is_from_env(value) && json.trim_start().starts_with('[') => {
            serde_json::from_str(json).map_err(|_| r#"expected a,b or a JSON list of texts: ["a", "b"]"#.to_owned())
        }
        ValueKind::String(text) if is_from_env(value) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect()),
        other => Err(format!(
            r#"expected a list of texts such as ["a", "b"], found {}"#,
            kind(other)
        )),
    }
}

/// Bytes: `"10GiB"`, or a plain number.
pub fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
    const EXPECTED: &str = r#"a size such as "64KiB", "10GiB" or a number of bytes"#;
    move |value| {
        let text = scalar(value, EXPECTED)?;
        let size: bytesize::ByteSize = text
            .parse()
            .map_err(|_| format!("expected {EXPECTED}, found {:?}", Shown(&text)))?;
        if bounds.contains(&size.0) {
            return Ok(size.0);
        }
        let show = |bytes: &u64| bytesize::ByteSize(*bytes).display().iec().to_string();
        Err(format!(
            "{text} is not between {} and {}",
            show(bounds.start()),
            show(bounds.end())
        ))
    }
}

/// A duration with its unit: `"10s"`, `"5m"`, `"1h 30m"`.
pub fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
    const EXPECTED: &str = r#"a duration with its unit, such as "500ms", "30s" or "5m""#;
    move |value| {
        let text = scalar(value, EXPECTED)?;
        let read =
            humantime::parse_duration(&text).map_err(|_| format!("expected {EXPECTED}, found {:?}", Shown(&text)))?;
        if bounds.contains(&read) {
            return Ok(read);
        }
        let show = humantime::format_duration;
        Err(format!(
            "{text} is not between {} and {}",
            show(*bounds.start()),
            show(*bounds.end())
        ))
    }
}

pub fn whole(bounds: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
    move |value| {
        let read = match &value.kind {
            ValueKind::I64(number) => u64::try_from(*number).ok(),
            ValueKind::U64(number) => Some(*number),
            ValueKind::String(text) if is_from_env(value) => text.trim().parse().ok(),
            other => return Err(format!("expected a whole number, found {}", kind(other))),
        };
        let expected = || {
            format!(
                "expected a whole number between {} and {}",
                bounds.start(),
                bounds.end()
            )
        };
        read.filter(|number| bounds.contains(number)).ok_or_else(expected)
    }
}

/// `true` or `false`.
pub fn flag(value: &Value) -> Result<bool, String> {
    match &value.kind {
        ValueKind::Boolean(flag) => Ok(*flag),
        ValueKind::String(text) if is_from_env(value) => text
            .trim()
            .to_lowercase()
            .parse()
            .map_err(|_| format!("expected true or false, found {:?}", Shown(text))),
        other => Err(format!("expected true or false, found {}", kind(other))),
    }
}

/// A share, from 0.0 to 1.0.
pub fn share(value: &Value) -> Result<f64, String> {
    let read = match &value.kind {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => Some(*number as f64),
        ValueKind::String(text) if is_from_env(value) => text.trim().parse().ok(),
        other => return Err(format!("expected a number from 0.0 to 1.0, found {}", kind(other))),
    };
    read.filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0.0 to 1.0".to_owned())
}

/// One of a few words, in any case.
pub fn word<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
    move |value| {
        let text = text(value)?;
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(&text));
        found.map(|(_, meant)| *meant).ok_or_else(|| {
            let known: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
            let meant = closest(&text, words.iter().map(|(word, _)| *word));
            let meant = meant
                .map(|meant| format!("; did you mean {meant:?}"))
                .unwrap_or_default();
            format!("expected {}, found {:?}{meant}", known.join(" or "), Shown(&text))
        })
    }
}

/// An http(s) URL without user, query and `/` at its end.
pub fn base_url(url: &str, example: &str, of_a_user: &str) -> Result<String, String> {
    let lower = url.to_lowercase();
    let rest = ["http://", "https://"]
        .iter()
        .find_map(|scheme| lower.strip_prefix(scheme));
    match rest {
        Some(rest) if rest.split('/').next().is_some_and(|host| host.contains('@')) => Err(of_a_user.to_owned()),
        Some(rest)
            if !rest.starts_with(['/', ':', '?', '#']) && !rest.is_empty() && !rest.contains(['?', '#', ' ']) =>
        {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(format!(r#"expected a URL such as "{example}", found {:?}"#, Shown(url))),
    }
}
