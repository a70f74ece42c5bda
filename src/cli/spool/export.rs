//! `forebay spool export`: every record that can be read, as lines of JSON. docs/spool-command.md has the format.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::Args;
use serde_json::{Value, json};

use super::{
    SpoolPlace,
    logs::{ReadStop, SpoolLog, failure, open_logs},
    progress::SpoolProgress,
    records::DecodedRecord,
    verify::{DamageSum, json_lines, text_lines},
};
use crate::{
    cli::{CommandFailure, ExitCause, out},
    spool::{ImageCensus, ImageDepth, ImageRecord, ImageStep},
    telemetry::logging,
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay spool export /var/lib/forebay --to saved.jsonl
  forebay spool export /var/lib/forebay --to - | zstd > saved.jsonl.zst
  forebay spool export --config forebay.toml --to saved.jsonl --json

Each line is a record: its number, its class, when and by which endpoint it was taken in, its event, and all of it in base64, with
the body. It takes no lock and changes nothing in the spool; a file that is there is not written over. What cannot be saved is
named, on stderr where the records go to stdout.
Exit codes: 0 everything is saved; 1 something is lost, and all else is saved; 64 usage; 74 the spool cannot be read, or the file
not be written. docs/spool-command.md has the format.")]
pub struct ExportArgs {
    #[command(flatten)]
    place: SpoolPlace,
    /// Where the records go: a file that is not there yet, or - for stdout
    #[arg(long, value_name = "FILE|-")]
    to: PathBuf,
    /// Say what was saved and what not as JSON objects, one a line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ExportArgs) -> Result<ExitCause, CommandFailure> {
    let logs = open_logs(&args.place.dir()?)?;
    let is_stdout = args.to == Path::new("-");
    let unwritten = |error: io::Error| unwritten(&args.to, &error);
    let mut file = None;
    let mut to: Box<dyn Write> = match is_stdout {
        true => Box::new(BufWriter::new(io::stdout().lock())),
        false => {
            let created = create(&args.to).map_err(unwritten)?;
            file = Some(created.try_clone().map_err(unwritten)?);
            Box::new(BufWriter::new(created))
        }
    };
    let mut sum = DamageSum::default();
    let mut progress = SpoolProgress::new(&logs);
    let mut said = Vec::new();
    for log in &logs {
        let census = export_log(log, to.as_mut(), &mut progress).map_err(|stop| match stop {
            ReadStop::Failed(error) => failure(error),
            ReadStop::Unwritten(error) => unwritten(error),
        })?;
        sum.add(&census);
        said.extend(match args.json {
            true => json_lines(log, &census),
            false => text_lines(log, &census),
        });
    }
    to.flush().map_err(unwritten)?;
    drop(to);
    if let Some(file) = file {
        file.sync_all().map_err(unwritten)?;
    }
    progress.finish();
    said.push(match args.json {
        true => summary(&sum, &args.to).to_string(),
        false => format!(
            "{} records saved to {}; damaged places {}, records lost at most {}",
            sum.records,
            if is_stdout {
                "stdout".to_owned()
            } else {
                args.to.display().to_string()
            },
            sum.damage,
            sum.missing
        ),
    });
    match is_stdout {
        true => said.iter().for_each(|line| logging::print_line(line)),
        // Whoever closed the pipe has read enough; the exit code still tells.
        false => drop(out(format_args!("{}\n", said.join("\n")))),
    }
    match sum.damage {
        0 => Ok(ExitCause::Ok),
        _ => Ok(ExitCause::NotRight),
    }
}

/// Makes a file that only the user of the process reads: it has bodies.
fn create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path)
}

fn unwritten(path: &Path, error: &io::Error) -> CommandFailure {
    let name = match path == Path::new("-") {
        true => "stdout".to_owned(),
        false => path.display().to_string(),
    };
    let cure = match error.kind() {
        io::ErrorKind::AlreadyExists => ": nothing is written over; name another file",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ": what is there of it is not everything; name a file on a disk with more room"
        }
        _ => "",
    };
    CommandFailure::disk(format!("the records cannot be written to {name}: {error}{cure}"))
}

fn export_log(log: &SpoolLog, to: &mut dyn Write, progress: &mut SpoolProgress) -> Result<ImageCensus, ReadStop> {
    log.image.read(ImageDepth::Copied, |step| {
        match step {
            ImageStep::Passed(bytes) => progress.add(bytes),
            ImageStep::Record(record) => writeln!(to, "{}", export_line(log, record))?,
        }
        Ok::<_, ReadStop>(())
    })
}

fn export_line(log: &SpoolLog, record: ImageRecord) -> Value {
    let decoded = DecodedRecord::new(log, record);
    let mut line = decoded.json(log);
    line.insert("record_base64".to_owned(), json!(STANDARD.encode(&decoded.raw)));
    Value::Object(line)
}

fn summary(sum: &DamageSum, to: &Path) -> Value {
    json!({
        "type": "summary",
        "to": to.display().to_string(),
        "saved_records": sum.records,
        "is_whole": sum.damage == 0,
        "damage": sum.damage,
        "missing_records_max": sum.missing,
    })
}
