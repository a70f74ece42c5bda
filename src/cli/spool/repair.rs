//! `forebay spool repair`: a whole spool in the place of a damaged one, with every record that can be read.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde_json::{Value, json};

use super::{
    SpoolPlace,
    logs::{LogContent, SpoolLog, failure, open_logs},
    progress::SpoolProgress,
    replacement::{SavedLog, SpoolReplacement},
    verify::{DamageSum, json_lines, text_lines, verify_log},
};
use crate::{
    cli::{CommandFailure, ExitCause, out, runtime, terminal},
    spool::{DirectoryHold, OpenError},
    telemetry::logging,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay spool repair /var/lib/forebay
  forebay spool repair --config forebay.toml --yes --json

No process may hold the spool. A whole spool is written beside it, with every record that can be read under its old number, the
routes' positions and the dead letters; then it takes the name, and the damaged one is kept beside it as DIR.damaged-<time>. That
needs as much room as the records take. Where nothing is damaged nothing is changed.
Exit codes: 0 repaired, or nothing is damaged; 1 not confirmed; 64 usage; 74 it is held, cannot be read or not be written, and is
as it was. docs/spool-command.md has more.")]
pub struct RepairArgs {
    #[command(flatten)]
    place: SpoolPlace,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    json: bool,
}

/// A spool that is to be repaired, held.
struct DamagedSpool {
    dir: PathBuf,
    logs: Vec<SpoolLog>,
    sum: DamageSum,
    /// What is damaged, as it is to be said.
    findings: Vec<String>,
    _hold: DirectoryHold,
}

pub(super) fn run(args: &RepairArgs) -> Result<ExitCause, CommandFailure> {
    let spool = DamagedSpool::open(args)?;
    if spool.sum.damage == 0 {
        say(&match args.json {
            true => vec![json!({ "type": "repair", "is_changed": false, "damage": 0 }).to_string()],
            false => vec!["nothing is damaged, and nothing was changed".to_owned()],
        });
        return Ok(ExitCause::Ok);
    }
    say(&spool.findings);
    if !args.yes && !is_confirmed(&spool.dir)? {
        return Err(CommandFailure::not_right("not confirmed: nothing was changed"));
    }
    // Whoever opens the spool meanwhile finds it held.
    let lock = spool.dir.join("LOCK");
    let _made = match lock.exists() {
        true => None,
        false => Some(DirectoryHold::make(&spool.dir).map_err(|error| held(&spool.dir, error))?),
    };
    let replacement = SpoolReplacement::beside(&spool.dir);
    logging::print_line(&replacement.announcement());
    let mut progress = SpoolProgress::new(&spool.logs);
    let saved = replacement.write(&spool.logs, |bytes| progress.add(bytes));
    let saved = saved.map_err(|error| unwritten(&spool.dir, &error))?;
    replacement.swap().map_err(|error| unwritten(&spool.dir, &error))?;
    progress.finish();
    say(&match args.json {
        true => vec![spool.json(&saved, &replacement).to_string()],
        false => spool.lines(&saved, &replacement),
    });
    Ok(ExitCause::Ok)
}

/// Whoever closed the pipe has read enough; the repair goes on.
fn say(lines: &[String]) {
    let _ = out(format_args!("{}\n", lines.join("\n")));
}

fn is_confirmed(dir: &Path) -> Result<bool, CommandFailure> {
    terminal::somebody_is_there("a repair is confirmed on a terminal, or by --yes: nothing was changed")?;
    let question = format!("Put a whole spool in the place of {}?", dir.display());
    Ok(runtime()?.block_on(terminal::says_yes(&question)))
}

fn held(dir: &Path, error: OpenError) -> CommandFailure {
    match error {
        OpenError::Held { holder, .. } => CommandFailure::disk(format!(
            "{} is held by another process ({holder}): stop it, then repair; it goes on without the records that are lost",
            dir.display()
        )),
        error => failure(error),
    }
}

fn unwritten(dir: &Path, error: &OpenError) -> CommandFailure {
    let dir = dir.display();
    let cure = match error.lacks_room() {
        true => ": make room beside it, as much as its records take",
        false => "",
    };
    CommandFailure::disk(format!(
        "{dir} is as it was; no whole spool could be put in its place: {error}{cure}"
    ))
}

/// The directory by its whole name, if it can be renamed.
fn renamable(dir: &Path) -> Result<PathBuf, CommandFailure> {
    let failed = |source: io::Error| {
        failure(OpenError::Io {
            path: dir.to_owned(),
            source,
        })
    };
    let dir = dir.canonicalize().map_err(failed)?;
    let parent = dir.parent().unwrap_or(Path::new("/"));
    let device = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).map_err(failed);
    if dir.parent().is_none() || device(&dir)? != device(parent)? {
        let dir = dir.display();
        return Err(CommandFailure::disk(format!(
            "{dir} is where a file system is mounted, and cannot be renamed: copy it (cp -a) into a directory, repair the copy, and put \
             what it then holds in the place of what {dir} holds"
        )));
    }
    Ok(dir)
}

