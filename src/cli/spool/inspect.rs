//! `forebay spool inspect`: what is in the directory of a spool.

use std::{fs, io, path::Path};

use clap::Args;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SpoolPlace,
    logs::{LogContent, ReadStop, SpoolLog, failure, open_logs},
    progress::SpoolProgress,
    records::DecodedRecord,
};
use crate::{
    cli::{CommandFailure, ExitCause, out},
    spool::{ImageCensus, ImageCopy, ImageDepth, ImageRecord, ImageSegment, ImageStep},
};

const QUARANTINE_DIR: &str = "quarantine";

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay spool inspect /var/lib/forebay
  forebay spool inspect --config forebay.toml --json | jq 'select(.type == \"cursor\")'
  forebay spool inspect /var/lib/forebay --records --stream ZG6NWV/game --json
  forebay spool inspect /var/lib/forebay --records --from 1764500000000001 --to 1764500000000009 --bodies

It takes no lock and writes nothing: the spool may be in use, copied or damaged. Records are lines of JSON, without their bodies
unless --bodies asks for them; the numbers, the stream and the kind of a dead letter are those of its event.
Exit codes: 0; 64 usage; 74 it cannot be read, or is no spool. docs/spool-command.md has more.")]
pub struct InspectArgs {
    #[command(flatten)]
    place: SpoolPlace,
    /// Show records too, a line of JSON each
    #[arg(long)]
    records: bool,
    /// From this number on
    #[arg(long, value_name = "N", requires = "records")]
    from: Option<u64>,
    /// Up to this number
    #[arg(long, value_name = "N", requires = "records")]
    to: Option<u64>,
    /// Only of this stream
    #[arg(long, value_name = "KEY", requires = "records")]
    stream: Option<String>,
    /// Only of this kind
    #[arg(long, value_name = "KIND", requires = "records")]
    kind: Option<String>,
    /// With the bodies as they came, in base64
    #[arg(long, requires = "records")]
    bodies: bool,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    json: bool,
}

/// What a cursor has yet to settle of what is there.
#[derive(Debug, Clone, Copy, Default)]
struct CursorNeed {
    records: u64,
    bytes: u64,
}

/// A log that was read.
struct InspectedLog<'l> {
    log: &'l SpoolLog,
    census: ImageCensus,
    needs: Vec<CursorNeed>,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCause, CommandFailure> {
    let dir = args.place.dir()?;
    let logs = open_logs(&dir)?;
    let mut progress = SpoolProgress::new(&logs);
    let mut lines = Vec::new();
    if !args.json {
        lines.push(format!("spool {}", dir.display()));
        lines.extend(holder(&dir).map(|holder| format!("  last held by {holder}")));
    }
    for log in &logs {
        let inspected = InspectedLog::read(log, &mut progress).map_err(read_failure)?;
        match args.json {
            true => lines.extend(inspected.json().iter().map(Value::to_string)),
            false => inspected.show(&mut lines),
        }
    }
    progress.finish();
    let said = out(format_args!("{}\n", lines.join("\n")));
    if said.is_ok() && args.records {
        for log in &logs {
            match show_records(log, args) {
                Ok(()) => {}
                // Whoever closed the pipe has read enough.
                Err(ReadStop::Unwritten(error)) if error.kind() == io::ErrorKind::BrokenPipe => break,
                Err(stop) => return Err(read_failure(stop)),
            }
        }
    }
    Ok(ExitCause::Ok)
}

fn read_failure(stop: ReadStop) -> CommandFailure {
    match stop {
        ReadStop::Failed(error) => failure(error),
        ReadStop::Unwritten(error) => CommandFailure::disk(format!("stdout: {error}")),
    }
}

/// What the lock says of the process that held it last.
fn holder(dir: &Path) -> Option<String> {
    let text = fs::read(dir.join("LOCK")).ok()?;
    let text = String::from_utf8_lossy(&text[..text.len().min(256)]).trim().to_owned();
    let is_plain = !text.is_empty() && !text.contains(char::is_control);
    is_plain.then_some(text)
}

