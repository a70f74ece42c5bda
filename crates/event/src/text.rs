//! Makes what a sender wrote fit for a CloudEvents attribute. The payload keeps it as it came.

use std::{borrow::Cow, fmt::Write as _};

/// The longest attribute that a payload can bring about, in bytes of UTF-8: a stream's name is up to 128 characters.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

/// The longest media type, in bytes.
pub const MEDIA_TYPE_BYTES_MAX: usize = 255;

/// The longest kind or event, in bytes.
pub const WORD_BYTES_MAX: usize = 64;

/// `text` as a CloudEvents string: control characters and noncharacters, which it must not hold, are replaced by
/// U+FFFD, and what is beyond [`ATTRIBUTE_BYTES_MAX`] is cut off.
pub fn attribute(text: &str) -> Cow<'_, str> {
    let text = truncate(text, ATTRIBUTE_BYTES_MAX);
    if text.chars().any(is_forbidden) {
        let replaced = text.chars().map(|c| {
            if is_forbidden(c) {
                char::REPLACEMENT_CHARACTER
            } else {
                c
            }
        });
        let replaced: String = replaced.collect();
        Cow::Owned(truncate(&replaced, ATTRIBUTE_BYTES_MAX).to_owned())
    } else {
        Cow::Borrowed(text)
    }
}

/// Appends `text` as a JSON string.
pub fn write_json(json: &mut Vec<u8>, text: &str) {
    let is_escaped = |byte: u8| byte < 0x20 || matches!(byte, b'"' | b'\\');
    // Most have nothing to escape, which is seen many bytes at a time where there is no end before the last one.
    if text.bytes().fold(false, |found, byte| found | is_escaped(byte)) {
        serde_json::to_writer(json, text).expect("a text is always serialized into memory");
    } else {
        json.reserve(text.len() + 2);
        json.push(b'"');
        json.extend_from_slice(text.as_bytes());
        json.push(b'"');
    }
}

/// `text` as a word of a type: in lower case, characters outside `a-z0-9-` replaced by `-`; `unknown` when empty.
///
/// The second value tells that something other than the case of letters was lost.
pub fn word(text: &str) -> (String, bool) {
    if text.is_empty() {
        return ("unknown".to_owned(), true);
    }
    let mut lossy = false;
    let mut word = String::with_capacity(text.len().min(WORD_BYTES_MAX));
    for c in text.chars() {
        if word.len() == WORD_BYTES_MAX {
            return (word, true);
        }
        match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '-') => word.push(c),
            _ => {
                lossy = true;
                word.push('-');
            }
        }
    }
    (word, lossy)
}

/// `text` as a segment of a URI's path, percent-encoded. What is beyond `bytes_max` is cut off, between characters.
pub fn uri_segment(text: &str, bytes_max: usize) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(plain) {
        return Cow::Borrowed(truncate(text, bytes_max));
    }
    let mut encoded = String::new();
    for c in text.chars() {
        let whole = encoded.len();
        for &byte in c.encode_utf8(&mut [0; 4]).as_bytes() {
            if plain(byte) {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").expect("a String takes any text");
            }
        }
        if encoded.len() > bytes_max {
            encoded.truncate(whole);
            break;
        }
    }
    Cow::Owned(encoded)
}

/// Whether `text` is a media type (RFC 2046) that every parser of these takes, in the 255 bytes that AMQP has for one.
pub fn is_media_type(text: &str) -> bool {
    let mut parts = text.split(';');
    let essence = parts.next().unwrap_or_default().trim_end_matches([' ', '\t']);
    let is_named = essence
        .split_once('/')
        .is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    let mut names: Vec<&str> = Vec::new();
    for part in parts {
        let Some((name, value)) = part.trim_matches([' ', '\t']).split_once('=') else {
            return false;
        };
        let is_twice = names.iter().any(|known| known.eq_ignore_ascii_case(name));
        // `*` makes a name one of RFC 2231, whose value has a grammar of its own.
        if is_twice || !is_token(name) || name.contains('*') || !(is_token(value) || is_quoted(value)) {
            return false;
        }
        names.push(name);
    }
    text.len() <= MEDIA_TYPE_BYTES_MAX && is_named
}

/// The media type without its parameters.
pub fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim_ascii()
}

fn is_token(text: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(in_token)
}

/// A quoted string without anything that is escaped, or that would have to be.
fn is_quoted(text: &str) -> bool {
    let inside = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inside.is_some_and(|inside| {
        inside
            .bytes()
            .all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
    })
}

