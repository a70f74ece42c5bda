//! JSON texts whose members stay exactly as they came: their order, duplicates, digits and escapes.
//!
//! A body comes from outside and goes on to parsers of every language, so [`JsonValue::check`] accepts what all of them
//! read: not only the grammar, but also the limits below. What it accepts is then read member by member, in memory that
//! does not grow with the number of members; nothing is recursive.

use std::borrow::Cow;

use forebay_event::text::write_json;
use memchr::{memchr, memchr2};

/// The deepest nesting. Parsers that recurse give up at some depth: Python's at about 1,000, .NET's (unless it is set
/// otherwise) at 64.
pub const NESTING_MAX: u32 = 128;
/// The longest number: Jackson's limit. Python refuses integers of more than 4,300 digits.
pub const NUMBER_BYTES_MAX: usize = 1000;
/// The greatest number, up to its sign: a little less than the greatest double, which parsers that do not round exactly
/// take for an infinite one.
pub const NUMBER_MAX: f64 = 1.797e308;
/// The greatest number that begins with `0`, as in `0.5e30`: the CloudEvents SDK of Go reads it as a single.
pub const NUMBER_OF_ZERO_MAX: f64 = 3.4e38;
/// The longest name of a member: Jackson's limit.
pub const NAME_BYTES_MAX: usize = 50_000;
/// The longest text: Jackson's limit.
pub const TEXT_BYTES_MAX: usize = 20_000_000;

/// A JSON value as it came, which was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonValue<'a>(&'a str);

/// A member of an object.
#[derive(Debug, Clone, Copy)]
pub struct JsonMember<'a> {
    /// The name as it came, with its quotes.
    pub raw_name: &'a str,
    pub value: JsonValue<'a>,
}

/// The members of an object, in their order.
#[derive(Debug, Clone, Default)]
pub struct JsonMembers<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> JsonValue<'a> {
    /// `None`: not a JSON text in UTF-8, or one that some parser refuses: nested too deeply, with a number, a name or a
    /// text that is too long, or with a number that is too great.
    pub fn check(text: &'a [u8]) -> Option<Self> {
        let text = str::from_utf8(text).ok()?;
        let end = JsonChecker::new(text.as_bytes()).document()?;
        (end == text.len()).then(|| JsonValue(text.trim_matches([' ', '\t', '\r', '\n'])))
    }

    /// The value as it came, without the white space around it.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// `None`: not an object.
    pub fn members(self) -> Option<JsonMembers<'a>> {
        self.0.starts_with('{').then_some(JsonMembers { text: self.0, at: 1 })
    }

    /// The text of a string; `None` for any other value.
    pub fn string(self) -> Option<Cow<'a, str>> {
        self.0.starts_with('"').then(|| string_inside(self.0))
    }

    /// The text of a string, or of a number as it came.
    pub fn scalar(self) -> Option<Cow<'a, str>> {
        match self.0.as_bytes().first()? {
            b'-' | b'0'..=b'9' => Some(Cow::Borrowed(self.0)),
            _ => self.string(),
        }
    }

    /// The same, unless it is empty.
    pub fn text(self) -> Option<Cow<'a, str>> {
        self.scalar().filter(|text| !text.is_empty())
    }
}

impl<'a> JsonMember<'a> {
    pub fn name(&self) -> Cow<'a, str> {
        string_inside(self.raw_name)
    }
}

impl<'a> Iterator for JsonMembers<'a> {
    type Item = JsonMember<'a>;

    fn next(&mut self) -> Option<JsonMember<'a>> {
        let bytes = self.text.as_bytes();
        let name = skip(bytes, self.at, |byte| is_space(byte) || byte == b',');
        if bytes.get(name) != Some(&b'"') {
            return None;
        }
        let name_end = string_end(bytes, name)?;
        let value = skip(bytes, name_end, |byte| is_space(byte) || byte == b':');
        let value_end = value_end(bytes, value)?;
        self.at = value_end;
        Some(JsonMember {
            raw_name: self.text.get(name..name_end)?,
            value: JsonValue(self.text.get(value..value_end)?),
        })
    }
}

