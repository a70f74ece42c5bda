//! The topic of a route, which may be made from the event.

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

    /// `topic` is what it names, or can be made of it.
    pub fn fits(&self, topic: &str) -> bool {
        fits(&self.parts, topic)
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
