//! The log itself: single-threaded, synchronous, and the only one that writes. The writer thread drives it, and so does
//! the simulator of the tests.

mod append;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

pub(super) use self::append::{Request, seal_file};
use super::{
    AppendError, Observer, OpenError, Options, SEGMENTS_DIR, Start,
    cursors::{self, CursorState, Cursors, PathError},
    file_system::{File, FileSystem, is_full},
    quarantine::Quarantine,
    recovery,
    segment::{DATA_START, PAYLOAD_BYTES_MAX},
    shared::{Damage, DamageKind, Segment, Shared},
};

/// A segment's smallest size: the header's block and as much again.
const SEGMENT_BYTES_MIN: u64 = 2 * DATA_START;
/// `bytes_max` is at least this many segments, so that deleting one makes room.
const SEGMENTS_MIN: u64 = 4;

/// The limits, made consistent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub bytes_max: u64,
    pub bulk_bytes_max: u64,
    pub segment_bytes: u64,
}

impl Limits {
    pub(super) fn new(options: &Options) -> Self {
        let segment_bytes_max = (options.bytes_max / SEGMENTS_MIN).clamp(SEGMENT_BYTES_MIN, PAYLOAD_BYTES_MAX);
        Self {
            bytes_max: options.bytes_max,
            bulk_bytes_max: (options.bytes_max as f64 * options.bulk_share_max.clamp(0.0, 1.0)) as u64,
            segment_bytes: options.segment_bytes.clamp(SEGMENT_BYTES_MIN, segment_bytes_max),
        }
    }
}

/// The segment that is written.
pub(super) struct Active {
    pub file: Arc<dyn File>,
    pub path: PathBuf,
    /// Its seal was to be written and there was no room: what there is of it may be whole, so nothing is appended any more.
    pub is_sealing: bool,
}

/// The open log.
pub(super) struct Log {
    fs: Arc<dyn FileSystem>,
    shared: Arc<Shared>,
    observer: Arc<dyn Observer>,
    limits: Limits,
    /// By id. The last one is the active one, if there is one.
    segments: Vec<Segment>,
    active: Option<Active>,
    next_sequence: u64,
    next_segment: u64,
    cursors: Cursors,
    quarantine: Quarantine,
    /// Why the last segment could not be made; looked at again on every tick.
    no_room: Option<AppendError>,
    buffer: Vec<u8>,
}

