//! Waits for jobs, shows how far they are, and says how they came out.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{OperatorAccess, number, text};
use crate::{
    api::OperatorCommand,
    cli::{CommandFailure, ExitCause, out, stopped},
};

const LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// Where there is no terminal, a log line says so often how far it is.
const TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// Resolves when the command is told to stop.
type Stopping = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How jobs came out, all together.
#[derive(Default)]
struct JobCounts {
    chosen: u64,
    published: u64,
    failed: u64,
}

/// Waits for the jobs that were started, and says with one line how they came out.
pub(super) async fn follow(
    access: &mut OperatorAccess,
    started: &Value,
    verb: &str,
    detach: bool,
    as_json: bool,
) -> Result<ExitCause, CommandFailure> {
    let jobs = started["jobs"].as_array().cloned().unwrap_or_default();
    let ids: Vec<String> = jobs.iter().map(|job| text(job, "id").to_owned()).collect();
    if detach && matches!(access, OperatorAccess::Process(_)) {
        for id in &ids {
            let _ = match as_json {
                true => out(format_args!("{}\n", json!({ "job": id }))),
                false => out(format_args!("{id}\n")),
            };
        }
        return Ok(ExitCause::Ok);
    }
    let style = ProgressStyle::with_template("{spinner} {pos} published, {msg} {per_sec}");
    let bar = ProgressBar::no_length().with_style(style.expect("the template is a constant"));
    let mut told: Option<Instant> = None;
    let mut stop: Stopping = Box::pin(stopped());
    let counts = loop {
        let mut counts = JobCounts::default();
        let (mut has_ended, mut cut_short, mut blocked) = (true, None, None);
        for id in &ids {
            let job = access.ask(&OperatorCommand::ShowJob(id.clone())).await?;
            counts.chosen += number(&job, "chosen");
            counts.published += number(&job, "published");
            counts.failed += number(&job, "failed");
            match text(&job, "state") {
                "done" => {}
                "cancelled" => cut_short = Some(format!("{id} was cancelled")),
                "cut_short" => cut_short = Some(format!("{id} was cut short: {}", text(&job, "text"))),
                _ => has_ended = false,
            }
            blocked = job["blocked"]["text"].as_str().map(str::to_owned).or(blocked);
        }
        bar.set_position(counts.published);
        bar.set_message(match &blocked {
            Some(blocked) => format!("blocked: {blocked};"),
            None => format!("{} failed;", counts.failed),
        });
        bar.tick();
        if bar.is_hidden() && told.is_none_or(|told| told.elapsed() >= TOLD_INTERVAL) {
            told = Some(Instant::now());
            let (published, failed) = (counts.published, counts.failed);
            match &blocked {
                Some(blocked) => tracing::warn!(published, failed, "blocked: {blocked}"),
                None => tracing::info!(published, failed, "publishing"),
            }
        }
        if has_ended {
            bar.finish_and_clear();
            say(&counts, verb, as_json);
            match cut_short {
                Some(cut_short) => return Err(CommandFailure::not_right(cut_short)),
                None => break counts,
            }
        }
        if told_to_stop(access, &mut stop).await? {
            bar.finish_and_clear();
            say(&counts, verb, as_json);
            let goes_on = match access {
                OperatorAccess::Process(_) => {
                    "it goes on without this command: see `forebay jobs list`, or cancel it there"
                }
                OperatorAccess::Alone(_) => "stopped before its end: it goes on when `forebay serve` runs on the spool",
            };
            return Err(CommandFailure::not_right(goes_on));
        }
    };
    match counts.failed {
        0 => Ok(ExitCause::Ok),
        _ => Ok(ExitCause::NotRight),
    }
}

/// Waits for a moment; whether the command was told to stop meanwhile.
async fn told_to_stop(access: &mut OperatorAccess, stop: &mut Stopping) -> Result<bool, CommandFailure> {
    let moment = tokio::time::sleep(LOOK_INTERVAL);
    match access {
        OperatorAccess::Process(_) => tokio::select! {
            () = moment => Ok(false),
            () = stop => Ok(true),
        },
        OperatorAccess::Alone(run) => tokio::select! {
            () = moment => Ok(false),
            told = run.told() => Ok(told.map(|()| true)?),
        },
    }
}

fn say(counts: &JobCounts, verb: &str, as_json: bool) {
    let JobCounts {
        chosen,
        published,
        failed,
    } = counts;
    // Whoever closed the pipe has read enough; the exit code still tells.
    let _ = match as_json {
        true => out(format_args!(
            "{}\n",
            json!({ "chosen": chosen, "published": published, "failed": failed })
        )),
        false => out(format_args!("{chosen} chosen, {published} {verb}, {failed} failed\n")),
    };
}

/// What a dry run found; nothing is an error.
pub(super) fn say_chosen(chosen: u64, as_json: bool) -> Result<ExitCause, CommandFailure> {
    if chosen == 0 {
        return Err(nothing_matches());
    }
    let _ = match as_json {
        true => out(format_args!("{}\n", json!({ "chosen": chosen, "dry_run": true }))),
        false => out(format_args!("{chosen} chosen; nothing was done\n")),
    };
    Ok(ExitCause::Ok)
}

pub(super) fn nothing_matches() -> CommandFailure {
    CommandFailure::not_right("nothing matches the selection")
}
