//! The endpoints' receivers: their secrets, read again when a file changes, and the accounts that they have learned.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{BuildError, kept_file};
pub(super) use crate::config::SecretSourceError as SecretError;
use crate::{
    config::{Endpoint, SecretSource},
    ingress,
    provider::millicast::{Receiver, Secret},
};

/// How often secret files are read again, and learned accounts are kept.
const INTERVAL: Duration = Duration::from_secs(2);
const ACCOUNTS_FILE: &str = "accounts.json";

struct Opened {
    endpoint: Endpoint,
    receiver: Arc<Receiver>,
    secrets: Vec<Secret>,
}

/// Every endpoint with its receiver.
pub(super) struct Endpoints {
    endpoints: Vec<Opened>,
    accounts: PathBuf,
}

impl Endpoints {
    /// Reads the secrets, and what the endpoints have learned before.
    pub(super) fn open(endpoints: &[Endpoint], dir: &Path) -> Result<Self, BuildError> {
        let accounts = dir.join(ACCOUNTS_FILE);
        let mut learned = read_accounts(&accounts).map_err(|source| BuildError::KeptFile {
            path: accounts.clone(),
            source,
        })?;
        let mut opened = Vec::new();
        for endpoint in endpoints {
            let secrets = read(endpoint).map_err(|source| BuildError::Secret {
                endpoint: endpoint.name.clone(),
                source,
            })?;
            let receiver = Receiver::new(&endpoint.name, endpoint.account.as_deref(), secrets.clone());
            if let Some(account) = learned.remove(&endpoint.name) {
                receiver.remember_account(&account);
            }
            opened.push(Opened {
                endpoint: endpoint.clone(),
                receiver: Arc::new(receiver),
                secrets,
            });
        }
        Ok(Self {
            endpoints: opened,
            accounts,
        })
    }

    pub(super) fn served(&self) -> Vec<ingress::Endpoint> {
        self.endpoints
            .iter()
            .map(|opened| ingress::Endpoint {
                name: opened.endpoint.name.clone(),
                path: opened.endpoint.path.clone(),
                receiver: opened.receiver.clone(),
            })
            .collect()
    }

    /// Takes over secrets that were changed on disk, and keeps what was learned. Never ends.
    pub(super) async fn keep(mut self) {
        let mut kept = self.learned();
        loop {
            tokio::time::sleep(INTERVAL).await;
            self.reload();
            let learned = self.learned();
            if learned != kept {
                match self.write_accounts(&learned) {
                    Ok(()) => kept = learned,
                    Err(error) => tracing::warn!("failed to keep {}: {error}", self.accounts.display()),
                }
            }
        }
    }

    /// Reads the secrets of every endpoint that has one in a file. What cannot be read leaves the old ones active.
    fn reload(&mut self) {
        for Opened {
            endpoint,
            receiver,
            secrets: active,
        } in &mut self.endpoints
        {
            if !endpoint
                .secrets
                .iter()
                .any(|source| matches!(source, SecretSource::File(_)))
            {
                continue;
            }
            match read(endpoint) {
                Ok(secrets) if secrets != *active => {
                    receiver.set_secrets(secrets.clone());
                    *active = secrets;
                    tracing::info!(endpoint = endpoint.name, "the secrets were changed");
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(endpoint = endpoint.name, "the secrets stay as they are: {error}");
                }
            }
        }
    }

    fn learned(&self) -> BTreeMap<String, String> {
        self.endpoints
            .iter()
            .filter_map(|opened| {
                let account = opened.receiver.learned_account()?;
                Some((opened.endpoint.name.clone(), account.to_string()))
            })
            .collect()
    }

    fn write_accounts(&self, learned: &BTreeMap<String, String>) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(learned).expect("names always serialize");
        kept_file::write(&self.accounts, &text)
    }
}

fn read(endpoint: &Endpoint) -> Result<Vec<Secret>, SecretError> {
    endpoint.secrets.iter().map(SecretSource::read).collect()
}

/// What was kept; nothing when there is no such file, or when it is not whole: it is learned again.
fn read_accounts(path: &Path) -> io::Result<BTreeMap<String, String>> {
    match fs::read(path) {
        Ok(text) => Ok(serde_json::from_slice(&text).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}
