//! Where a request ends: its head by the empty line, its body by the length or the chunks that the head declares.
//!
//! This reads no more of HTTP than that, to hand bytes to actix-web one request at a time. What a request means, and
//! whether it is one, is actix-web's to judge: where the two could disagree, nothing after the doubtful place is handed
//! on, so a disagreement can close a connection but never make one request into two.

use std::ops::Range;

/// As many header fields as actix-web takes.
const HEADERS_MAX: usize = 96;

/// What follows a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum BodyFraming {
    /// So many bytes; 0 where there is no body.
    Length(u64),
    Chunked(ChunkScanner),
    /// The head is none that is understood: actix-web gets it to refuse, and nothing after it.
    Unknown,
}

/// The length of the head at the start of `bytes`, with its empty line and what empty lines precede it; `None`: it is
/// not complete.
///
/// `searched` bytes were looked at before, and had no end of a head.
pub(super) fn head_length(bytes: &[u8], searched: usize) -> Option<usize> {
    let start = bytes.iter().position(|&byte| byte != b'\r' && byte != b'\n')?;
    // An end is up to four bytes long, so it can begin in what was searched.
    let from = searched.saturating_sub(3).max(start);
    let mut line_feeds = (from..bytes.len()).filter(|&at| bytes[at] == b'\n');
    line_feeds.find_map(|at| match bytes.get(at + 1..)? {
        [b'\n', ..] => Some(at + 2),
        [b'\r', b'\n', ..] => Some(at + 3),
        _ => None,
    })
}

/// What the complete `head` says of its body. No connection is upgraded, so that a request which asks for it is one
/// like any other (RFC 9110, 7.8): the option `upgrade` of its `Connection` becomes spaces.
pub(super) fn take_head(head: &mut [u8]) -> BodyFraming {
    let (framing, upgrades) = read_head(head);
    for option in upgrades {
        head[option].fill(b' ');
    }
    framing
}

/// The body's framing, and where the head has the connection option `upgrade`.
fn read_head(head: &[u8]) -> (BodyFraming, Vec<Range<usize>>) {
    let mut fields = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut fields);
    if !matches!(request.parse(head), Ok(httparse::Status::Complete(_))) {
        return (BodyFraming::Unknown, Vec::new());
    }
    let named = |name: &'static str| {
        (request.headers.iter())
            .filter(move |field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    };
    let upgrades = named("connection").flat_map(|value| options(head, value, b"upgrade"));
    let upgrades = upgrades.collect();
    let (mut lengths, mut codings) = (named("content-length"), named("transfer-encoding"));
    let framing = match (lengths.next(), lengths.next(), codings.next(), codings.next()) {
        (None, _, None, _) => BodyFraming::Length(0),
        (Some(length), None, None, _) => decimal(length).map_or(BodyFraming::Unknown, BodyFraming::Length),
        (None, _, Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => {
            BodyFraming::Chunked(ChunkScanner::default())
        }
        _ => BodyFraming::Unknown,
    };
    (framing, upgrades)
}

/// Where `value`, a part of `head` and a list, has `option`.
fn options<'a>(head: &'a [u8], value: &'a [u8], option: &'a [u8]) -> impl Iterator<Item = Range<usize>> + 'a {
    let offset = value.as_ptr().addr() - head.as_ptr().addr();
    let mut start = offset;
    value.split(|&byte| byte == b',').filter_map(move |part| {
        let from = start + (part.len() - part.trim_ascii_start().len());
        start += part.len() + 1;
        let word = part.trim_ascii();
        word.eq_ignore_ascii_case(option).then(|| from..from + word.len())
    })
}

fn decimal(value: &[u8]) -> Option<u64> {
    let digits = value.trim_ascii();
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Follows a chunked body (RFC 9112, 7.1) to its end, without keeping any of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ChunkScanner(ChunkState);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum ChunkState {
    /// In a chunk's size, of which so many digits came.
    #[default]
    SizeStart,
    Size(u64),
    Extension(u64),
    SizeLineFeed(u64),
    Data(u64),
    DataCarriageReturn,
    DataLineFeed,
    /// At the start of a line after the last chunk.
    TrailerStart,
    Trailer,
    TrailerLineFeed,
    LastLineFeed,
}

/// What was found in a piece of a chunked body.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ChunkFraming {
    /// The body goes on.
    More,
    /// The body ends before this offset.
    End(usize),
    /// What is at this offset is not of a chunked body.
    Malformed(usize),
}

impl ChunkScanner {
    /// Follows the body through its next `bytes`.
    pub fn scan(&mut self, bytes: &[u8]) -> ChunkFraming {
        let mut at = 0;
        while at < bytes.len() {
            if let ChunkState::Data(left) = self.0 {
                let skipped = left.min((bytes.len() - at) as u64);
                at += skipped as usize;
                self.0 = match left - skipped {
                    0 => ChunkState::DataCarriageReturn,
                    left => ChunkState::Data(left),
                };
                continue;
            }
            match self.0.next(bytes[at]) {
                Some(None) => return ChunkFraming::End(at + 1),
                Some(Some(state)) => self.0 = state,
                None => return ChunkFraming::Malformed(at),
            }
            at += 1;
        }
        ChunkFraming::More
    }
}

