//! `forebay drain`: publishes what is in the spool, takes nothing in, and ends when every route is empty.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::{CommandFailure, ConfigArg, ExitCause, out, runtime};
use crate::{
    config::{Config, process_env},
    job::RouteSnapshot,
    node::{DrainEnd, DrainRun},
};

/// Where there is no terminal, a log line says so often how far it is.
const TOLD_INTERVAL: Duration = Duration::from_secs(10);

pub(super) fn run(args: &ConfigArg) -> Result<ExitCause, CommandFailure> {
    let config = Config::load(&args.config, process_env())?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    let end = runtime()?.block_on(async {
        let drain = DrainRun::open(&config).await?;
        let mut progress = DrainProgress::new();
        let end = drain.run(|routes| progress.show(routes)).await;
        progress.bar.finish_and_clear();
        end.map_err(CommandFailure::from)
    })?;
    // Whoever closed the pipe has read enough; the exit code still tells.
    let _ = out(format_args!("{}", said(&end, &config)));
    match end.routes.iter().all(|route| route.backlog_records == 0) {
        true => Ok(ExitCause::Ok),
        false => Err(CommandFailure::not_right(
            "stopped before every route was empty; what is left is in the spool",
        )),
    }
}

fn said(end: &DrainEnd, config: &Config) -> String {
    let mut text = String::new();
    for route in &end.routes {
        let left = match route.backlog_records {
            0 => "empty".to_owned(),
            left => format!("{left} records left"),
        };
        text += &format!("route {}: {left}\n", route.name);
    }
    text += &format!("{} messages published\n", end.published);
    if end.forgets {
        let dir = config.spool.dir.display();
        text += &format!("what was published cannot be kept in {dir}: a later run on it publishes it again\n");
    }
    if end.dead_letters > 0 {
        let dir = config.spool.dir.join("dead-letters");
        text += &format!("{} dead letters stay in {}\n", end.dead_letters, dir.display());
    }
    text
}

/// A bar for people, lines for a log.
struct DrainProgress {
    bar: ProgressBar,
    /// The most that was ever left.
    most: u64,
    told: Option<Instant>,
}

impl DrainProgress {
    fn new() -> Self {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} records, {per_sec}, {eta} left {msg}")
            .expect("the template is a constant");
        Self {
            bar: ProgressBar::new(0).with_style(style),
            most: 0,
            told: None,
        }
    }

    fn show(&mut self, routes: &[RouteSnapshot]) {
        let left: u64 = routes.iter().map(|route| route.backlog_records).sum();
        self.most = self.most.max(left);
        self.bar.set_length(self.most);
        self.bar.set_position(self.most - left);
        let blocked = routes
            .iter()
            .find_map(|route| Some(format!("{} is blocked: {}", route.name, route.blocked.as_ref()?.text)));
        self.bar.set_message(blocked.unwrap_or_default());
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TOLD_INTERVAL);
        if self.bar.is_hidden() && is_due {
            self.told = Some(Instant::now());
            for route in routes {
                tracing::info!(route = route.name, left = route.backlog_records, "draining");
            }
        }
    }
}
