//! What a route has read and not settled, lane by lane.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    ops::RangeInclusive,
};

use crate::{sink::Place, spool::Cursor};

/// How many times what is free a lane may have in flight: whatever stands, something is left for the others. With one
/// lane alone it is two thirds of all; of `n` lanes that stand each has a share, and the `2n + 1`th part stays free.
const LANE_SHARE: usize = 2;

/// A record that is not settled.
#[derive(Debug)]
struct Entry {
    /// Behind the record that was read before: the numbers between are settled with it.
    first: u64,
    bytes: usize,
    recorded_ms: i64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Read, and not with the sink: others go before it, its lane has no room, or it is to be a dead letter.
    Held,
    InFlight(Place),
    /// Confirmed, though something that went before it in its stream is not: if that has to go again, so has this.
    Ahead,
}

/// A part of what is in flight.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Load {
    pub records: usize,
    pub bytes: usize,
}

/// What became settled with a confirmation.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confirmed {
    pub recorded_ms: i64,
    /// What may be settled now.
    pub settled: Vec<SettledRecord>,
}

/// A record that is settled, with the numbers before it that nothing is to be settled of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettledRecord {
    numbers: RangeInclusive<u64>,
    bytes: usize,
}

impl SettledRecord {
    pub(super) fn settle(self, cursor: &Cursor) {
        cursor.settle_record(self.numbers, self.bytes);
    }
}

impl Entry {
    fn settled(&self, sequence: u64) -> SettledRecord {
        SettledRecord {
            numbers: self.first..=sequence,
            bytes: self.bytes,
        }
    }
}

/// The records between a route's cursor and the newest one that it has read, without those that are settled.
#[derive(Debug)]
pub(super) struct Window {
    entries: BTreeMap<u64, Entry>,
    in_flight: Load,
    lanes: HashMap<u64, Load>,
    /// Of each stream what was handed over and is not settled, in that order.
    streams: HashMap<u64, VecDeque<u64>>,
    /// The newest record read, wanted or not.
    read: u64,
}

impl Window {
    /// An empty window of a route that goes on behind `position`.
    pub(super) fn new(position: u64) -> Self {
        Self {
            entries: BTreeMap::new(),
            in_flight: Load::default(),
            lanes: HashMap::new(),
            streams: HashMap::new(),
            read: position,
        }
    }

    /// Everything up to here was read and is not wanted, or not there: the numbers that are settled by this.
    pub(super) fn pass(&mut self, through: u64) -> RangeInclusive<u64> {
        let passed = self.read + 1..=through;
        self.read = self.read.max(through);
        passed
    }

    /// A record that was read.
    pub(super) fn hold(&mut self, sequence: u64, bytes: usize, recorded_ms: i64) {
        let first = *self.pass(sequence).start();
        let entry = Entry {
            first,
            bytes,
            recorded_ms,
            stage: Stage::Held,
        };
        self.entries.insert(sequence, entry);
    }

    /// The sink has it from now on.
    pub(super) fn hand_over(&mut self, sequence: u64, place: Place) {
        let entry = self.entries.get_mut(&sequence).expect("what is handed over was held");
        debug_assert_eq!(entry.stage, Stage::Held);
        entry.stage = Stage::InFlight(place);
        self.in_flight.add(entry.bytes);
        self.lanes.entry(place.lane).or_default().add(entry.bytes);
        self.streams.entry(place.stream).or_default().push_back(sequence);
    }

    /// Where a record is in flight to.
    pub(super) fn place(&self, sequence: u64) -> Option<Place> {
        match self.entries.get(&sequence)?.stage {
            Stage::InFlight(place) => Some(place),
            _ => None,
        }
    }

    /// The broker refused it, and it holds nothing back any more: what is settled by this.
    pub(super) fn take_back(&mut self, sequence: u64) -> Vec<SettledRecord> {
        let Some(entry) = self.entries.get_mut(&sequence) else {
            return Vec::new();
        };
        let Stage::InFlight(place) = entry.stage else {
            return Vec::new();
        };
        entry.stage = Stage::Held;
        let bytes = entry.bytes;
        self.landed(place.lane, bytes);
        let stream = self.streams.entry(place.stream).or_default();
        stream.retain(|other| *other != sequence);
        self.settle_stream(place.stream)
    }

