//! What the API answers: `{"status":"success","data":…}`, `{"status":"fail","data":…}` or
//! `{"status":"error","message":…,"code"?,"data"?}`.

use std::time::{Duration, SystemTime};

use jiff::fmt::rfc2822;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde_json::Value;

/// An answer as its envelope says it is.
#[derive(Debug, PartialEq)]
pub(crate) enum ApiAnswer {
    Success(Value),
    Refusal { said: Option<String>, code: Option<i64> },
    Unreadable(&'static str),
}

/// Opens the envelope of an answer with this status.
pub(crate) fn open(status: u16, body: &[u8]) -> ApiAnswer {
    let is_success = (200..300).contains(&status);
    let value: Value = match serde_json::from_slice(body) {
        Ok(value) => value,
        Err(_) if is_success => return ApiAnswer::Unreadable("it is not JSON"),
        // Of a proxy, say: its page tells a person nothing that the status does not.
        Err(_) => Value::Null,
    };
    match value["status"].as_str() {
        Some("success") if is_success => match value.get("data") {
            Some(data) => ApiAnswer::Success(data.clone()),
            None => ApiAnswer::Unreadable("it has no data"),
        },
        // As the schema of the call for test events has it, and its example has not.
        None if is_success && value.is_boolean() => ApiAnswer::Success(value),
        Some("fail" | "error") => refusal(&value),
        _ if is_success => ApiAnswer::Unreadable("it has neither data nor an error"),
        _ => refusal(&value),
    }
}

fn refusal(value: &Value) -> ApiAnswer {
    // The last three are of RFC 9457, which what stands before the API may speak.
    let parts = ["message", "data", "title", "detail", "errors"];
    let parts = parts.into_iter().filter_map(|name| details(&value[name]));
    let said = parts.collect::<Vec<_>>().join("; ");
    ApiAnswer::Refusal {
        said: Some(said).filter(|said| !said.is_empty()),
        code: value["code"].as_i64(),
    }
}

/// A part of an error: a text, or whatever JSON it is.
fn details(part: &Value) -> Option<String> {
    match part {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Object(members) => {
            let shown = members.iter().map(|(name, value)| match value {
                Value::String(text) => format!("{name}: {text}"),
                value => format!("{name}: {value}"),
            });
            Some(shown.collect::<Vec<_>>().join(", "))
        }
        other => Some(other.to_string()),
    }
}

/// How long the API wants to be left alone: seconds, or a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = rfc2822::parse(text).ok()?.timestamp().as_second();
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(u64::try_from(date).ok()?.saturating_sub(now)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_what_its_envelope_says() {
        let refused = |said: &str, code| ApiAnswer::Refusal {
            said: Some(said.to_owned()).filter(|said| !said.is_empty()),
            code,
        };
        for (status, body, expected) in [
            (200, r#"{"status":"success","data":[]}"#, ApiAnswer::Success(json!([]))),
            (200, "true", ApiAnswer::Success(json!(true))),
            (200, "", ApiAnswer::Unreadable("it is not JSON")),
            (200, r#"{"status":"success"}"#, ApiAnswer::Unreadable("it has no data")),
            (200, "[]", ApiAnswer::Unreadable("it has neither data nor an error")),
            (200, r#"{"status":"fail","data":"no"}"#, refused("no", None)),
            (
                400,
                r#"{"status":"fail","data":{"url":"bad","n":1}}"#,
                refused("n: 1, url: bad", None),
            ),
            (
                500,
                r#"{"status":"error","message":"m","code":5,"data":{"a":"b"}}"#,
                refused("m; a: b", Some(5)),
            ),
            (
                500,
                r#"{"status":"error","message":"m","data":null}"#,
                refused("m", None),
            ),
            (502, "<html>", refused("", None)),
            (422, r#"{"status":422,"title":"t","detail":"d"}"#, refused("t; d", None)),
            (404, r#"{"status":"success","data":true}"#, refused("true", None)),
        ] {
            assert_eq!(open(status, body.as_bytes()), expected, "{status} {body}");
        }
    }

    #[test]
    fn how_long_to_wait_is_seconds_or_a_date() {
        let after = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, text.parse().unwrap());
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
            retry_after(&headers, now).map(|after| after.as_secs())
        };
        assert_eq!(after("120"), Some(120));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(7));
        assert_eq!(after("Sun, 06 Nov 1994 08:49:27 GMT"), Some(0));
        assert_eq!(after("soon"), None);
        assert_eq!(retry_after(&HeaderMap::new(), SystemTime::now()), None);
    }
}