fn is_forbidden(c: char) -> bool {
    let noncharacter = matches!(c, '\u{FDD0}'..='\u{FDEF}') || (c as u32) & 0xFFFE == 0xFFFE;
    c.is_control() || noncharacter
}

fn truncate(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_json_string_is_as_serde_json_has_it(text in any::<String>()) {
            let mut json = Vec::new();
            write_json(&mut json, &text);
            prop_assert_eq!(json, serde_json::to_vec(&text).unwrap());
        }
    }

    #[test]
    fn what_json_escapes_is_escaped_also_at_the_end() {
        for text in ["", "plain", "a\"", "\\", "\u{1f}b", "\u{7f}é😀", "line\n"] {
            let mut json = Vec::new();
            write_json(&mut json, text);
            assert_eq!(json, serde_json::to_vec(text).unwrap(), "{text:?}");
        }
    }

    #[test]
    fn what_an_attribute_must_not_hold_is_replaced() {
        for (text, expected) in [
            ("ZG6NWV/Ümläut 日本 😀", "ZG6NWV/Ümläut 日本 😀"),
            (
                "a\tb\nc\0d\u{7f}e\u{85}",
                "a\u{FFFD}b\u{FFFD}c\u{FFFD}d\u{FFFD}e\u{FFFD}",
            ),
            ("\u{FFFE}\u{1FFFF}\u{FDD0}", "\u{FFFD}\u{FFFD}\u{FFFD}"),
        ] {
            assert_eq!(attribute(text), expected);
        }
        assert_eq!(attribute(&"é".repeat(1000)), "é".repeat(ATTRIBUTE_BYTES_MAX / 2));
        assert!(attribute(&"\n".repeat(1000)).len() <= ATTRIBUTE_BYTES_MAX);
    }

    #[test]
    fn a_word_is_made_of_lower_case_letters_digits_and_hyphens() {
        for (text, expected, lossy) in [
            ("feeds", "feeds", false),
            ("ViewerAttempt", "viewerattempt", false),
            ("a b_c.d/é", "a-b-c-d--", true),
            ("", "unknown", true),
        ] {
            assert_eq!(word(text), (expected.to_owned(), lossy), "{text:?}");
        }
        assert_eq!(word(&"A".repeat(65)), ("a".repeat(64), true));
        assert_eq!(word(&"A".repeat(64)), ("a".repeat(64), false));
    }

    #[test]
    fn an_account_is_escaped_in_the_source() {
        for (text, bytes_max, expected) in [
            ("ZG6NWV", 6, "ZG6NWV"),
            ("ZG6NWV", 5, "ZG6NW"),
            ("a/b ü", 14, "a%2Fb%20%C3%BC"),
            ("a/b ü", 13, "a%2Fb%20"),
            ("ü", 5, ""),
        ] {
            assert_eq!(uri_segment(text, bytes_max), expected);
        }
    }

    #[test]
    fn only_a_media_type_that_every_parser_takes_is_one() {
        for (text, expected) in [
            ("text/plain", true),
            ("Application/Problem+JSON", true),
            ("text/plain; charset=utf-8", true),
            ("text/plain ;charset=\"utf-8\"; a=b ;c=\"; d\"", false),
            ("text/plain ;charset=\"utf-8\"; a=b ;c=\"d e\"", true),
            ("text/plain;\tcharset=utf-8", true),
            ("garbage", false),
            ("", false),
            ("/", false),
            ("a/", false),
            ("/b", false),
            ("a/b/c", false),
            (" a/b", false),
            ("a/b;", false),
            ("a/b;c", false),
            ("a/b;c=", false),
            ("a/b;=c", false),
            ("a/b;c=d;C=e", false),
            ("a/b;c*=utf-8''d", false),
            ("a/b;c=\"d\\e\"", false),
            ("a/b;c=\"d", false),
            ("a/b, c/d", false),
            ("é/ü", false),
            ("a/b;c=é", false),
            ("a/b\n", false),
        ] {
            assert_eq!(is_media_type(text), expected, "{text:?}");
        }
        let long = format!("a/{}", "b".repeat(MEDIA_TYPE_BYTES_MAX - 2));
        assert!(is_media_type(&long) && !is_media_type(&(long + "b")));
        assert_eq!(essence("Text/Plain ; a=b"), "Text/Plain");
    }
}
