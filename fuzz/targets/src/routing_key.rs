//! RabbitMQ's routing key: it can be read back, or says that it was shortened, and two events share one only where what
//! it is made of is the same.
//!
//! The input has the words of two events. For each:
//!
//! - the key has at most 255 bytes, and five words between its dots, none of them empty unless it was before;
//! - no `*`, `#`, space or control character is in it;
//! - where it was not shortened, each word is read back as it was;
//! - where both are the same, so are the words: other words, other keys.

use forebay_rabbitmq::routing_key::{BYTES_MAX, is_shortened, with_partition, words};

use crate::InputReader;

/// Room for its number is in every key.
const PARTITIONS_MAX: usize = 1000;
/// A name may be longer than a key.
const REPEATS_MAX: usize = 4;

/// See the module.
pub fn routing_key(input: &[u8]) {
    let mut input = InputReader::new(input);
    let [one, other] = [(); 2].map(|()| KeyWords::read(&mut input));
    let keys = [&one, &other].map(KeyWords::check);
    assert_eq!(keys[0] == keys[1], one == other, "{one:?} and {other:?} have {keys:?}");
}

/// What a key is made of. Without an account it says `unknown`.
#[derive(Debug, PartialEq, Eq)]
struct KeyWords {
    partition: u32,
    kind: String,
    event: Option<String>,
    account: String,
    stream: String,
}

impl KeyWords {
    fn read(input: &mut InputReader<'_>) -> Self {
        let partition = input.below(PARTITIONS_MAX) as u32;
        let mut text = || String::from_utf8_lossy(input.piece()).repeat(1 + input.below(REPEATS_MAX));
        let (kind, event, account, stream) = (text(), text(), text(), text());
        Self {
            partition,
            kind,
            event: Some(event).filter(|event| !event.is_empty()),
            account: Some(account)
                .filter(|account| !account.is_empty())
                .unwrap_or_else(|| "unknown".into()),
            stream,
        }
    }

    /// The key, which is as it must be.
    fn check(&self) -> String {
        let account = (self.account != "unknown").then_some(self.account.as_str());
        let words = words(&self.kind, self.event.as_deref(), account, &self.stream);
        let key = with_partition(self.partition, &words);
        assert!(key.len() <= BYTES_MAX, "{} bytes: {key}", key.len());
        let is_special = |c: char| matches!(c, '*' | '#' | ' ') || c.is_control();
        assert!(!key.contains(is_special), "{key}");
        let parts: Vec<&str> = key.split('.').collect();
        let [partition, kind, event, account, stream] = parts[..] else {
            panic!("{} words: {key}", parts.len());
        };
        assert_eq!(partition.parse(), Ok(self.partition));
        if !is_shortened(&words) {
            assert_eq!(unescape(kind), self.kind);
            assert_eq!((event != "-").then(|| unescape(event)), self.event);
            assert_eq!(unescape(account), self.account);
            assert_eq!(unescape(stream), self.stream);
        }
        key
    }
}

/// The word that was escaped, as a consumer reads it.
fn unescape(word: &str) -> String {
    let mut parts = word.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at(2);
        bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).expect("text becomes text again")
}
