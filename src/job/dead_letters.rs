//! Where dead letters are kept: a log for each route, which is made with its first one, so that no route fills
//! another's.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::select_all;
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{Instant, sleep},
};

use super::DeadLetter;
use crate::{
    config::{KeepDeadLetters, WhenFull},
    spool::{
        self, AppendError, Cursor, CursorStart, LogObserver, OpenError, RecordClass, Spool,
        file_name::{escape, unescape},
    },
};

/// Below the directory of the dead letters, a directory for each route.
const ROUTES_DIR: &str = "routes";
const THREAD: &str = "forebay-dead";
/// The cursor of what is gone: dropped to make room, published again, or discarded.
const GONE: &str = "dropped";
/// So much of the limit at a time.
const DROPPED_ONE_IN: u64 = 16;
const DROPPED_DEADLINE: Duration = Duration::from_secs(5);

/// The dead letters of all routes. Clones share them.
#[derive(Clone)]
pub struct DeadLetters {
    shared: Arc<DeadLetterLogs>,
}

struct DeadLetterLogs {
    /// How each log is laid out; the directory is that of all.
    options: spool::LogOptions,
    /// Of the routes that there are.
    keep: Mutex<BTreeMap<String, KeepDeadLetters>>,
    observer: Arc<dyn LogObserver>,
    logs: Mutex<BTreeMap<String, Spool>>,
    /// Of the logs that have such a cursor.
    gone: Mutex<BTreeMap<String, Arc<Cursor>>>,
    /// Of builds that kept those of all routes in one log; nothing is added to it.
    earlier: Option<Spool>,
    /// Held by who makes a log: one at a time.
    making: tokio::sync::Mutex<()>,
    made: watch::Sender<()>,
}

/// What is kept, for metrics and `/status`.
#[derive(Debug, Default, serde::Serialize)]
pub struct DeadLettersKept {
    pub records: u64,
    pub bytes: u64,
    /// By route; those of builds that did not keep them apart are in the sums alone.
    pub routes: BTreeMap<String, RouteDeadLetters>,
}

/// What is kept of one route.
#[derive(Debug, serde::Serialize)]
pub struct RouteDeadLetters {
    pub records: u64,
    pub bytes: u64,
}

impl DeadLetters {
    /// Opens the logs that there are in the directory of `options`, which say how one route's is laid out and limited,
    /// unless `keep` has another limit for it.
    ///
    /// # Errors
    ///
    /// A log cannot be opened.
    pub fn open(
        options: spool::LogOptions,
        keep: BTreeMap<String, KeepDeadLetters>,
        observer: Arc<dyn LogObserver>,
    ) -> Result<Self, OpenError> {
        let earlier = match Spool::exists(&options.dir) {
            true => Some(Spool::open_named(options.clone(), observer.clone(), THREAD)?),
            false => None,
        };
        let (mut logs, mut gone) = (BTreeMap::new(), BTreeMap::new());
        for (route, dir) in routes(&options.dir) {
            let options = options_of(&options, &keep, &route, dir);
            let log = Spool::open_named(options, observer.clone(), THREAD)?;
            if log.cursors().iter().any(|name| name == GONE) {
                gone.insert(route.clone(), Arc::new(log.cursor(GONE, CursorStart::Oldest)?));
            }
            logs.insert(route, log);
        }
        Ok(Self {
            shared: Arc::new(DeadLetterLogs {
                options,
                keep: Mutex::new(keep),
                observer,
                logs: Mutex::new(logs),
                gone: Mutex::new(gone),
                earlier,
                making: tokio::sync::Mutex::default(),
                made: watch::Sender::new(()),
            }),
        })
    }

    /// From here on those of these routes are kept like this; those of others as before. Waits for the disk.
    pub fn keep_for(&self, keep: BTreeMap<String, KeepDeadLetters>) {
        let mut kept = self.shared.keep.lock();
        for (route, keep) in keep {
            let before = kept.insert(route.clone(), keep).unwrap_or_default();
            if before.bytes_max != keep.bytes_max
                && let Some(log) = self.log(&route)
            {
                log.limit(keep.bytes_max);
            }
        }
    }

