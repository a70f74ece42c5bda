//! What a route has read and not settled, lane by lane.

use std::{collections::VecDeque, ops::RangeInclusive, time::Duration};

use hashbrown::HashMap;
use tokio::time::Instant;

use crate::{sink::MessagePlace, spool::Cursor};

/// How many times what is free a lane may have in flight: whatever stands, something is left for the others. With one
/// lane alone it is two thirds of all; of `n` lanes that stand each has a share, and the `2n + 1`th part stays free.
const LANE_SHARE: usize = 2;
/// A lane is slow that takes so many times what the fastest one does, and this long beyond that.
const SLOW_TIMES: u32 = 3;
const SLOW_MIN: Duration = Duration::from_millis(100);
/// Numbers of entries that are gone, as many as there are and so many more, are kept.
const ORDER_GONE_MAX: usize = 1024;

/// A record that is not settled.
#[derive(Debug)]
struct WindowEntry {
    /// Behind the record that was read before: the numbers between are settled with it.
    first: u64,
    bytes: usize,
    recorded_ms: i64,
    stage: WindowStage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WindowStage {
    /// Read, and not with the sink: others go before it, its lane has no room, or it is to be a dead letter.
    Held,
    InFlight(MessagePlace, Instant),
    /// Confirmed, though something that went before it in its stream is not: if that has to go again, so has this.
    Ahead,
}

/// A part of what is in flight.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneLoad {
    pub records: usize,
    pub bytes: usize,
}

/// What is in flight of a lane that has something in flight.
#[derive(Debug)]
struct WindowLane {
    load: LaneLoad,
    /// When its newest confirmation came, or its first record went out.
    moved_at: Instant,
    /// What it took until that confirmation, if there was one.
    took: Option<Duration>,
}

impl WindowLane {
    /// What it takes until a record is confirmed, as far as that is known: at least as long as nothing was.
    fn takes(&self, now: Instant) -> Duration {
        self.took.unwrap_or_default().max(now - self.moved_at)
    }
}

/// A record that is settled, with the numbers before it that nothing is to be settled of.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SettledRecord {
    pub numbers: RangeInclusive<u64>,
    bytes: usize,
}

impl SettledRecord {
    pub(super) fn apply_to(self, cursor: &Cursor) {
        cursor.settle_record(self.numbers, self.bytes);
    }
}

/// Settles them at the cursor, and empties the list. Those that stand next to one another are settled together.
pub(super) fn apply_settled(records: &mut Vec<SettledRecord>, cursor: &Cursor) {
    records.sort_unstable_by_key(|record| *record.numbers.start());
    cursor.settle_records(records.drain(..).map(|record| (record.numbers, record.bytes)));
}

impl WindowEntry {
    fn settled(&self, sequence: u64) -> SettledRecord {
        SettledRecord {
            numbers: self.first..=sequence,
            bytes: self.bytes,
        }
    }
}

/// The records between a route's cursor and the newest one that it has read, without those that are settled.
#[derive(Debug)]
pub(super) struct InFlightWindow {
    entries: HashMap<u64, WindowEntry>,
    /// Their numbers in rising order, and some of entries that are gone; the first one is not.
    order: VecDeque<u64>,
    in_flight: LaneLoad,
    lanes: HashMap<u64, WindowLane>,
    /// Of each stream what was handed over and is not settled, in that order.
    streams: HashMap<u64, VecDeque<u64>>,
    /// The newest record read, wanted or not.
    read: u64,
}

