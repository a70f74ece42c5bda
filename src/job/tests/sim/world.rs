//! What the simulator knows for certain, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
    time::Duration,
};

use bytes::Bytes;
use tokio::time::Instant;

use super::shape::{Fate, Shape};
use crate::{job::DeadLetter, spool::tests::Random};

/// One thing that happened: when, what, on which route, with which number.
pub(super) type Step = (u64, &'static str, usize, u64);

/// What the cursor of a route has settled: its position, and the ranges above it.
pub(super) type Settlement = (u64, Vec<RangeInclusive<u64>>);

pub(super) fn covers((position, above): &Settlement, sequence: u64) -> bool {
    sequence <= *position || above.iter().any(|range| range.contains(&sequence))
}

/// How a broker behaves just now.
#[derive(Debug, Clone, Default)]
pub(super) struct Weather {
    /// Lanes that take what they are given, and answer nothing.
    pub standing: BTreeSet<u64>,
    /// The session breaks with the next answer.
    pub dies: bool,
    /// So many sessions cannot be opened.
    pub refuses: u64,
    /// It has no room for one message in so many.
    pub full_one_in: u64,
    /// Confirmations come twice.
    pub doubles: bool,
    pub delay_ms_max: u64,
    pub trouble: bool,
    /// Sessions do not know which partition a stream goes to.
    pub is_ignorant: bool,
}

/// A message that a broker has not answered.
pub(super) struct Pending {
    pub sequence: u64,
    pub index: u64,
    pub stream: u64,
    pub has_arrived: bool,
}

/// What is known of one route, its sink and its broker.
#[derive(Default)]
pub(super) struct RouteWorld {
    pub weather: Weather,
    /// What the session has in flight, by partition.
    pub lanes: BTreeMap<u64, VecDeque<Pending>>,
    pub answers_at: Option<Instant>,
    /// Of each stream what was handed over in this session and is not settled.
    streams: HashMap<u64, VecDeque<u64>>,
    /// Confirmed in this session, behind something of its stream that is not.
    ahead: BTreeSet<u64>,
    /// Settled, as far as the process knows.
    settled: BTreeSet<u64>,
    /// What the broker confirmed, ever.
    confirmed: BTreeSet<u64>,
    /// Which numbers arrived at the broker, and the newest of each stream that did.
    arrived: BTreeSet<u64>,
    newest: HashMap<u64, u64>,
    /// Durable dead letters.
    pub dead: BTreeSet<u64>,
    /// Dead letters of this process.
    dead_now: BTreeSet<u64>,
    /// Acknowledged, wanted by the route, and not settled by its cursor.
    pub unsettled: BTreeSet<u64>,
    checked: (usize, Settlement),
    /// Made durable last.
    durable: Settlement,
    pub in_flight: usize,
    pub republished: u64,
}

/// An acknowledged record.
struct Acknowledged {
    index: u64,
    since_ms: u64,
}

pub(super) struct World {
    pub shape: Shape,
    pub random: Random,
    pub routes: Vec<RouteWorld>,
    /// What was submitted, in order.
    pub submitted: Vec<Bytes>,
    acknowledged: BTreeMap<u64, Acknowledged>,
    /// Whatever was seen under a number.
    numbers: HashMap<u64, u64>,
    /// Records that a fault of the disk may have taken.
    pub damaged: BTreeSet<u64>,
    /// The newest number when the page of the cursors was written last: what is lost up to there is known to be.
    pub page_knows: u64,
    pub violation: Option<String>,
    pub trace: Vec<Step>,
    /// When the life that is lived began.
    began: Option<Instant>,
    before_ms: u64,
}

impl World {
    pub(super) fn new(shape: Shape, seed: u64) -> Self {
        Self {
            routes: shape.routes.iter().map(|_| RouteWorld::default()).collect(),
            shape,
            random: Random::new(seed ^ 0xB20C),
            submitted: Vec::new(),
            acknowledged: BTreeMap::new(),
            numbers: HashMap::new(),
            damaged: BTreeSet::new(),
            page_knows: 0,
            violation: None,
            trace: Vec::new(),
            began: None,
            before_ms: 0,
        }
    }

    pub(super) fn now_ms(&self) -> u64 {
        self.before_ms + self.began.map_or(0, |began| began.elapsed().as_millis() as u64)
    }

    pub(super) fn note(&mut self, what: &'static str, route: usize, number: u64) {
        self.trace.push((self.now_ms(), what, route, number));
    }

    pub(super) fn require(&mut self, holds: bool, problem: impl FnOnce() -> String) {
        if !holds && self.violation.is_none() {
            self.violation = Some(format!("at {} ms: {}", self.now_ms(), problem()));
        }
    }

    /// A number stands for the same record, for ever.
    fn is_number_of(&mut self, sequence: u64, index: u64) {
        let known = *self.numbers.entry(sequence).or_insert(index);
        self.require(known == index, || {
            format!("number {sequence} is that of event {index}, and of event {known}")
        });
    }

    pub(super) fn acknowledge(&mut self, sequence: u64, index: u64) {
        self.note("acknowledged", 0, sequence);
        let newest = self.acknowledged.last_key_value().map_or(0, |(newest, _)| *newest);
        let is_new = !self.acknowledged.contains_key(&sequence);
        self.require(is_new, || format!("number {sequence} again, after {newest}"));
        self.is_number_of(sequence, index);
        let since_ms = self.now_ms();
        self.acknowledged.insert(sequence, Acknowledged { index, since_ms });
        for at in 0..self.routes.len() {
            if self.shape.is_wanted(at, index) {
                self.routes[at].unsettled.insert(sequence);
            }
        }
    }

    /// A process begins, and its cursors are where the disk has them.
    pub(super) fn begin(&mut self, found: Vec<Settlement>) {
        self.began = Some(Instant::now());
        for (at, found) in found.into_iter().enumerate() {
            self.note("position found", at, found.0);
            let lost: Vec<u64> = (self.acknowledged.keys())
                .filter(|sequence| covers(&self.routes[at].durable, **sequence) && !covers(&found, **sequence))
                .copied()
                .collect();
            self.require(lost.is_empty(), || {
                format!("the cursor of route {at} forgot that {lost:?} are settled, durably: it found {found:?}")
            });
            self.forget_session(at);
            self.routes[at].settled.retain(|sequence| covers(&found, *sequence));
            self.routes[at].dead_now.clear();
            let wanted =
                |(sequence, record): (&u64, &Acknowledged)| self.shape.is_wanted(at, record.index).then_some(*sequence);
            self.routes[at].unsettled = self.acknowledged.iter().filter_map(wanted).collect();
            self.routes[at].checked = Default::default();
            self.routes[at].durable = found.clone();
            self.settles(at, found);
        }
    }

    /// The process is no more.
    pub(super) fn end(&mut self) {
        self.before_ms = self.now_ms();
        self.began = None;
    }

    /// The cursors were made durable as they are.
    pub(super) fn made_durable(&mut self, cursors: Vec<Settlement>) {
        for (route, durable) in self.routes.iter_mut().zip(cursors) {
            route.durable = durable;
        }
    }

    /// No cursor settles what is neither confirmed, nor a dead letter, nor lost, nor unwanted.
    pub(super) fn settles(&mut self, at: usize, settlement: Settlement) {
        let route = &mut self.routes[at];
        let now = (self.acknowledged.len(), settlement);
        if route.checked == now {
            return;
        }
        let settled: Vec<u64> = (route.unsettled.iter().copied())
            .filter(|sequence| covers(&now.1, *sequence))
            .collect();
        let wrong = settled.iter().copied().find(|sequence| {
            !(route.confirmed.contains(sequence) || route.dead.contains(sequence) || self.damaged.contains(sequence))
        });
        for sequence in settled {
            route.unsettled.remove(&sequence);
        }
        let position = now.1.0;
        route.checked = now;
        self.require(wrong.is_none(), || {
            format!("route {at} settles {wrong:?}, which is neither confirmed nor a dead letter: at {position}")
        });
    }

    pub(super) fn forget_session(&mut self, at: usize) {
        let route = &mut self.routes[at];
        route.lanes.clear();
        route.streams.clear();
        route.ahead.clear();
        route.in_flight = 0;
        route.answers_at = None;
    }

    /// A message is handed to a session.
    pub(super) fn hand_over(&mut self, at: usize, sequence: u64, index: u64, stream: u64) {
        self.note("handed over", at, sequence);
        self.is_number_of(sequence, index);
        let wanted = self.shape.is_wanted(at, index);
        self.require(wanted, || {
            format!("route {at} publishes {sequence}, which it does not want")
        });
        let route = &mut self.routes[at];
        let is_settled = route.settled.contains(&sequence) || route.dead_now.contains(&sequence);
        route.republished += u64::from(route.confirmed.contains(&sequence));
        let is_twice = route.streams.get(&stream).is_some_and(|all| all.contains(&sequence));
        route.streams.entry(stream).or_default().push_back(sequence);
        let lane = stream % self.shape.lanes;
        route.lanes.entry(lane).or_default().push_back(Pending {
            sequence,
            index,
            stream,
            has_arrived: false,
        });
        route.in_flight += 1;
        let in_flight = route.in_flight;
        let max = self.shape.routes[at].in_flight_records_max;
        self.require(!is_settled, || {
            format!("route {at} publishes {sequence} again, which is settled")
        });
        self.require(!is_twice, || {
            format!("route {at} hands {sequence} over twice in one session")
        });
        self.require(in_flight <= max, || {
            format!("route {at} has {in_flight} in flight of {max}")
        });
    }

    /// The broker has a message, whether or not it will say so.
    pub(super) fn arrive(&mut self, at: usize, sequence: u64, stream: u64) {
        self.note("arrived", at, sequence);
        let route = &mut self.routes[at];
        if !route.arrived.insert(sequence) {
            return;
        }
        let newest = route.newest.insert(stream, sequence).unwrap_or(0);
        let is_in_order = sequence > newest || self.shape.routes[at].reorder_window.is_some();
        self.require(is_in_order, || {
            format!("route {at}: of stream {stream} {sequence} came first after {newest}")
        });
    }

    /// The session learns that a message is confirmed.
    pub(super) fn confirm(&mut self, at: usize, sequence: u64, stream: u64) {
        self.note("confirmed", at, sequence);
        let route = &mut self.routes[at];
        route.confirmed.insert(sequence);
        route.ahead.insert(sequence);
        self.settle_stream(at, stream);
    }

    /// The session learns that a message is refused for itself.
    pub(super) fn set_aside(&mut self, at: usize, sequence: u64, stream: u64) {
        self.note("set aside", at, sequence);
        if let Some(all) = self.routes[at].streams.get_mut(&stream) {
            all.retain(|other| *other != sequence);
        }
        self.settle_stream(at, stream);
    }

    fn settle_stream(&mut self, at: usize, stream: u64) {
        let route = &mut self.routes[at];
        let Some(all) = route.streams.get_mut(&stream) else {
            return;
        };
        while let Some(first) = all.front().copied()
            && route.ahead.remove(&first)
        {
            all.pop_front();
            route.settled.insert(first);
        }
    }

    /// A dead letter is durable.
    pub(super) fn bury(&mut self, bytes: &Bytes, is_found: bool) {
        let letter = match DeadLetter::decode(bytes) {
            Ok(letter) => letter,
            Err(error) => return self.require(false, || format!("a dead letter cannot be read: {error}")),
        };
        let sequence = letter.sequence;
        let at = self.shape.routes.iter().position(|route| route.name == letter.route);
        let at = at.expect("a route of the simulator");
        if !is_found {
            self.note("dead letter", at, sequence);
        }
        let Some(index) = self.submitted.iter().position(|record| *record == letter.record) else {
            return self.require(false, || format!("dead letter {sequence} is of no record"));
        };
        self.is_number_of(sequence, index as u64);
        let fate = self.shape.fate(index as u64);
        self.require(fate != Fate::Fine, || {
            format!(
                "route {at} buries {sequence} ({}), with which nothing is wrong",
                letter.reason
            )
        });
        let is_new = is_found || self.routes[at].dead_now.insert(sequence);
        self.require(is_new, || format!("route {at} buries {sequence} twice"));
        self.routes[at].dead.insert(sequence);
    }

    pub(super) fn is_damaged(&mut self, sequence: u64) {
        if self.damaged.insert(sequence) {
            self.note("damaged", 0, sequence);
        }
    }

    /// What of a route is intact, was acknowledged so long ago and is still not settled.
    pub(super) fn waits(&self, at: usize, since: Duration) -> Vec<u64> {
        let until_ms = self.now_ms().saturating_sub(since.as_millis() as u64);
        let is_old = |sequence: &u64| self.acknowledged[sequence].since_ms <= until_ms;
        self.routes[at].unsettled.iter().copied().filter(is_old).collect()
    }

    /// Every intact record was published or is a dead letter.
    pub(super) fn require_complete(&mut self) {
        for at in 0..self.routes.len() {
            let missing: Vec<u64> = (self.acknowledged.iter())
                .filter(|(sequence, record)| {
                    let route = &self.routes[at];
                    self.shape.is_wanted(at, record.index)
                        && !self.damaged.contains(sequence)
                        && !route.confirmed.contains(sequence)
                        && !route.dead.contains(sequence)
                })
                .map(|(sequence, _)| *sequence)
                .collect();
            self.require(missing.is_empty(), || format!("route {at} lost {missing:?}"));
        }
    }
}
