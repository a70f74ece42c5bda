//! `forebay spool`: what is in a spool's directory, what of it is damaged, and what can be saved.
//!
//! All but `repair` read plain files, take no lock and write nothing: they may run beside the process that owns the
//! spool, and on a copy.

mod export;
mod inspect;
mod logs;
mod progress;
mod records;
mod repair;
mod replacement;
mod verify;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use self::{export::ExportArgs, inspect::InspectArgs, repair::RepairArgs, verify::SpoolVerifyArgs};
use super::{CommandFailure, ExitCause};
use crate::config::{Config, process_env};

#[derive(Args)]
pub struct SpoolArgs {
    #[command(subcommand)]
    command: SpoolCommand,
}

#[derive(Subcommand)]
enum SpoolCommand {
    /// Show what is there: logs, segments, cursors and, with --records, records
    Inspect(InspectArgs),
    /// Read everything, and name what is damaged and who misses what by it
    Verify(SpoolVerifyArgs),
    /// Save every record that can be read, as lines of JSON
    Export(ExportArgs),
    /// Put a whole spool in the place of a damaged one, with every record that can be read
    Repair(RepairArgs),
}

/// Which spool is meant.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct SpoolPlace {
    /// The directory of the spool, or a copy of it
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The configuration that names the directory
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl SpoolPlace {
    /// The directory.
    fn dir(&self) -> Result<PathBuf, CommandFailure> {
        match (&self.dir, &self.config) {
            (Some(dir), _) => Ok(dir.clone()),
            (None, Some(path)) => Ok(Config::load(path, process_env())?.spool.dir),
            (None, None) => Err(CommandFailure::usage(
                "neither DIR nor --config says which spool is meant",
            )),
        }
    }
}

pub(super) fn run(args: &SpoolArgs) -> Result<ExitCause, CommandFailure> {
    match &args.command {
        SpoolCommand::Inspect(args) => inspect::run(args),
        SpoolCommand::Verify(args) => verify::run(args),
        SpoolCommand::Export(args) => export::run(args),
        SpoolCommand::Repair(args) => repair::run(args),
    }
}
