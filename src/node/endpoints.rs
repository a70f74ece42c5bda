//! The endpoints' receivers: their secrets, read again when a file changes, and the accounts that they have learned.

use std::{
    collections::BTreeMap,
    fs, io,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::IntCounter;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::{
    BuildError, kept_file,
    secret_sources::{SecretPosition, SecretSources, SourceChange, SourceState},
};
use crate::ingress::IngressMetrics;
use crate::{
    config::{self, SecretSource},
    ingress::{self, RefusalInspector, RefusedRequests},
    senders::{EndpointAccounts, EndpointReceiver, Secret},
};

/// How often secret files are read again, and learned accounts are kept.
const INTERVAL: Duration = Duration::from_secs(2);
const ACCOUNTS_FILE: &str = "accounts.json";

/// Every endpoint with its receiver. Clones share them.
#[derive(Clone)]
pub(super) struct OpenEndpoints {
    open: Arc<Mutex<Vec<OpenEndpoint>>>,
    inspector: Arc<RefusalInspector>,
    accounts: Arc<Path>,
    /// The sources are to be read at once.
    asked: Arc<Notify>,
}

/// One that is served.
#[derive(Clone)]
pub(super) struct OpenEndpoint {
    pub secrets: Arc<EndpointSecrets>,
    pub refused: Arc<RefusedRequests>,
}

/// An endpoint's secrets: where they come from, and who verifies by them.
pub(super) struct EndpointSecrets {
    endpoint: config::EndpointConfig,
    receiver: Arc<EndpointReceiver>,
    sources: Mutex<SecretSources>,
    /// Of each source.
    read_failures: Vec<IntCounter>,
}

impl OpenEndpoints {
    /// Reads the secrets, and what the endpoints have learned before.
    pub(super) fn open(
        endpoints: &[config::EndpointConfig],
        dir: &Path,
        metrics: &IngressMetrics,
    ) -> Result<Self, BuildError> {
        let accounts = dir.join(ACCOUNTS_FILE);
        let mut learned = read_accounts(&accounts).map_err(|source| BuildError::KeptFile {
            path: accounts.clone(),
            source,
        })?;
        let opened = Self {
            open: Arc::default(),
            inspector: Arc::new(RefusalInspector::start().map_err(BuildError::Thread)?),
            accounts: accounts.into(),
            asked: Arc::default(),
        };
        let open = opened.open_anew(endpoints, metrics)?;
        for endpoint in &open {
            if let Some(account) = learned.remove(endpoint.name()) {
                endpoint.secrets.receiver.remember_account(&account);
            }
        }
        opened.replace(open);
        Ok(opened)
    }

    /// Other endpoints in place of those that there are, which stay until [`OpenEndpoints::replace`]. One that is the
    /// same is the one that there is; one that has changed keeps what it learned, and what it refused. Waits for the
    /// disk.
    ///
    /// # Errors
    ///
    /// An endpoint has no secret that can be read.
    pub(super) fn open_anew(
        &self,
        endpoints: &[config::EndpointConfig],
        metrics: &IngressMetrics,
    ) -> Result<Vec<OpenEndpoint>, BuildError> {
        let before = self.open.lock().clone();
        let open = endpoints.iter().map(|endpoint| {
            let before = before.iter().find(|open| open.name() == endpoint.name);
            if let Some(same) = before.filter(|open| open.secrets.endpoint == *endpoint) {
                return Ok(same.clone());
            }
            let secrets = EndpointSecrets::open(endpoint, metrics)?;
            if let Some(account) = before.and_then(|open| open.secrets.receiver.learned_account()) {
                secrets.receiver.remember_account(&account);
            }
            let refused = before.map(|open| open.refused.clone());
            Ok(OpenEndpoint {
                secrets: Arc::new(secrets),
                refused: refused.unwrap_or_else(|| RefusedRequests::new(&endpoint.name, &self.inspector)),
            })
        });
        open.collect()
    }

    /// From here on these are the endpoints.
    pub(super) fn replace(&self, open: Vec<OpenEndpoint>) {
        let receivers = open
            .iter()
            .map(|open| (open.name().to_owned(), open.secrets.receiver.clone()));
        self.inspector.know(receivers.collect());
        *self.open.lock() = open;
    }

    pub(super) fn served(&self) -> Vec<ingress::PublicEndpoint> {
        let open = self.open.lock();
        open.iter()
            .map(|open| {
                let endpoint = &open.secrets.endpoint;
                ingress::PublicEndpoint {
                    name: endpoint.name.clone(),
                    path: endpoint.path.clone(),
                    receiver: open.secrets.receiver.clone(),
                    replay_window: endpoint.replay_window,
                    refused: open.refused.clone(),
                    allow: endpoint.allow.clone(),
                }
            })
            .collect()
    }

    /// What the operator can look at.
    pub(super) fn shown(&self) -> Vec<OpenEndpoint> {
        self.open.lock().clone()
    }

    /// Has the sources read at once.
    pub(super) fn read_again(&self) {
        self.asked.notify_one();
    }

    /// Takes over secrets that were changed on disk, at once when it is asked to, and keeps what was learned. Never
    /// ends.
    pub(super) async fn watch_sources(self) {
        let mut kept = self.learned();
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => {}
                () = self.asked.notified() => {}
            }
            let endpoints = self.clone();
            let looked = tokio::task::spawn_blocking(move || {
                endpoints.look(&mut kept);
                kept
            });
            kept = match looked.await {
                Ok(kept) => kept,
                Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
            };
        }
    }

    fn look(&self, kept: &mut BTreeMap<String, String>) {
        for endpoint in self.shown() {
            endpoint.secrets.reload(Instant::now());
        }
        let learned = self.learned();
        if learned != *kept {
            match self.write_accounts(&learned) {
                Ok(()) => *kept = learned,
                Err(error) => tracing::warn!("failed to keep {}: {error}", self.accounts.display()),
            }
        }
    }

    fn learned(&self) -> BTreeMap<String, String> {
        self.open
            .lock()
            .iter()
            .filter_map(|open| {
                let account = open.secrets.receiver.learned_account()?;
                Some((open.name().to_owned(), account.to_string()))
            })
            .collect()
    }

    fn write_accounts(&self, learned: &BTreeMap<String, String>) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(learned).expect("names always serialize");
        kept_file::write(&self.accounts, &text)
    }
}

