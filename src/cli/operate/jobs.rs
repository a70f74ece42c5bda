//! `forebay jobs`: replays and redrives, shown, paused, cancelled.

use clap::{Args, Subcommand};
use serde_json::Value;

use super::{number, operate, text};
use crate::{
    api::OperatorCommand,
    cli::{CommandFailure, ConfigArg, ExitCause, out},
};

#[derive(Args)]
#[command(after_help = "\
Examples:
  forebay jobs list --config forebay.toml
  forebay jobs cancel --config forebay.toml replay-20260131T120000Z

A job that was under way when the process ended goes on with the next one, unless it was started with --once.")]
pub struct JobsArgs {
    #[command(subcommand)]
    pub command: JobsCommand,
}

#[derive(Subcommand)]
pub enum JobsCommand {
    /// Show those that run, and the last hundred that have ended
    List(JobsListArgs),
    /// Publish nothing more for now
    Pause(JobArgs),
    /// Go on
    Resume(JobArgs),
    /// End it: what it has published stays published
    Cancel(JobArgs),
}

#[derive(Args)]
pub struct JobsListArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print one JSON object a line, and nothing else, on stdout
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct JobArgs {
    #[command(flatten)]
    pub config: ConfigArg,
    /// Its name, as `list` shows it
    #[arg(value_name = "ID")]
    pub id: String,
    /// Print it as one JSON object on stdout
    #[arg(long)]
    pub json: bool,
}

pub(in crate::cli) fn run(args: &JobsArgs) -> Result<ExitCause, CommandFailure> {
    let (config, as_json, command) = match &args.command {
        JobsCommand::List(args) => (&args.config, args.json, OperatorCommand::Jobs),
        JobsCommand::Pause(args) => (&args.config, args.json, OperatorCommand::PauseJob(args.id.clone())),
        JobsCommand::Resume(args) => (&args.config, args.json, OperatorCommand::ResumeJob(args.id.clone())),
        JobsCommand::Cancel(args) => (&args.config, args.json, OperatorCommand::CancelJob(args.id.clone())),
    };
    let answer = operate(config, async |access| access.ask(&command).await)?;
    let jobs = answer["jobs"]
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![answer.clone()]);
    for job in &jobs {
        let said = match as_json {
            true => out(format_args!("{job}\n")),
            false => out(format_args!("{}\n", line(job))),
        };
        if said.is_err() {
            break;
        }
    }
    if jobs.is_empty() && !as_json {
        let _ = out(format_args!("no jobs\n"));
    }
    Ok(ExitCause::Ok)
}

fn line(job: &Value) -> String {
    let blocked = job["blocked"]["text"].as_str();
    let blocked = blocked.map_or_else(String::new, |text| format!(", blocked: {text}"));
    let why = job["text"]
        .as_str()
        .map_or_else(String::new, |text| format!(": {text}"));
    format!(
        "{} route {} {}{why}: {} chosen, {} published, {} failed{blocked}",
        text(job, "id"),
        text(job, "route"),
        text(job, "state"),
        number(job, "chosen"),
        number(job, "published"),
        number(job, "failed"),
    )
}
