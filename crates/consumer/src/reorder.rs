//! Holds events back for a moment, so that those of a stream come out in the order in which they happened.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use forebay_event::Time;

/// A reorder window: what is pushed comes out by stream in the order of its time, and waits for that as long as the
/// window is at most.
///
/// An item is *due* once it has waited for the window. Then all that the buffer has of its stream with an earlier time
/// comes out before it, and what has a later time stays until it is due itself. Of equal times, what was pushed first
/// comes out first. So a stream comes out in order, but for an item that was pushed more than the window behind one
/// that happened after it. Streams do not wait for each other.
///
/// It is what a route with a `reorder_window` has inside, and serves a consumer that wants the same, for instance over
/// the topics of several replicas. It is in memory: commit an offset, or acknowledge, only when all that came before it
/// is out.
///
/// ```
/// use std::time::Duration;
///
/// use forebay_consumer::{Reorder, Time};
///
/// let mut reorder = Reorder::new(Duration::from_millis(500)).with_limits(10_000, 64 << 20);
/// // `ended` of 46.612 s comes first, `started` of 46.359 s right behind it.
/// reorder.push("ZG6NWV/sample_stream", Time(46_612), 100, "ended", Time(46_702));
/// reorder.push("ZG6NWV/sample_stream", Time(46_359), 100, "started", Time(46_731));
/// assert_eq!(reorder.pop(Time(47_201)), None);
/// assert_eq!(reorder.next_due(), Some(Time(47_202)));
/// assert_eq!(reorder.pop(Time(47_202)), Some("started"));
/// assert_eq!(reorder.pop(Time(47_202)), Some("ended"));
/// ```
#[derive(Debug)]
pub struct Reorder<T> {
    window_ms: i64,
    items_max: usize,
    bytes_max: usize,
    bytes: usize,
    /// How many were ever pushed: the number of the next one.
    pushed: u64,
    /// The latest `now` that was given.
    clock: Time,
    /// By the number of the push, and so by when they are due.
    waiting: BTreeMap<u64, WaitingItem>,
    streams: HashMap<Arc<str>, InOrder<T>>,
}

/// A stream's items by their time, and of equal times by the number of the push.
type InOrder<T> = BTreeMap<(Time, u64), HeldStream<T>>;

#[derive(Debug)]
struct WaitingItem {
    stream: Arc<str>,
    due: Time,
}

#[derive(Debug)]
struct HeldStream<T> {
    item: T,
    bytes: usize,
}

/// An item that came out.
#[derive(Debug)]
pub struct Released<T> {
    pub item: T,
    /// It comes out before one that was pushed earlier.
    pub overtakes: bool,
    /// It comes out before its time, because the buffer holds more than it may.
    pub is_cut_short: bool,
}

impl<T> Reorder<T> {
    /// An empty buffer, without limits.
    pub fn new(window: Duration) -> Self {
        Self {
            window_ms: i64::try_from(window.as_millis()).unwrap_or(i64::MAX),
            items_max: usize::MAX,
            bytes_max: usize::MAX,
            bytes: 0,
            pushed: 0,
            clock: Time(i64::MIN),
            waiting: BTreeMap::new(),
            streams: HashMap::new(),
        }
    }

    /// Holds at most so many items and bytes: over it, the item that waits longest counts as due.
    #[must_use]
    pub fn with_limits(mut self, items_max: usize, bytes_max: usize) -> Self {
        (self.items_max, self.bytes_max) = (items_max, bytes_max);
        self
    }

    /// Takes in an item of `stream` that happened at `time`. `bytes` is what it counts against the limit. `now` is any
    /// clock's, as long as it is always the same one's; where it steps back, it counts as standing still.
    pub fn push(&mut self, stream: &str, time: Time, bytes: usize, item: T, now: Time) {
        self.clock = self.clock.max(now);
        let number = self.pushed;
        self.pushed += 1;
        self.bytes += bytes;
        let stream = match self.streams.get_key_value(stream) {
            Some((known, _)) => known.clone(),
            None => stream.into(),
        };
        let items = self.streams.entry(stream.clone()).or_default();
        items.insert((time, number), HeldStream { item, bytes });
        let due = Time(self.clock.0.saturating_add(self.window_ms));
        self.waiting.insert(number, WaitingItem { stream, due });
    }

