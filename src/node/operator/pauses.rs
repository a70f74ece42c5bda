//! Which routes an operator has paused. A paused route stays paused over a restart: it was stopped for a reason that a
//! restart does not mend.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::node::kept_file;

const FILE: &str = "paused.json";

/// Since when a route is paused, and who did it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::node) struct RoutePause {
    /// Milliseconds since the Unix epoch.
    pub since_ms: i64,
    pub uid: u32,
}

/// The routes that are paused, and what tells their jobs. Clones share it.
#[derive(Clone)]
pub(in crate::node) struct RoutePauses {
    path: PathBuf,
    shared: Arc<Mutex<PausedRoutes>>,
}

#[derive(Default)]
struct PausedRoutes {
    paused: BTreeMap<String, RoutePause>,
    signals: BTreeMap<String, watch::Sender<bool>>,
}

impl RoutePauses {
    /// Those that were kept in a spool's directory.
    ///
    /// # Errors
    ///
    /// They cannot be read.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let paused = match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "which routes are paused cannot be read: none is");
                BTreeMap::new()
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let shared = PausedRoutes {
            paused,
            signals: BTreeMap::new(),
        };
        Ok(Self {
            path,
            shared: Arc::new(Mutex::new(shared)),
        })
    }

    /// What tells a route's job that it is paused.
    pub fn signal(&self, route: &str) -> watch::Receiver<bool> {
        let mut shared = self.shared.lock();
        let is_paused = shared.paused.contains_key(route);
        let signal = shared.signals.entry(route.to_owned());
        signal.or_insert_with(|| watch::Sender::new(is_paused)).subscribe()
    }

    pub fn get(&self, route: &str) -> Option<RoutePause> {
        self.shared.lock().paused.get(route).copied()
    }

    /// Pauses a route; whether it was not.
    ///
    /// # Errors
    ///
    /// It cannot be kept, and nothing is changed.
    pub fn pause(&self, route: &str, pause: RoutePause) -> io::Result<bool> {
        self.change(route, |paused| match paused.contains_key(route) {
            true => false,
            false => paused.insert(route.to_owned(), pause).is_none(),
        })
    }

    /// Lets a route go on; whether it was paused.
    ///
    /// # Errors
    ///
    /// It cannot be kept, and nothing is changed.
    pub fn resume(&self, route: &str) -> io::Result<bool> {
        self.change(route, |paused| paused.remove(route).is_some())
    }

    fn change(&self, route: &str, change: impl FnOnce(&mut BTreeMap<String, RoutePause>) -> bool) -> io::Result<bool> {
        let mut shared = self.shared.lock();
        let mut paused = shared.paused.clone();
        if !change(&mut paused) {
            return Ok(false);
        }
        let text = serde_json::to_vec_pretty(&paused).expect("names and numbers always serialize");
        kept_file::write(&self.path, &text)?;
        let is_paused = paused.contains_key(route);
        shared.paused = paused;
        if let Some(signal) = shared.signals.get(route) {
            signal.send_replace(is_paused);
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paused_route_is_told_and_stays_paused_over_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let pauses = RoutePauses::read(dir.path()).unwrap();
        let signal = pauses.signal("events");
        let pause = RoutePause { since_ms: 7, uid: 1000 };
        assert!(!*signal.borrow());
        assert!(pauses.pause("events", pause).unwrap());
        assert!(
            !pauses.pause("events", RoutePause { since_ms: 9, uid: 0 }).unwrap(),
            "it is"
        );
        assert!(*signal.borrow() && !*pauses.signal("other").borrow());

        let again = RoutePauses::read(dir.path()).unwrap();
        assert_eq!(again.get("events"), Some(pause));
        let signal = again.signal("events");
        assert!(*signal.borrow());
        assert!(again.resume("events").unwrap());
        assert!(!*signal.borrow() && !again.resume("events").unwrap());
        assert_eq!(RoutePauses::read(dir.path()).unwrap().get("events"), None);
    }

    #[test]
    fn what_cannot_be_kept_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        fs::create_dir(&gone).unwrap();
        let pauses = RoutePauses::read(&gone).unwrap();
        let signal = pauses.signal("events");
        fs::remove_dir(&gone).unwrap();
        assert!(pauses.pause("events", RoutePause { since_ms: 7, uid: 0 }).is_err());
        assert!(!*signal.borrow() && pauses.get("events").is_none());
    }
}
