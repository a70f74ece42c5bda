//! What the simulator knows for certain, and what must hold whatever happens.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::shape::{Fate, Shape};
use crate::{
    config::BacklogFull,
    job::DeadLetter,
    spool::{
        AppendError, AppendReply, LogObserver,
        testing::{Random, stepped::frame_len},
    },
};

/// So long a route may be above what it may pin before its oldest go.
const SHED_WITHIN: Duration = Duration::from_secs(6);
/// What a route gets down to, once it pins more than it may.
const SHARE_KEPT: f64 = 0.9;

/// One thing that happened: when, what, on which route, with which number.
pub(super) type Step = (u64, &'static str, usize, u64);

/// What the cursor of a route has settled: its position, and the ranges above it.
pub(super) type Settlement = (u64, Vec<RangeInclusive<u64>>);

pub(super) fn covers((position, above): &Settlement, sequence: u64) -> bool {
    sequence <= *position || above.iter().any(|range| range.contains(&sequence))
}

/// What a cursor pins, as it counts it.
pub(super) struct Pinned {
    pub bytes: u64,
    /// What was there when the log was opened, and is not counted yet.
    pub uncounted: Option<RangeInclusive<u64>>,
    /// Above its limit nothing more is taken for it.
    pub refuses: bool,
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

/// What the logs report as damage.
#[derive(Default)]
pub(super) struct Alarms(Mutex<Vec<&'static str>>);

impl LogObserver for Alarms {
    fn synced(&self, _records: usize, _took: Duration) {}

    fn damage(&self, kind: &'static str) {
        self.0.lock().push(kind);
    }
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
    /// Refused in this session: on the way to the dead letters.
    refused: BTreeSet<u64>,
    /// Which numbers arrived at the broker, and the newest of each stream that did.
    arrived: BTreeSet<u64>,
    newest: HashMap<u64, u64>,
    /// Durable dead letters.
    pub dead: BTreeSet<u64>,
    /// Dead letters of this process.
    dead_now: BTreeSet<u64>,
    /// Acknowledged, wanted by the route, and not settled by its cursor.
    pub unsettled: BTreeSet<u64>,
    /// Given up, or dead letters, because the route pinned more than it may, ever.
    shed: BTreeSet<u64>,
    /// Given up in this life.
    dropped_now: BTreeSet<u64>,
    /// Of those, given up in another life as well, of which the cursor was lost: they may be gone from the log.
    dropped_again: u64,
    /// Given up, and settled durably or in this life.
    dropped: BTreeSet<u64>,
    above_limit_since: Option<Instant>,
    checked: (usize, Settlement),
    checked_pinned: (u64, usize, Option<RangeInclusive<u64>>, bool),
    /// Made durable last: what is found at a start may be in memory alone, after a sync that failed.
    durable: Settlement,
    pub in_flight: usize,
    pub republished: u64,
}

/// A record that is there for certain: it was acknowledged, or found at a start.
struct Certain {
    index: u64,
    since_ms: u64,
}

pub(super) struct World {
    pub shape: Shape,
    pub random: Random,
    pub routes: Vec<RouteWorld>,
    /// What was submitted, in order.
    pub submitted: Vec<Bytes>,
    indices: HashMap<Bytes, u64>,
    /// How many have no answer.
    unanswered: usize,
    certain: BTreeMap<u64, Certain>,
    /// What each route pinned before the last append.
    pub pinned_before: Vec<Pinned>,
    /// There was no room for a dead letter in this life.
    pub dead_letters_full: bool,
    /// The disk fails now and then in this life.
    pub has_faults: bool,
    /// Whatever was seen under a number.
    numbers: HashMap<u64, u64>,
    /// Records that a fault of the disk may have taken.
    pub damaged: BTreeSet<u64>,
    /// The newest number when the page of the cursors was written last: what is lost up to there is known to be.
    pub page_knows: u64,
    pub alarms: Arc<Alarms>,
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
            indices: HashMap::new(),
            unanswered: 0,
            certain: BTreeMap::new(),
            pinned_before: Vec::new(),
            dead_letters_full: false,
            has_faults: false,
            numbers: HashMap::new(),
            damaged: BTreeSet::new(),
            page_knows: 0,
            alarms: Arc::default(),
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

    /// No loss of power is damage, and no sync that fails.
    pub(super) fn require_no_alarm(&mut self) {
        let alarms = std::mem::take(&mut *self.alarms.0.lock());
        // A page of cursors whose first write was cut short is called so.
        let alarm = alarms.into_iter().find(|kind| *kind != "cursor");
        self.require(alarm.is_none() || self.shape.is_damaged, || {
            format!("damage where there is none: {alarm:?}")
        });
    }

    /// A number stands for the same record, for ever.
    fn is_number_of(&mut self, sequence: u64, index: u64) {
        let known = *self.numbers.entry(sequence).or_insert(index);
        self.require(known == index, || {
            format!("number {sequence} is that of event {index}, and of event {known}")
        });
    }

    /// The next event is on its way to the log.
    pub(super) fn submit(&mut self) -> (u64, Bytes) {
        let index = self.submitted.len() as u64;
        let record = self.shape.record(index, self.now_ms());
        self.submitted.push(record.clone());
        self.indices.insert(record.clone(), index);
        self.unanswered += 1;
        (index, record)
    }

    /// A burst of appends is answered, in the order of the appends; returns whether one was refused.
    pub(super) fn is_answered(&mut self, answers: Vec<(u64, AppendReply)>) -> bool {
        self.unanswered -= answers.len();
        let is_refused = answers.iter().any(|(_, answer)| answer.is_err());
        // What each route pins by then, at least and at most.
        let mut pinned: Vec<(u64, u64)> = self.pinned_before.iter().map(|one| (one.bytes, one.bytes)).collect();
        for (index, answer) in answers {
            let bytes = self.frame_len(index);
            let wanting: Vec<usize> = (0..self.routes.len())
                .filter(|at| self.shape.is_wanted(*at, index))
                .collect();
            let refuses = |at: usize, pinned: u64| {
                let max = self.shape.routes[at].backlog.bytes_max.unwrap_or(u64::MAX);
                self.pinned_before[at].refuses && pinned > 0 && pinned + bytes > max
            };
            match answer {
                Ok(sequence) => {
                    let full = wanting.iter().copied().find(|at| refuses(*at, pinned[*at].0));
                    self.require(full.is_none(), || {
                        format!("{sequence} is taken, though route {full:?} may pin no more")
                    });
                    wanting.iter().for_each(|at| pinned[*at].0 += bytes);
                    self.acknowledge(sequence, index);
                }
                Err(AppendError::RouteFull) => {
                    let is_full = wanting.iter().any(|at| refuses(*at, pinned[*at].1));
                    self.require(is_full, || {
                        format!("event {index} is refused, though no route that wants it is full")
                    });
                    self.note("route full", 0, index);
                    continue;
                }
                Err(AppendError::Full | AppendError::BulkFull) => self.note("full", 0, index),
                Err(AppendError::TooLarge) => self.note("larger than a segment", 0, index),
                Err(AppendError::Failed) => self.note("failed", 0, index),
                Err(error) => self.require(false, || format!("an append is answered: {error}")),
            }
            wanting.iter().for_each(|at| pinned[*at].1 += bytes);
        }
        is_refused
    }

    /// What an event takes in the log.
    fn frame_len(&self, index: u64) -> u64 {
        frame_len(self.submitted[index as usize].len())
    }

    fn acknowledge(&mut self, sequence: u64, index: u64) {
        self.note("acknowledged", 0, sequence);
        let newest = self.certain.last_key_value().map_or(0, |(newest, _)| *newest);
        let is_new = !self.certain.contains_key(&sequence);
        self.require(is_new, || format!("number {sequence} again, after {newest}"));
        self.is_certain(sequence, index);
        for at in 0..self.routes.len() {
            if self.shape.is_wanted(at, index) {
                self.routes[at].unsettled.insert(sequence);
            }
        }
    }

    fn is_certain(&mut self, sequence: u64, index: u64) {
        self.is_number_of(sequence, index);
        let since_ms = self.now_ms();
        self.certain.entry(sequence).or_insert(Certain { index, since_ms });
    }

    /// A process finds a record when it begins: from then on it is there, whether or not it was acknowledged.
    pub(super) fn find(&mut self, sequence: u64, record: &Bytes) {
        match self.indices.get(record) {
            Some(index) => self.is_certain(sequence, *index),
            None => self.require(false, || format!("record {sequence} was never sent")),
        }
    }

    /// A process begins, and its cursors are where the disk has them.
    pub(super) fn begin(&mut self, found: Vec<Settlement>) {
        self.began = Some(Instant::now());
        self.unanswered = 0;
        self.dead_letters_full = false;
        for (at, found) in found.into_iter().enumerate() {
            self.note("position found", at, found.0);
            let lost: Vec<u64> = (self.certain.keys())
                .filter(|sequence| covers(&self.routes[at].durable, **sequence) && !covers(&found, **sequence))
                .copied()
                .collect();
            self.require(lost.is_empty(), || {
                format!("the cursor of route {at} forgot that {lost:?} are settled, durably: it found {found:?}")
            });
            self.forget_session(at);
            self.routes[at].settled.retain(|sequence| covers(&found, *sequence));
            let wanted = |(sequence, record): (&u64, &Certain)| {
                (self.shape.is_wanted(at, record.index) && !covers(&found, *sequence)).then_some(*sequence)
            };
            let route = &mut self.routes[at];
            route.unsettled = self.certain.iter().filter_map(wanted).collect();
            route.dead_now.clear();
            route.dropped_now.clear();
            route.dropped_again = 0;
            route.dropped.retain(|sequence| covers(&found, *sequence));
            route.above_limit_since = None;
            route.checked = Default::default();
            route.checked_pinned = Default::default();
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

    /// No cursor settles what is neither confirmed, nor a dead letter, nor lost, nor unwanted, nor given up.
    pub(super) fn settles(&mut self, at: usize, settlement: Settlement, pinned: u64) {
        let gives_up = self.policy(at) == Some(BacklogFull::DropOldest);
        let route = &mut self.routes[at];
        let now = (self.certain.len(), settlement);
        if route.checked == now {
            return;
        }
        let settled: Vec<u64> = (route.unsettled.iter().copied())
            .filter(|sequence| covers(&now.1, *sequence))
            .collect();
        for sequence in &settled {
            route.unsettled.remove(sequence);
        }
        let position = now.1.0;
        route.checked = now;
        let is_lost = |sequence: &u64| route.dead.contains(sequence) || self.damaged.contains(sequence);
        if gives_up {
            let is_dropped = |sequence: &u64| {
                let is_known = route.settled.contains(sequence) || route.dead_now.contains(sequence);
                !is_known && !self.damaged.contains(sequence)
            };
            let dropped: Vec<u64> = settled.iter().copied().filter(is_dropped).collect();
            if let Some(newest) = dropped.last().copied() {
                let bytes = settled
                    .iter()
                    .map(|sequence| self.frame_len(self.certain[sequence].index));
                let bytes = pinned + bytes.sum::<u64>() + self.damaged_bytes();
                self.require_oldest(at, newest, bytes);
            }
            for sequence in dropped {
                self.note("given up", at, sequence);
                self.routes[at].dropped_now.insert(sequence);
                self.routes[at].dropped.insert(sequence);
                let is_new = self.routes[at].shed.insert(sequence);
                self.routes[at].dropped_again += u64::from(!is_new);
            }
            return;
        }
        let wrong = settled
            .iter()
            .find(|sequence| !is_lost(sequence) && !route.confirmed.contains(sequence));
        let wrong = wrong.copied();
        self.require(wrong.is_none(), || {
            format!("route {at} settles {wrong:?}, which is neither confirmed nor a dead letter: at {position}")
        });
    }

    /// What is damaged counts as pinned until the position has passed all that was counted.
    fn damaged_bytes(&self) -> u64 {
        let damaged = self.damaged.iter().filter_map(|sequence| self.certain.get(sequence));
        damaged.map(|record| self.frame_len(record.index)).sum()
    }

    /// What becomes of what a route may not pin; `None` where there is no limit.
    fn policy(&self, at: usize) -> Option<BacklogFull> {
        let limit = self.shape.routes[at].backlog;
        limit.bytes_max.map(|_| limit.when_full)
    }

    /// A route that pinned so much had a record go: all that are older are with the broker, or were until now.
    fn require_oldest(&mut self, at: usize, sequence: u64, pinned: u64) {
        let route = &self.routes[at];
        let is_with_broker = |one: &u64| route.streams.values().any(|all| all.contains(one));
        let older = route.unsettled.range(..sequence).copied();
        let is_done = |one: &u64| {
            let done = [&route.dead, &route.confirmed, &route.refused, &self.damaged];
            done.iter().any(|done| done.contains(one))
        };
        let older = older.filter(|one| !is_done(one)).find(|one| !is_with_broker(one));
        self.require(older.is_none(), || {
            format!("route {at} lets {sequence} go before {older:?}, which is not with the broker")
        });
        let max = self.shape.routes[at].backlog.bytes_max.unwrap_or(u64::MAX);
        self.require(pinned as f64 > max as f64 * SHARE_KEPT, || {
            format!("route {at} lets {sequence} go, though it pins {pinned} bytes of {max}")
        });
    }

    /// As many were given up in this life as were counted.
    pub(super) fn require_dropped(&mut self, at: usize, counted: u64) {
        let known = self.routes[at].dropped_now.len() as u64;
        let least = known - self.routes[at].dropped_again;
        // Those that are damaged may have been read before.
        let most = known + self.damaged.len() as u64;
        self.require((least..=most).contains(&counted), || {
            format!("route {at} gave up {least} to {most} events, and counted {counted}")
        });
    }

    /// A cursor pins what its route wants and has not settled, and no more than it may.
    pub(super) fn pins(&mut self, at: usize, Pinned { bytes, uncounted, .. }: Pinned) {
        let route = &mut self.routes[at];
        let is_all_known = self.unanswered == 0;
        let now = (bytes, route.unsettled.len(), uncounted, is_all_known);
        if route.checked_pinned != now {
            let uncounted = now.2.clone();
            route.checked_pinned = now;
            let is_counted = |sequence: &u64| uncounted.as_ref().is_none_or(|range| !range.contains(sequence));
            let sum = |sequences: &mut dyn Iterator<Item = u64>| -> u64 {
                sequences.map(|one| self.frame_len(self.certain[&one].index)).sum()
            };
            let route = &self.routes[at];
            let unsettled = || route.unsettled.iter().copied().filter(is_counted);
            let least = sum(&mut unsettled().filter(|one| !self.damaged.contains(one)));
            // One that is damaged counts until all is settled.
            let damaged = self.damaged.iter().copied();
            let most = least + sum(&mut damaged.filter(|one| self.certain.contains_key(one)));
            self.require(bytes >= least && (bytes <= most || !is_all_known), || {
                format!("route {at} pins {bytes} bytes, and should pin {least} to {most}")
            });
        }
        self.is_above_limit(at, bytes);
    }

    fn is_above_limit(&mut self, at: usize, bytes: u64) {
        let sheds = match self.policy(at) {
            None | Some(BacklogFull::Refuse) => false,
            Some(BacklogFull::DeadLetter) => !self.dead_letters_full,
            Some(BacklogFull::DropOldest) => true,
        };
        // Half of it may be in flight, and one record more.
        let max = self.shape.routes[at].backlog.bytes_max.unwrap_or(0) + 2 * self.shape.record_bytes_max();
        if !sheds || bytes <= max || self.has_faults || !self.damaged.is_empty() {
            self.routes[at].above_limit_since = None;
            return;
        }
        let since = *self.routes[at].above_limit_since.get_or_insert_with(Instant::now);
        self.require(since.elapsed() < SHED_WITHIN, || {
            format!("route {at} pins {bytes} bytes for {SHED_WITHIN:?}, more than {max}")
        });
    }

    pub(super) fn forget_session(&mut self, at: usize) {
        let route = &mut self.routes[at];
        route.lanes.clear();
        route.streams.clear();
        route.refused.clear();
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
        let is_settled = route.settled.contains(&sequence)
            || route.dead_now.contains(&sequence)
            || route.dropped_now.contains(&sequence);
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
        // What had to go, and comes again since nobody knows that it went, comes late. So may what is damaged on disk,
        // was passed there, and is in memory when the next session begins with it.
        let is_late = self.shape.routes[at].reorder_window.is_some()
            || route.shed.contains(&sequence)
            || self.damaged.contains(&sequence);
        let is_in_order = sequence > newest || is_late;
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
        self.routes[at].refused.insert(sequence);
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

    /// A dead letter is durable, when the routes pin so much; or was found at a start.
    pub(super) fn bury(&mut self, bytes: &Bytes, pinned: Option<&[u64]>) {
        let is_found = pinned.is_none();
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
        let Some(index) = self.indices.get(&letter.record).copied() else {
            return self.require(false, || format!("dead letter {sequence} is of no record"));
        };
        self.is_number_of(sequence, index);
        let is_shed = letter.reason == "backlog_full" && self.policy(at) == Some(BacklogFull::DeadLetter);
        if let Some(pinned) = pinned.filter(|_| is_shed) {
            if !self.dead_letters_full && !self.has_faults {
                self.require_oldest(at, sequence, pinned[at]);
            }
            self.note("shed", at, sequence);
            self.routes[at].shed.insert(sequence);
        }
        let fate = self.shape.fate(index);
        self.require(fate != Fate::Fine || is_shed, || {
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
        let is_old = |sequence: &u64| self.certain[sequence].since_ms <= until_ms;
        self.routes[at].unsettled.iter().copied().filter(is_old).collect()
    }

    /// Every intact record was published or is a dead letter.
    pub(super) fn require_complete(&mut self) {
        for at in 0..self.routes.len() {
            let missing: Vec<u64> = (self.certain.iter())
                .filter(|(sequence, record)| {
                    let route = &self.routes[at];
                    self.shape.is_wanted(at, record.index)
                        && !self.damaged.contains(sequence)
                        && !route.confirmed.contains(sequence)
                        && !route.dead.contains(sequence)
                        && !route.dropped.contains(sequence)
                })
                .map(|(sequence, _)| *sequence)
                .collect();
            self.require(missing.is_empty(), || format!("route {at} lost {missing:?}"));
        }
    }
}
