//! Why a call came to nothing, what state that leaves, and what to do.

use std::{fmt, time::Duration};

/// Of what the API says.
const SAID_CHARS_MAX: usize = 500;

/// Why a client cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ClientSetupError {
    /// Not quoted: it may have a password in it.
    #[error("expected a URL such as {example}, without user, query and fragment", example = super::BASE_URL)]
    Address,
    #[error("failed to set up HTTP: {0}")]
    Http(String),
}

/// Why a call came to nothing. Each text fits after "failed to".
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no connection, so nothing was changed: correct the address, or try again.
    #[error("{call}: {address} cannot be reached: {cause}: correct the address of the API, or try again later")]
    Unreachable {
        call: String,
        address: String,
        cause: String,
    },
    /// The request went out, and no whole answer came. A change may have been made: look before it is asked for again.
    #[error("{call}: no answer of {address}: {cause}{cure}", cure = unclear(*.is_change))]
    NoAnswer {
        call: String,
        address: String,
        cause: String,
        is_change: bool,
    },
    /// The API answered, and did not do it.
    #[error("{0}")]
    Refused(Box<ApiRefusal>),
    /// What was answered is not what the API's description has. A change was made, if the status says so.
    #[error(
        "{call}: the answer of {address}, status {status}, cannot be read: {cause}: is that the address of the API?"
    )]
    Unreadable {
        call: String,
        address: String,
        status: u16,
        cause: String,
    },
    /// More webhooks than anybody has: what answers gives no end of them.
    #[error("{call}: more than {max} webhooks: is that the address of the API?", max = super::WEBHOOKS_MAX)]
    Endless { call: String },
}

/// Whether a call that failed may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAdvice {
    /// It was not carried out: any call may.
    NotCarriedOut,
    /// It may have been carried out: one may that comes to the same when it is made twice.
    Unclear,
    /// It would fail again.
    Useless,
}

/// What the API answered in the place of what was asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiRefusal {
    /// What was asked for, such as `read webhook 100`.
    pub call: String,
    pub status: u16,
    /// The API's own text, in one line and without the token.
    pub said: Option<String>,
    /// The API's own code.
    pub code: Option<i64>,
    /// How long it wants to be left alone.
    pub retry_after: Option<Duration>,
    /// Whether it was to change something.
    pub is_change: bool,
}

impl ApiError {
    /// Whether the call may be made again.
    pub fn retry(&self) -> RetryAdvice {
        match self {
            Self::Unreachable { .. } => RetryAdvice::NotCarriedOut,
            Self::NoAnswer { .. } => RetryAdvice::Unclear,
            Self::Refused(refusal) => match refusal.status {
                429 => RetryAdvice::NotCarriedOut,
                408 | 500 | 502 | 503 | 504 => RetryAdvice::Unclear,
                _ => RetryAdvice::Useless,
            },
            Self::Unreadable { .. } | Self::Endless { .. } => RetryAdvice::Useless,
        }
    }

    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused(refusal) => refusal.retry_after,
            _ => None,
        }
    }
}

impl fmt::Display for ApiRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: the API answers {}", self.call, self.status)?;
        match &self.said {
            Some(said) => write!(f, ", {said:?}")?,
            None => f.write_str(", and does not say why")?,
        }
        if let Some(code) = self.code {
            write!(f, " (code {code})")?;
        }
        let cure = self.cure();
        if !cure.is_empty() {
            write!(f, ": {cure}")?;
        }
        if let Some(after) = self.retry_after {
            write!(f, "; it wants to be asked again after {} s", after.as_secs())?;
        }
        Ok(())
    }
}

impl ApiRefusal {
    /// What to do about it; empty: what the API says has to do.
    fn cure(&self) -> &'static str {
        match self.status {
            300..400 => {
                "redirects are not followed, because the token would go along: give the address that it leads to"
            }
            400 | 422 => "correct what it names; nothing was changed",
            401 => {
                "the token is no API secret of an account: make one in the dashboard, Settings, Security, API Secrets"
            }
            403 => "the token may not do that: use one of the webhook's account that may",
            404 => "there is no such webhook in the token's account, or that is not the address of the API",
            429 => "that were too many requests: try again later",
            500.. if self.is_change => "the provider has trouble: look whether it was done, then try again",
            408 | 500.. => "the provider has trouble: try again later",
            _ => "",
        }
    }
}

fn unclear(is_change: bool) -> &'static str {
    match is_change {
        true => ": look whether it was done, then try again",
        false => ": try again later",
    }
}

/// A text of somebody else's, short, in one line, without anything that moves a cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut chars = text.trim().chars();
    let shown = chars.by_ref().take(SAID_CHARS_MAX);
    let mut line: String = shown.map(|c| if c.is_control() { ' ' } else { c }).collect();
    if chars.next().is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16) -> ApiRefusal {
        ApiRefusal {
            call: "read webhook 100".to_owned(),
            status,
            said: Some("no".to_owned()),
            code: Some(12),
            retry_after: None,
            is_change: false,
        }
    }

    #[test]
    fn a_refusal_says_what_was_asked_what_was_answered_and_what_to_do() {
        let text = refusal(404).to_string();
        assert!(
            text.starts_with("read webhook 100: the API answers 404, \"no\" (code 12): there is no such"),
            "{text}"
        );
        let limited = ApiRefusal {
            said: None,
            code: None,
            retry_after: Some(Duration::from_secs(90)),
            ..refusal(429)
        };
        let text = limited.to_string();
        assert!(
            text.contains("429, and does not say why: that were") && text.ends_with("after 90 s"),
            "{text}"
        );
        let change = ApiRefusal {
            is_change: true,
            ..refusal(502)
        };
        assert!(change.to_string().contains("look whether it was done"));
        assert!(refusal(418).to_string().ends_with("(code 12)"));
    }

    #[test]
    fn what_is_refused_for_good_is_not_asked_again() {
        for (status, advice) in [
            (400, RetryAdvice::Useless),
            (401, RetryAdvice::Useless),
            (404, RetryAdvice::Useless),
            (408, RetryAdvice::Unclear),
            (429, RetryAdvice::NotCarriedOut),
            (500, RetryAdvice::Unclear),
            (501, RetryAdvice::Useless),
            (503, RetryAdvice::Unclear),
        ] {
            let error = ApiError::Refused(Box::new(refusal(status)));
            assert_eq!(error.retry(), advice, "{status}");
        }
    }

    #[test]
    fn a_text_of_somebody_elses_is_one_short_line() {
        assert_eq!(one_line(" a\n\u{1b}[31mb "), "a  [31mb");
        assert_eq!(one_line(&"x".repeat(10_000)).chars().count(), SAID_CHARS_MAX + 1);
    }
}
