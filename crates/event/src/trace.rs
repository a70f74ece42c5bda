//! The trace that an event belongs to: [W3C Trace Context](https://www.w3.org/TR/trace-context/), as a `traceparent`
//! has it.

use std::fmt;

const TEXT_BYTES: usize = 55;
/// Sampled, and random trace id: what the flags of version 00 and its successor mean.
const FLAGS_KNOWN: u8 = 0b11;
const SAMPLED: u8 = 0b01;

/// A span, as others name it. Neither id is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

impl TraceContext {
    /// `None` where an id is zero, which names nothing. Unknown flags are cleared.
    pub fn new(trace_id: [u8; 16], span_id: [u8; 8], flags: u8) -> Option<Self> {
        let flags = flags & FLAGS_KNOWN;
        (trace_id != [0; 16] && span_id != [0; 8]).then_some(Self {
            trace_id,
            span_id,
            flags,
        })
    }

    /// Reads a `traceparent`. A version of the future is read as far as it says the same as this one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let version = hex::<1>(text.get(..2)?)?[0];
        let known = text.get(..TEXT_BYTES)?;
        let ends = match version {
            0xff => false,
            0 => text.len() == TEXT_BYTES,
            _ => matches!(text.get(TEXT_BYTES), None | Some(b'-')),
        };
        if !ends || [2, 35, 52].iter().any(|&at| known[at] != b'-') {
            return None;
        }
        Self::new(hex(&known[3..35])?, hex(&known[36..52])?, hex::<1>(&known[53..])?[0])
    }

    pub fn trace_id(self) -> [u8; 16] {
        self.trace_id
    }

    /// 32 digits, as tools show it.
    pub fn trace_id_text(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.trace_id))
    }

    pub fn span_id(self) -> [u8; 8] {
        self.span_id
    }

    pub fn flags(self) -> u8 {
        self.flags
    }

    /// Whether whoever began the trace records it.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }
}

/// As a `traceparent`.
impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let trace_id = u128::from_be_bytes(self.trace_id);
        let span_id = u64::from_be_bytes(self.span_id);
        write!(f, "00-{trace_id:032x}-{span_id:016x}-{:02x}", self.flags)
    }
}

/// Lower case only: a `traceparent` with other digits is not one.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_as_the_standard_says() {
        let sound = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        for (text, expected) in [
            (sound.to_owned(), Some(sound.to_owned())),
            (sound.replace("-01", "-00"), Some(sound.replace("-01", "-00"))),
            (sound.replace("-01", "-03"), Some(sound.replace("-01", "-03"))),
            (sound.replace("-01", "-ff"), Some(sound.replace("-01", "-03"))),
            (sound.replace("00-0", "cc-0"), Some(sound.to_owned())),
            (
                sound.replace("00-0", "cc-0") + "-what-the-future-brings",
                Some(sound.to_owned()),
            ),
            (sound.replace("00-0", "cc-0") + ".what", None),
            (sound.to_owned() + "-more", None),
            (sound.replace("00-0", "ff-0"), None),
            (sound.replace("00-0", "0-0"), None),
            (sound.to_uppercase(), None),
            (sound.replace("7ad", "7AD"), None),
            (sound.replace("7ad", "7xd"), None),
            (sound.replace("-b7", "_b7"), None),
            (sound[..54].to_owned(), None),
            (
                "00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(),
                None,
            ),
            (
                "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(),
                None,
            ),
            (String::new(), None),
        ] {
            let read = TraceContext::parse(text.as_bytes());
            assert_eq!(read.map(|context| context.to_string()), expected, "{text:?}");
        }
        assert!(TraceContext::parse(sound.as_bytes()).unwrap().is_sampled());
        assert!(
            !TraceContext::parse(sound.replace("-01", "-02").as_bytes())
                .unwrap()
                .is_sampled()
        );
    }
}