impl OpenEndpoint {
    fn name(&self) -> &str {
        &self.secrets.endpoint.name
    }

    /// What `/status` has of it.
    pub(super) fn status(&self) -> Value {
        self.secrets.status(&self.refused)
    }
}

impl EndpointSecrets {
    /// Reads the sources. One that can be read is enough.
    fn open(endpoint: &config::EndpointConfig, metrics: &IngressMetrics) -> Result<Self, BuildError> {
        let now = Instant::now();
        let counter = |index| {
            let position = SecretPosition::of_source(index).to_string();
            metrics
                .secret_read_failures
                .with_label_values(&[&endpoint.name, &position])
        };
        let receiver = EndpointReceiver::new(endpoint.sender(), &endpoint.name, None, Vec::new()).with_accounts(
            EndpointAccounts {
                own: endpoint.account.clone(),
                listed: endpoint.accounts.clone(),
            },
        );
        let opened = Self {
            receiver: Arc::new(receiver),
            sources: Mutex::new(SecretSources::new(&endpoint.secrets, endpoint.secrets_grace, now)),
            read_failures: (0..endpoint.secrets.len()).map(counter).collect(),
            endpoint: endpoint.clone(),
        };
        opened.reload(now);
        let sources = opened.sources.lock();
        if sources.active().is_empty() {
            let errors = sources.iter().filter_map(|(_, state)| state.error());
            return Err(BuildError::Secret {
                endpoint: endpoint.name.clone(),
                text: errors.collect::<Vec<_>>().join("; "),
            });
        }
        for (index, (_, state)) in sources.iter().enumerate() {
            if let Some(error) = state.error() {
                let position = SecretPosition::of_source(index);
                tracing::warn!(endpoint = endpoint.name, %position, error, "a secret cannot be read; starting without it");
            }
        }
        drop(sources);
        Ok(opened)
    }

