//! The durable log between the sender and the broker.
//!
//! # Constraints
//!
//! - A record is acknowledged after it is durable, and seen by a reader only then.
//! - What was acknowledged is read, in order and unchanged, until every cursor has passed it. No sequence number that
//!   anybody could have seen is given out twice.
//! - After the first write or sync that failed, nothing more is written. The process ends and recovers from the disk.
//! - A full disk is no failure: it is said, and it passes.
//! - Damage is found, counted, set aside and passed over, never cut off silently, never a reason to stop.
//! - Memory and disk are bounded; opening takes time by the segment, not by the record.
//! - Records are opaque bytes, and no wall clock is read; what is retained is by a clock, and described, as its owner
//!   says.
//!
//! # Format
//!
//! The log is a row of *segments*, preallocated files that are written front to back and never changed. A *frame* is a
//! record with a header: length, checksums, sequence number, and where its *batch* starts. A batch is what is written
//! with one call and one sync; its header has its length and how far the log was durable before it. Every checksum
//! covers the log's UUID, the segment and the offset, so that a right frame in a wrong place, or of another log, is
//! wrong. Once a segment is full it gets a *seal*, which says what it holds. A *superblock*, written twice, has the
//! UUID, an epoch that rises at every start, and whether the log was closed in order. `docs/spool-format.md` has every
//! byte.
//!
//! Numbers begin at [`LogOptions::numbers_from`] in each life of the log, if they are not higher already: a clock there
//! makes sure that not even a log that began anew, or was restored, gives out a number twice. An epoch in the numbers
//! would not: a copy repeats it.
//!
//! # Write path
//!
//! One thread, `forebay-spool`, does everything that writes. Requests queue in memory, bounded in number and bytes; the
//! writer takes all that wait as one batch: one `pwrite`, one `fdatasync`, then the index and the newest records are
//! shown to the readers, then everybody is answered. While it syncs, the next batch gathers. There is no timer: under
//! no load a record is written at once, and under load the sync is shared.
//!
//! A segment that has no room is sealed, made durable, and only then the next one is created: allocated, header
//! written, file synced, directory synced, first record. No space while creating is [`AppendError::Full`]; it is tried
//! again with the next append, and twice a second without one, because nobody may be sending to a spool that is not
//! ready.
//!
//! # Read path
//!
//! The newest records stay in memory, as the bytes that came in, until every cursor has durably passed them: a reader
//! near the head copies references. One that is far behind reads the files on a blocking thread, up to what is durable,
//! no more than it was asked for; each record that its owner wants ([`WantedRecords`]) is copied out of what was read,
//! so that it keeps nothing alive but itself. What readers have handed out counts until the last part of it is dropped,
//! all readers together against one limit ([`LogOptions::readers_bytes_max`]), beyond which they wait.
//!
//! Where a frame is wrong, or the disk does not give a page back, the reader goes on at the next valid header; the
//! writer counts the place and copies its bytes to `quarantine/`. A hole settles like a record: [`LogReader::next`]
//! returns how far it got, with or without records, so a position never stands before something that nobody can read.
//! Every wait of a reader can be given up. A segment that is deleted under a reader is finished from the open file, or
//! passed over: only what every cursor has passed is deleted.
//!
//! A reader's owner counts on this: numbers rise and may have gaps; a call returns a number that is higher than that of
//! the call before; what lies between two calls' numbers and was not handed out is not there or not wanted, and is
//! settled together with what was. So a cursor is moved by [`Cursor::settle`] with ranges that begin behind the record
//! read before, and reaches the head when all was settled.
//!
//! # Delete path
//!
//! A [`Cursor`] moves in memory: its position, and the ranges that are settled above it. Twice a second a thread of
//! its own makes all that moved durable, on one page, in place, in the older of two slots, so that neither a torn
//! write nor a full disk can lose it and no append waits for it. Then the writer unlinks each segment that is behind
//! every durable cursor, that the page on disk asks for no more, and that is not retained, and syncs the directory,
//! oldest first and one by one, so that a gap is never ordinary. The newest segment stays, and without any cursor
//! everything stays.
//!
//! A record may be appended for an [`Audience`]: it is settled at once for the cursors that do not want it,
//! and *pinned* by those that do, until they settle it. What a cursor may pin can be limited: then what it wants is
//! refused, or its owner settles what is oldest. So one that stands fills no log for the others.
//!
//! # Recovery
//!
//! Sealed segments are opened by their first block. A newest segment without a seal is read: it ends after its last
//! valid frame, is cut there and sealed; appends go to a new segment, so no stale frame can become valid. A hole is
//! either
//!
//! - *torn*, in the last batch: its sync never returned, nobody was told; what is whole around it is kept, and it is
//!   written over; or
//! - *damage*, when the disk does not give it back, or when what stood there was durable once: a later batch left a
//!   header, or the page of the cursors knows it.
//!
//! Superblock and page also know the first and the last segment that must be there. What is missing, of another log, or
//! put back from a copy is named and counted; the log goes on with what is there.
//!
//! The newest segment is read from the disk, not from the kernel's memory; then its last batch, header and seal are
//! written again before they are synced and trusted: if the sync of the process before failed, the kernel holds their
//! pages as clean, and a sync alone would say yes to what the disk does not have.
//!
//! The same holds for superblock and page: what is found may be in memory alone, so it is written again before the
//! other slot is given up.
//!
//! A cursor is a hint. A damaged page falls back to its other slot, or else the routes start at the oldest record.
//! Ahead of the log, when the log's end is lost, a cursor raises the next sequence number: what was settled under a
//! number must not settle another record.
//!
//! Of a segment of which little is still wanted the settled rest is given back to the file system (`compaction.rs`).
//!
//! What needs no room starts without it: on a disk that is full, or a directory that cannot be written, the log is
//! read, and appends are refused.
//!
//! # What is assumed of the disk
//!
//! - A sync that returned success is kept, also over a loss of power.
//! - Unsynced writes may be there or not, sector by sector, in any order, and torn. A sector's bytes that a torn write
//!   does not change stay as they are: consecutive batches share sectors. A disk that garbles a whole sector instead
//!   makes this damage: found and counted.
//! - Preallocated space can be written without new space, so a full disk shows when a segment is made. A file system
//!   that copies on write does not keep this; there a full disk fails the spool, and the process ends.
//!
//! What cannot be known: damage within half a second of the end of a log that was not closed, before the page was
//! written, looks torn.
//!
//! # Retention
//!
//! What every cursor has settled may stay for a while ([`LogRetention`]). A sealed segment then has an index beside it,
//! by which a reader with a [`LogQuery`] reads only what it needs; it is made by the thread of the cursors, and can be
//! thrown away.
//!
//! # Why it is safe
//!
//! *Acknowledged implies durable*: the answer follows the sync of the frame, which follows the syncs of its file and of
//! its directory entry. *Durable implies found*: recovery keeps every frame that is whole, wherever holes are. *Seen
//! implies durable*: readers are shown records after the sync, and after recovery has written again what was in doubt.
//! The simulator in the tests drives the log over a disk that loses, tears and fails at every call, and checks this
//! against a model; with the syncs taken out it fails.

