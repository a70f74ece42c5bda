//! When a configuration is read again, and how it went the last time.

use std::{
    fmt::Display,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{task::spawn_blocking, time::sleep};

use super::{ConfigChanges, metrics::ReloadMetrics, stop::Hangups};
use crate::config::{Config, ConfigProblems, process_env};

/// How often a file that is watched is looked at. A change counts once two looks in a row found the same content, so
/// that one that is being written is not taken for whole.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

/// The file that a configuration comes from.
#[derive(Debug, Clone)]
pub struct ConfigFile {
    path: PathBuf,
    /// Where it is read again when it changes, and not only after a SIGHUP: what it held at first.
    watched: Option<Option<Vec<u8>>>,
}

impl ConfigFile {
    /// Of which, if it is to be watched, every change counts from here on.
    pub fn new(path: PathBuf, watch: bool) -> Self {
        let watched = watch.then(|| fs::read(&path).ok());
        Self { path, watched }
    }

    /// Reads it, and the environment of the process over it.
    ///
    /// # Errors
    ///
    /// Every problem of the configuration.
    pub fn load(&self) -> Result<Config, ConfigProblems> {
        Config::load(&self.path, process_env())
    }
}

/// Why a configuration is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReloadReason {
    Hangup,
    Changed,
}

/// Waits for what asks for a reload.
pub(super) struct ReloadRequests {
    hangups: Hangups,
    watched: Option<WatchedFile>,
}

impl ReloadRequests {
    pub fn new(hangups: Hangups, file: Option<&ConfigFile>) -> Self {
        let watched = file.and_then(|file| Some(WatchedFile::new(&file.path, file.watched.clone()?)));
        Self { hangups, watched }
    }

    /// Waits for the next reason. Cancel-safe.
    pub async fn next(&mut self) -> ReloadReason {
        let changed = async {
            match &mut self.watched {
                Some(file) => file.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.hangups.next() => ReloadReason::Hangup,
            () = changed => ReloadReason::Changed,
        }
    }
}

/// A file, by its content: a mounted ConfigMap changes by links, and its times say nothing.
struct WatchedFile {
    path: PathBuf,
    /// What was there when it was last taken.
    taken: Option<Vec<u8>>,
    /// What the last look found.
    seen: Option<Vec<u8>>,
}

impl WatchedFile {
    fn new(path: &Path, content: Option<Vec<u8>>) -> Self {
        Self {
            path: path.to_owned(),
            taken: content.clone(),
            seen: content,
        }
    }

    async fn changed(&mut self) {
        loop {
            sleep(WATCH_INTERVAL).await;
            let path = self.path.clone();
            let read = spawn_blocking(move || fs::read(path).ok()).await;
            // Only a runtime that ends takes it away.
            if self.look(read.unwrap_or_default()) {
                return;
            }
        }
    }

    /// Whether this content, which is there now, is to be taken. One that cannot be read is no content.
    fn look(&mut self, now: Option<Vec<u8>>) -> bool {
        let is_settled = now == self.seen;
        self.seen = now;
        if !is_settled || self.seen.is_none() || self.seen == self.taken {
            return false;
        }
        self.taken = self.seen.clone();
        true
    }
}

/// How it went, for the operator. Clones share it.
#[derive(Clone)]
pub(super) struct ReloadStatus {
    metrics: Arc<ReloadMetrics>,
    last: Arc<Mutex<LastReload>>,
}

struct LastReload {
    /// When the configuration that runs was applied.
    applied: Timestamp,
    needs_restart: Vec<&'static str>,
    /// Why the newest one was not, and when that was found.
    failed: Option<(String, Timestamp)>,
}

impl ReloadStatus {
    /// The first configuration was applied.
    pub fn new(metrics: Arc<ReloadMetrics>) -> Self {
        let status = Self {
            metrics,
            last: Arc::new(Mutex::new(LastReload {
                applied: Timestamp::now(),
                needs_restart: Vec::new(),
                failed: None,
            })),
        };
        status.show();
        status
    }

    pub fn applied(&self, changes: &ConfigChanges) {
        *self.last.lock() = LastReload {
            applied: Timestamp::now(),
            needs_restart: changes.needs_restart.clone(),
            failed: None,
        };
        self.show();
    }

    pub fn failed(&self, error: &impl Display) {
        self.last.lock().failed = Some((error.to_string(), Timestamp::now()));
        self.show();
    }

    fn show(&self) {
        let last = self.last.lock();
        let is_successful = last.failed.is_none();
        self.metrics.config_last_reload_successful.set(i64::from(is_successful));
        self.metrics
            .config_last_reload_timestamp_seconds
            .set(last.applied.as_second());
    }

    /// What `/status` has of it.
    pub fn status(&self) -> Value {
        let last = self.last.lock();
        let failed = last.failed.as_ref();
        json!({
            "applied": format!("{:.3}", last.applied),
            "needs_restart": last.needs_restart,
            "error": failed.map(|(error, since)| json!({ "text": error, "time": format!("{since:.3}") })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_changed_once_it_stays_as_it_is() {
        let mut file = WatchedFile {
            path: PathBuf::new(),
            taken: Some(b"a".into()),
            seen: Some(b"a".into()),
        };
        let content = |text: &str| Some(text.as_bytes().to_vec());
        for (now, is_changed) in [
            (content("a"), false),
            // It is being written.
            (content(""), false),
            (content("b"), false),
            (content("b"), true),
            (content("b"), false),
            // Moved away, and another one moved into its place.
            (None, false),
            (None, false),
            (content("b"), false),
            (content("b"), false),
            (content("c"), false),
            (content("c"), true),
        ] {
            assert_eq!(file.look(now.clone()), is_changed, "{now:?}");
        }
    }
}
