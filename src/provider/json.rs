//! JSON objects whose members stay exactly as they came: their order, duplicates, digits and escapes.

use std::borrow::Cow;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// A member of an object.
#[derive(Debug, Clone)]
pub struct Member<'a> {
    pub name: Cow<'a, str>,
    /// The name as it came, with its quotes.
    pub raw_name: &'a str,
    /// The value as it came.
    pub value: &'a str,
}

/// An object's members, in their order.
#[derive(Debug, Default)]
pub struct Object<'a>(pub Vec<Member<'a>>);

impl<'a> Object<'a> {
    /// `None`: not a JSON object.
    pub fn parse(json: &'a str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// The value of the last member of this name, which is the one that JSON parsers keep.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        self.0
            .iter()
            .rev()
            .find(|member| member.name == name)
            .map(|member| member.value)
    }

    pub fn count(&self, name: &str) -> usize {
        self.0.iter().filter(|member| member.name == name).count()
    }

    /// The text of a member that is a string or a number, unless it is empty.
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        self.value(name).and_then(scalar).filter(|text| !text.is_empty())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members = Vec::with_capacity(8);
                while let Some((name, value)) = map.next_entry::<&RawValue, &RawValue>()? {
                    members.push(Member {
                        name: string_inside(name.get()),
                        raw_name: name.get(),
                        value: value.get(),
                    });
                }
                Ok(Object(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

/// The text of a JSON string; `None` for any other value.
pub fn string(value: &str) -> Option<Cow<'_, str>> {
    value.starts_with('"').then(|| string_inside(value))
}

/// The text of a JSON string, or of a number as it came.
pub fn scalar(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'"' => Some(string_inside(value)),
        b'-' | b'0'..=b'9' => Some(Cow::Borrowed(value)),
        _ => None,
    }
}

/// Appends `text` as a JSON string.
pub fn write_string(json: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(json, text).expect("a text is always serialized into memory");
}

fn string_inside(quoted: &str) -> Cow<'_, str> {
    let inside = &quoted[1..quoted.len() - 1];
    if !inside.contains('\\') {
        return Cow::Borrowed(inside);
    }
    Cow::Owned(serde_json::from_str(quoted).unwrap_or_else(|_| unescape_lossy(inside)))
}

/// Unescapes what `serde_json` refuses: half a surrogate pair, which is JSON but no Unicode text. It becomes U+FFFD.
fn unescape_lossy(inside: &str) -> String {
    let mut units = Vec::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(c) = chars.next() {
        let unescaped = match c {
            '\\' => match chars.next() {
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).collect();
                    units.push(u16::from_str_radix(&digits, 16).unwrap_or(0xFFFD));
                    continue;
                }
                Some('b') => '\u{8}',
                Some('f') => '\u{C}',
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            },
            other => other,
        };
        units.extend_from_slice(unescaped.encode_utf16(&mut [0; 2]));
    }
    String::from_utf16_lossy(&units)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_stay_as_they_came() {
        let object = Object::parse(r#" {"a": 1.000, "\u0061":[ 2 ],"b\ud800":"\ud83d\ude00\ud83d\n"} "#).unwrap();
        let members: Vec<_> = object
            .0
            .iter()
            .map(|m| (m.name.as_ref(), m.raw_name, m.value))
            .collect();
        assert_eq!(
            members,
            [
                ("a", r#""a""#, "1.000"),
                ("a", r#""\u0061""#, "[ 2 ]"),
                ("b\u{FFFD}", r#""b\ud800""#, r#""\ud83d\ude00\ud83d\n""#),
            ]
        );
        assert_eq!(object.text("b\u{FFFD}").unwrap(), "😀\u{FFFD}\n");
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for json in ["", "[]", "{", "{}x", "{\"a\":}", "{\"a\":\"\n\"}", "null"] {
            assert!(Object::parse(json).is_none(), "{json:?}");
        }
    }
}
