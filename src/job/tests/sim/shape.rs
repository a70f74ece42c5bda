//! What a seed makes a run of: how many routes and lanes, how large everything is, what is wrong with which event.

use std::time::Duration;

use bytes::Bytes;

use super::super::{event, place_of, route};
use crate::{
    config::{BacklogFull, BacklogLimit, EventMatch, RouteConfig},
    event::{Event, Time},
    job::sizes::RouteSizes,
    spool::{LogOptions, RECORD_OVERHEAD_BYTES, sizes::ReadSizes, testing::Random},
};

/// What becomes of an event at any broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Fine,
    /// Refused together with what stands in a batch with it.
    Poisonous,
    /// Refused alone.
    Unroutable,
    /// Refused before it is taken.
    TooLarge,
    Undecodable,
}

/// Of all events of the simulator.
const ENDPOINT: &str = "acme";
/// What an event takes beside its padding, at most.
const EVENT_BYTES: u64 = 400;

pub(super) struct Shape {
    pub routes: Vec<RouteConfig>,
    pub lanes: u64,
    streams: u64,
    /// One event in so many has something wrong with it; 0: none.
    faulty_one_in: u64,
    record_bytes_max: u64,
    pub read: ReadSizes,
    pub route: RouteSizes,
    pub log: LogOptions,
    pub dead_letters: LogOptions,
    /// Sectors go bad, and bits rot.
    pub is_damaged: bool,
    salt: u64,
}

/// Which events a route wants: there is always one for those that are no pictures.
fn matches(at: u64, random: &mut Random) -> EventMatch {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    let (kinds, not_kinds): (Vec<String>, Vec<String>) = match random.below(5) {
        0 if at > 0 => (words(&["thumbnail"]), Vec::new()),
        1 if at > 0 => (words(&["recordings"]), Vec::new()),
        2 if at > 0 => (words(&["recordings", "feeds"]), words(&["thumbnail"])),
        3 | 4 if at > 0 => (Vec::new(), Vec::new()),
        _ => (Vec::new(), words(&["thumbnail"])),
    };
    EventMatch {
        kinds,
        not_kinds,
        ..EventMatch::default()
    }
}

/// What a route may pin: nothing, or a few of the longest records.
fn backlog(record_bytes_max: u64, random: &mut Random) -> BacklogLimit {
    let bytes_max = random
        .one_in(2)
        .then(|| record_bytes_max * [4, 10, 40][random.below(3) as usize]);
    let all = [BacklogFull::Refuse, BacklogFull::DeadLetter, BacklogFull::DropOldest];
    let when_full = all[random.below(3) as usize];
    BacklogLimit { bytes_max, when_full }
}

impl Shape {
    pub(super) fn new(random: &mut Random) -> Self {
        let among = |random: &mut Random, all: &[usize]| all[random.below(all.len() as u64) as usize];
        let record_bytes_max = [100, 900, 2500][random.below(3) as usize];
        let routes: Vec<RouteConfig> = (0..1 + random.below(3))
            .map(|at| RouteConfig {
                name: format!("route-{at}"),
                matches: matches(at, random),
                backlog: backlog(record_bytes_max + EVENT_BYTES, random),
                in_flight_records_max: among(random, &[1, 2, 5, 16, 64]),
                in_flight_bytes_max: among(random, &[600, 4000, 1 << 20]),
                reorder_window: random.one_in(8).then_some(Duration::from_millis(200)),
                reorder_records_max: among(random, &[1, 10, 1000]),
                reorder_bytes_max: among(random, &[1000, 5000, 1 << 20]),
                ..route()
            })
            .collect();
        let options = |dir: &str, bytes_max, segment_bytes, hot_bytes_max, readers_bytes_max| LogOptions {
            dir: dir.into(),
            replica: "replica-0".into(),
            numbers_from: 0,
            bytes_max,
            bulk_share_max: 0.3,
            segment_bytes,
            record_bytes_max: 0,
            hot_bytes_max,
            readers_bytes_max,
        };
        let bytes_max = [64 << 10, 128 << 10, 1 << 20][random.below(3) as usize];
        let segment_bytes = [8 << 10, 12 << 10, 16 << 10, 32 << 10][random.below(4) as usize];
        let hot_bytes_max = among(random, &[0, 2000, 20_000]);
        let reordering = routes.iter().filter(|route| route.reorder_window.is_some());
        let reordering =
            reordering.map(|route| route.reorder_bytes_max + route.reorder_records_max * RECORD_OVERHEAD_BYTES);
        let readers_bytes_max = among(random, &[2000, 10_000, 1 << 20]) + reordering.sum::<usize>();
        let dead_bytes_max = [32 << 10, 1 << 20][random.below(2) as usize];
        Self {
            routes,
            lanes: [1, 2, 3, 4, 9][random.below(5) as usize],
            streams: 2 + random.below(12),
            faulty_one_in: [0, 0, 60, 15][random.below(4) as usize],
            record_bytes_max,
            read: ReadSizes {
                chunk_bytes: among(random, &[64, 207, 1007, 5000, 256 << 10]),
                ahead_records: among(random, &[1, 3, 128]),
                ahead_bytes: among(random, &[1, 2000, 64 << 10]),
                passed_bytes_max: among(random, &[1, 3000, 4 << 20]),
                reader_bytes_min: among(random, &[1000, 4000, 1 << 20]),
                simulated_read: Some(Duration::from_millis(random.below(4))),
            },
            route: RouteSizes {
                read_records_max: among(random, &[1, 3, 10, 512]),
                read_bytes_max: among(random, &[1, 3000, 4 << 20]),
                deferred_records_max: among(random, &[5, 30, 1 << 16]),
                deferred_read_records_max: among(random, &[1, 3, 512]),
                deferred_read_bytes_max: among(random, &[1, 3000, 1 << 20]),
                credit_max: among(random, &[5, 40, 4096]),
                stuck_max: among(random, &[3, 20, 1024]),
                stuck_of_lane_max: among(random, &[1, 5, 64]),
                stuck_again_max: among(random, &[1, 5, 256]),
                refused_bytes_max: 1000,
            },
            log: options("/log", bytes_max, segment_bytes, hot_bytes_max, readers_bytes_max),
            dead_letters: options("/dead", dead_bytes_max, 8 << 10, 1 << 24, 1 << 20),
            is_damaged: random.one_in(2),
            salt: random.number(),
        }
    }