impl Log {
    /// Recovers what is in the directory. Appends go to a new segment.
    pub(super) fn open(
        fs: Arc<dyn FileSystem>,
        options: &Options,
        observer: Arc<dyn Observer>,
    ) -> Result<Self, OpenError> {
        let limits = Limits::new(options);
        let segments_dir = options.dir.join(SEGMENTS_DIR);
        let cursors_dir = options.dir.join("cursors");
        let quarantine_dir = options.dir.join("quarantine");
        for dir in [&segments_dir, &cursors_dir, &quarantine_dir] {
            fs.make_dir(dir).map_err(|source| io_error(dir, source))?;
        }
        let recovered = recovery::recover(fs.as_ref(), &segments_dir)?;
        let oldest = recovered.segments.first().map_or(1, |segment| segment.first_sequence);
        let (cursors, damaged) = Cursors::open(fs.clone(), cursors_dir, oldest - 1)
            .map_err(|(path, source)| OpenError::Io { path, source })?;
        // A cursor is never ahead of the log, unless the log lost its end to damage: those numbers were seen and settled.
        let next_sequence = recovered.next_sequence.max(cursors.highest() + 1);
        let shared = Arc::new(Shared::new(
            fs.clone(),
            segments_dir,
            recovered.segments.clone(),
            next_sequence - 1,
            options,
        ));
        let mut log = Self {
            quarantine: Quarantine::open(fs.clone(), quarantine_dir),
            fs,
            shared,
            observer,
            limits,
            segments: recovered.segments,
            active: recovered.unsealed,
            next_sequence,
            next_segment: recovered.next_segment,
            cursors,
            no_room: None,
            buffer: Vec::new(),
        };
        for damage in recovered.damage {
            log.shared.report(damage);
        }
        for cursors::Damaged { path } in damaged {
            tracing::error!(path = %path.display(), "cursor damaged: starts again at the oldest record");
            log.observer.damage(DamageKind::Cursor.label());
        }
        log.settle_damage();
        log.publish();
        Ok(log)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// What is done now and then: cursors are made durable, segments behind all of them deleted, damage set aside, and
    /// a full spool looks for room.
    pub(super) fn tick(&mut self) {
        if self.shared.is_failed() {
            return;
        }
        self.settle_damage();
        let shared = self.shared.clone();
        let _work = shared.disk_works();
        if let Err((path, error)) = self.cursors.sync() {
            return self.fail(&format!("cursor {}: {error}", path.display()));
        }
        if let Err((path, error)) = self.delete_settled() {
            return self.fail(&format!("delete {}: {error}", path.display()));
        }
        if self.no_room.is_some() {
            match self.roll(0) {
                Ok(_) => self.publish(),
                Err(reason) => self.fail(&reason),
            }
        }
    }

    /// Deletes the segments that every cursor has durably passed, and lets go of the records in memory. The newest segment stays: it
    /// tells the next sequence number.
    fn delete_settled(&mut self) -> Result<(), PathError> {
        let Some(settled) = self.cursors.lowest_durable() else {
            return Ok(());
        };
        self.shared.forget_records(settled);
        let mut deleted = false;
        while self.segments.len() > 1 && self.segments[0].last_sequence <= settled {
            let oldest = self.segments[0];
            let path = self.shared.segments_dir.join(oldest.file_name());
            match self.fs.unlink(&path) {
                Err(error) if is_full(&error) => break,
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err((path, error)),
                _ => {}
            }
            // One by one, so that no crash leaves a gap between the segments.
            let dir = &self.shared.segments_dir;
            self.fs.sync_dir(dir).map_err(|error| (dir.clone(), error))?;
            self.segments.remove(0);
            self.shared.forget_damage(oldest.id);
            deleted = true;
        }
        if deleted {
            self.publish();
        }
        Ok(())
    }

    /// Counts damage, logs where it is and sets the bytes aside.
    fn settle_damage(&mut self) {
        let reports = self.shared.take_damage();
        for damage in reports.places {
            let Damage {
                kind,
                path,
                offset,
                len,
                ..
            } = &damage;
            tracing::error!(
                path = %path.display(), offset, len, kind = kind.label(),
                "damage in the spool: its bytes are set aside in quarantine, its records are lost"
            );
            self.observer.damage(kind.label());
            if *len > 0 {
                self.quarantine.keep(&damage);
            }
        }
        for (kind, places) in reports.more {
            tracing::error!(
                places,
                kind = kind.label(),
                "more damage in the spool, which is not set aside"
            );
            for _ in 0..places {
                self.observer.damage(kind.label());
            }
        }
    }

    fn publish(&self) {
        self.shared.publish_segments(&self.segments, self.no_room);
    }

    fn fail(&mut self, reason: &str) {
        tracing::error!(reason, "the spool failed: nothing more is written");
        self.shared.fail(reason);
    }

    pub(super) fn cursor_names(&self) -> Vec<String> {
        self.cursors.names()
    }

    /// Opens the cursor, or makes it.
    pub(super) fn cursor(&mut self, name: &str, start: Start) -> Result<Arc<CursorState>, OpenError> {
        if !cursors::is_name(name) {
            let max = cursors::NAME_BYTES_MAX;
            return Err(OpenError::Format(format!(
                "a cursor's name has 1 to {max} bytes: {name:?}"
            )));
        }
        if let Some(state) = self.cursors.find(name) {
            return Ok(state);
        }
        let position = match start {
            Start::Head => self.next_sequence - 1,
            Start::Oldest => {
                self.segments
                    .first()
                    .map_or(self.next_sequence, |oldest| oldest.first_sequence)
                    - 1
            }
        };
        self.unless_failed()?;
        self.cursors
            .create(name, position)
            .map_err(|(path, source)| OpenError::Io { path, source })
    }

    pub(super) fn remove_cursor(&mut self, name: &str) -> Result<(), OpenError> {
        self.unless_failed()?;
        self.cursors
            .remove(name)
            .map_err(|(path, source)| OpenError::Io { path, source })
    }

    fn unless_failed(&self) -> Result<(), OpenError> {
        match self.shared.is_failed() {
            true => Err(OpenError::Format("the disk failed".to_owned())),
            false => Ok(()),
        }
    }

    /// Makes everything durable and seals the log.
    pub(super) fn close(&mut self) {
        self.no_room = None;
        self.tick();
        if !self.shared.is_failed()
            && let Err(reason) = self.seal()
        {
            self.fail(&reason);
        }
        self.publish();
    }
}

pub(super) fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.to_owned(),
        source,
    }
}
