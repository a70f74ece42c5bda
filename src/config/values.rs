//! Reads single values: what is wrong with one fits after its key.

use std::{net::SocketAddr, ops::RangeInclusive, time::Duration};

use config::{Value, ValueKind};

use super::{IpNetwork, Shown, TemplatePart, TopicTemplate, host_of, source::ENV_PREFIX, table::closest};

/// What a value is, in a reader's words.
pub(super) fn kind(value: &ValueKind) -> &'static str {
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

fn is_from_env(value: &Value) -> bool {
    value.origin().is_some_and(|origin| origin.starts_with(ENV_PREFIX))
}

pub(super) fn text(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) if text.trim().is_empty() => Err("empty".to_owned()),
        ValueKind::String(text) => Ok(text.clone()),
        other => Err(format!("expected a text, found {}", kind(other))),
    }
}

/// A list of texts; from the environment `a,b` or `["a", "b"]`.
pub(super) fn list(value: &Value) -> Result<Vec<String>, String> {
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
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
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
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&Value) -> Result<Duration, String> {
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

pub(super) fn whole(bounds: RangeInclusive<u64>) -> impl Fn(&Value) -> Result<u64, String> {
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
pub(super) fn flag(value: &Value) -> Result<bool, String> {
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
pub(super) fn share(value: &Value) -> Result<f64, String> {
    let read = match &value.kind {
        ValueKind::Float(number) => Some(*number),
        ValueKind::I64(number) => Some(*number as f64),
        ValueKind::String(text) if is_from_env(value) => text.trim().parse().ok(),
        other => return Err(format!("expected a number from 0.0 to 1.0, found {}", kind(other))),
    };
    read.filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "expected a number from 0.0 to 1.0".to_owned())
}

/// The value of a librdkafka property, which may be a password: it is in no message.
pub(super) fn property(value: &Value) -> Result<String, String> {
    match &value.kind {
        ValueKind::String(text) => Ok(text.clone()),
        ValueKind::Boolean(value) => Ok(value.to_string()),
        ValueKind::I64(number) => Ok(number.to_string()),
        ValueKind::U64(number) => Ok(number.to_string()),
        ValueKind::Float(number) => Ok(number.to_string()),
        other => Err(format!(
            "expected a text, a number, true or false, found {}",
            kind(other)
        )),
    }
}

pub(super) fn listen(value: &Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let found = Shown(&text);
        format!(r#"expected an IP address and a port such as "0.0.0.0:8080" or "[::]:8080", found {found:?}"#)
    })
}

/// One of a few words, in any case.
pub(super) fn word<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&Value) -> Result<T, String> {
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

/// A list of `10.0.0.0/8`, `2001:db8::/32`, or single addresses.
pub(super) fn networks(value: &Value) -> Result<Vec<IpNetwork>, String> {
    list(value)?.iter().map(|network| network.parse()).collect()
}

/// An endpoint's path: compared byte by byte with a request's, so it holds nothing that a client would escape.
pub(super) fn path(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/') {
        return Err(format!("{:?} must start with /", Shown(&path)));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    if let Some(wrong) = path.chars().find(|c| !plain(*c)) {
        return Err(format!(
            "{:?} has {wrong:?}, which a URL's path cannot have as it is",
            Shown(&path)
        ));
    }
    if path.len() > 1024 {
        return Err("longer than 1024 characters".to_owned());
    }
    Ok(path)
}

/// `host`, `host:port` or `[v6]:port`.
pub(crate) fn broker(text: &str) -> Result<(), String> {
    if text.contains("://") {
        return Err(format!(
            "{:?} has a protocol; it goes under properties, as security.protocol",
            Shown(text)
        ));
    }
    if text.contains('@') {
        return Err(format!(
            "{:?} has a user; it goes under properties, as sasl.username and sasl.password",
            Shown(text)
        ));
    }
    let wrong = || format!(r#"{:?} is not a broker such as "kafka-1.example:9092""#, Shown(text));
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => (text, "9092"),
    };
    let port_is_good = port.parse::<u16>().is_ok_and(|port| port > 0);
    let host_is_good = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c)),
    };
    (port_is_good && host_is_good).then_some(()).ok_or_else(wrong)
}

