//! The routing key: `<partition>.<kind>.<event>.<account>.<stream>`.
//!
//! A word may hold any text, so the bytes that mean something in a topic exchange (`.`, `*`, `#`), the escape itself
//! (`%`), control characters and the space are written as `%` and two hexadecimal digits. AMQP allows 255 bytes: in a
//! key that would be longer, a word is cut and ends in `~` and 16 hexadecimal digits of the SHA-1 of the whole word,
//! before escaping. A `~` of the word's own is escaped, so a key that holds one was shortened.

use sha1::{Digest as _, Sha1};

/// What AMQP allows.
pub const BYTES_MAX: usize = 255;
/// Room for a partition below 1000 and its dot.
const WORDS_BYTES_MAX: usize = BYTES_MAX - 4;
/// `~` and the digits.
const MARK_BYTES: usize = 17;
/// Of each word before the stream, where all of them together leave no room for it.
const WORD_BYTES_MAX: usize = (WORDS_BYTES_MAX - MARK_BYTES - 3) / 3;

/// The words behind the partition, each escaped so that it holds no `.`, `*` or `#` and can be read back.
pub fn words(kind: &str, event: Option<&str>, account: Option<&str>, stream: &str) -> String {
    let mut words = String::with_capacity(WORDS_BYTES_MAX);
    push(&mut words, kind, usize::MAX);
    words.push('.');
    push_event(&mut words, event, usize::MAX);
    words.push('.');
    push(&mut words, account.unwrap_or("unknown"), usize::MAX);
    if words.len() + 1 + MARK_BYTES > WORDS_BYTES_MAX {
        words.clear();
        push(&mut words, kind, WORD_BYTES_MAX);
        words.push('.');
        push_event(&mut words, event, WORD_BYTES_MAX);
        words.push('.');
        push(&mut words, account.unwrap_or("unknown"), WORD_BYTES_MAX);
    }
    words.push('.');
    let room = WORDS_BYTES_MAX - words.len();
    push(&mut words, stream, room);
    words
}

/// Whether a word was cut.
pub fn is_shortened(words: &str) -> bool {
    words.contains('~')
}

/// The whole routing key.
pub fn with_partition(partition: u32, words: &str) -> String {
    use std::fmt::Write as _;
    let mut key = String::with_capacity(words.len() + 4);
    write!(key, "{partition:02}.{words}").expect("writing to a string does not fail");
    key
}

/// An absent event is `-`; one that is called so is not.
fn push_event(words: &mut String, event: Option<&str>, room: usize) {
    match event {
        None => words.push('-'),
        Some("-") => words.push_str("%2D"),
        Some(event) => push(words, event, room),
    }
}

/// Appends a word, escaped, cut to `room` bytes if need be.
fn push(words: &mut String, word: &str, room: usize) {
    let start = words.len();
    // Where the word may be cut so that the mark still fits.
    let mut cut = start;
    for character in word.chars() {
        let end = words.len();
        if end - start + MARK_BYTES <= room {
            cut = end;
        }
        if must_escape(character) {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            let mut bytes = [0; 4];
            for byte in character.encode_utf8(&mut bytes).bytes() {
                words.push('%');
                words.push(DIGITS[usize::from(byte >> 4)].into());
                words.push(DIGITS[usize::from(byte & 15)].into());
            }
        } else {
            words.push(character);
        }
        if words.len() - start > room {
            words.truncate(cut);
            words.push('~');
            let digest = Sha1::digest(word.as_bytes());
            for byte in &digest[..8] {
                words.push_str(&format!("{byte:02x}"));
            }
            return;
        }
    }
}

fn must_escape(character: char) -> bool {
    matches!(character, '.' | '*' | '#' | '%' | '~' | ' ') || character.is_control()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_back(word: &str) -> String {
        let mut bytes = Vec::new();
        let mut rest = word.as_bytes();
        while let Some((&byte, after)) = rest.split_first() {
            rest = after;
            if byte == b'%' {
                bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
                rest = &rest[2..];
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn words_stand_behind_each_other() {
        let rows = [
            (
                ("feeds", Some("started"), Some("ZG6NWV"), "cam"),
                "feeds.started.ZG6NWV.cam",
            ),
            (
                ("unreadable", None, None, "a.b*c#d%e f~"),
                "unreadable.-.unknown.a%2Eb%2Ac%23d%25e%20f%7E",
            ),
            (("x", Some("-"), Some("A"), "é\n"), "x.%2D.A.é%0A"),
        ];
        for ((kind, event, account, stream), expected) in rows {
            let words = words(kind, event, account, stream);
            assert_eq!(words, expected);
            assert!(!is_shortened(&words));
        }
        assert_eq!(with_partition(3, "a.b"), "03.a.b");
        assert_eq!(with_partition(123, "a.b"), "123.a.b");
    }

    #[test]
    fn long_streams_that_begin_alike_stay_apart() {
        let (one, other) = ("é".repeat(200) + "1", "é".repeat(200) + "2");
        let [one, other] = [one, other].map(|stream| words("feeds", Some("started"), Some("A"), &stream));
        assert_ne!(one, other);
        assert!(
            is_shortened(&one) && one.len() <= WORDS_BYTES_MAX && one.len() > WORDS_BYTES_MAX - 4,
            "{one}"
        );
    }

    proptest! {
        #[test]
        fn a_key_is_read_back_or_says_that_it_was_shortened(
            kind in ".{0,40}|[a-z]{200,300}", event in proptest::option::of(".{0,40}"),
            account in proptest::option::of(".{1,40}"), stream in ".{0,300}", partition in 0_u32..1000,
        ) {
            let words = words(&kind, event.as_deref(), account.as_deref(), &stream);
            let key = with_partition(partition, &words);
            prop_assert!(key.len() <= BYTES_MAX, "{} bytes", key.len());
            prop_assert!(!words.contains(['*', '#', ' ']) && !words.contains(char::is_control));
            let parts: Vec<&str> = words.split('.').collect();
            prop_assert_eq!(parts.len(), 4);
            if !is_shortened(&words) {
                prop_assert_eq!(read_back(parts[0]), kind);
                match &event {
                    None => prop_assert_eq!(parts[1], "-"),
                    Some(event) => {
                        prop_assert_ne!(parts[1], "-");
                        prop_assert_eq!(&read_back(parts[1]), event);
                    }
                }
                prop_assert_eq!(read_back(parts[2]), account.unwrap_or("unknown".into()));
                prop_assert_eq!(read_back(parts[3]), stream);
            }
        }
    }
}