impl InFlightWindow {
    /// An empty window of a route that goes on behind `position`.
    pub(super) fn new(position: u64) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            in_flight: LaneLoad::default(),
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
        let entry = WindowEntry {
            first,
            bytes,
            recorded_ms,
            stage: WindowStage::Held,
        };
        self.entries.insert(sequence, entry);
        self.order.push_back(sequence);
    }

    /// Takes the entry of a record that is settled.
    fn remove(&mut self, sequence: u64) -> Option<SettledRecord> {
        let entry = self.entries.remove(&sequence)?;
        while self
            .order
            .front()
            .is_some_and(|first| !self.entries.contains_key(first))
        {
            self.order.pop_front();
        }
        if self.order.len() > 2 * self.entries.len() + ORDER_GONE_MAX {
            // One that stays holds those behind it.
            self.order.retain(|number| self.entries.contains_key(number));
        }
        Some(entry.settled(sequence))
    }

    /// The sink has it from now on.
    pub(super) fn hand_over(&mut self, sequence: u64, place: MessagePlace, now: Instant) {
        let entry = self.entries.get_mut(&sequence).expect("what is handed over was held");
        debug_assert_eq!(entry.stage, WindowStage::Held);
        entry.stage = WindowStage::InFlight(place, now);
        self.in_flight.add(entry.bytes);
        let lane = self.lanes.entry(place.lane).or_insert_with(|| WindowLane {
            load: LaneLoad::default(),
            moved_at: now,
            took: None,
        });
        lane.load.add(entry.bytes);
        self.streams.entry(place.stream).or_default().push_back(sequence);
    }

    /// Where a record is in flight to.
    pub(super) fn place(&self, sequence: u64) -> Option<MessagePlace> {
        match self.entries.get(&sequence)?.stage {
            WindowStage::InFlight(place, _) => Some(place),
            _ => None,
        }
    }

    /// The broker refused it, and it holds nothing back any more: adds what is settled by this.
    pub(super) fn take_back(&mut self, sequence: u64, settled: &mut Vec<SettledRecord>) {
        let Some(entry) = self.entries.get_mut(&sequence) else {
            return;
        };
        let WindowStage::InFlight(place, _) = entry.stage else {
            return;
        };
        entry.stage = WindowStage::Held;
        let bytes = entry.bytes;
        self.landed(place.lane, bytes);
        let stream = self.streams.entry(place.stream).or_default();
        stream.retain(|other| *other != sequence);
        self.settle_stream(place.stream, settled);
    }

    /// Takes in a confirmation, and adds what may be settled now. Returns when the record was accepted, as
    /// milliseconds since 1970; `None` when it is not in flight.
    pub(super) fn confirm(&mut self, sequence: u64, now: Instant, settled: &mut Vec<SettledRecord>) -> Option<i64> {
        let entry = self.entries.get_mut(&sequence)?;
        let WindowStage::InFlight(place, since) = entry.stage else {
            return None;
        };
        entry.stage = WindowStage::Ahead;
        let (bytes, recorded_ms) = (entry.bytes, entry.recorded_ms);
        if let Some(lane) = self.lanes.get_mut(&place.lane) {
            lane.moved_at = now;
            lane.took = Some(now - since);
        }
        self.landed(place.lane, bytes);
        self.settle_stream(place.stream, settled);
        Some(recorded_ms)
    }

    /// Settles what of a stream is confirmed and has nothing unconfirmed before it.
    fn settle_stream(&mut self, stream: u64, settled: &mut Vec<SettledRecord>) {
        let Some(mut handed_over) = self.streams.remove(&stream) else {
            return;
        };
        while let Some(&next) = handed_over.front()
            && self
                .entries
                .get(&next)
                .is_some_and(|entry| entry.stage == WindowStage::Ahead)
        {
            handed_over.pop_front();
            settled.extend(self.remove(next));
        }
        if !handed_over.is_empty() {
            self.streams.insert(stream, handed_over);
        }
    }

    fn landed(&mut self, lane: u64, bytes: usize) {
        self.in_flight.remove(bytes);
        let of_lane = self.lanes.get_mut(&lane).expect("it was handed over");
        of_lane.load.remove(bytes);
        if of_lane.load.records == 0 {
            self.lanes.remove(&lane);
        }
    }

    /// A record that is held is a dead letter now, or not there: what is settled by this.
    pub(super) fn settle_held(&mut self, sequence: u64) -> Option<SettledRecord> {
        let entry = self.entries.get(&sequence)?;
        if entry.stage != WindowStage::Held {
            return None;
        }
        self.remove(sequence)
    }

    pub(super) fn is_held(&self, sequence: u64) -> bool {
        (self.entries.get(&sequence)).is_some_and(|entry| entry.stage == WindowStage::Held)
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

    pub(super) fn in_flight(&self) -> LaneLoad {
        self.in_flight
    }

    pub(super) fn lane(&self, lane: u64) -> LaneLoad {
        self.lanes.get(&lane).map(|lane| lane.load).unwrap_or_default()
    }

    /// Whether a lane stands, or takes much longer than another: one that others are not to wait for. Where no other
    /// has anything in flight, they wait for it.
    pub(super) fn is_slow(&self, lane: u64, now: Instant) -> bool {
        let Some(this) = self.lanes.get(&lane) else {
            return false;
        };
        let others = self
            .lanes
            .iter()
            .filter(|(other, of_other)| **other != lane && of_other.took.is_some());
        let fastest = others.map(|(_, other)| other.takes(now)).min().unwrap_or_default();
        this.takes(now) > fastest * SLOW_TIMES + SLOW_MIN
    }

    /// How much a lane may have in flight, of `max` for all.
    pub(super) fn lane_max(&self, max: LaneLoad) -> LaneLoad {
        let share = |max: usize, used: usize| max.saturating_sub(used).saturating_mul(LANE_SHARE).max(1);
        LaneLoad {
            records: share(max.records, self.in_flight.records),
            bytes: share(max.bytes, self.in_flight.bytes),
        }
    }

    /// When the oldest record that is not settled was accepted.
    pub(super) fn oldest_recorded_ms(&self) -> Option<i64> {
        self.order.front().map(|first| self.entries[first].recorded_ms)
    }
}

