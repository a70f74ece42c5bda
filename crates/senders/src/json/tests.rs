use proptest::prelude::*;
use serde::de::IgnoredAny;

use super::*;

fn check(text: &str) -> Option<JsonValue<'_>> {
    JsonValue::check(text.as_bytes())
}

fn members(text: &str) -> Vec<(String, &str, &str)> {
    let members = check(text).unwrap().members().unwrap();
    members
        .map(|member| (member.name().into_owned(), member.raw_name, member.value.raw()))
        .collect()
}

#[test]
fn members_stay_as_they_came() {
    let text = " {\"a\": 1.000 ,\r\n\"\\u0061\":[ 2, {\"}\":\"]\\\\\\\"\"} ],\t\"b\\ud800\":\"\\ud83d\\ude00\\ud83d\\n\" , \"\":null} ";
    let expected = [
        ("a", "\"a\"", "1.000"),
        ("a", "\"\\u0061\"", "[ 2, {\"}\":\"]\\\\\\\"\"} ]"),
        ("b\u{FFFD}", "\"b\\ud800\"", "\"\\ud83d\\ude00\\ud83d\\n\""),
        ("", "\"\"", "null"),
    ];
    assert_eq!(
        members(text),
        expected.map(|(name, raw, value)| (name.to_owned(), raw, value))
    );
    let last = check(text).unwrap().members().unwrap().nth(2).unwrap();
    assert_eq!(last.value.text().unwrap(), "😀\u{FFFD}\n");
    assert_eq!(members("{}"), []);
    assert_eq!(members("{ }"), []);
    assert!(check("[1]").unwrap().members().is_none());
}

#[test]
fn what_is_no_json_is_refused() {
    for text in [
        "",
        " ",
        "{",
        "[",
        "{}x",
        "[]]",
        "{\"a\":}",
        "{\"a\":\"\n\"}",
        "{\"a\"}",
        "{1:2}",
        "{a:1}",
        "[1,]",
        "{\"a\":1,}",
        "[,1]",
        "[1 2]",
        "{\"a\":1]",
        "[1}",
        "\"",
        "\"\\",
        "\"\\u12g4\"",
        "\"\\u123\"",
        "\"\\x\"",
        "nul",
        "nulls",
        "NaN",
        "Infinity",
        "-",
        "01",
        "-01",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "\u{c}1",
        "\u{feff}1",
        "'a'",
        "1 // a",
    ] {
        assert_eq!(check(text), None, "{text:?}");
    }
    assert_eq!(JsonValue::check(b"\"\xff\""), None);
    assert_eq!(JsonValue::check(b"\"\xed\xa0\x80\""), None, "a surrogate is no UTF-8");
}

#[test]
fn what_parsers_refuse_elsewhere_is_refused() {
    let nested = |open: &str, close: &str, depth: u32| {
        let depth = depth as usize;
        format!("{}0{}", open.repeat(depth), close.repeat(depth))
    };
    let named = |bytes: usize| format!("{{\"{}\":0}}", "n".repeat(bytes));
    let text = |bytes: usize| format!("\"{}\"", "t".repeat(bytes));
    for (name, right, wrong) in [
        (
            "arrays",
            nested("[", "]", NESTING_MAX),
            nested("[", "]", NESTING_MAX + 1),
        ),
        (
            "objects",
            nested("{\"\":", "}", NESTING_MAX),
            nested("{\"\":", "}", NESTING_MAX + 1),
        ),
        (
            "empty ones",
            nested("[", "]", NESTING_MAX - 1).replace('0', "[]"),
            nested("[", "]", NESTING_MAX).replace('0', "{}"),
        ),
        ("integers", "9".repeat(308), "9".repeat(309)),
        (
            "negative integers",
            format!("-{}", "9".repeat(308)),
            format!("-{}", "9".repeat(309)),
        ),
        ("exponents", "1.7e308".to_owned(), "1.8e308".to_owned()),
        (
            "the greatest double",
            "1.797e308".to_owned(),
            "1.7976931348623157157e308".to_owned(),
        ),
        ("numbers that begin with 0", "0.34e39".to_owned(), "0.35E39".to_owned()),
        ("long exponents", "1e000000308".to_owned(), "1e999999999999".to_owned()),
        ("small numbers", "1e-999999999".to_owned(), "-1E+999".to_owned()),
        (
            "digits",
            format!("0.{}", "1".repeat(998)),
            format!("0.{}", "1".repeat(999)),
        ),
        ("names", named(NAME_BYTES_MAX), named(NAME_BYTES_MAX + 1)),
        ("texts", text(TEXT_BYTES_MAX), text(TEXT_BYTES_MAX + 1)),
    ] {
        assert!(check(&right).is_some(), "{name}: {}", &right[..right.len().min(80)]);
        assert!(check(&wrong).is_none(), "{name}: {}", &wrong[..wrong.len().min(80)]);
    }
    let wide = format!("[{}]", ["[[{}]]"; 1000].join(","));
    assert!(check(&wide).is_some(), "how many there are is no matter");
}