    /// Takes in a confirmation; `None` when the record is not in flight.
    pub(super) fn confirm(&mut self, sequence: u64) -> Option<Confirmed> {
        let entry = self.entries.get_mut(&sequence)?;
        let Stage::InFlight(place) = entry.stage else {
            return None;
        };
        entry.stage = Stage::Ahead;
        let (bytes, recorded_ms) = (entry.bytes, entry.recorded_ms);
        self.landed(place.lane, bytes);
        let settled = self.settle_stream(place.stream);
        Some(Confirmed { recorded_ms, settled })
    }

    /// Settles what of a stream is confirmed and has nothing unconfirmed before it.
    fn settle_stream(&mut self, stream: u64) -> Vec<SettledRecord> {
        let mut settled = Vec::new();
        let Some(handed_over) = self.streams.get_mut(&stream) else {
            return settled;
        };
        while let Some(&next) = handed_over.front()
            && self.entries.get(&next).is_some_and(|entry| entry.stage == Stage::Ahead)
        {
            handed_over.pop_front();
            settled.extend(self.entries.remove(&next).map(|entry| entry.settled(next)));
        }
        if handed_over.is_empty() {
            self.streams.remove(&stream);
        }
        settled
    }

    fn landed(&mut self, lane: u64, bytes: usize) {
        self.in_flight.remove(bytes);
        let load = self.lanes.get_mut(&lane).expect("it was handed over");
        load.remove(bytes);
        if load.records == 0 {
            self.lanes.remove(&lane);
        }
    }

    /// A record that is held is a dead letter now, or not there: what is settled by this.
    pub(super) fn settle_held(&mut self, sequence: u64) -> Option<SettledRecord> {
        let entry = self.entries.get(&sequence)?;
        if entry.stage != Stage::Held {
            return None;
        }
        self.entries.remove(&sequence).map(|entry| entry.settled(sequence))
    }

    pub(super) fn is_held(&self, sequence: u64) -> bool {
        (self.entries.get(&sequence)).is_some_and(|entry| entry.stage == Stage::Held)
    }

    /// Forgets everything: the session that had it is over, and what is not settled will be read again from behind
    /// `position` on.
    pub(super) fn rewind(&mut self, position: u64) {
        *self = Self::new(position);
    }

    /// The newest record read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    pub(super) fn in_flight(&self) -> Load {
        self.in_flight
    }

    pub(super) fn lane(&self, lane: u64) -> Load {
        self.lanes.get(&lane).copied().unwrap_or_default()
    }

    /// How much a lane may have in flight, of `max` for all.
    pub(super) fn lane_max(&self, max: Load) -> Load {
        let share = |max: usize, used: usize| max.saturating_sub(used).saturating_mul(LANE_SHARE).max(1);
        Load {
            records: share(max.records, self.in_flight.records),
            bytes: share(max.bytes, self.in_flight.bytes),
        }
    }

    /// When the oldest record that is not settled was accepted.
    pub(super) fn oldest_recorded_ms(&self) -> Option<i64> {
        self.entries.first_key_value().map(|(_, entry)| entry.recorded_ms)
    }
}

impl Load {
    fn add(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }

    fn remove(&mut self, bytes: usize) {
        self.records -= 1;
        self.bytes -= bytes;
    }

