//! How far a large spool is read, on stderr.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::logs::SpoolLog;

/// Where there is no terminal, a log line says so often how far it is.
const LOGGED_INTERVAL: Duration = Duration::from_secs(10);

/// A bar for people, lines for a log.
pub struct SpoolProgress {
    bar: ProgressBar,
    logged: Instant,
}

impl SpoolProgress {
    /// For reading all of these logs once.
    pub fn new(logs: &[SpoolLog]) -> Self {
        let style = ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left")
            .expect("the template is a constant");
        let bytes = logs.iter().map(|log| log.image.bytes()).sum();
        Self {
            bar: ProgressBar::new(bytes).with_style(style),
            logged: Instant::now(),
        }
    }

    pub fn add(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        if self.bar.is_hidden() && self.logged.elapsed() >= LOGGED_INTERVAL {
            self.logged = Instant::now();
            let left = self.bar.length().unwrap_or(0).saturating_sub(self.bar.position());
            tracing::info!("reading the spool: {} MiB left", left >> 20);
        }
    }

    /// Takes the bar away, so that lines of text may follow.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