    /// What readers may hold, all together: each may go beyond the limit by what it may always hold, and by one record.
    pub(super) fn held_bytes_max(&self) -> usize {
        const READERS_OF_A_ROUTE: u64 = 3;
        let readers = 1 + self.routes.len() as u64 * (READERS_OF_A_ROUTE + self.lanes);
        let each = self.read.reader_bytes_min + self.read.ahead_bytes + 4096;
        self.log.readers_bytes_max + readers as usize * each
    }

    fn number(&self, index: u64, of: u64) -> u64 {
        Random::new(self.salt ^ (index << 8) ^ of).number()
    }

    pub(super) fn fate(&self, index: u64) -> Fate {
        if self.faulty_one_in == 0 || !self.number(index, 1).is_multiple_of(self.faulty_one_in) {
            return Fate::Fine;
        }
        match self.number(index, 2) % 4 {
            0 => Fate::Poisonous,
            1 => Fate::Unroutable,
            2 => Fate::TooLarge,
            _ => Fate::Undecodable,
        }
    }

    pub(super) fn is_picture(&self, index: u64) -> bool {
        self.number(index, 3).is_multiple_of(8) && self.fate(index) != Fate::Undecodable
    }

    fn kind(&self, index: u64) -> &'static str {
        match self.number(index, 7) % 10 {
            _ if self.is_picture(index) => "thumbnail",
            0 => "recordings",
            _ => "feeds",
        }
    }

    /// What cannot be read becomes a dead letter of every route.
    pub(super) fn is_wanted(&self, at: usize, index: u64) -> bool {
        let matches = &self.routes[at].matches;
        self.fate(index) == Fate::Undecodable || matches.accepts(self.kind(index), ENDPOINT)
    }

    /// The longest record.
    pub(super) fn record_bytes_max(&self) -> u64 {
        self.record_bytes_max + EVENT_BYTES
    }

    /// The record of an event that comes at `now_ms`.
    pub(super) fn record(&self, index: u64, now_ms: u64) -> Bytes {
        let len = self.number(index, 4) % self.record_bytes_max;
        if self.fate(index) == Fate::Undecodable {
            let mut bytes = vec![0xff; 16 + len as usize];
            bytes[8..16].copy_from_slice(&index.to_le_bytes());
            return bytes.into();
        }
        let kind = self.kind(index);
        let recorded = 1_700_000_000_000 + now_ms as i64;
        let body = format!("{{\"padding\":\"{}\"}}", "x".repeat(len as usize));
        Event {
            key: format!("ZG6NWV/stream-{}", self.number(index, 5) % self.streams),
            recorded: Time(recorded),
            time: Time(recorded - (self.number(index, 6) % 100) as i64),
            body: body.into(),
            ..event(index, kind)
        }
        .encode()
    }

    /// The stream of a key.
    pub(super) fn stream(key: &str) -> u64 {
        place_of(key).stream
    }
}