    /// Whether there is room below `max`, as there is for one of any size where there is nothing.
    pub(super) fn has_room_below(self, max: Self) -> bool {
        self.records == 0 || (self.records < max.records && self.bytes < max.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(lane: u64, stream: u64) -> Place {
        Place { lane, stream }
    }

    fn window(sequences: impl IntoIterator<Item = u64>) -> Window {
        let mut window = Window::new(0);
        for sequence in sequences {
            window.hold(sequence, 10, sequence as i64 * 1000);
        }
        window
    }

    fn numbers(settled: impl IntoIterator<Item = SettledRecord>) -> Vec<RangeInclusive<u64>> {
        settled.into_iter().map(|settled| settled.numbers).collect()
    }

    fn settled(window: &mut Window, sequence: u64) -> Vec<RangeInclusive<u64>> {
        let confirmed = window.confirm(sequence);
        numbers(confirmed.map(|confirmed| confirmed.settled).unwrap_or_default())
    }

    #[test]
    fn what_is_confirmed_is_settled_with_the_numbers_before_it_and_once() {
        let mut window = window([3]);
        assert_eq!(window.pass(5), 4..=5, "of these there is nothing to be settled");
        window.hold(9, 10, 0);
        window.hand_over(3, place(1, 1));
        window.hand_over(9, place(1, 2));
        assert_eq!(
            (window.in_flight(), window.oldest_recorded_ms()),
            (Load { records: 2, bytes: 20 }, Some(3000))
        );
        assert_eq!(settled(&mut window, 9), [6..=9]);
        assert_eq!(window.confirm(9), None);
        assert_eq!(window.confirm(4), None);
        assert_eq!(
            window.confirm(3),
            Some(Confirmed {
                recorded_ms: 3000,
                settled: vec![SettledRecord {
                    numbers: 1..=3,
                    bytes: 10
                }]
            })
        );
        assert_eq!(
            (window.in_flight(), window.oldest_recorded_ms()),
            (Load::default(), None)
        );
        assert_eq!(window.lane(1), Load::default());
    }

    #[test]
    fn of_a_stream_nothing_is_settled_before_what_went_before_it() {
        let mut window = window(1..=5);
        // As a reorder window has it: the second was handed over first.
        for sequence in [2, 1, 3] {
            window.hand_over(sequence, place(1, 7));
        }
        window.hand_over(4, place(1, 8));
        assert_eq!(settled(&mut window, 1), [], "2 has to go again before it");
        assert_eq!(settled(&mut window, 4), [4..=4], "another stream");
        assert_eq!(settled(&mut window, 3), []);
        assert_eq!(window.in_flight().records, 1);
        assert_eq!(settled(&mut window, 2), [2..=2, 1..=1, 3..=3]);
        assert_eq!(window.oldest_recorded_ms(), Some(5000));
    }

    #[test]
    fn what_was_refused_holds_back_nothing_of_its_stream() {
        let mut window = window(1..=3);
        for sequence in 1..=3 {
            window.hand_over(sequence, place(1, 7));
        }
        assert_eq!(settled(&mut window, 2), []);
        assert_eq!(window.settle_held(1), None, "it is in flight");
        assert_eq!(numbers(window.take_back(1)), [2..=2]);
        assert_eq!(window.take_back(1), []);
        assert_eq!(window.in_flight().records, 1);
        assert_eq!(settled(&mut window, 3), [3..=3]);
        assert_eq!(numbers(window.settle_held(1)), [1..=1]);
        assert_eq!(window.settle_held(1), None);
    }

    #[test]
    fn however_many_lanes_stand_something_is_left_for_another() {
        let max = Load {
            records: 1000,
            bytes: 1_000_000,
        };
        let mut window = window(1..=1000);
        let mut next = 1;
        for lane in 0..5 {
            let before = next;
            while window.lane(lane).has_room_below(window.lane_max(max)) && next <= 1000 {
                window.hand_over(next, place(lane, 0));
                next += 1;
            }
            assert!(next > before, "lane {lane}: {:?}", window.in_flight());
        }
        assert!((600..700).contains(&window.lane(0).records), "{:?}", window.lane(0));
        let alone = Load { records: 1, bytes: 5 };
        assert!(Window::new(0).lane(0).has_room_below(alone));
    }

    #[test]
    fn a_window_that_is_rewound_has_nothing() {
        let mut window = window(1..=4);
        window.hand_over(2, place(1, 1));
        window.rewind(1);
        assert_eq!(
            (window.read(), window.in_flight().records, window.confirm(2)),
            (1, 0, None)
        );
        window.hold(2, 10, 0);
        window.hand_over(2, place(1, 1));
        assert_eq!(settled(&mut window, 2), [2..=2]);
    }
}
