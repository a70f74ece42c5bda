//! Remembers the ids of events for a while, and knows one that comes again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use prometheus::IntGauge;
use uuid::Uuid;

/// Entries that are looked at for being too old, with each event: more than are added, so that a burst is forgotten
/// again.
const FORGOTTEN_AT_ONCE_MAX: usize = 2;

/// When each id was seen last, for so many ids as were asked for; the one that was seen longest ago is forgotten first,
/// and each when no window reaches back to it.
///
/// Time is the monotonic clock's: a step of the wall clock repeats nothing.
pub struct SeenIds {
    ids_max: usize,
    /// The longest window that is asked about, in milliseconds.
    kept_ms: AtomicU64,
    seen: Mutex<LruCache<Uuid, Instant>>,
    remembered: IntGauge,
}

impl SeenIds {
    /// `remembered` is set to how many ids are.
    pub fn new(ids_max: usize, kept: Duration, remembered: IntGauge) -> Self {
        Self {
            ids_max,
            kept_ms: AtomicU64::new(millis(kept)),
            // Unbounded, for a bounded one takes all of its memory at once.
            seen: Mutex::new(LruCache::unbounded()),
            remembered,
        }
    }

    /// From here on this is the longest window that is asked about.
    pub fn keep_for(&self, kept: Duration) {
        self.kept_ms.store(millis(kept), Ordering::Relaxed);
    }

    /// Whether `id` was seen within `window` before `now`; from now on it was. A window of zero remembers nothing.
    pub fn observe(&self, id: Uuid, window: Duration, now: Instant) -> bool {
        if window.is_zero() {
            return false;
        }
        let kept = Duration::from_millis(self.kept_ms.load(Ordering::Relaxed));
        let mut seen = self.seen.lock();
        let before = seen.put(id, now);
        for _ in 0..FORGOTTEN_AT_ONCE_MAX {
            let is_over = seen.len() > self.ids_max;
            let is_too_old = |(_, seen_at): (_, &Instant)| now.saturating_duration_since(*seen_at) > kept;
            if is_over || seen.peek_lru().is_some_and(is_too_old) {
                seen.pop_lru();
            }
        }
        self.remembered.set(seen.len() as i64);
        before.is_some_and(|seen_at| now.saturating_duration_since(seen_at) <= window)
    }

    /// Takes back that `id` was seen: its event was refused, and may well be sent again.
    pub fn forget(&self, id: Uuid) {
        let mut seen = self.seen.lock();
        seen.pop(&id);
        self.remembered.set(seen.len() as i64);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    fn seen_ids(ids_max: usize) -> SeenIds {
        SeenIds::new(ids_max, WINDOW, IntGauge::new("remembered", "ids").unwrap())
    }

    #[test]
    fn an_id_is_known_again_within_the_window() {
        let ids = seen_ids(10);
        let start = Instant::now();
        for (id, after_s, expected) in [
            (1, 0, false),
            (2, 1, false),
            (1, 10, true),
            (1, 20, true),
            (1, 31, false),
            (2, 31, false),
        ] {
            let now = start + Duration::from_secs(after_s);
            assert_eq!(
                ids.observe(Uuid::from_u128(id), WINDOW, now),
                expected,
                "{id} after {after_s} s"
            );
        }
        assert!(!ids.observe(Uuid::from_u128(3), Duration::ZERO, start));
        assert!(
            !ids.observe(Uuid::from_u128(3), WINDOW, start),
            "without a window nothing is remembered"
        );
    }

    #[test]
    fn what_was_refused_was_not_seen() {
        let ids = seen_ids(10);
        let (id, now) = (Uuid::from_u128(1), Instant::now());
        assert!(!ids.observe(id, WINDOW, now));
        ids.forget(id);
        assert_eq!(ids.remembered.get(), 0);
        assert!(!ids.observe(id, WINDOW, now));
    }

    #[test]
    fn no_more_ids_are_remembered_than_were_asked_for_and_none_that_is_too_old() {
        let ids = seen_ids(100);
        let start = Instant::now();
        for id in 0..1000 {
            ids.observe(Uuid::from_u128(id), WINDOW, start);
            assert!(ids.remembered.get() <= 100);
        }
        assert!(ids.observe(Uuid::from_u128(999), WINDOW, start));
        assert!(!ids.observe(Uuid::from_u128(0), WINDOW, start), "it was forgotten");
        let later = start + WINDOW + Duration::from_secs(1);
        for id in 2000..2100 {
            ids.observe(Uuid::from_u128(id), WINDOW, later);
        }
        assert!(!ids.observe(Uuid::from_u128(999), WINDOW, later));
        assert_eq!(
            ids.seen.lock().iter().filter(|(_, seen_at)| **seen_at == start).count(),
            0
        );
    }
}