/// The files in the quarantine of a log, and their bytes.
fn quarantine(log: &SpoolLog) -> (u64, u64) {
    let entries = fs::read_dir(log.image.dir().join(QUARANTINE_DIR)).into_iter().flatten();
    let lens = entries.filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()));
    lens.fold((0, 0), |(files, bytes), len| (files + 1, bytes + len))
}

/// Prints the records that were asked for.
fn show_records(log: &SpoolLog, args: &InspectArgs) -> Result<(), ReadStop> {
    log.image.read(ImageDepth::Copied, |step| match step {
        ImageStep::Record(record) if is_in_range(log, &record, args) => show_record(log, record, args),
        ImageStep::Record(_) | ImageStep::Passed(_) => Ok(()),
    })?;
    Ok(())
}

/// Whether it may be one of the numbers that were asked for, as far as the log's own tell.
fn is_in_range(log: &SpoolLog, record: &ImageRecord, args: &InspectArgs) -> bool {
    log.content == LogContent::DeadLetters || is_asked(record.sequence, args)
}

fn is_asked(number: u64, args: &InspectArgs) -> bool {
    args.from.is_none_or(|from| number >= from) && args.to.is_none_or(|to| number <= to)
}

fn show_record(log: &SpoolLog, record: ImageRecord, args: &InspectArgs) -> Result<(), ReadStop> {
    let decoded = DecodedRecord::new(log, record);
    let is_wanted = is_asked(decoded.event_number(), args)
        && args.stream.as_ref().is_none_or(|key| decoded.is_of_stream(key))
        && args.kind.as_ref().is_none_or(|kind| decoded.is_of_kind(kind));
    if !is_wanted {
        return Ok(());
    }
    let mut line = decoded.json(log);
    line.insert("type".to_owned(), json!("record"));
    if args.bodies {
        line.insert("body_base64".to_owned(), json!(decoded.body()));
    }
    out(format_args!("{}\n", Value::Object(line)))?;
    Ok(())
}

impl<'l> InspectedLog<'l> {
    fn read(log: &'l SpoolLog, progress: &mut SpoolProgress) -> Result<Self, ReadStop> {
        let mut needs = vec![CursorNeed::default(); log.cursors.len()];
        let census = log.image.read(ImageDepth::Headers, |step| {
            match step {
                ImageStep::Passed(bytes) => progress.add(bytes),
                ImageStep::Record(record) => {
                    for (cursor, need) in log.cursors.iter().zip(&mut needs) {
                        if cursor.needs(record.sequence) {
                            need.records += 1;
                            need.bytes += u64::from(record.len);
                        }
                    }
                }
            }
            Ok::<_, ReadStop>(())
        })?;
        Ok(Self { log, census, needs })
    }

    fn json(&self) -> Vec<Value> {
        let (log, image) = (self.log, &self.log.image);
        let copies = |copies: &[ImageCopy]| copies.iter().map(|copy| copy.label()).collect::<Vec<_>>();
        let (quarantined, quarantined_bytes) = quarantine(log);
        let mut lines = vec![json!({
            "type": "log",
            "log": log.name(),
            "content": match log.content {
                LogContent::Events => "events",
                LogContent::DeadLetters => "dead_letters",
            },
            "directory": image.dir().display().to_string(),
            "uuid": image.uuid().map(|uuid| Uuid::from_bytes(uuid).to_string()),
            "replica": image.replica(),
            "epoch": image.epoch(),
            "closed_in_order": image.is_closed(),
            "superblock_copies": copies(image.superblock_copies()),
            "page_copies": copies(image.page_copies()),
            "segments": self.census.segments.len(),
            "records": self.census.records,
            "record_bytes": self.census.record_bytes,
            "damage": self.census.damage.len() as u64 + self.census.more_damage,
            "quarantine_files": quarantined,
            "quarantine_bytes": quarantined_bytes,
            "cursors_lost": log.lost_cursors(),
        })];
        lines.extend(self.census.segments.iter().map(|segment| self.segment_json(segment)));
        lines.extend(log.cursors.iter().zip(&self.needs).map(|(cursor, need)| {
            let settled = cursor.settled();
            json!({
                "type": "cursor",
                "log": log.name(),
                "name": cursor.name,
                "position": match log.lost_cursors() {
                    true => None,
                    false => Some(cursor.position),
                },
                "settled_above": settled.iter().map(|range| json!([range.start(), range.end()])).collect::<Vec<_>>(),
                "needs_records": need.records,
                "needs_bytes": need.bytes,
            })
        }));
        lines.extend(self.census.notes.iter().map(|note| log.note_json(note)));
        lines
    }