#[test]
fn half_a_surrogate_pair_is_replaced_and_a_whole_one_is_not() {
    for (text, expected) in [
        (r#""""#, r#""""#),
        (r#""\ud83d\ude00""#, r#""\ud83d\ude00""#),
        (r#""\ud800""#, r#""\ufffd""#),
        (r#""\uDC00\uD83D\uDE00\uD83D""#, r#""\ufffd\uD83D\uDE00\ufffd""#),
        (r#""\ud83d\ud83d\ude00""#, r#""\ufffd\ud83d\ude00""#),
        (r#""\ud83d \ude00""#, r#""\ufffd \ufffd""#),
        (r#""\\ud800\\\ud800""#, r#""\\ud800\\\ufffd""#),
        (r#"{"\ud800":"\u00e9"}"#, r#"{"\ufffd":"\u00e9"}"#),
        ("\\", "\\"),
        ("\\ud80", "\\ud80"),
    ] {
        let mut json = text.as_bytes().to_vec();
        replace_half_pairs(&mut json);
        assert_eq!(String::from_utf8(json).unwrap(), expected, "{text}");
    }
}

/// Texts that are JSON, or nearly.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = proptest::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"a\"",
        "\"\\\"\\u00e9\"",
        "\"\\ud800\"",
        "0",
        "-1.5e3",
        "12",
        "true",
        "false",
        "null",
        " ",
        "\n",
        "\"",
        "\\",
        "1e",
        "{\"a\":",
        "{\"b\":1}",
        "[1,2]",
        "é",
        "\t",
        "-",
    ]);
    prop_oneof![
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn it_is_json_where_serde_json_has_it_so(text in nearly_json()) {
        prop_assert_eq!(check(&text).is_some(), serde_json::from_str::<IgnoredAny>(&text).is_ok(), "{}", text);
    }

    #[test]
    fn what_has_no_half_pairs_any_more_is_read_by_serde_json(text in nearly_json()) {
        if check(&text).is_some() {
            let mut json = text.into_bytes();
            replace_half_pairs(&mut json);
            prop_assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
        }
    }

    #[test]
    fn the_members_of_what_was_checked_are_those_that_serde_json_finds(text in nearly_json()) {
        if let Some(read) = check(&text).and_then(JsonValue::members) {
            let read: Vec<_> = read.map(|member| (member.name().into_owned(), member.value.raw().to_owned())).collect();
            let expected: Expected = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(read, expected.0);
        }
    }
}

/// Name and raw value of each member, as `serde_json` reads them.
struct Expected(Vec<(String, String)>);

impl<'de> serde::Deserialize<'de> for Expected {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> serde::de::Visitor<'de> for Members {
            type Value = Expected;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Expected, A::Error> {
                let mut members = Vec::new();
                while let Some((name, value)) =
                    map.next_entry::<&serde_json::value::RawValue, &serde_json::value::RawValue>()?
                {
                    members.push((string_inside(name.get()).into_owned(), value.get().to_owned()));
                }
                Ok(Expected(members))
            }
        }

        deserializer.deserialize_map(Members)
    }
}
