//! Remembers how far each stream has come, and says of an event that it is late.

use std::{collections::hash_map::RandomState, hash::BuildHasher as _};

use lru::LruCache;
use parking_lot::Mutex;
use prometheus::IntGauge;

use crate::event::Time;

/// A time that is further ahead of this replica's clock is a wrong clock's, and would make all that follow late.
const AHEAD_MS_MAX: i64 = 60_000;

/// The newest event time of each stream, for so many streams as were asked for; the one that was silent for longest is
/// forgotten first.
///
/// Streams are told apart by a keyed hash of 64 bits, so that an entry has the same few bytes whatever the stream's
/// name, and no sender can aim at another's.
pub struct StreamLateness {
    streams_max: usize,
    hasher: RandomState,
    newest: Mutex<LruCache<u64, Time>>,
    remembered: IntGauge,
}

impl StreamLateness {
    /// `remembered` tells how many streams are.
    pub fn new(streams_max: usize, remembered: IntGauge) -> Self {
        Self {
            streams_max,
            hasher: RandomState::new(),
            // Unbounded, for a bounded one takes all of its memory at once.
            newest: Mutex::new(LruCache::unbounded()),
            remembered,
        }
    }

    /// By how many milliseconds `time` lies behind the newest of the stream `key`; `None`: it does not, or nothing is
    /// known of the stream.
    ///
    /// `recorded` is this replica's clock, when the event was taken in.
    pub fn observe(&self, key: &str, time: Time, recorded: Time) -> Option<u64> {
        let stream = self.hasher.hash_one(key);
        let trusted = time.0 <= recorded.0.saturating_add(AHEAD_MS_MAX);
        let mut streams = self.newest.lock();
        let Some(newest) = streams.get_mut(&stream) else {
            if trusted {
                streams.put(stream, time);
                if streams.len() > self.streams_max {
                    streams.pop_lru();
                }
                self.remembered.set(streams.len() as i64);
            }
            return None;
        };
        if time < *newest {
            return Some(newest.0.abs_diff(time.0));
        }
        if trusted {
            *newest = time;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Time = Time(1_700_000_000_000);

    fn lateness(streams_max: usize) -> StreamLateness {
        StreamLateness::new(streams_max, IntGauge::new("remembered", "streams").unwrap())
    }

    fn observe(lateness: &StreamLateness, key: &str, after_ms: i64) -> Option<u64> {
        lateness.observe(key, Time(NOW.0 + after_ms), NOW)
    }

    #[test]
    fn an_event_is_late_behind_the_newest_of_its_own_stream() {
        let lateness = lateness(10);
        for (key, after_ms, late) in [
            ("a", -100, None),
            ("b", -500, None),
            ("a", -100, None),
            ("a", -101, Some(1)),
            ("a", 0, None),
            ("a", -250, Some(250)),
            ("b", -501, Some(1)),
        ] {
            assert_eq!(observe(&lateness, key, after_ms), late, "{key} {after_ms}");
        }
    }

    #[test]
    fn the_stream_that_was_silent_for_longest_is_forgotten_first() {
        let lateness = lateness(2);
        observe(&lateness, "a", 0);
        observe(&lateness, "b", 0);
        assert_eq!(observe(&lateness, "a", -1), Some(1));
        observe(&lateness, "c", 0);
        assert_eq!(lateness.remembered.get(), 2);
        assert_eq!(observe(&lateness, "a", -1), Some(1));
        assert_eq!(observe(&lateness, "b", -1), None, "it was forgotten");
    }

    #[test]
    fn a_clock_that_is_far_ahead_makes_nobody_late() {
        let lateness = lateness(2);
        assert_eq!(observe(&lateness, "a", AHEAD_MS_MAX + 1), None);
        assert_eq!(lateness.remembered.get(), 0);
        assert_eq!(observe(&lateness, "a", 0), None);
        assert_eq!(observe(&lateness, "a", i64::MAX - NOW.0), None);
        assert_eq!(observe(&lateness, "a", 1), None);
        assert_eq!(observe(&lateness, "a", AHEAD_MS_MAX), None);
        assert_eq!(observe(&lateness, "a", 1), Some(59_999));
    }

    proptest! {
        #[test]
        fn with_room_for_all_it_is_the_distance_to_the_greatest_time_so_far(
            times in proptest::collection::vec((0_u8..4, -1000_i64..0), 1..200)
        ) {
            let lateness = lateness(4);
            let mut newest = [None; 4];
            for (stream, time) in times {
                let before: &mut Option<i64> = &mut newest[usize::from(stream)];
                let expected = before.filter(|newest| time < *newest).map(|newest| newest.abs_diff(time));
                prop_assert_eq!(observe(&lateness, &stream.to_string(), time), expected);
                *before = (*before).max(Some(time));
            }
        }
    }
}
