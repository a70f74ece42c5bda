//! A JSON text with other white space: what somebody who parsed it and wrote it again would have made of it, or it of
//! theirs.
//!
//! Strings, numbers and the order of members stay byte for byte as they are.

use std::fmt;

/// How JSON is commonly written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonStyle {
    Compact,
    /// With a space behind each comma and colon, as Python does.
    Spaced,
    /// A line for each value, indented by so many spaces; 0: by a tab.
    Indented(u8),
    /// Compact, and a line feed at the end.
    CompactLine,
    /// As [`JsonStyle::Spaced`], and a line feed at the end.
    SpacedLine,
}

impl JsonStyle {
    pub const ALL: [Self; 7] = [
        Self::Compact,
        Self::Spaced,
        Self::Indented(2),
        Self::Indented(4),
        Self::Indented(0),
        Self::CompactLine,
        Self::SpacedLine,
    ];
}

impl fmt::Display for JsonStyle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compact => f.write_str("compact JSON"),
            Self::Spaced => f.write_str("JSON with spaces"),
            Self::Indented(0) => f.write_str("JSON indented by tabs"),
            Self::Indented(spaces) => write!(f, "JSON indented by {spaces} spaces"),
            Self::CompactLine => f.write_str("compact JSON with a line feed"),
            Self::SpacedLine => f.write_str("JSON with spaces and a line feed"),
        }
    }
}

/// Writes JSON, which `text` is, in this style. `None` where it would be longer than `bytes_max`.
pub fn reformat(text: &[u8], style: JsonStyle, bytes_max: usize) -> Option<Vec<u8>> {
    let mut writer = JsonWriter {
        out: Vec::with_capacity(text.len()),
        style,
        depth: 0,
    };
    let mut rest = text.trim_ascii();
    while let [byte, after @ ..] = rest {
        if writer.out.len() > bytes_max {
            return None;
        }
        rest = match byte {
            b'"' => {
                let end = string_end(rest)?;
                writer.out.extend_from_slice(&rest[..end]);
                &rest[end..]
            }
            b'{' | b'[' => {
                writer.out.push(*byte);
                match after.trim_ascii_start() {
                    // An empty one stays on its line.
                    [close @ (b'}' | b']'), after @ ..] => {
                        writer.out.push(*close);
                        after
                    }
                    _ => {
                        writer.depth += 1;
                        writer.line();
                        after
                    }
                }
            }
            b'}' | b']' => {
                writer.depth = writer.depth.checked_sub(1)?;
                writer.line();
                writer.out.push(*byte);
                after
            }
            b',' => {
                writer.out.push(b',');
                writer.space_after_comma();
                after
            }
            b':' => {
                writer.out.push(b':');
                writer.space_after_colon();
                after
            }
            b' ' | b'\t' | b'\n' | b'\r' => after,
            _ => {
                writer.out.push(*byte);
                after
            }
        };
    }
    if matches!(style, JsonStyle::CompactLine | JsonStyle::SpacedLine) {
        writer.out.push(b'\n');
    }
    (writer.out.len() <= bytes_max).then_some(writer.out)
}

/// Where a string that begins here ends, behind its closing quote.
fn string_end(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

struct JsonWriter {
    out: Vec<u8>,
    style: JsonStyle,
    depth: usize,
}

impl JsonWriter {
    /// A new line with its indent, where the style has lines.
    fn line(&mut self) {
        if let JsonStyle::Indented(spaces) = self.style {
            let (byte, count) = match spaces {
                0 => (b'\t', self.depth),
                spaces => (b' ', self.depth * usize::from(spaces)),
            };
            self.out.push(b'\n');
            self.out.resize(self.out.len() + count, byte);
        }
    }

    fn space_after_comma(&mut self) {
        match self.style {
            JsonStyle::Compact | JsonStyle::CompactLine => {}
            JsonStyle::Spaced | JsonStyle::SpacedLine => self.out.push(b' '),
            JsonStyle::Indented(_) => self.line(),
        }
    }

    fn space_after_colon(&mut self) {
        if !matches!(self.style, JsonStyle::Compact | JsonStyle::CompactLine) {
            self.out.push(b' ');
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_written_as_others_write_it() {
        let text = br#" {"a" : [1, 2.50,"x, y: \"z\" \\"],"b":{ },"c":[],"d":null}
"#;
        for (style, expected) in [
            (
                JsonStyle::Compact,
                r#"{"a":[1,2.50,"x, y: \"z\" \\"],"b":{},"c":[],"d":null}"#,
            ),
            (
                JsonStyle::Spaced,
                r#"{"a": [1, 2.50, "x, y: \"z\" \\"], "b": {}, "c": [], "d": null}"#,
            ),
            (
                JsonStyle::Indented(2),
                "{\n  \"a\": [\n    1,\n    2.50,\n    \"x, y: \\\"z\\\" \\\\\"\n  ],\n  \"b\": {},\n  \"c\": [],\n  \"d\": null\n}",
            ),
        ] {
            let written = reformat(text, style, 1000).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), expected, "{style}");
        }
        let value: serde_json::Value = serde_json::from_slice(text).unwrap();
        let pretty = serde_json::to_vec_pretty(&value).unwrap();
        let ours = reformat(&serde_json::to_vec(&value).unwrap(), JsonStyle::Indented(2), 1000).unwrap();
        assert_eq!(ours, pretty);
    }

    #[test]
    fn what_would_become_too_long_is_given_up() {
        let deep = [vec![b'['; 127], vec![b']'; 127]].concat();
        assert_eq!(reformat(&deep, JsonStyle::Indented(4), 1000), None);
        assert_eq!(reformat(&deep, JsonStyle::Compact, 1000).unwrap(), deep);
    }

    #[test]
    fn what_is_no_json_neither_panics_nor_hangs() {
        for text in [&b"\"abc"[..], b"\"\\", b"]]", b"{", b"", b"{\"a\":", b"\xff\xfe"] {
            for style in JsonStyle::ALL {
                drop(reformat(text, style, 100));
            }
        }
    }
}
