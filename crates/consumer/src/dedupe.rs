//! Tells an event that was seen from one that was not.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use forebay_event::Time;

/// The ids of the newest events, at most so many and not older than so long.
///
/// A [`super::Stream`] needs none of this. It is for a consumer that does something for each event, such as counting or
/// sending a mail. What falls out of the window counts as new: the window must hold all that can come again, which
/// after a crash of Forebay or of the consumer is what was on its way. It is in memory, and so forgets with its
/// process; a consumer that must not do a thing twice stores the id with what it did.
#[derive(Debug, Clone)]
pub struct Dedupe {
    events_max: usize,
    window: Duration,
    seen: HashSet<Arc<str>>,
    /// In the order in which they were seen.
    by_age: VecDeque<(Time, Arc<str>)>,
}

impl Dedupe {
    /// Remembers the newest `events_max` ids, at least one, each for `window`.
    pub fn new(events_max: usize, window: Duration) -> Self {
        Self {
            events_max: events_max.max(1),
            window,
            seen: HashSet::new(),
            by_age: VecDeque::new(),
        }
    }

    /// Whether this is the first event with this `id` in the window, which then remembers it. `now` is any clock's, as
    /// long as it is always the same one's; where it steps back, ids are remembered for longer.
    pub fn is_new(&mut self, id: &str, now: Time) -> bool {
        self.expire(now);
        if self.seen.contains(id) {
            return false;
        }
        if self.by_age.len() == self.events_max {
            self.drop_oldest();
        }
        let id: Arc<str> = id.into();
        self.seen.insert(id.clone());
        self.by_age.push_back((now, id));
        true
    }

    /// How many ids it remembers.
    pub fn len(&self) -> usize {
        self.by_age.len()
    }

    pub fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    fn expire(&mut self, now: Time) {
        let window_ms = i64::try_from(self.window.as_millis()).unwrap_or(i64::MAX);
        let oldest = now.0.saturating_sub(window_ms);
        while self.by_age.front().is_some_and(|(seen, _)| seen.0 <= oldest) {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, id)) = self.by_age.pop_front() {
            self.seen.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn an_id_is_new_once_within_the_window() {
        let mut dedupe = Dedupe::new(100, SECOND);
        for (id, now, expected) in [
            ("a", 0, true),
            ("a", 0, false),
            ("b", 500, true),
            ("a", 999, false),
            ("a", 1000, true),
            ("b", 1499, false),
            // A clock that steps back keeps ids longer.
            ("b", 200, false),
            ("c", 200, true),
            ("c", 1199, false),
            ("b", 1500, true),
        ] {
            assert_eq!(dedupe.is_new(id, Time(now)), expected, "{id} at {now}");
        }
    }

    #[test]
    fn the_oldest_ids_make_room() {
        let mut dedupe = Dedupe::new(2, SECOND);
        for (id, expected) in [
            ("a", true),
            ("b", true),
            ("a", false),
            ("c", true),
            ("b", false),
            ("a", true),
        ] {
            assert_eq!(dedupe.is_new(id, Time(0)), expected, "{id}");
            assert!(dedupe.len() <= 2);
        }
    }

    #[test]
    fn every_duplicate_within_the_window_is_found_and_nothing_else() {
        let (mut dedupe, mut new) = (Dedupe::new(1000, SECOND), 0);
        for round in 0..10 {
            for id in 0..500 {
                new += usize::from(dedupe.is_new(&id.to_string(), Time(round)));
            }
        }
        assert_eq!((new, dedupe.len()), (500, 500));
    }
}