    /// How many logs there are in a directory.
    pub fn logs(dir: &Path) -> usize {
        usize::from(Spool::exists(dir)) + routes(dir).len()
    }

    /// The directories below `dir` that are for logs: that of builds that kept all in one, and one for each route.
    pub fn log_dirs(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join(ROUTES_DIR)).into_iter().flatten();
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut routes: Vec<_> = paths.filter(|path| path.is_dir()).collect();
        routes.sort();
        let all = if dir.is_dir() { Some(dir.to_owned()) } else { None };
        all.into_iter().chain(routes).collect()
    }

    /// Those in logs that are open.
    #[cfg(test)]
    pub(super) fn of_logs(
        options: spool::LogOptions,
        logs: BTreeMap<String, Spool>,
        observer: Arc<dyn LogObserver>,
    ) -> Self {
        Self {
            shared: Arc::new(DeadLetterLogs {
                options,
                keep: Mutex::default(),
                observer,
                logs: Mutex::new(logs),
                gone: Mutex::default(),
                earlier: None,
                making: tokio::sync::Mutex::default(),
                made: watch::Sender::new(()),
            }),
        }
    }

    /// Makes a dead letter durable in its route's log; returns how many older ones went for it.
    pub(super) async fn append(&self, letter: &DeadLetter) -> Result<u64, AppendError> {
        let log = self.log_for(&letter.route).await?;
        let keep = self.shared.keep.lock().get(&letter.route).copied().unwrap_or_default();
        let record = letter.encode();
        match log.append(record.clone(), RecordClass::Ordinary).await {
            Err(AppendError::Full) if keep.when_full == WhenFull::DropOldest => {}
            result => return result.map(|_| 0),
        }
        let _dropping = self.shared.making.lock().await;
        let mut dropped = 0;
        for _ in 0..DROPPED_ONE_IN {
            match log.append(record.clone(), RecordClass::Ordinary).await {
                Err(AppendError::Full) => match self.drop_oldest(&letter.route, &log, keep.bytes_max).await? {
                    // It is not the limit that there is no room for.
                    0 => return Err(AppendError::Full),
                    more => dropped += more,
                },
                result => return result.map(|_| dropped),
            }
        }
        log.append(record, RecordClass::Ordinary).await.map(|_| dropped)
    }

    /// Whether there may be room for a dead letter of a route.
    pub(super) fn has_room(&self, route: &str) -> bool {
        self.log(route).is_none_or(|log| log.state().refuses.is_none())
    }

    /// The log of a route, if it has dead letters.
    pub fn log(&self, route: &str) -> Option<Spool> {
        self.shared.logs.lock().get(route).cloned()
    }

    async fn log_for(&self, route: &str) -> Result<Spool, AppendError> {
        if let Some(log) = self.log(route) {
            return Ok(log);
        }
        let _making = self.shared.making.lock().await;
        if let Some(log) = self.log(route) {
            return Ok(log);
        }
        let dir = self.shared.options.dir.join(ROUTES_DIR).join(escape(route));
        let options = options_of(&self.shared.options, &self.shared.keep.lock(), route, dir);
        let observer = self.shared.observer.clone();
        let opened = spawn_blocking(move || Spool::open_named(options, observer, THREAD)).await;
        // Only a runtime that ends takes it away.
        let log = opened.map_err(|_| AppendError::Closed)?.map_err(|error| {
            tracing::error!(route, %error, "no log can be made for the route's dead letters");
            match error.lacks_room() {
                true => AppendError::Full,
                false => AppendError::Failed,
            }
        })?;
        self.shared.logs.lock().insert(route.to_owned(), log.clone());
        self.shared.made.send_replace(());
        Ok(log)
    }

    fn all(&self) -> Vec<Spool> {
        let logs = self.shared.logs.lock();
        logs.values().chain(&self.shared.earlier).cloned().collect()
    }

    pub fn kept(&self) -> DeadLettersKept {
        let mut kept = DeadLettersKept::default();
        for (route, log) in self.shared.logs.lock().iter() {
            let state = log.state();
            let gone = self.shared.gone.lock().get(route).cloned();
            let records = gone.map_or(state.records, |gone| gone.backlog().records);
            let bytes = state.bytes;
            kept.records += records;
            kept.bytes += bytes;
            kept.routes.insert(route.clone(), RouteDeadLetters { records, bytes });
        }
        if let Some(log) = &self.shared.earlier {
            kept.records += log.state().records;
            kept.bytes += log.state().bytes;
        }
        kept
    }

    /// The log of a route's dead letters, and the cursor by which they are gone; `None`: it has none.
    ///
    /// # Errors
    ///
    /// The cursor cannot be made.
    pub async fn gone(&self, route: &str) -> Result<Option<(Spool, Arc<Cursor>)>, OpenError> {
        let Some(log) = self.log(route) else {
            return Ok(None);
        };
        if let Some(gone) = self.shared.gone.lock().get(route).cloned() {
            return Ok(Some((log, gone)));
        }
        let opened = log.clone();
        let cursor = spawn_blocking(move || opened.cursor(GONE, CursorStart::Oldest)).await;
        // Only a runtime that ends takes it away.
        let cursor = cursor.unwrap_or_else(|_| Err(OpenError::Format("the process ends".to_owned())))?;
        let mut all = self.shared.gone.lock();
        let gone = all.entry(route.to_owned()).or_insert_with(|| Arc::new(cursor));
        Ok(Some((log, gone.clone())))
    }

    /// Deletes the oldest dead letters of a route, about a sixteenth of what they may take; returns how many they were.
    async fn drop_oldest(&self, route: &str, log: &Spool, bytes_max: u64) -> Result<u64, AppendError> {
        let gone = self.gone(route).await.map_err(|_| AppendError::Failed)?;
        let (_, gone) = gone.ok_or(AppendError::Failed)?;
        let before = gone.backlog().records;
        gone.advance(log.number_after(gone.position(), bytes_max / DROPPED_ONE_IN));
        let dropped = before - gone.backlog().records;
        // They go with the log's next tick.
        let (until, bytes) = (Instant::now() + DROPPED_DEADLINE, log.state().bytes);
        while log.state().bytes >= bytes && Instant::now() < until {
            sleep(Duration::from_millis(50)).await;
        }
        Ok(dropped)
    }

    /// Resolves when a write or an fsync of any of the logs failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut made = self.shared.made.subscribe();
        loop {
            made.borrow_and_update();
            let logs = self.all();
            let failures: Vec<_> = logs.iter().map(|log| Box::pin(log.failed())).collect();
            let changed = made.changed();
            if failures.is_empty() {
                // The sender is here as long as this is.
                let _ = changed.await;
                continue;
            }
            tokio::select! {
                (reason, ..) = select_all(failures) => return reason,
                _ = changed => {}
            }
        }
    }

    /// Seals the logs.
    pub async fn close(&self) {
        for log in self.all() {
            log.close().await;
        }
    }
}

