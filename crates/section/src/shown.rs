//! A text of the user's as messages show it: without what may be a password.

use std::fmt;

/// Behind these a header has what is secret.
const AUTHENTICATIONS: [&str; 3] = ["basic ", "bearer ", "token "];
/// More of a text is not shown.
const CHARS_MAX: usize = 200;

/// Shows a text that is no secret, but may have one in it where it does not belong: what stands before an `@` (user and
/// password), behind a `?`, `#`, `;`, `&` or `=` (parameters), and behind the name of a way to authenticate, is left
/// out. `{:?}` puts it in quotes.
#[derive(Clone, Copy)]
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_scheme = |scheme: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
            !scheme.is_empty() && scheme.chars().all(plain)
        };
        let (scheme, rest) = match self.0.split_once("://") {
            Some((scheme, rest)) if is_scheme(scheme) => (&self.0[..scheme.len() + 3], rest),
            _ => ("", self.0),
        };
        let (user, rest) = match rest.rsplit_once('@') {
            Some((_, rest)) => ("…@", rest),
            None => ("", rest),
        };
        let parameters = rest.find(['?', '#', ';', '=', '&']).map(|at| at + 1);
        let lower = rest.to_ascii_lowercase();
        let credentials = AUTHENTICATIONS
            .iter()
            .find_map(|name| lower.find(name).map(|at| at + name.len()));
        let end = credentials.into_iter().chain(parameters).min().unwrap_or(rest.len());
        let shown = &rest[..end];
        let mut chars = shown.chars();
        let cut: String = chars.by_ref().take(CHARS_MAX).collect();
        let is_cut = end < rest.len() || chars.next().is_some();
        write!(f, "{scheme}{user}{cut}{}", if is_cut { "…" } else { "" })
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string(), f)
    }
}

/// Where a URL points to, without anything behind the host and its port.
pub fn host_of(url: &str) -> String {
    let shown = Shown(url).to_string();
    let host_begins = shown.find("://").map_or(0, |at| at + 3);
    match shown[host_begins..].find('/') {
        Some(at) => format!("{}/…", &shown[..host_begins + at]),
        None => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_password_is_left_out() {
        for (text, shown) in [
            ("kafka-1:9092", "kafka-1:9092"),
            ("10 bananas", "10 bananas"),
            ("Bearer s3cret", "Bearer …"),
            (r#"["Basic s3cret"]"#, r#"["Basic …"#),
            ("user:s3cret@kafka-1:9092", "…@kafka-1:9092"),
            ("SASL_SSL://user:s3cret@kafka-1:9092", "SASL_SSL://…@kafka-1:9092"),
            ("http://user:s3@cret@host/path", "http://…@host/path"),
            ("http://host/?token=s3cret", "http://host/?…"),
            ("user:s3cret://x@host", "…@host"),
            ("sasl.password=s3cret", "sasl.password=…"),
            ("host;password=s3cret", "host;…"),
            ("http://host/#s3cret", "http://host/#…"),
            ("a\tb", "a\tb"),
        ] {
            assert_eq!(Shown(text).to_string(), shown, "{text}");
            assert!(!shown.contains("cret"), "{shown}");
        }
        assert_eq!(format!("{:?}", Shown("a\tb")), r#""a\tb""#);
        let long = "ü".repeat(CHARS_MAX + 1);
        assert_eq!(Shown(&long).to_string().chars().count(), CHARS_MAX + 1);
    }

    #[test]
    fn of_a_url_there_is_the_host() {
        for (url, shown) in [
            ("http://collector:4318", "http://collector:4318"),
            ("https://collector.example/ingest/s3cret", "https://collector.example/…"),
            ("http://u:s3cret@h:1/a", "http://…@h:1/…"),
        ] {
            assert_eq!(host_of(url), shown);
        }
    }
}
