//! A token as librdkafka takes it.

use std::{
    ffi::{CStr, CString, c_char},
    time::{Duration, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use rdkafka::{ClientContext, client::Client, types::RDKafkaRespErr};
use serde::Deserialize;
use tokio::time::Instant;

use super::settings::OauthSettings;

/// Of a token whose provider does not say how long it lives, and that does not say so itself.
const LIFETIME_DEFAULT: Duration = Duration::from_secs(300);
const LIFETIME_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a broker is shown.
pub(crate) struct OauthToken {
    text: CString,
    principal: CString,
    /// Names and values in turn.
    extensions: Vec<CString>,
    /// From when it was fetched.
    pub lifetime: Duration,
    expires: Instant,
    /// Milliseconds since the Unix epoch.
    pub expires_ms: i64,
}

/// What a provider answers.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    /// Seconds; some providers send text.
    #[serde(default)]
    expires_in: serde_json::Value,
}

/// What is looked at in a token that is a JWT.
#[derive(Default, Deserialize)]
#[serde(default)]
struct TokenClaims {
    sub: Option<String>,
    exp: Option<f64>,
}

impl OauthToken {
    /// Parses a provider's answer. `Err`: what is wrong with it, without any of its content.
    pub fn parse(answer: &[u8], settings: &OauthSettings) -> Result<Self, &'static str> {
        let answer: TokenAnswer = serde_json::from_slice(answer).map_err(|_| "it is no JSON with an access_token")?;
        let claims = claims(&answer.access_token);
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        let given = answer.expires_in.as_f64();
        let given = given.or_else(|| answer.expires_in.as_str()?.trim().parse().ok());
        let seconds = given.or_else(|| Some(claims.exp? - now.as_secs_f64()));
        let lifetime = match seconds {
            None => LIFETIME_DEFAULT,
            Some(seconds) if seconds >= 1.0 => {
                Duration::try_from_secs_f64(seconds).map_or(LIFETIME_MAX, |lifetime| lifetime.min(LIFETIME_MAX))
            }
            Some(_) => return Err("its token has expired"),
        };
        let c_string = |text: &str| CString::new(text).map_err(|_| "there is a NUL in it");
        let principal = claims.sub.filter(|sub| !sub.is_empty());
        let extensions = settings.extensions.iter().flat_map(|(name, value)| [name, value]);
        Ok(Self {
            text: c_string(&answer.access_token)?,
            principal: c_string(&principal.unwrap_or_else(|| settings.client_id.clone()))?,
            extensions: extensions.map(|part| c_string(part)).collect::<Result<_, _>>()?,
            lifetime,
            expires: Instant::now() + lifetime,
            expires_ms: i64::try_from((now + lifetime).as_millis()).unwrap_or(i64::MAX),
        })
    }

    pub fn is_expired(&self) -> bool {
        Instant::now() >= self.expires
    }

    /// Gives it to a client, instead of the one that it has. `Err`: what librdkafka has against it.
    pub fn hand_over<C: ClientContext>(&self, client: &Client<C>) -> Result<(), String> {
        let mut extensions: Vec<*const c_char> = self.extensions.iter().map(|part| part.as_ptr()).collect();
        let mut reason: [c_char; 512] = [0; 512];
        #[allow(
            unsafe_code,
            reason = "rdkafka's own way takes no extensions and does not serve an admin client; the client lives during the call, and \
                      librdkafka copies all that the pointers lead to"
        )]
        let (code, reason) = unsafe {
            let code = rdkafka_sys::rd_kafka_oauthbearer_set_token(
                client.native_ptr(),
                self.text.as_ptr(),
                self.expires_ms,
                self.principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                reason.as_mut_ptr(),
                reason.len(),
            );
            (code, CStr::from_ptr(reason.as_ptr()))
        };
        match code {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            // Of what it says, only what has no part of the token.
            _ => Err(reason
                .to_string_lossy()
                .split(':')
                .next()
                .unwrap_or_default()
                .to_owned()),
        }
    }
}

/// The claims of a JWT, unverified: whether they hold is the broker's business.
fn claims(token: &str) -> TokenClaims {
    let parse = || {
        let payload = token.split('.').nth(1)?;
        let json = BASE64_URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?;
        serde_json::from_slice(&json).ok()
    };
    parse().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> OauthSettings {
        OauthSettings {
            owner: "sink 'main'".into(),
            endpoint: "https://id.example.com/token".parse().unwrap(),
            client_id: "forebay".into(),
            client_secret: "s3cret".into(),
            scope: None,
            extensions: vec![("logicalCluster".into(), "lkc-1".into())],
            ca_file: None,
        }
    }

    fn jwt(claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(claims))
    }

    #[test]
    fn life_and_principal_are_the_providers_or_the_tokens() {
        let in_an_hour = UNIX_EPOCH.elapsed().unwrap().as_secs() + 3600;
        let table = [
            (
                format!(
                    r#"{{"access_token":"{}","expires_in":60}}"#,
                    jwt(r#"{"sub":"a","exp":1}"#)
                ),
                "a",
                60,
            ),
            (
                r#"{"access_token":"opaque","expires_in":"60"}"#.to_string(),
                "forebay",
                60,
            ),
            (
                format!(r#"{{"access_token":"{}"}}"#, jwt(&format!(r#"{{"exp":{in_an_hour}}}"#))),
                "forebay",
                3600,
            ),
            (r#"{"access_token":"a.b.c"}"#.to_string(), "forebay", 300),
        ];
        for (answer, principal, seconds) in table {
            let token = OauthToken::parse(answer.as_bytes(), &settings())
                .map_err(str::to_owned)
                .unwrap();
            assert_eq!(token.principal.to_str().unwrap(), principal, "{answer}");
            let off = token.lifetime.abs_diff(Duration::from_secs(seconds));
            assert!(off < Duration::from_secs(10), "{answer}: {:?}", token.lifetime);
            assert!(!token.is_expired());
        }
    }

    #[test]
    fn an_answer_without_a_living_token_is_refused() {
        for answer in [
            "",
            "<html>",
            r#"{"token":"a"}"#,
            r#"{"access_token":"a","expires_in":0}"#,
            r#"{"access_token":"a\u0000b"}"#,
            &format!(r#"{{"access_token":"{}"}}"#, jwt(r#"{"exp":1000000000}"#)),
        ] {
            assert!(OauthToken::parse(answer.as_bytes(), &settings()).is_err(), "{answer}");
        }
    }
}