impl ChunkState {
    /// The state after `byte`, `Some(None)` after the last byte of the body; `None`: the byte has no place here.
    fn next(self, byte: u8) -> Option<Option<Self>> {
        use ChunkState::*;
        let state = match (self, byte) {
            (SizeStart, _) => Size(digit(byte)?),
            (Size(size), b';') => Extension(size),
            (Size(size) | Extension(size), b'\r') => SizeLineFeed(size),
            (Size(size), _) => Size(size.checked_mul(16)?.checked_add(digit(byte)?)?),
            (Extension(size), b'\t' | b' '..=b'~' | 0x80..) => Extension(size),
            (SizeLineFeed(0), b'\n') => TrailerStart,
            (SizeLineFeed(size), b'\n') => Data(size),
            (DataCarriageReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => SizeStart,
            (TrailerStart, b'\r') => LastLineFeed,
            (TrailerStart | Trailer, b'\t' | b' '..=b'~' | 0x80..) => Trailer,
            (Trailer, b'\r') => TrailerLineFeed,
            (TrailerLineFeed, b'\n') => TrailerStart,
            (LastLineFeed, b'\n') => return Some(None),
            _ => return None,
        };
        Some(Some(state))
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_head_ends_with_its_first_empty_line() {
        for (bytes, expected) in [
            ("", None),
            ("\r\n\r\n", None),
            ("GET / HTTP/1.1\r\n", None),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r", None),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", Some(27)),
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\nbody\r\n\r\n", Some(27)),
            ("GET / HTTP/1.1\nhost: a\n\nbody", Some(24)),
            ("GET / HTTP/1.1\nhost: a\n\r\nbody", Some(25)),
            ("\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(22)),
        ] {
            assert_eq!(head_length(bytes.as_bytes(), 0), expected, "{bytes:?}");
        }
    }

    #[test]
    fn a_body_is_what_one_length_or_chunks_say() {
        for (fields, expected) in [
            ("", BodyFraming::Length(0)),
            ("content-length: 17\r\n", BodyFraming::Length(17)),
            ("Content-Length:0\r\n", BodyFraming::Length(0)),
            (
                "Transfer-Encoding: Chunked\r\n",
                BodyFraming::Chunked(ChunkScanner::default()),
            ),
            ("content-length: 1\r\ncontent-length: 1\r\n", BodyFraming::Unknown),
            ("content-length: +1\r\n", BodyFraming::Unknown),
            ("content-length: 1, 1\r\n", BodyFraming::Unknown),
            ("content-length: 18446744073709551616\r\n", BodyFraming::Unknown),
            (
                "content-length: 1\r\ntransfer-encoding: chunked\r\n",
                BodyFraming::Unknown,
            ),
            ("transfer-encoding: gzip, chunked\r\n", BodyFraming::Unknown),
            ("transfer-encoding: identity\r\n", BodyFraming::Unknown),
            ("a b: c\r\n", BodyFraming::Unknown),
        ] {
            let head = format!("POST / HTTP/1.1\r\nhost: a\r\n{fields}\r\n");
            assert_eq!(take_head(&mut head.into_bytes()), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_connection_that_is_to_be_upgraded_is_one_like_any_other() {
        for (before, after) in [
            (
                "Connection: Upgrade, HTTP2-Settings",
                "Connection:        , HTTP2-Settings",
            ),
            ("connection: close,upgrade , x", "connection: close,        , x"),
            ("connection:upgrade", "connection:       "),
            ("connection: upgraded", "connection: upgraded"),
            ("connection: keep-alive", "connection: keep-alive"),
            ("x: upgrade", "x: upgrade"),
        ] {
            let head = |line: &str| format!("POST / HTTP/1.1\r\nhost: a\r\n{line}\r\nupgrade: h2c\r\n\r\n");
            let mut taken = head(before).into_bytes();
            take_head(&mut taken);
            assert_eq!(String::from_utf8(taken).unwrap(), head(after));
        }
    }

    #[test]
    fn chunks_end_with_the_empty_line_after_the_last() {
        for (body, expected) in [
            ("5\r\nhello\r\n0\r\n\r\n", ChunkFraming::End(15)),
            ("5\r\nhello\r\n0\r\n\r\nGET /", ChunkFraming::End(15)),
            ("5;name=value\r\nhello\r\n00\r\na: b\r\n\r\nmore", ChunkFraming::End(33)),
            ("A\r\n0123456789\r\n0\r\n", ChunkFraming::More),
            ("5\r\nhel", ChunkFraming::More),
            ("\r\n", ChunkFraming::Malformed(0)),
            ("+5\r\n", ChunkFraming::Malformed(0)),
            ("0x5\r\n", ChunkFraming::Malformed(1)),
            ("5 \r\n", ChunkFraming::Malformed(1)),
            ("5\nhello", ChunkFraming::Malformed(1)),
            ("1\r\nhello", ChunkFraming::Malformed(4)),
            ("5;a\u{1}\r\nhello", ChunkFraming::Malformed(3)),
            ("10000000000000000\r\n", ChunkFraming::Malformed(16)),
        ] {
            assert_eq!(ChunkScanner::default().scan(body.as_bytes()), expected, "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_a_request_comes(
            chunks in proptest::collection::vec("[a-z\r\n0-9]{1,40}", 0..4),
            cut in 0_usize..200,
        ) {
            let head = "POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
            let chunks = chunks.iter().map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
            let body = format!("{}0\r\n\r\n", chunks.collect::<String>());
            let whole = format!("{head}{body}GET / HTTP/1.1\r\n\r\n");

            let cut_head = cut.min(head.len() - 1);
            prop_assert_eq!(head_length(&whole.as_bytes()[..cut_head], 0), None);
            prop_assert_eq!(head_length(whole.as_bytes(), cut_head), Some(head.len()));

            let cut_body = cut.min(body.len() - 1);
            let mut scanner = ChunkScanner::default();
            let after_head = &whole.as_bytes()[head.len()..];
            prop_assert_eq!(scanner.scan(&after_head[..cut_body]), ChunkFraming::More);
            prop_assert_eq!(scanner.scan(&after_head[cut_body..]), ChunkFraming::End(body.len() - cut_body));
        }
    }
}