impl LaneLoad {
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

    fn place(lane: u64, stream: u64) -> MessagePlace {
        MessagePlace { lane, stream }
    }

    fn window(sequences: impl IntoIterator<Item = u64>) -> InFlightWindow {
        let mut window = InFlightWindow::new(0);
        for sequence in sequences {
            window.hold(sequence, 10, sequence as i64 * 1000);
        }
        window
    }

    fn numbers(settled: impl IntoIterator<Item = SettledRecord>) -> Vec<RangeInclusive<u64>> {
        settled.into_iter().map(|settled| settled.numbers).collect()
    }

    fn settled(window: &mut InFlightWindow, sequence: u64) -> Vec<RangeInclusive<u64>> {
        let mut settled = Vec::new();
        window.confirm(sequence, Instant::now(), &mut settled);
        numbers(settled)
    }

    fn taken_back(window: &mut InFlightWindow, sequence: u64) -> Vec<RangeInclusive<u64>> {
        let mut settled = Vec::new();
        window.take_back(sequence, &mut settled);
        numbers(settled)
    }

    #[test]
    fn what_is_confirmed_is_settled_with_the_numbers_before_it_and_once() {
        let mut window = window([3]);
        assert_eq!(window.pass(5), 4..=5, "of these there is nothing to be settled");
        window.hold(9, 10, 0);
        window.hand_over(3, place(1, 1), Instant::now());
        window.hand_over(9, place(1, 2), Instant::now());
        assert_eq!(
            (window.in_flight(), window.oldest_recorded_ms()),
            (LaneLoad { records: 2, bytes: 20 }, Some(3000))
        );
        assert_eq!(settled(&mut window, 9), [6..=9]);
        let mut confirmed = Vec::new();
        assert_eq!(window.confirm(9, Instant::now(), &mut confirmed), None);
        assert_eq!(window.confirm(4, Instant::now(), &mut confirmed), None);
        assert_eq!(window.confirm(3, Instant::now(), &mut confirmed), Some(3000));
        let record = SettledRecord {
            numbers: 1..=3,
            bytes: 10,
        };
        assert_eq!(confirmed, [record]);
        assert_eq!(
            (window.in_flight(), window.oldest_recorded_ms()),
            (LaneLoad::default(), None)
        );
        assert_eq!(window.lane(1), LaneLoad::default());
    }