/// Appends a member, after a comma unless it is the object's first.
pub fn write_member(json: &mut Vec<u8>, raw_name: &str, raw_value: &str) {
    if json.last() != Some(&b'{') {
        json.push(b',');
    }
    json.extend_from_slice(raw_name.as_bytes());
    json.push(b':');
    json.extend_from_slice(raw_value.as_bytes());
}

/// `text` as a JSON string.
pub fn quoted(text: &str) -> String {
    let mut json = Vec::with_capacity(text.len() + 2);
    write_json(&mut json, text);
    String::from_utf8(json).expect("JSON is UTF-8")
}

/// Makes Unicode of JSON: each escape of half a surrogate pair, which strict parsers refuse, becomes that of U+FFFD.
/// The length stays.
pub fn replace_half_pairs(json: &mut [u8]) {
    let mut from = 0;
    while let Some(at) = half_pair(json, from) {
        json[at..at + ESCAPE_BYTES].copy_from_slice(b"\\ufffd");
        from = at + ESCAPE_BYTES;
    }
}

/// Where the first escape of half a surrogate pair is, from `at` on.
pub fn half_pair(json: &[u8], mut at: usize) -> Option<usize> {
    loop {
        at += memchr(b'\\', json.get(at..)?)?;
        match (escaped_unit(json, at), escaped_unit(json, at + ESCAPE_BYTES)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 2 * ESCAPE_BYTES,
            (Some(0xD800..=0xDFFF), _) => return Some(at),
            _ => at += 2,
        }
        if at >= json.len() {
            return None;
        }
    }
}

const ESCAPE_BYTES: usize = 6;

/// The code unit that `\uXXXX` stands for, if that is here.
fn escaped_unit(json: &[u8], at: usize) -> Option<u16> {
    let digits = json.get(at..at + ESCAPE_BYTES)?.strip_prefix(b"\\u")?;
    u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Reads a document from its first to its last byte. Which of the open containers are objects takes one bit for each.
struct JsonChecker<'a> {
    bytes: &'a [u8],
    at: usize,
    nesting: u32,
    objects: u128,
}

