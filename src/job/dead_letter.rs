//! Records that no broker will take, kept with the reason in a spool of their own.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

const VERSION: u8 = 1;
/// With `attempts` behind the head.
const VERSION_ATTEMPTS: u8 = 2;

/// Why a record of a route was set aside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    pub route: String,
    /// The record's place in the spool.
    pub sequence: u64,
    /// The failure's label.
    pub reason: String,
    /// The failure's text, for people.
    pub text: String,
    /// When it was set aside, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// How often it was refused: 1, and more where it was published again.
    #[serde(skip)]
    pub attempts: u32,
    /// The record as it was in the spool.
    #[serde(skip)]
    pub record: Bytes,
}

/// Why a dead letter cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LetterDecodeError {
    #[error("a dead letter of version {0}, which this version does not know")]
    Version(u8),
    #[error("a dead letter that ends early")]
    Short,
    #[error("a dead letter's head cannot be read: {0}")]
    Head(#[from] postcard::Error),
}

impl DeadLetter {
    /// Version, length of the head (4 bytes, little-endian), head, record. It is of the lowest version that holds what
    /// it has.
    pub fn encode(&self) -> Bytes {
        let mut head = postcard::to_stdvec(self).expect("strings and numbers always encode");
        let version = match self.attempts {
            0 | 1 => VERSION,
            attempts => {
                head.extend_from_slice(&attempts.to_le_bytes());
                VERSION_ATTEMPTS
            }
        };
        let head_bytes = u32::try_from(head.len()).expect("a head is far below 4 GiB");
        let mut bytes = Vec::with_capacity(5 + head.len() + self.record.len());
        bytes.push(version);
        bytes.extend_from_slice(&head_bytes.to_le_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.record);
        bytes.into()
    }

    /// Reads what [`DeadLetter::encode`] wrote.
    pub fn decode(bytes: &Bytes) -> Result<Self, LetterDecodeError> {
        let (&version, rest) = bytes.split_first().ok_or(LetterDecodeError::Short)?;
        if !(VERSION..=VERSION_ATTEMPTS).contains(&version) {
            return Err(LetterDecodeError::Version(version));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(LetterDecodeError::Short)?;
        let head_bytes = u32::from_le_bytes(*length) as usize;
        let head = rest.get(..head_bytes).ok_or(LetterDecodeError::Short)?;
        let (mut letter, rest): (Self, _) = postcard::take_from_bytes(head)?;
        letter.attempts = match (version, rest.first_chunk::<4>()) {
            (VERSION, _) => 1,
            (_, Some(attempts)) => u32::from_le_bytes(*attempts),
            _ => return Err(LetterDecodeError::Short),
        };
        letter.record = bytes.slice(5 + head_bytes..);
        Ok(letter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter() -> DeadLetter {
        DeadLetter {
            route: "events".into(),
            sequence: 42,
            reason: "kafka_message_too_large".into(),
            text: "too large".into(),
            at_ms: 1_638_463_486_489,
            attempts: 1,
            record: Bytes::from_static(b"record"),
        }
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        assert_eq!(DeadLetter::decode(&letter().encode()).unwrap(), letter());
        let again = DeadLetter {
            attempts: 7,
            ..letter()
        };
        assert_eq!((letter().encode()[0], again.encode()[0]), (1, 2));
        assert_eq!(DeadLetter::decode(&again.encode()).unwrap(), again);
    }

    #[test]
    fn a_cut_one_or_one_of_another_version_is_an_error() {
        let bytes = letter().encode();
        let head_ends = bytes.len() - letter().record.len();
        for cut in 0..head_ends {
            assert!(DeadLetter::decode(&bytes.slice(..cut)).is_err(), "cut at {cut}");
        }
        let mut newer = bytes.to_vec();
        newer[0] = 3;
        assert!(matches!(
            DeadLetter::decode(&newer.into()),
            Err(LetterDecodeError::Version(3))
        ));
    }
}