mod audience;
mod batch;
mod budget;
mod compaction;
mod cursor;
mod cursors;
mod damage;
mod desk;
mod disk_reader;
pub mod file_name;
mod file_system;
mod image;
mod index;
mod log;
mod quarantine;
mod reader;
mod recovery;
mod retention;
mod scan;
mod segment;
mod settled;
mod shared;
#[cfg(not(any(test, feature = "testing")))]
mod sizes;
#[cfg(any(test, feature = "testing"))]
pub mod sizes;
mod spool;
mod superblock;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod writer;

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use bytes::Bytes;

use self::file_system::is_passing;
pub use self::{
    audience::Audience,
    budget::RECORD_OVERHEAD_BYTES,
    cursor::Cursor,
    desk::{AppendReplies, AppendReply},
    file_system::is_full,
    image::{
        DirectoryHold, ImageCensus, ImageCopy, ImageCursor, ImageDamage, ImageDepth, ImageNote, ImageRecord,
        ImageSegment, ImageStep, LogImage, LogRewrite, RewrittenLog,
    },
    index::LogQuery,
    reader::{LogReader, ReadError, WantedRecords},
    retention::{LogRetention, RecordDescription, RetainedRecords},
    spool::Spool,
};

/// Where the segments are in a spool's directory.
const SEGMENTS_DIR: &str = "segments";

