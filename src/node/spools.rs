//! The log of events and that of dead letters: how they are laid out and limited, and whose cursors they hold.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::UNIX_EPOCH};

use super::{BuildError, metrics::NodeMetrics, observe::SpoolMetrics, replica};
use crate::{
    config::{Config, KeepDeadLetters, UNROUTED},
    event::Event,
    job::DeadLetters,
    spool::{self, CursorStart, LogRetention, OpenError, RecordDescription, Spool},
};

/// Small, so that the first dead letter needs little room; a large one gets a segment of its own.
const DEAD_LETTERS_SEGMENT_BYTES: u64 = 256 << 10;
/// Newest records kept in memory for the routes.
const HOT_BYTES_MAX: usize = 64 << 20;
/// Of what was read for the routes, and is in flight or held back, all of them together.
const READERS_BYTES_MAX: usize = 128 << 20;

pub(super) fn open(config: &Config, metrics: &NodeMetrics) -> Result<(Spool, DeadLetters), OpenError> {
    let replica = replica::expected(&config.spool.dir, config.spool.replica.as_deref());
    // A number never comes again, not even from a log that began anew under this name, or was restored.
    let since = UNIX_EPOCH.elapsed().unwrap_or_default();
    let numbers_from = spool::numbers_from(since.as_secs());
    let options = spool::LogOptions {
        dir: config.spool.dir.clone(),
        replica: replica.clone(),
        numbers_from,
        bytes_max: config.spool.bytes_max,
        bulk_share_max: config.spool.thumbnail_share_max,
        segment_bytes: config.segment_bytes(),
        record_bytes_max: 0,
        hot_bytes_max: HOT_BYTES_MAX,
        readers_bytes_max: readers_bytes_max(config),
    };
    let dead_letters = spool::LogOptions {
        dir: dead_letters_dir(config),
        replica,
        numbers_from,
        bytes_max: KeepDeadLetters::default().bytes_max,
        bulk_share_max: 1.0,
        segment_bytes: DEAD_LETTERS_SEGMENT_BYTES,
        // Whatever the log takes, with its reason.
        record_bytes_max: config.segment_bytes(),
        hot_bytes_max: 0,
        readers_bytes_max: READERS_BYTES_MAX,
    };
    let observer = || Arc::new(SpoolMetrics::new(metrics.log.clone()));
    let keep = keep_dead_letters(config);
    let spool = Spool::open_retaining(options, retention(config), observer())?;
    Ok((spool, DeadLetters::open(dead_letters, keep, observer())?))
}

/// What stays in the log of events after every route has settled it.
pub(super) fn retention(config: &Config) -> Option<LogRetention> {
    let spool = &config.spool;
    (!spool.retain.is_zero()).then_some(LogRetention {
        age: spool.retain,
        bytes_max: spool.retain_bytes_max,
        now_ms: || jiff::Timestamp::now().as_millisecond(),
        describe: |record| {
            let event = Event::interest(record).ok()?;
            Some(RecordDescription {
                time_ms: event.recorded.0,
                kind: event.kind,
                key: event.key,
            })
        },
    })
}

/// Where the logs of dead letters are.
pub(super) fn dead_letters_dir(config: &Config) -> PathBuf {
    config.spool.dir.join("dead-letters")
}

/// What all readers of the log may hold. A reorder window that is not full must not keep the log from being read, or it
/// never lets go, so what the windows of all routes may hold comes on top.
pub(super) fn readers_bytes_max(config: &Config) -> usize {
    let windows = config.routes.iter().filter(|route| route.reorder_window.is_some());
    let windows =
        windows.map(|route| route.reorder_bytes_max + route.reorder_records_max * spool::RECORD_OVERHEAD_BYTES);
    READERS_BYTES_MAX + windows.sum::<usize>()
}

/// How the dead letters of each route are kept.
pub(super) fn keep_dead_letters(config: &Config) -> BTreeMap<String, KeepDeadLetters> {
    let routes = config.routes.iter().chain(&config.unrouted);
    routes.map(|route| (route.name.clone(), route.dead_letters)).collect()
}

/// Gives up the cursors that the configuration abandons, and those whose routes have published everything; stops at any
/// other that no route has.
pub(super) fn match_cursors(config: &Config, spool: &Spool) -> Result<(), BuildError> {
    for name in spool.cursors() {
        if config
            .routes
            .iter()
            .chain(&config.unrouted)
            .any(|route| route.name == name)
        {
            continue;
        }
        let position = spool.cursor(&name, CursorStart::Oldest)?.position();
        if config.spool.abandon_routes.contains(&name) {
            tracing::warn!(route = name, "giving up what the abandoned route has not published");
        } else if name == UNROUTED {
            tracing::info!("every event is some route's now");
        } else if spool.backlog(position).records == 0 {
            tracing::info!(
                route = name,
                "the route is no longer configured, and has published everything"
            );
        } else {
            return Err(BuildError::CursorWithoutRoute {
                dir: config.spool.dir.clone(),
                route: name,
            });
        }
        spool.remove_cursor(&name)?;
    }
    Ok(())
}