    /// Reads every source again.
    fn reload(&self, now: Instant) {
        let mut sources = self.sources.lock();
        let changes = sources.read(now, SecretSource::read);
        for ((_, state), failures) in sources.iter().zip(&self.read_failures) {
            if state.error().is_some() {
                failures.inc();
            }
        }
        if changes.is_empty() {
            return;
        }
        let secrets: Vec<Secret> = sources.active().into_iter().map(|placed| placed.secret).collect();
        let active = secrets.len();
        self.receiver.set_secrets(secrets);
        for change in changes {
            self.log(change, &sources, active);
        }
    }

    fn log(&self, change: SourceChange, sources: &SecretSources, active: usize) {
        let endpoint = &self.endpoint.name;
        let (SourceChange::Secrets { index }
        | SourceChange::Failing { index }
        | SourceChange::Revoked { index }
        | SourceChange::Recovered { index }) = change;
        let position = SecretPosition::of_source(index);
        let error = sources.state(index).error();
        match change {
            SourceChange::Secrets { .. } => tracing::info!(endpoint, %position, active, "secrets were read"),
            SourceChange::Recovered { .. } => tracing::info!(endpoint, %position, active, "a secret can be read again"),
            SourceChange::Failing { .. } => {
                let grace = self.endpoint.secrets_grace;
                tracing::warn!(
                    endpoint, %position, active, error, ?grace,
                    "a secret cannot be read; it stays for the grace time, and while no other can be read"
                );
            }
            SourceChange::Revoked { .. } => tracing::warn!(
                endpoint, %position, active, error,
                "a secret that cannot be read is revoked"
            ),
        }
    }

    /// Brings its gauges up to date.
    pub(super) fn collect(&self, metrics: &IngressMetrics) {
        let sources = self.sources.lock();
        let active = sources.active();
        let number = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let endpoint = self.endpoint.name.as_str();
        metrics
            .secrets_active
            .with_label_values(&[endpoint])
            .set(number(active.len()));
        for (placed, matched) in active.iter().zip(self.receiver.last_matches()) {
            let position = placed.position.to_string();
            metrics
                .secret_last_match
                .with_label_values(&[endpoint, &position])
                .set(matched.unwrap_or(0));
        }
    }

    fn status(&self, refused: &RefusedRequests) -> Value {
        let sources = self.sources.lock();
        let matches = self.receiver.last_matches();
        let active: Vec<Value> = (sources.active().iter().zip(matches))
            .map(|(placed, matched)| {
                json!({
                    "position": placed.position.to_string(),
                    "last_match": matched.and_then(|s| jiff::Timestamp::from_second(s).ok()).map(|time| time.to_string()),
                })
            })
            .collect();
        let sources: Vec<Value> = sources
            .iter()
            .enumerate()
            .map(|(index, (source, state))| {
                let failing_for_s = match state {
                    SourceState::Failing { since, .. } => Some(since.elapsed().as_secs()),
                    _ => None,
                };
                json!({
                    "position": SecretPosition::of_source(index).to_string(),
                    "source": source.to_string(),
                    "state": state.name(),
                    "error": state.error(),
                    "failing_for_s": failing_for_s,
                })
            })
            .collect();
        json!({
            "name": self.endpoint.name,
            "secrets_active": active.len(),
            "secrets": active,
            "secret_sources": sources,
            "refused": refused.status(),
        })
    }
}

/// What was kept; nothing when there is no such file, or when it is not whole: it is learned again.
fn read_accounts(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}
