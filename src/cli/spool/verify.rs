//! `forebay spool verify`: reads everything, and names what is damaged and who misses what by it.

use clap::Args;
use serde_json::{Value, json};

use super::{
    SpoolPlace,
    logs::{LogContent, ReadStop, SpokenRanges, SpoolLog, count_numbers, failure, open_logs},
    progress::SpoolProgress,
};
use crate::{
    cli::{CommandFailure, ExitCause, out},
    spool::{ImageCensus, ImageDepth, ImageStep},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay spool verify /var/lib/forebay
  forebay spool verify --config forebay.toml --json | jq 'select(.type == \"damage\")'

It reads every record, takes no lock and writes nothing: the spool may be in use. Each line names a place that is damaged, by
the kinds that forebay_spool_damage_total counts, and the numbers of the records that are lost by it; then, for each route, what
of that it still needed.
Exit codes: 0 all is well; 1 there is damage; 64 usage; 74 it cannot be read, or is no spool. docs/spool-command.md has more.")]
pub struct SpoolVerifyArgs {
    #[command(flatten)]
    place: SpoolPlace,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    json: bool,
}

/// What is wrong with all logs of a spool.
#[derive(Default)]
pub(super) struct DamageSum {
    logs: u64,
    segments: u64,
    pub records: u64,
    bytes: u64,
    pub damage: u64,
    pub missing: u64,
}

pub(super) fn run(args: &SpoolVerifyArgs) -> Result<ExitCause, CommandFailure> {
    let logs = open_logs(&args.place.dir()?)?;
    let mut sum = DamageSum::default();
    let mut progress = SpoolProgress::new(&logs);
    let mut said = Vec::new();
    for log in &logs {
        let census = verify_log(log, &mut progress).map_err(failure)?;
        sum.add(&census);
        said.extend(match args.json {
            true => json_lines(log, &census),
            false => text_lines(log, &census),
        });
    }
    progress.finish();
    said.push(match args.json {
        true => sum.json().to_string(),
        false => sum.line(),
    });
    // Whoever closed the pipe has read enough; the exit code still tells.
    let _ = out(format_args!("{}\n", said.join("\n")));
    match sum.damage {
        0 => Ok(ExitCause::Ok),
        _ => Ok(ExitCause::NotRight),
    }
}

/// Reads all of a log.
pub(super) fn verify_log(log: &SpoolLog, progress: &mut SpoolProgress) -> Result<ImageCensus, crate::spool::OpenError> {
    let read = log.image.read(ImageDepth::Checked, |step| {
        if let ImageStep::Passed(bytes) = step {
            progress.add(bytes);
        }
        Ok::<_, ReadStop>(())
    });
    read.map_err(|stop| match stop {
        ReadStop::Failed(error) => error,
        ReadStop::Unwritten(source) => crate::spool::OpenError::Io {
            path: log.image.dir().to_owned(),
            source,
        },
    })
}

/// What is to be said of a log's damage, for people.
pub(super) fn text_lines(log: &SpoolLog, census: &ImageCensus) -> Vec<String> {
    let name = log.name();
    let mut lines = Vec::new();
    lines.extend(
        census
            .notes
            .iter()
            .map(|note| format!("{name}: {}", log.note_line(note))),
    );
    let damage = census.damage.iter();
    lines.extend(damage.map(|damage| format!("{name}: {}", log.damage_line(damage))));
    if census.more_damage > 0 {
        lines.push(format!("{name}: {} more damaged places", census.more_damage));
    }
    if log.content == LogContent::DeadLetters {
        return lines;
    }
    if log.lost_cursors() {
        lines.push(format!(
            "{name}: where the routes are is lost: each begins again at the oldest record, and consumers see repeats"
        ));
    }
    for cursor in &log.cursors {
        let lost = log.needed_and_lost(cursor, census);
        if !lost.is_empty() {
            lines.push(format!(
                "route {}: had yet to publish, and cannot: {}",
                cursor.name,
                SpokenRanges::of(&lost)
            ));
        }
    }
    lines
}

pub(super) fn json_lines(log: &SpoolLog, census: &ImageCensus) -> Vec<String> {
    let notes = census.notes.iter().map(|note| log.note_json(note));
    let damage = census.damage.iter().map(|damage| log.damage_json(damage));
    let routes = log.cursors.iter().filter(|_| log.content == LogContent::Events);
    let routes = routes.map(|cursor| {
        let lost = log.needed_and_lost(cursor, census);
        json!({
            "type": "route",
            "route": cursor.name,
            "position": match log.lost_cursors() {
                true => None,
                false => Some(cursor.position),
            },
            "position_lost": log.lost_cursors(),
            "needed_and_lost": lost.iter().map(|range| json!([range.start(), range.end()])).collect::<Vec<_>>(),
            "needed_and_lost_records_max": count_numbers(&lost),
        })
    });
    let lines = notes.chain(damage).chain(routes);
    lines.map(|line| line.to_string()).collect()
}

impl DamageSum {
    pub(super) fn add(&mut self, census: &ImageCensus) {
        self.logs += 1;
        self.segments += census.segments.len() as u64;
        self.records += census.records;
        self.bytes += census.record_bytes;
        self.damage += census.damage.len() as u64 + census.more_damage;
        self.missing += census.damage.iter().map(|damage| damage.missing_records()).sum::<u64>();
    }

    fn json(&self) -> Value {
        json!({
            "type": "summary",
            "is_whole": self.damage == 0,
            "logs": self.logs,
            "segments": self.segments,
            "records": self.records,
            "record_bytes": self.bytes,
            "damage": self.damage,
            "missing_records_max": self.missing,
        })
    }

    fn line(&self) -> String {
        format!(
            "{}: damaged places {}, records lost at most {}, whole records {} ({} bytes), segments {}, logs {}",
            if self.damage == 0 { "all is well" } else { "DAMAGED" },
            self.damage,
            self.missing,
            self.records,
            self.bytes,
            self.segments,
            self.logs
        )
    }
}