    fn segment_json(&self, segment: &ImageSegment) -> Value {
        json!({
            "type": "segment",
            "log": self.log.name(),
            "file": self.log.file(&segment.path),
            "id": segment.id,
            "first": segment.first_sequence,
            "last": segment.last_sequence,
            "records": segment.records,
            "bytes": segment.bytes,
            "sealed": segment.is_sealed,
            "version": segment.version,
            "foreign": segment.is_foreign,
        })
    }

    fn show(&self, lines: &mut Vec<String>) {
        let (log, image) = (self.log, &self.log.image);
        let unknown = || "unknown".to_owned();
        let uuid = image.uuid().map(|uuid| Uuid::from_bytes(uuid).to_string());
        lines.push(String::new());
        lines.push(format!("{}: log {}", log.name(), uuid.unwrap_or_else(unknown)));
        lines.push(format!(
            "  replica {}, epoch {}, {}",
            image.replica().filter(|name| !name.is_empty()).unwrap_or("unknown"),
            image.epoch().map_or_else(unknown, |epoch| epoch.to_string()),
            match image.is_closed() {
                Some(true) => "closed in order",
                Some(false) => "not closed: in use, or its process was killed",
                None => "its superblock is lost",
            }
        ));
        let (records, bytes) = (self.census.records, size(self.census.record_bytes));
        lines.push(format!("  {records} records of {bytes}"));
        self.show_segments(lines);
        self.show_cursors(lines);
        if let (files @ 1.., bytes) = quarantine(log) {
            lines.push(format!("  quarantine: {files} files of {}", size(bytes)));
        }
        let notes = self.census.notes.iter();
        lines.extend(notes.map(|note| format!("  {}", log.note_line(note))));
        match self.census.damage.len() as u64 + self.census.more_damage {
            0 => {}
            places => lines.push(format!(
                "  DAMAGED: {places} places at least; `forebay spool verify` names them"
            )),
        }
    }

    fn show_segments(&self, lines: &mut Vec<String>) {
        if self.census.segments.is_empty() {
            return;
        }
        lines.push(format!(
            "  {:<7} {:>17} {:>17} {:>9} {:>10}  state",
            "segment", "first", "last", "records", "size"
        ));
        for segment in &self.census.segments {
            let state = match (segment.is_foreign, segment.is_sealed) {
                (true, _) => "of another log",
                (false, true) => "sealed",
                (false, false) => "open",
            };
            let version = match segment.version {
                Some(1) => ", version 1",
                Some(_) => "",
                None => ", header damaged",
            };
            lines.push(format!(
                "  {:<7} {:>17} {:>17} {:>9} {:>10}  {state}{version}",
                segment.id,
                segment.first_sequence,
                segment.last_sequence.map_or("-".to_owned(), |last| last.to_string()),
                segment.records,
                size(segment.bytes)
            ));
        }
    }

    fn show_cursors(&self, lines: &mut Vec<String>) {
        if self.log.lost_cursors() && self.log.content == LogContent::Events {
            lines.push("  where the routes are is lost: each begins again at the oldest record".to_owned());
        }
        if self.log.cursors.is_empty() {
            return;
        }
        let names = self.log.cursors.iter().map(|cursor| cursor.name.chars().count());
        let width = names.max().unwrap_or(0).max("cursor".len());
        lines.push(format!(
            "  {:<width$} {:>17} {:>9} {:>9} {:>10}",
            "cursor", "position", "ranges", "needs", "size"
        ));
        for (cursor, need) in self.log.cursors.iter().zip(&self.needs) {
            let position = match self.log.lost_cursors() {
                true => "lost".to_owned(),
                false => cursor.position.to_string(),
            };
            lines.push(format!(
                "  {:<width$} {position:>17} {:>9} {:>9} {:>10}",
                cursor.name,
                cursor.settled().len(),
                need.records,
                size(need.bytes)
            ));
        }
    }
}

fn size(bytes: u64) -> String {
    bytesize::ByteSize(bytes).display().iec().to_string()
}
