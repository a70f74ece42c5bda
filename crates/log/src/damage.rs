//! What is wrong with the log, and what of it is counted, logged and set aside.

use std::{
    collections::{HashMap, HashSet},
    mem,
    path::PathBuf,
};

/// Places of damage that are remembered each for itself, so that each is counted once. Of a segment that has more, it
/// is remembered how far they were counted: whoever reads it again comes to them in the same order.
const DAMAGE_PLACES_MAX: usize = 4096;
/// Places that wait to be logged and set aside one by one; what is found beyond is counted, and logged as a sum.
const DAMAGE_WAITING_MAX: usize = 1024;

/// What is wrong, for metrics: a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum DamageKind {
    SegmentHeader,
    Seal,
    Record,
    SegmentMissing,
    Cursor,
    /// The superblock, both of its copies.
    Superblock,
    /// A segment, or the cursors, of another log.
    Foreign,
    /// The directory is a copy, or older than what is in it.
    Restored,
}

impl DamageKind {
    pub(super) const ALL: [Self; 8] = [
        Self::SegmentHeader,
        Self::Seal,
        Self::Record,
        Self::SegmentMissing,
        Self::Cursor,
        Self::Superblock,
        Self::Foreign,
        Self::Restored,
    ];

    /// What a sign that the directory is not the one that was left means.
    pub(super) fn meaning(self) -> &'static str {
        match self {
            DamageKind::Cursor => "routes start again at the oldest record",
            DamageKind::Superblock => {
                "both copies of the superblock are gone; segments and cursors say which log it is"
            }
            DamageKind::Foreign => "it belongs to another log, and is not read",
            DamageKind::Restored => {
                "the directory is a copy, or was put back from one: what came after it is not there"
            }
            DamageKind::SegmentHeader | DamageKind::Seal | DamageKind::Record | DamageKind::SegmentMissing => "damage",
        }
    }

    pub(super) fn label(self) -> &'static str {
        match self {
            DamageKind::SegmentHeader => "segment_header",
            DamageKind::Seal => "seal",
            DamageKind::Record => "record",
            DamageKind::SegmentMissing => "segment_missing",
            DamageKind::Cursor => "cursor",
            DamageKind::Superblock => "superblock",
            DamageKind::Foreign => "foreign",
            DamageKind::Restored => "restored",
        }
    }
}

/// Damaged bytes of a segment, to be set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DamagedPlace {
    pub kind: DamageKind,
    pub path: PathBuf,
    pub segment: u64,
    pub offset: u64,
    pub len: u64,
}

/// Damage that was found, and what of it the writer has yet to hear of.
#[derive(Default)]
pub(super) struct DamageFound {
    places: HashSet<(u64, u64, DamageKind)>,
    /// By segment, the highest offset that was counted without room for its place.
    counted_to: HashMap<u64, u64>,
    reports: DamageReports,
}

/// Damage for the writer to count and set aside.
#[derive(Default)]
pub(super) struct DamageReports {
    pub places: Vec<DamagedPlace>,
    /// How many more there were, by kind.
    pub more: HashMap<DamageKind, u64>,
}

impl DamageFound {
    /// Notes damage. Each place counts once.
    pub(super) fn add(&mut self, damage: DamagedPlace) {
        if !self.is_new(&damage) {
            return;
        }
        let reports = &mut self.reports;
        if reports.places.len() < DAMAGE_WAITING_MAX {
            reports.places.push(damage);
        } else {
            *reports.more.entry(damage.kind).or_default() += 1;
        }
    }

    /// What was noted since the last time.
    pub(super) fn drain_reports(&mut self) -> DamageReports {
        mem::take(&mut self.reports)
    }

    /// Forgets the places of a segment.
    pub(super) fn forget(&mut self, segment: u64) {
        self.places.retain(|(id, ..)| *id != segment);
        self.counted_to.remove(&segment);
    }

    /// Whether a place is met for the first time.
    fn is_new(&mut self, damage: &DamagedPlace) -> bool {
        let place = (damage.segment, damage.offset, damage.kind);
        if self.places.contains(&place) {
            return false;
        }
        if self.places.len() < DAMAGE_PLACES_MAX {
            return self.places.insert(place);
        }
        match self.counted_to.get_mut(&damage.segment) {
            Some(counted) if *counted >= damage.offset => false,
            Some(counted) => {
                *counted = damage.offset;
                true
            }
            None => self.counted_to.insert(damage.segment, damage.offset).is_none(),
        }
    }
}