/// How the log of a route is laid out and limited.
fn options_of(
    options: &spool::LogOptions,
    keep: &BTreeMap<String, KeepDeadLetters>,
    route: &str,
    dir: PathBuf,
) -> spool::LogOptions {
    spool::LogOptions {
        dir,
        bytes_max: keep.get(route).map_or(options.bytes_max, |keep| keep.bytes_max),
        ..options.clone()
    }
}

/// The routes that have a log below `dir`, and where it is.
fn routes(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir.join(ROUTES_DIR)).into_iter().flatten();
    let paths = entries.filter_map(|entry: io::Result<fs::DirEntry>| Some(entry.ok()?.path()));
    let logs = paths.filter(|path| Spool::exists(path));
    logs.filter_map(|path| Some((unescape(path.file_name()?.to_str()?)?, path)))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    struct Quiet;

    impl LogObserver for Quiet {
        fn synced(&self, _: usize, _: Duration) {}
        fn damage(&self, _: &'static str) {}
    }

    fn options(dir: &Path) -> spool::LogOptions {
        spool::LogOptions {
            dir: dir.to_owned(),
            replica: String::new(),
            numbers_from: 0,
            bytes_max: 256 << 10,
            bulk_share_max: 1.0,
            segment_bytes: 16 << 10,
            record_bytes_max: 32 << 10,
            hot_bytes_max: 0,
            readers_bytes_max: 1 << 20,
        }
    }

    fn open(dir: &Path) -> DeadLetters {
        let keep = KeepDeadLetters {
            bytes_max: 256 << 10,
            when_full: WhenFull::DropOldest,
        };
        let keep = BTreeMap::from([("rolling".to_owned(), keep)]);
        DeadLetters::open(options(dir), keep, Arc::new(Quiet)).unwrap()
    }

    fn letter(route: &str, bytes: usize) -> DeadLetter {
        DeadLetter {
            route: route.into(),
            sequence: 7,
            reason: "too_large".into(),
            text: "too large".into(),
            at_ms: 0,
            attempts: 1,
            record: Bytes::from(vec![1; bytes]),
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_route_gets_a_log_with_its_first_dead_letter_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let letters = open(dir.path());
        assert!(
            fs::read_dir(dir.path()).unwrap().next().is_none(),
            "nothing is made before"
        );
        letters.append(&letter("events", 100)).await.unwrap();
        letters.append(&letter("a/b %", 100)).await.unwrap();
        letters.append(&letter("events", 100)).await.unwrap();
        letters.close().await;
        drop(letters);

        let letters = open(dir.path());
        let kept = letters.kept();
        let records: Vec<_> = kept
            .routes
            .iter()
            .map(|(route, kept)| (route.as_str(), kept.records))
            .collect();
        assert_eq!((kept.records, records), (3, vec![("a/b %", 1), ("events", 2)]));
        let mut read = Vec::new();
        letters
            .log("events")
            .unwrap()
            .reader(1)
            .next(9, 1 << 20, &mut read)
            .await
            .unwrap();
        assert_eq!(DeadLetter::decode(&read[0].bytes).unwrap(), letter("events", 100));
        letters.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_route_whose_log_is_full_fills_no_other_s() {
        let dir = tempfile::tempdir().unwrap();
        let letters = open(dir.path());
        while letters.append(&letter("greedy", 30_000)).await.is_ok() {}
        assert_eq!(letters.append(&letter("greedy", 30_000)).await, Err(AppendError::Full));
        letters.append(&letter("modest", 30_000)).await.unwrap();
        letters.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn where_the_oldest_ones_go_there_is_room_for_the_newest_and_they_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let letters = open(dir.path());
        let mut dropped = 0;
        for _ in 0..20 {
            dropped += letters.append(&letter("rolling", 30_000)).await.unwrap();
        }
        let kept = letters.kept().routes["rolling"].records;
        assert!(dropped > 5 && kept >= 3, "{dropped} dropped, {kept} kept");
        assert!(kept + dropped >= 20, "{dropped} dropped, {kept} kept");
        letters.close().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn those_of_builds_that_kept_all_in_one_log_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let one = Spool::open(options(dir.path()), Arc::new(Quiet)).unwrap();
        one.append(letter("events", 10).encode(), RecordClass::Ordinary)
            .await
            .unwrap();
        one.close().await;
        drop(one);
        let letters = open(dir.path());
        letters.append(&letter("events", 10)).await.unwrap();
        assert_eq!(letters.kept().records, 2);
        letters.close().await;
    }
}
