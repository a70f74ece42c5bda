//! The topic of a route, which may be made from the event.

use forebay_event::{Event, Provider};
use forebay_section::{Shown, closest};

/// A topic's name is at most this long in Kafka.
const TOPIC_BYTES_MAX: usize = 249;

/// A topic with placeholders: `{provider}`, `{endpoint}`, `{account}`, `{kind}`, `{event}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicTemplate {
    pub parts: Vec<TemplatePart>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TemplatePart {
    Literal(String),
    Provider,
    Endpoint,
    Account,
    Kind,
    Event,
}

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

    /// The topic, when the template has no placeholder.
    pub fn literal(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [TemplatePart::Literal(topic)] => Some(topic),
            _ => None,
        }
    }

    /// What a placeholder's value is in a topic: characters that a topic cannot hold become `_` and two hexadecimal
    /// digits for each byte.
    pub fn word(value: &str) -> String {
        let mut word = String::new();
        for &byte in value.as_bytes() {
            if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
                word.push(byte as char);
            } else {
                word.push_str(&format!("_{byte:02X}"));
            }
        }
        word
    }

    /// The topic of an event.
    pub fn expand(&self, event: &Event, provider: &Provider) -> String {
        let mut topic = String::new();
        for part in &self.parts {
            let word = match part {
                TemplatePart::Literal(text) => text,
                TemplatePart::Provider => provider.name,
                TemplatePart::Endpoint => &event.endpoint,
                TemplatePart::Account => event.account.as_deref().unwrap_or("unknown"),
                TemplatePart::Kind => &event.kind,
                TemplatePart::Event => event.name.as_deref().unwrap_or("none"),
            };
            topic.push_str(&Self::word(word));
        }
        topic.truncate(TOPIC_BYTES_MAX);
        topic
    }

    /// `topic` is what it names, or can be made of it.
    pub fn fits(&self, topic: &str) -> bool {
        fits(&self.parts, topic)
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

/// A placeholder stands for one character or more.
fn fits(parts: &[TemplatePart], topic: &str) -> bool {
    match parts {
        [] => topic.is_empty(),
        [TemplatePart::Literal(text), rest @ ..] => {
            topic.strip_prefix(text.as_str()).is_some_and(|topic| fits(rest, topic))
        }
        [_, rest @ ..] => topic
            .char_indices()
            .skip(1)
            .map(|(at, _)| at)
            .chain([topic.len()])
            .any(|at| at > 0 && fits(rest, &topic[at..])),
    }
}

impl std::fmt::Display for TopicTemplate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.parts.iter().try_for_each(|part| {
            f.write_str(match part {
                TemplatePart::Literal(text) => text,
                TemplatePart::Provider => "{provider}",
                TemplatePart::Endpoint => "{endpoint}",
                TemplatePart::Account => "{account}",
                TemplatePart::Kind => "{kind}",
                TemplatePart::Event => "{event}",
            })
        })
    }
}