    #[test]
    fn of_a_stream_nothing_is_settled_before_what_went_before_it() {
        let mut window = window(1..=5);
        // As a reorder window has it: the second was handed over first.
        for sequence in [2, 1, 3] {
            window.hand_over(sequence, place(1, 7), Instant::now());
        }
        window.hand_over(4, place(1, 8), Instant::now());
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
            window.hand_over(sequence, place(1, 7), Instant::now());
        }
        assert_eq!(settled(&mut window, 2), []);
        assert_eq!(window.settle_held(1), None, "it is in flight");
        assert_eq!(taken_back(&mut window, 1), [2..=2]);
        assert_eq!(taken_back(&mut window, 1), []);
        assert_eq!(window.in_flight().records, 1);
        assert_eq!(settled(&mut window, 3), [3..=3]);
        assert_eq!(numbers(window.settle_held(1)), [1..=1]);
        assert_eq!(window.settle_held(1), None);
    }

    #[test]
    fn however_many_lanes_stand_something_is_left_for_another() {
        let max = LaneLoad {
            records: 1000,
            bytes: 1_000_000,
        };
        let mut window = window(1..=1000);
        let mut next = 1;
        for lane in 0..5 {
            let before = next;
            while window.lane(lane).has_room_below(window.lane_max(max)) && next <= 1000 {
                window.hand_over(next, place(lane, 0), Instant::now());
                next += 1;
            }
            assert!(next > before, "lane {lane}: {:?}", window.in_flight());
        }
        assert!((600..700).contains(&window.lane(0).records), "{:?}", window.lane(0));
        let alone = LaneLoad { records: 1, bytes: 5 };
        assert!(InFlightWindow::new(0).lane(0).has_room_below(alone));
    }

    #[test]
    fn a_lane_is_slow_that_stands_or_takes_much_longer_than_another() {
        const USUAL: Duration = Duration::from_millis(300);
        const NONE: [u64; 0] = [];
        let slow = |window: &InFlightWindow, now| (0..4).filter(|lane| window.is_slow(*lane, now)).collect::<Vec<_>>();
        let mut now = Instant::now();
        let mut window = window(1..=130);
        assert_eq!(slow(&window, now), NONE, "nothing is in flight");
        for sequence in 1..=100 {
            window.hand_over(sequence, place(sequence % 3, sequence), now);
        }
        assert_eq!(slow(&window, now), NONE);
        assert_eq!(slow(&window, now + USUAL), [0, 1, 2], "nothing was confirmed, of any");
        now += USUAL;
        for sequence in [3, 4, 5] {
            window.confirm(sequence, now, &mut Vec::new());
        }
        assert_eq!(slow(&window, now), NONE, "all take long");
        now += 2 * USUAL;
        window.confirm(6, now, &mut Vec::new());
        window.confirm(7, now, &mut Vec::new());
        assert_eq!(slow(&window, now), NONE, "twice as long");
        for sequence in (1..=100).filter(|sequence| sequence % 3 != 2) {
            window.confirm(sequence, now, &mut Vec::new());
        }
        now += 2 * USUAL;
        for sequence in 101..=130 {
            window.hand_over(sequence, place(sequence % 3, sequence), now);
        }
        now += USUAL;
        for sequence in [102, 103] {
            window.confirm(sequence, now, &mut Vec::new());
        }
        assert_eq!(slow(&window, now), [2], "it stands");
        window.confirm(8, now, &mut Vec::new());
        assert_eq!(slow(&window, now), [2], "it moves, and takes too long");
        for sequence in (101..=130).filter(|sequence| sequence % 3 != 2) {
            window.confirm(sequence, now, &mut Vec::new());
        }
        assert_eq!(slow(&window, now), [2], "the others have nothing to do");
    }

    #[test]
    fn a_window_that_is_rewound_has_nothing() {
        let mut window = window(1..=4);
        window.hand_over(2, place(1, 1), Instant::now());
        window.rewind(1);
        assert_eq!(
            (
                window.read(),
                window.in_flight().records,
                window.confirm(2, Instant::now(), &mut Vec::new())
            ),
            (1, 0, None)
        );
        window.hold(2, 10, 0);
        window.hand_over(2, place(1, 1), Instant::now());
        assert_eq!(settled(&mut window, 2), [2..=2]);
    }
}