/// How a spool is laid out and limited.
#[derive(Debug, Clone)]
pub struct LogOptions {
    pub dir: PathBuf,
    /// Who writes the log: for people who find its directory.
    pub replica: String,
    /// Records of this life have numbers from here on, or higher ones. A caller that gives a clock that does not stand
    /// still makes sure that no number comes again, not even from a log that began anew under its old name or was
    /// restored from a copy.
    pub numbers_from: u64,
    /// All segments together stay below this.
    pub bytes_max: u64,
    /// The share of `bytes_max` that bulk records may take, from 0.0 to 1.0.
    pub bulk_share_max: f64,
    /// What a segment takes on disk from its first record on. At most a quarter of `bytes_max` is used, and at least 8
    /// KiB.
    pub segment_bytes: u64,
    /// A record that needs more gets a segment of its own, up to this; nothing above a segment's size makes no
    /// difference.
    pub record_bytes_max: u64,
    /// Newest records kept in memory for readers near the head.
    pub hot_bytes_max: usize,
    /// What all readers together have handed out and is still held. Each may hold a mebibyte, or one record, beyond it,
    /// and a quarter of one to read with.
    pub readers_bytes_max: usize,
}

/// Numbers for each second of a clock: no log takes more records than that.
const NUMBERS_PER_SECOND: u64 = 1_000_000;

/// For [`LogOptions::numbers_from`]: where a life that begins at this second of the clock has its numbers.
pub fn numbers_from(unix_seconds: u64) -> u64 {
    unix_seconds.saturating_mul(NUMBERS_PER_SECOND).saturating_add(1)
}

/// Of numbers that are missing between two that are there, those that a life of the log would have given out: not those
/// between the end of one life and the first number of the next.
pub fn numbers_given_out(missing: RangeInclusive<u64>) -> RangeInclusive<u64> {
    // Before numbers began at a clock they were small.
    const CLOCK_MIN: u64 = 1_000_000_000 * NUMBERS_PER_SECOND;
    let (first, last) = missing.into_inner();
    let life = last / NUMBERS_PER_SECOND * NUMBERS_PER_SECOND + 1;
    match last >= CLOCK_MIN && life > first {
        true => life..=last,
        false => first..=last,
    }
}

/// How a record counts against the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordClass {
    Ordinary,
    /// Pictures: they never push out ordinary records.
    Bulk,
}

/// A record as a reader sees it: durable.
#[derive(Debug, Clone)]
pub struct Record {
    pub sequence: u64,
    pub bytes: Bytes,
}

/// What of the log is behind a position.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CursorBacklog {
    pub records: u64,
    /// What the segments that hold them take on disk.
    pub bytes: u64,
}

/// Where a new cursor starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorStart {
    /// After the newest record.
    Head,
    /// At the oldest record that is still there.
    Oldest,
}

/// Why a record was not taken. It is not in the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("the spool is full")]
    Full,
    #[error("the bulk share of the spool is full")]
    BulkFull,
    #[error("a route that wants the record may pin no more of the spool")]
    RouteFull,
    #[error("the record is larger than a segment")]
    TooLarge,
    #[error("the disk failed; the process must end and recover from it")]
    Failed,
    #[error("the process has no descriptor or memory left for a new segment")]
    Exhausted,
    #[error("too many records wait for the disk")]
    Busy,
    #[error("the spool is closed")]
    Closed,
}

/// What the spool holds, for metrics and readiness.
#[derive(Debug, Clone, Copy)]
pub struct LogState {
    pub records: u64,
    pub bytes: u64,
    pub bytes_max: u64,
    /// The newest durable record, 0 when there was never one.
    pub head: u64,
    /// `None` while it takes ordinary records; else what an append would be answered.
    pub refuses: Option<AppendError>,
    /// How long the oldest append that has no answer has waited.
    pub append_waits: Option<Duration>,
    /// How long a write or sync that is under way has taken; appends wait for it.
    pub disk_works: Option<Duration>,
    /// What is kept of what every cursor has settled.
    pub retained: RetainedRecords,
}

impl LogState {
    /// What the spool takes on disk without what is retained, which makes room for anything.
    pub fn needed_bytes(&self) -> u64 {
        self.bytes.saturating_sub(self.retained.bytes)
    }
}

/// Told of what the spool does, for metrics. Called on the writer thread, or by [`Spool::open`]: must not block.
pub trait LogObserver: Send + Sync {
    fn synced(&self, records: usize, took: Duration);
    /// `kind` is one of [`damage_kinds`].
    fn damage(&self, kind: &'static str);
}

/// The kinds of damage: a closed set.
pub fn damage_kinds() -> [&'static str; 8] {
    damage::DamageKind::ALL.map(damage::DamageKind::label)
}

/// Why a spool could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{dir} is held by another process ({holder})")]
    Held { dir: PathBuf, holder: String },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Format(String),
}

impl OpenError {
    /// Whether there was no room, no descriptor or no memory for it, which may pass.
    pub fn lacks_room(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_passing(source))
    }
}

#[cfg(test)]
mod tests;
