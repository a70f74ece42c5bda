//! SASL/OAUTHBEARER: tokens of an identity provider, fetched beside librdkafka.
//!
//! librdkafka would fetch on the thread that also brings delivery reports, and needs libcurl for it. Here a task of its
//! own fetches, renews after 80 % of a token's life, and tries again for as long as it takes; clients get every new
//! token pushed. So a slow or absent provider delays nobody who holds a token.

mod fetch;
mod settings;
mod token;

use std::{sync::Arc, time::Duration};

use rdkafka::{ClientContext, client::Client};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout_at},
};

pub(super) use self::{
    settings::{CA, OauthSettings, is_own, missing, problem},
    token::OauthToken,
};
use super::failure;
use crate::failure::{KafkaCause, KafkaFailure};
use forebay_broker::Remedy;

/// How long one waits for a first token. Longer than one request takes.
const WAIT_MAX: Duration = Duration::from_secs(6);
/// Between two tries, at least and at most.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// Of its life, when a token is renewed.
const RENEWAL_SHARE: f64 = 0.8;
/// So that a provider of tokens that hardly live is not asked without a pause.
const RENEWAL_MIN: Duration = Duration::from_secs(1);

/// Keeps a token at hand for as long as it lives.
pub(super) struct TokenKeeper {
    owner: Arc<str>,
    latest: watch::Receiver<LatestToken>,
    fetching: JoinHandle<()>,
}

#[derive(Default)]
struct LatestToken {
    token: Option<Arc<OauthToken>>,
    /// Why the last try to fetch one failed.
    failure: Option<KafkaFailure>,
}

/// A token, and those that will follow it.
#[derive(Clone)]
pub(super) struct TokenLease {
    owner: Arc<str>,
    token: Arc<OauthToken>,
    later: watch::Receiver<LatestToken>,
}

impl LatestToken {
    fn valid(&self) -> Option<Arc<OauthToken>> {
        self.token.clone().filter(|token| !token.is_expired())
    }
}

impl TokenKeeper {
    /// Begins to fetch, on the current runtime.
    pub fn fetch(settings: OauthSettings) -> Self {
        Self::fetch_telling(settings, |_| {})
    }

    /// The same, and tells of each token until when it is valid, in seconds since the Unix epoch.
    pub fn fetch_telling(settings: OauthSettings, told: impl Fn(i64) + Send + 'static) -> Self {
        let (sender, latest) = watch::channel(LatestToken::default());
        Self {
            owner: settings.owner.clone(),
            latest,
            fetching: tokio::spawn(keep_fresh(settings, sender, told)),
        }
    }

    /// Waits for a valid token, within a deadline of its own, or for the next failure.
    pub async fn lease(&mut self) -> Result<TokenLease, KafkaFailure> {
        let until = Instant::now() + WAIT_MAX;
        let mut is_waiting = true;
        loop {
            {
                let latest = self.latest.borrow();
                if let Some(token) = latest.valid() {
                    let mut later = self.latest.clone();
                    later.mark_unchanged();
                    let owner = self.owner.clone();
                    return Ok(TokenLease { owner, token, later });
                }
                if !is_waiting {
                    let unknown = || {
                        failure::failure(
                            Remedy::Retry,
                            KafkaCause::Token,
                            "no answer from the identity provider yet",
                        )
                    };
                    return Err(latest.failure.clone().unwrap_or_else(unknown));
                }
            }
            // What failed before the last call was told by it.
            let changed = timeout_at(until, self.latest.changed()).await;
            is_waiting = matches!(changed, Ok(Ok(()))) && self.latest.borrow_and_update().failure.is_none();
        }
    }

    /// Why there is no valid token.
    pub fn trouble(&self) -> Option<KafkaFailure> {
        let latest = self.latest.borrow();
        match latest.valid() {
            Some(_) => None,
            None => latest.failure.clone(),
        }
    }
}

impl Drop for TokenKeeper {
    fn drop(&mut self) {
        self.fetching.abort();
    }
}

impl TokenLease {
    /// Gives the token to a client, which connects with it.
    pub fn hand_over<C: ClientContext>(&self, client: &Client<C>) -> Result<(), KafkaFailure> {
        self.token.hand_over(client).map_err(|reason| {
            let text = format!("{}: the identity provider's token cannot be used: {reason}", self.owner);
            failure::failure(Remedy::Hold, KafkaCause::Token, text)
        })
    }

    /// Waits for the next token. `None`: there will be none. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arc<OauthToken>> {
        loop {
            self.later.changed().await.ok()?;
            if let Some(token) = self.renewed() {
                return Some(token);
            }
        }
    }

    /// The token that has come since the last one, if any.
    pub fn renewed(&mut self) -> Option<Arc<OauthToken>> {
        let token = self.later.borrow_and_update().token.clone()?;
        if Arc::ptr_eq(&token, &self.token) {
            return None;
        }
        self.token = token.clone();
        Some(token)
    }
}

/// Fetches tokens until nobody wants them any more.
async fn keep_fresh(settings: OauthSettings, latest: watch::Sender<LatestToken>, told: impl Fn(i64)) {
    let mut retry = RETRY_MIN;
    while !latest.is_closed() {
        match fetch::fetch(&settings).await {
            Ok(token) => {
                retry = RETRY_MIN;
                let renewal = token.lifetime.mul_f64(RENEWAL_SHARE).max(RENEWAL_MIN);
                tracing::debug!(
                    owner = &*settings.owner,
                    lifetime_s = token.lifetime.as_secs(),
                    "fetched a token"
                );
                told(token.expires_ms / 1000);
                latest.send_modify(|latest| {
                    *latest = LatestToken {
                        token: Some(Arc::new(token)),
                        failure: None,
                    }
                });
                sleep(renewal).await;
            }
            Err(failure) => {
                let is_new = latest.borrow().failure.as_ref() != Some(&failure);
                if is_new && latest.borrow().token.is_some() {
                    tracing::warn!(
                        owner = &*settings.owner,
                        "a token could not be renewed, which is tried again: {failure}"
                    );
                }
                latest.send_modify(|latest| latest.failure = Some(failure));
                sleep(retry).await;
                retry = (retry * 2).min(RETRY_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests;
