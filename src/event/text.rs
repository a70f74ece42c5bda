//! Makes what a sender wrote fit for a CloudEvents attribute. The payload keeps it as it came.

use std::{borrow::Cow, fmt::Write as _};

/// The longest attribute that a payload can bring about, in bytes of UTF-8: a stream's name is up to 128 characters.
pub const ATTRIBUTE_BYTES_MAX: usize = 1024;

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

/// `text` as a segment of a URI's path, percent-encoded.
pub fn uri_segment(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut encoded = String::with_capacity(text.len() * 3);
    for byte in text.bytes() {
        if plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("a String takes any text");
        }
    }
    Cow::Owned(encoded)
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
    use super::*;

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
        assert_eq!(uri_segment("ZG6NWV"), "ZG6NWV");
        assert_eq!(uri_segment("a/b ü"), "a%2Fb%20%C3%BC");
    }
}