impl DamagedSpool {
    /// Takes the spool, and reads all of it.
    fn open(args: &RepairArgs) -> Result<Self, CommandFailure> {
        let dir = renamable(&args.place.dir()?)?;
        let hold = DirectoryHold::take(&dir).map_err(|error| held(&dir, error))?;
        let logs = open_logs(&dir)?;
        let mut sum = DamageSum::default();
        let mut findings = Vec::new();
        let mut progress = SpoolProgress::new(&logs);
        for log in &logs {
            let census = verify_log(log, &mut progress).map_err(failure)?;
            sum.add(&census);
            findings.extend(match args.json {
                true => json_lines(log, &census),
                false => text_lines(log, &census),
            });
        }
        progress.finish();
        Ok(Self {
            dir,
            logs,
            sum,
            findings,
            _hold: hold,
        })
    }

    fn lost_cursors(&self) -> bool {
        let mut events = self.logs.iter().filter(|log| log.content == LogContent::Events);
        events.any(SpoolLog::lost_cursors)
    }

    fn json(&self, saved: &[SavedLog], replacement: &SpoolReplacement) -> Value {
        json!({
            "type": "repair",
            "is_changed": true,
            "directory": self.dir.display().to_string(),
            "original": replacement.original.display().to_string(),
            "saved_records": records(saved, LogContent::Events),
            "saved_dead_letters": records(saved, LogContent::DeadLetters),
            "misplaced_records": saved.iter().map(|log| log.rewritten.misplaced).sum::<u64>(),
            "damage": self.sum.damage,
            "missing_records_max": self.sum.missing,
            "cursors_lost": self.lost_cursors(),
        })
    }

    fn lines(&self, saved: &[SavedLog], replacement: &SpoolReplacement) -> Vec<String> {
        let (dir, original) = (self.dir.display(), replacement.original.display());
        let mut lines = vec![format!(
            "saved: {} records and {} dead letters, under their old numbers",
            records(saved, LogContent::Events),
            records(saved, LogContent::DeadLetters)
        )];
        lines.push(format!("lost: at most {} records, as named above", self.sum.missing));
        if let misplaced @ 1.. = saved.iter().map(|log| log.rewritten.misplaced).sum::<u64>() {
            lines.push(format!(
                "not taken over: {misplaced} records whose numbers do not rise; `forebay spool export {original}` has them"
            ));
        }
        if self.lost_cursors() {
            lines.push(
                "WARNING: where the routes were is lost: each publishes again from the oldest record on, and consumers see repeats"
                    .to_owned(),
            );
        }
        lines.push(format!("{dir} is whole now; the damaged spool is {original}"));
        lines.push(format!(
            "next: look at the disk before you trust it again; start Forebay on {dir}; keep {original} until you know what consumers \
             miss"
        ));
        lines
    }
}

fn records(saved: &[SavedLog], content: LogContent) -> u64 {
    let logs = saved.iter().filter(|log| log.content == content);
    logs.map(|log| log.rewritten.records).sum()
}
