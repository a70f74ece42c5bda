//! Files of certificates, keys and secrets that are replaced while a session lasts.
//!
//! They are read once, when a client is made. So a session that was made with other files than there are now is ended
//! in order, once the new ones have stood for a while and a client can be made with them.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rdkafka::{ClientConfig, producer::BaseProducer};
use tokio::{task::spawn_blocking, time::sleep};

use super::{SECRETS, properties::with_secrets, session::ProducerShared};
use crate::settings::TextSource;

const INTERVAL: Duration = Duration::from_secs(2);
const PROPERTIES: [&str; 5] = [
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.crl.location",
    "ssl.key.location",
    "ssl.keystore.location",
];

/// What is in the files that a client reads, as it was at one time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionCertificates {
    files: Vec<PathBuf>,
    content: Vec<Option<u64>>,
}

impl SessionCertificates {
    /// Reads the files that `client` names, whose secrets are sources still. Not for an async task.
    pub fn read(client: &ClientConfig) -> Self {
        let named = PROPERTIES.iter().filter_map(|property| client.get(property));
        let secrets = SECRETS.iter().filter_map(|property| client.get(property));
        let sources = secrets.filter_map(|secret| match TextSource::parse(secret) {
            TextSource::File(path) => Some(path),
            _ => None,
        });
        let files = named
            .map(PathBuf::from)
            .chain(sources)
            .filter(|path| path.is_file())
            .collect::<Vec<_>>();
        let content = files
            .iter()
            .map(|path| Some(hash(&std::fs::read(path).ok()?)))
            .collect();
        Self { files, content }
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    content.hash(&mut hasher);
    hasher.finish()
}

/// Looks at the files of a session that began with `at_first`, until a client can be made with others: then the session
/// is to end.
pub(super) async fn watch(client: ClientConfig, at_first: SessionCertificates, shared: Arc<ProducerShared>) {
    if at_first.files.is_empty() {
        return;
    }
    let mut before = at_first.clone();
    let mut refused = None;
    loop {
        sleep(INTERVAL).await;
        let looked = client.clone();
        let Ok(now) = spawn_blocking(move || SessionCertificates::read(&looked)).await else {
            return;
        };
        // Files that are written just now are not looked into.
        let stands = now == before;
        before = now.clone();
        if !stands || now == at_first || refused.as_ref() == Some(&now) {
            continue;
        }
        let tried = client.clone();
        match spawn_blocking(move || usable(tried)).await {
            Ok(Ok(())) => return shared.certificates_changed(),
            Ok(Err(reason)) => tracing::warn!(
                route = %shared.names.route,
                "the new certificates or secrets of sink '{}' cannot be used, the old ones stay: {reason}",
                shared.names.sink
            ),
            Err(_) => return,
        }
        refused = Some(now);
    }
}

/// Whether a client can be made. It connects to nothing.
fn usable(client: ClientConfig) -> Result<(), String> {
    let mut client = with_secrets(&client)?;
    client.remove("bootstrap.servers");
    client.set("statistics.interval.ms", "0");
    client
        .create::<BaseProducer>()
        .map(drop)
        .map_err(|error| error.to_string())
}