impl<'a> JsonChecker<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            at: 0,
            nesting: 0,
            objects: 0,
        }
    }

    /// Where the document ends; `None` where it is not as it must be.
    fn document(mut self) -> Option<usize> {
        loop {
            self.value()?;
            while self.nesting > 0 {
                match (self.next()?, self.is_in_object()) {
                    (b',', true) => {
                        self.name()?;
                        break;
                    }
                    (b',', false) => break,
                    (b'}', true) | (b']', false) => self.nesting -= 1,
                    _ => return None,
                }
            }
            if self.nesting == 0 {
                return Some(skip(self.bytes, self.at, is_space));
            }
        }
    }

    /// Reads a value that is none of the two containers, or the start of one, to where its first value is expected.
    /// Opens as many containers as stand here, and closes one that is empty.
    fn value(&mut self) -> Option<()> {
        loop {
            match self.next()? {
                b'{' => {
                    self.open(true)?;
                    if self.closes(b'}') {
                        return Some(());
                    }
                    self.name()?;
                }
                b'[' => {
                    self.open(false)?;
                    if self.closes(b']') {
                        return Some(());
                    }
                }
                b'"' => return self.string(TEXT_BYTES_MAX),
                b't' => return self.literal(b"rue"),
                b'f' => return self.literal(b"alse"),
                b'n' => return self.literal(b"ull"),
                b'-' | b'0'..=b'9' => return self.number(),
                _ => return None,
            }
        }
    }

    fn open(&mut self, is_object: bool) -> Option<()> {
        if self.nesting == NESTING_MAX {
            return None;
        }
        let bit = 1 << self.nesting;
        if is_object {
            self.objects |= bit;
        } else {
            self.objects &= !bit;
        }
        self.nesting += 1;
        Some(())
    }

    fn is_in_object(&self) -> bool {
        self.objects >> (self.nesting - 1) & 1 == 1
    }

    /// Whether the container that was just opened is empty; then it is closed.
    fn closes(&mut self, end: u8) -> bool {
        self.at = skip(self.bytes, self.at, is_space);
        let closes = self.bytes.get(self.at) == Some(&end);
        if closes {
            self.at += 1;
            self.nesting -= 1;
        }
        closes
    }

    /// The next byte that is no white space.
    fn next(&mut self) -> Option<u8> {
        let at = skip(self.bytes, self.at, is_space);
        self.at = at + 1;
        self.bytes.get(at).copied()
    }

    fn name(&mut self) -> Option<()> {
        (self.next()? == b'"').then_some(())?;
        self.string(NAME_BYTES_MAX)?;
        (self.next()? == b':').then_some(())
    }

    /// The rest of a string, whose quote was read.
    fn string(&mut self, bytes_max: usize) -> Option<()> {
        let start = self.at;
        loop {
            let rest = &self.bytes[self.at..];
            let text = &rest[..memchr2(b'"', b'\\', rest)?];
            // Without an end before the last one: so many at a time.
            let has_control = text.iter().fold(false, |has, byte| has | (*byte < 0x20));
            (!has_control).then_some(())?;
            let at = self.at + text.len();
            self.at = at + 1;
            match self.bytes[at] {
                b'"' => return (at - start <= bytes_max).then_some(()),
                _ => self.escape()?,
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        let escaped = *self.bytes.get(self.at)?;
        self.at += 1;
        match escaped {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let digits = self.bytes.get(self.at..self.at + 4)?;
                self.at += 4;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }

    fn literal(&mut self, rest: &[u8]) -> Option<()> {
        self.at += rest.len();
        (self.bytes.get(self.at - rest.len()..self.at)? == rest).then_some(())
    }

    /// A number, whose first byte was read.
    fn number(&mut self) -> Option<()> {
        let start = self.at - 1;
        let digits = |from| skip(self.bytes, from, |byte| byte.is_ascii_digit());
        let has = |at, bytes: &[u8]| self.bytes.get(at).is_some_and(|byte| bytes.contains(byte));

        let whole = start + usize::from(has(start, b"-"));
        let mut end = digits(whole);
        let leading_zero = has(whole, b"0") && end > whole + 1;
        if end == whole || leading_zero {
            return None;
        }
        let whole_digits = end - whole;
        if has(end, b".") {
            let fraction = end + 1;
            end = digits(fraction);
            if end == fraction {
                return None;
            }
        }
        let mut exponent_digits = 0;
        if has(end, b"eE") {
            let exponent = end + 1 + usize::from(has(end + 1, b"+-"));
            end = digits(exponent);
            exponent_digits = end - exponent;
            if exponent_digits == 0 {
                return None;
            }
        }
        self.at = end;
        let number = self.bytes.get(start..end)?;
        if number.len() > NUMBER_BYTES_MAX {
            return None;
        }
        let is_of_zero = number.starts_with(b"0");
        // Below that no number is too great: 10^200 · 10^99, or 10^9.
        if whole_digits > 200 || exponent_digits > 2 || is_of_zero && exponent_digits > 1 {
            let value: f64 = str::from_utf8(number).ok()?.parse().ok()?;
            let greatest = if is_of_zero { NUMBER_OF_ZERO_MAX } else { NUMBER_MAX };
            (value.abs() <= greatest).then_some(())?;
        }
        Some(())
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// The first place from `at` on whose byte is another, or the end.
#[inline]
fn skip(bytes: &[u8], mut at: usize, skipped: impl Fn(u8) -> bool) -> usize {
    // By index: what is skipped is a byte or two mostly, which an iterator over the rest takes longer to begin with.
    while bytes.get(at).is_some_and(|byte| skipped(*byte)) {
        at += 1;
    }
    at
}

/// Where the string that begins at `at` ends, of JSON that was checked.
fn string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', bytes.get(at..)?)?;
        match bytes[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Where the value that begins at `at` ends, of JSON that was checked.
fn value_end(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = at;
    let mut nesting = 0_usize;
    loop {
        match bytes.get(at)? {
            b'"' => at = string_end(bytes, at)?,
            b'{' | b'[' => (nesting, at) = (nesting + 1, at + 1),
            b'}' | b']' => (nesting, at) = (nesting.checked_sub(1)?, at + 1),
            _ => {
                let end = skip(bytes, at, is_in_scalar);
                at = (end > at).then_some(end)?;
            }
        }
        if nesting == 0 {
            return Some(at);
        }
        at = skip(bytes, at, |byte| is_space(byte) || matches!(byte, b',' | b':'));
    }
}

/// Whether a byte may stand in a number, or in `true`, `false` and `null`.
fn is_in_scalar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
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
mod tests;