    /// The next item that may come out at `now`. Ask until there is none.
    pub fn pop(&mut self, now: Time) -> Option<T> {
        self.release(now).map(|released| released.item)
    }

    /// Like [`Reorder::pop`], with how it came out.
    pub fn release(&mut self, now: Time) -> Option<Released<T>> {
        self.clock = self.clock.max(now);
        let (&longest, waiting) = self.waiting.first_key_value()?;
        let is_due = waiting.due <= self.clock;
        if !is_due && !self.is_over_limit() {
            return None;
        }
        let stream = waiting.stream.clone();
        let items = self.streams.get_mut(&stream)?;
        let ((_, number), held) = items.pop_first()?;
        if items.is_empty() {
            self.streams.remove(&stream);
        }
        self.waiting.remove(&number);
        self.bytes -= held.bytes;
        Some(Released {
            item: held.item,
            overtakes: number != longest,
            is_cut_short: !is_due,
        })
    }

    /// When [`Reorder::pop`] has something, if nothing else is pushed before. `None` when the buffer is empty.
    pub fn next_due(&self) -> Option<Time> {
        let (_, longest) = self.waiting.first_key_value()?;
        Some(if self.is_over_limit() { self.clock } else { longest.due })
    }

    /// How many items it holds.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What its items count against the limit.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Forgets all that it holds, and the clock.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.streams.clear();
        self.bytes = 0;
        self.clock = Time(i64::MIN);
    }

    fn is_over_limit(&self) -> bool {
        self.waiting.len() > self.items_max || self.bytes > self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    const WINDOW: i64 = 100;

    fn reorder() -> Reorder<(u8, i64, usize)> {
        Reorder::new(Duration::from_millis(WINDOW.unsigned_abs()))
    }

    #[derive(Debug, Clone)]
    struct Arrival {
        stream: u8,
        time: i64,
        /// After the arrival before.
        after_ms: i64,
    }

    fn arrivals() -> impl Strategy<Value = Vec<Arrival>> {
        let one =
            (0_u8..4, 0_i64..500, 0_i64..60).prop_map(|(stream, time, after_ms)| Arrival { stream, time, after_ms });
        proptest::collection::vec(one, 1..120)
    }

    /// Pushes all, and pops what may come out at every millisecond. Returns what came out, when.
    fn run(reorder: &mut Reorder<(u8, i64, usize)>, arrivals: &[Arrival]) -> Vec<(i64, (u8, i64, usize))> {
        let (mut now, mut out) = (0, Vec::new());
        let drain = |reorder: &mut Reorder<_>, from: i64, to: i64, out: &mut Vec<_>| {
            for at in from..=to {
                while let Some(item) = reorder.pop(Time(at)) {
                    out.push((at, item));
                }
            }
        };
        for (index, arrival) in arrivals.iter().enumerate() {
            let before = now;
            now += arrival.after_ms;
            drain(reorder, before, now, &mut out);
            let item = (arrival.stream, arrival.time, index);
            reorder.push(&arrival.stream.to_string(), Time(arrival.time), 1, item, Time(now));
        }
        drain(reorder, now, now + WINDOW, &mut out);
        out
    }

    fn arrived_at(arrivals: &[Arrival]) -> Vec<i64> {
        arrivals
            .iter()
            .scan(0, |now, arrival| {
                *now += arrival.after_ms;
                Some(*now)
            })
            .collect()
    }

    proptest! {
        #[test]
        fn everything_comes_out_once_and_waits_no_longer_than_the_window(arrivals in arrivals()) {
            let mut reorder = reorder();
            let out = run(&mut reorder, &arrivals);
            prop_assert!(reorder.is_empty() && reorder.bytes() == 0 && reorder.streams.is_empty());
            let indices: HashSet<usize> = out.iter().map(|(_, (.., index))| *index).collect();
            prop_assert_eq!((out.len(), indices.len()), (arrivals.len(), arrivals.len()));
            let arrived = arrived_at(&arrivals);
            for (at, (.., index)) in out {
                prop_assert!((arrived[index]..=arrived[index] + WINDOW).contains(&at), "{index} at {at}");
            }
        }

        #[test]
        fn a_stream_is_in_order_but_for_what_came_more_than_the_window_behind_one_that_happened_after_it(arrivals in arrivals()) {
            let out = run(&mut reorder(), &arrivals);
            let arrived = arrived_at(&arrivals);
            let order = |index: usize| (arrivals[index].time, index);
            for (place, (_, (stream, .., before))) in out.iter().enumerate() {
                for (_, (other_stream, .., late)) in &out[place + 1..] {
                    if stream == other_stream && order(*before) > order(*late) {
                        let is_excused = (0..*late).any(|one| {
                            arrivals[one].stream == *stream && order(one) > order(*late) && arrived[one] + WINDOW <= arrived[*late]
                        });
                        prop_assert!(is_excused, "{before} before {late}");
                    }
                }
            }
        }

        #[test]
        fn a_stream_comes_out_the_same_whatever_other_streams_do(arrivals in arrivals()) {
            let of = |out: Vec<(i64, (u8, i64, usize))>| -> Vec<(i64, i64)> {
                out.into_iter().filter(|(_, (stream, ..))| *stream == 0).map(|(at, (_, time, _))| (at, time)).collect()
            };
            let together = of(run(&mut reorder(), &arrivals));
            let arrived = arrived_at(&arrivals);
            let mut before = 0;
            let alone: Vec<Arrival> = arrivals.iter().zip(arrived).filter(|(arrival, _)| arrival.stream == 0).map(|(arrival, at)| {
                let after_ms = at - before;
                before = at;
                Arrival { after_ms, ..arrival.clone() }
            }).collect();
            prop_assert_eq!(together, of(run(&mut reorder(), &alone)));
        }

        #[test]
        fn limits_hold_and_cut_the_longest_wait_short(arrivals in arrivals(), items_max in 0_usize..10, bytes_max in 0_usize..10) {
            let mut reorder = reorder().with_limits(items_max, bytes_max);
            let mut waiting: BTreeSet<usize> = BTreeSet::new();
            for (index, arrival) in arrivals.iter().enumerate() {
                reorder.push(&arrival.stream.to_string(), Time(arrival.time), 1, (arrival.stream, arrival.time, index), Time(0));
                waiting.insert(index);
                while let Some((stream, .., popped)) = reorder.pop(Time(0)) {
                    let longest = *waiting.first().expect("something waits");
                    prop_assert_eq!(arrivals[longest].stream, stream);
                    waiting.remove(&popped);
                }
                prop_assert!(reorder.len() <= items_max && reorder.bytes() <= bytes_max);
                prop_assert_eq!(reorder.len(), waiting.len());
            }
        }
    }

    #[test]
    fn of_equal_times_the_first_comes_first_and_a_clock_that_steps_back_stands_still() {
        let mut reorder = Reorder::new(Duration::from_millis(10));
        reorder.push("a", Time(5), 1, "first", Time(1000));
        reorder.push("a", Time(5), 1, "second", Time(0));
        assert_eq!(reorder.next_due(), Some(Time(1010)));
        assert_eq!(reorder.pop(Time(1009)), None);
        assert_eq!(reorder.pop(Time(1010)), Some("first"));
        assert_eq!(reorder.pop(Time(0)), Some("second"));
        assert_eq!((reorder.pop(Time(2000)), reorder.next_due()), (None, None));
    }
}
