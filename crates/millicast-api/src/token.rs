//! What the API knows an account by.

use std::fmt;

use reqwest::header::HeaderValue;

/// What stands in a text in the place of a token.
const HIDDEN: &str = "…";

/// An API secret of an account. Shows itself nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiToken(String);

/// Why a text is no token. Does not quote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("empty: it goes in as the dashboard shows it, Settings, Security, API Secrets")]
    Empty,
    #[error("has white space or characters that no token has: it goes in as the dashboard shows it, one line")]
    Characters,
}

impl ApiToken {
    /// Takes a token as the dashboard shows it; white space around it counts for nothing.
    ///
    /// # Errors
    ///
    /// It is empty, or has characters that cannot be in a token.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let token = text.trim();
        if token.is_empty() {
            return Err(TokenError::Empty);
        }
        match token.chars().all(|c| c.is_ascii_graphic()) {
            true => Ok(Self(token.to_owned())),
            false => Err(TokenError::Characters),
        }
    }

    pub(crate) fn header(&self) -> HeaderValue {
        let value = HeaderValue::try_from(format!("Bearer {}", self.0));
        let mut value = value.expect("visible ASCII can be in a header");
        value.set_sensitive(true);
        value
    }

    /// A text of somebody else's without the token.
    pub(crate) fn hide_in(&self, text: &str) -> String {
        text.replace(&self.0, HIDDEN)
    }
}

impl fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_of_visible_characters_and_shows_itself_nowhere() {
        let token = ApiToken::parse(" abc.DEF-123==\r\n").unwrap();
        assert_eq!(token.header(), "Bearer abc.DEF-123==");
        assert_eq!(format!("{token:?} {:?}", token.header()), "ApiToken(…) Sensitive");
        assert_eq!(token.hide_in("of abc.DEF-123==, no"), "of …, no");
        assert_eq!(ApiToken::parse(" \n"), Err(TokenError::Empty));
        for wrong in ["a b", "a\nb", "a\u{e9}", "a\u{7}"] {
            assert_eq!(ApiToken::parse(wrong), Err(TokenError::Characters), "{wrong:?}");
        }
    }
}
