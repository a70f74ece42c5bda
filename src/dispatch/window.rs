//! What a route has in flight, and so how far its cursor may go.

use std::collections::VecDeque;

/// A record that is not settled, or waits behind one that is not.
#[derive(Debug)]
struct Entry {
    sequence: u64,
    bytes: usize,
    recorded_ms: i64,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Read, and not handed to the sink yet: others go before it.
    Held,
    InFlight,
    Settled,
}

/// The records between a route's cursor and the newest one that it has read.
#[derive(Debug)]
pub(super) struct Window {
    /// In ascending order; the first one is never settled.
    entries: VecDeque<Entry>,
    in_flight_records: usize,
    in_flight_bytes: usize,
    /// The newest record read, wanted or not.
    read: u64,
}

impl Window {
    /// An empty window of a route whose cursor is at `position`.
    pub(super) fn new(position: u64) -> Self {
        Self {
            entries: VecDeque::new(),
            in_flight_records: 0,
            in_flight_bytes: 0,
            read: position,
        }
    }

    /// A record that the route does not want, or that needs no confirmation any more.
    pub(super) fn pass(&mut self, sequence: u64) {
        debug_assert!(sequence > self.read);
        self.read = sequence;
    }

    /// A record that was read and is handed to the sink later, perhaps behind younger ones.
    pub(super) fn hold(&mut self, sequence: u64, bytes: usize, recorded_ms: i64) {
        self.add(sequence, bytes, recorded_ms, Stage::Held);
    }

    /// A record that was handed to the sink, held before or not.
    pub(super) fn push(&mut self, sequence: u64, bytes: usize, recorded_ms: i64) {
        self.in_flight_records += 1;
        self.in_flight_bytes += bytes;
        if sequence > self.read {
            return self.add(sequence, bytes, recorded_ms, Stage::InFlight);
        }
        let index = self.index(sequence).expect("what was read and is not settled is held");
        debug_assert_eq!(self.entries[index].stage, Stage::Held);
        self.entries[index].stage = Stage::InFlight;
    }

    fn add(&mut self, sequence: u64, bytes: usize, recorded_ms: i64, stage: Stage) {
        self.pass(sequence);
        self.entries.push_back(Entry {
            sequence,
            bytes,
            recorded_ms,
            stage,
        });
    }

    fn index(&self, sequence: u64) -> Option<usize> {
        self.entries
            .binary_search_by_key(&sequence, |entry| entry.sequence)
            .ok()
    }

    /// Settles a record and returns when it was accepted; `None` when it is not in flight.
    pub(super) fn settle(&mut self, sequence: u64) -> Option<i64> {
        let index = self.index(sequence)?;
        let entry = &mut self.entries[index];
        if entry.stage != Stage::InFlight {
            return None;
        }
        entry.stage = Stage::Settled;
        let recorded_ms = entry.recorded_ms;
        self.in_flight_records -= 1;
        self.in_flight_bytes -= entry.bytes;
        while self.entries.front().is_some_and(|entry| entry.stage == Stage::Settled) {
            self.entries.pop_front();
        }
        Some(recorded_ms)
    }

    /// Forgets what is in flight: the session that had it is over, and it will be read again.
    pub(super) fn rewind(&mut self) {
        self.read = self.position();
        self.entries.clear();
        self.in_flight_records = 0;
        self.in_flight_bytes = 0;
    }

    /// Everything up to here is settled: where the cursor may be.
    pub(super) fn position(&self) -> u64 {
        self.entries.front().map_or(self.read, |entry| entry.sequence - 1)
    }

    /// The newest record read.
    pub(super) fn read(&self) -> u64 {
        self.read
    }

    pub(super) fn in_flight_records(&self) -> usize {
        self.in_flight_records
    }

    pub(super) fn in_flight_bytes(&self) -> usize {
        self.in_flight_bytes
    }

    /// When the oldest record that is not settled was accepted.
    pub(super) fn oldest_recorded_ms(&self) -> Option<i64> {
        self.entries.front().map(|entry| entry.recorded_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_position_stays_before_the_lowest_unsettled_record() {
        let mut window = Window::new(10);
        window.pass(11);
        window.push(12, 5, 0);
        window.pass(13);
        window.push(14, 7, 0);
        window.pass(15);
        assert_eq!(window.position(), 11);
        assert_eq!(window.settle(14), Some(0));
        assert_eq!(window.position(), 11, "12 is not settled");
        assert_eq!((window.in_flight_records(), window.in_flight_bytes()), (1, 5));
        window.settle(12);
        assert_eq!(window.position(), 15, "nothing in flight: all that was read is settled");
    }

    #[test]
    fn a_record_is_settled_once() {
        let mut window = Window::new(0);
        window.push(1, 5, 42);
        window.push(2, 5, 43);
        assert_eq!(window.settle(2), Some(43));
        assert_eq!(window.settle(2), None);
        assert_eq!(window.settle(3), None);
        assert_eq!(window.in_flight_records(), 1);
    }

    #[test]
    fn what_is_held_keeps_the_position_and_is_not_in_flight() {
        let mut window = Window::new(0);
        window.hold(1, 5, 41);
        window.hold(2, 7, 42);
        assert_eq!((window.position(), window.read()), (0, 2));
        assert_eq!((window.in_flight_records(), window.in_flight_bytes()), (0, 0));
        assert_eq!(window.settle(1), None, "it was not handed over");
        window.push(2, 7, 42);
        assert_eq!((window.in_flight_records(), window.in_flight_bytes()), (1, 7));
        assert_eq!(window.settle(2), Some(42));
        assert_eq!((window.position(), window.oldest_recorded_ms()), (0, Some(41)));
        window.push(1, 5, 41);
        assert_eq!(window.settle(1), Some(41));
        assert_eq!(window.position(), 2);
    }

    #[test]
    fn rewinding_goes_back_to_the_cursor_and_forgets_what_was_confirmed_behind_a_gap() {
        let mut window = Window::new(0);
        for sequence in 1..=5 {
            window.push(sequence, 1, 0);
        }
        window.settle(1);
        window.settle(4);
        window.rewind();
        assert_eq!(
            (window.position(), window.read(), window.in_flight_records()),
            (1, 1, 0)
        );
        window.push(2, 1, 0);
        assert_eq!(window.position(), 1);
    }
}
