//! The request for a token: OAuth's client credentials grant (RFC 6749, section 4.4).

use std::{path::Path, time::Duration};

use reqwest::{Client, StatusCode, redirect};
use serde::Deserialize;
use tokio::task::spawn_blocking;

use super::{failure, settings::OauthSettings, token::OauthToken};
use crate::failure::{KafkaCause, KafkaFailure};
use crate::settings::TextSource;
use forebay_broker::Remedy;
use forebay_http_client as http_client;

const DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_BYTES_MAX: usize = 256 * 1024;

/// What a provider says of a request that it refuses.
#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

/// Fetches one token.
pub(super) async fn fetch(settings: &OauthSettings) -> Result<OauthToken, KafkaFailure> {
    let failed = |remedy, reason: String| {
        let text = format!("{}: no token from {}: {reason}", settings.owner, settings.endpoint);
        failure::failure(remedy, KafkaCause::Token, text)
    };
    let (ca_file, secret) = (settings.ca_file.clone(), TextSource::parse(&settings.client_secret));
    // Reads certificates and the secret from disk; anew each time, for they get replaced.
    let read = spawn_blocking(move || {
        let secret = secret.read().map_err(|error| format!("the client's secret: {error}"))?;
        Ok((client(ca_file.as_deref())?, secret))
    });
    let (client, secret) = read
        .await
        .expect("building a client does not panic")
        .map_err(|reason| failed(Remedy::Hold, reason))?;
    let request = client
        .post(settings.endpoint.clone())
        .basic_auth(&settings.client_id, Some(secret))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form(settings));
    let answered = async {
        let mut answer = request.send().await?;
        let body = http_client::body(&mut answer, ANSWER_BYTES_MAX).await?;
        Ok((answer.status(), body))
    };
    let (status, body) = answered
        .await
        .map_err(|error: reqwest::Error| failed(Remedy::Retry, http_client::causes(error)))?;
    if status != StatusCode::OK {
        let (remedy, reason) = refusal(status, &body);
        return Err(failed(remedy, reason));
    }
    OauthToken::parse(&body, settings).map_err(|reason| failed(Remedy::Hold, format!("HTTP 200, but {reason}")))
}

fn client(ca_file: Option<&str>) -> Result<Client, String> {
    let mut builder = Client::builder().timeout(DEADLINE).redirect(redirect::Policy::none());
    if let Some(path) = ca_file {
        let certificates = http_client::certificates(Path::new(path))
            .map_err(|reason| format!("https.ca.location {path}: {reason}"))?;
        builder = builder.tls_certs_only(certificates);
    }
    builder.build().map_err(http_client::causes)
}

fn form(settings: &OauthSettings) -> String {
    let mut url = settings.endpoint.clone();
    let mut pairs = url.query_pairs_mut();
    pairs.clear().append_pair("grant_type", "client_credentials");
    if let Some(scope) = &settings.scope {
        pairs.append_pair("scope", scope);
    }
    drop(pairs);
    url.query().unwrap_or_default().to_owned()
}

fn refusal(status: StatusCode, body: &[u8]) -> (Remedy, String) {
    let code = serde_json::from_slice(body)
        .map(|refusal: TokenRefusal| refusal.error)
        .ok();
    // Such as `invalid_client`: what is not such a word is not repeated.
    let is_code = |code: &String| code.len() <= 40 && code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let code = code
        .filter(is_code)
        .map(|code| format!(" ({code})"))
        .unwrap_or_default();
    let said = format!("HTTP {}{code}", status.as_u16());
    match status.as_u16() {
        408 | 429 | 500.. => (Remedy::Retry, said),
        400 | 401 | 403 => (
            Remedy::Hold,
            format!("{said}: correct sasl.oauthbearer.client.id, .client.secret or .scope"),
        ),
        _ => (
            Remedy::Hold,
            format!("{said}: correct sasl.oauthbearer.token.endpoint.url"),
        ),
    }
}