/// One AMQP URI or its source, or a list of them. They may hold a password: none is in a message.
pub(super) fn uris(value: &Value) -> Result<Vec<String>, String> {
    match &value.kind {
        ValueKind::String(text) if is_from_env(value) && text.trim_start().starts_with('[') => {
            list(value).map_err(|_| r#"expected a JSON list of texts: ["a", "b"]"#.to_owned())
        }
        ValueKind::String(text) if is_from_env(value) => Ok(split_uris(text)),
        ValueKind::String(_) => Ok(vec![text(value)?]),
        ValueKind::Array(_) => list(value),
        other => Err(format!("expected a URI or a list of them, found {}", kind(other))),
    }
}

/// Splits at the commas that a URI or a source follows: a password may have commas of its own.
fn split_uris(text: &str) -> Vec<String> {
    const BEGINNINGS: [&str; 4] = ["amqp:", "amqps:", "env:", "file:"];
    let mut uris: Vec<String> = Vec::new();
    for part in text.split(',') {
        let begins = BEGINNINGS.iter().any(|word| part.trim_start().starts_with(word));
        match uris.last_mut() {
            Some(last) if !begins => last.extend([",", part]),
            _ => uris.push(part.to_owned()),
        }
    }
    uris
}

/// AMQP's limit on the name of an exchange or a queue, in bytes.
const AMQP_NAME_BYTES_MAX: usize = 255;

/// An exchange whose name leaves room for those that are made from it: `<exchange>.dead-letters`.
pub(super) fn exchange(value: &Value) -> Result<String, String> {
    let bytes_max = AMQP_NAME_BYTES_MAX - ".dead-letters".len();
    let name = text(value)?;
    match name.len() {
        bytes if bytes > bytes_max => Err(format!("longer than {bytes_max} bytes")),
        _ if name.chars().any(char::is_control) || name.trim() != name => {
            let name = Shown(&name);
            Err(format!("{name:?} has white space at an end, or a control character"))
        }
        _ => Ok(name),
    }
}

/// `http(s)://host:15672`, without a slash at the end. It is asked as the sink's own user.
pub(super) fn management(value: &Value) -> Result<String, String> {
    management_url(&text(value)?)
}

/// The same, of a text.
pub(crate) fn management_url(url: &str) -> Result<String, String> {
    base_url(
        url,
        "http://rabbitmq.example:15672",
        "has a user: the sink's own is used, leave it out",
    )
}

/// Where an OpenTelemetry collector takes OTLP over HTTP.
pub(super) fn collector(value: &Value) -> Result<String, String> {
    let url = base_url(
        &text(value)?,
        "http://collector.example:4318",
        "has a user: put it into the environment, OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20…",
    )?;
    match url.strip_suffix("/v1/traces") {
        None => Ok(url),
        Some(base) => Err(format!(
            "has the path of the traces, which is added: leave {}",
            host_of(base)
        )),
    }
}

/// An http(s) URL without user, query and `/` at its end.
fn base_url(url: &str, example: &str, of_a_user: &str) -> Result<String, String> {
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

/// Kafka's own limit on a topic's name, in bytes.
const TOPIC_BYTES_MAX: usize = 249;

impl TopicTemplate {
    /// Parses a topic with placeholders. Errors name the placeholder or the character that no topic can have.
    pub fn parse(text: &str) -> Result<Self, String> {
        const NAMES: [&str; 5] = ["provider", "endpoint", "account", "kind", "event"];
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((literal, after)) = rest.split_once('{') {
            parts.extend(literal_part(literal)?);
            let (name, after) = after
                .split_once('}')
                .ok_or_else(|| format!("{:?} has a {{ without a }}", Shown(text)))?;
            parts.push(match name {
                "provider" => TemplatePart::Provider,
                "endpoint" => TemplatePart::Endpoint,
                "account" => TemplatePart::Account,
                "kind" => TemplatePart::Kind,
                "event" => TemplatePart::Event,
                _ => {
                    let meant = closest(name, NAMES.into_iter()).map(|meant| format!("; did you mean {{{meant}}}"));
                    let known = || format!("; known: {{{}}}", NAMES.join("} {"));
                    let meant = meant.unwrap_or_else(known);
                    return Err(format!("unknown placeholder {{{}}}{meant}", Shown(name)));
                }
            });
            rest = after;
        }
        parts.extend(literal_part(rest)?);
        let literal_bytes: usize = parts
            .iter()
            .map(|part| {
                if let TemplatePart::Literal(l) = part {
                    l.len()
                } else {
                    0
                }
            })
            .sum();
        match parts.as_slice() {
            [] => Err("empty".to_owned()),
            [TemplatePart::Literal(name)] if name == "." || name == ".." => {
                Err(format!("a topic cannot be called {name:?}"))
            }
            _ if literal_bytes > TOPIC_BYTES_MAX => Err(format!("longer than a topic's {TOPIC_BYTES_MAX} characters")),
            _ => Ok(Self { parts }),
        }
    }
}

fn literal_part(text: &str) -> Result<Option<TemplatePart>, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match text.chars().find(|c| !legal(*c)) {
        Some(wrong) => Err(format!("{wrong:?} cannot be in a topic's name; a-z A-Z 0-9 . _ - can")),
        None if text.is_empty() => Ok(None),
        None => Ok(Some(TemplatePart::Literal(text.to_owned()))),
    }
}
