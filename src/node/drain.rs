//! Publishes what a spool holds and takes nothing in: for a volume whose replica is gone.

use std::{sync::Arc, time::Duration};

use tokio::{sync::watch, time::Instant};

use super::{
    BuildError, RunError, StoredNode, close, descriptors, flush,
    stop::{Hangups, StopSignals},
    tasks::LastingTasks,
};
use crate::{
    config::Config,
    job::{JobUntil, RouteSnapshot, RouteStatus},
    spool::Spool,
    telemetry::{Metrics, traces::SpanExporter},
};

/// How often it says how far the routes are.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A spool that is to be emptied.
pub struct DrainRun {
    stored: StoredNode,
    metrics: Arc<Metrics>,
    shutdown_deadline: Duration,
    signals: StopSignals,
    /// Caught, and of no meaning here: it has no secrets.
    _hangups: Hangups,
}

/// How it came out.
#[derive(Debug)]
pub struct DrainEnd {
    /// Every route, as it was left.
    pub routes: Vec<RouteSnapshot>,
    /// Messages that a broker confirmed.
    pub published: u64,
    /// Records among the dead letters, also from before.
    pub dead_letters: u64,
    /// The disk has no room for what was published, or is read-only: it is published again by whoever opens the spool
    /// next.
    pub forgets: bool,
}

impl DrainRun {
    /// Opens the spool and prepares the routes. Nothing is published yet.
    ///
    /// # Errors
    ///
    /// There is no spool, another process holds it, or its routes are not those of the configuration.
    pub fn open(config: &Config) -> Result<Self, BuildError> {
        // A wrong directory must not pass for an empty one.
        if !Spool::exists(&config.spool.dir) {
            return Err(BuildError::NoSpool(config.spool.dir.clone()));
        }
        descriptors::check(config)?;
        let signals = StopSignals::listen().map_err(BuildError::Signals)?;
        let hangups = Hangups::listen().map_err(BuildError::Signals)?;
        let metrics = Metrics::new();
        Ok(Self {
            stored: StoredNode::open(config, &metrics)?,
            metrics,
            shutdown_deadline: config.server.shutdown_deadline,
            signals,
            _hangups: hangups,
        })
    }

    /// Publishes until every route is empty, or SIGTERM or Ctrl-C; then stops in order. `progress` is told how far the
    /// routes are, several times a second.
    ///
    /// # Errors
    ///
    /// The disk failed, a route ended by itself, or a second signal came.
    pub async fn run(mut self, mut progress: impl FnMut(&[RouteSnapshot])) -> Result<DrainEnd, RunError> {
        let StoredNode {
            spool,
            dead_letters,
            jobs,
            exporter,
            ..
        } = self.stored;
        let exporting = exporter.map(SpanExporter::start);
        let statuses: Vec<RouteStatus> = jobs.iter().map(|(_, job)| job.status()).collect();
        let snapshots = || -> Vec<RouteSnapshot> { statuses.iter().map(RouteStatus::snapshot).collect() };
        let (stop, stop_signal) = watch::channel(None);
        let mut publishing = LastingTasks::new();
        for (setup, job) in jobs {
            let job = job.until(JobUntil::Head);
            publishing.spawn(super::task_of_route(setup.name()), job.run(stop_signal.clone()));
        }
        loop {
            progress(&snapshots());
            tokio::select! {
                biased;
                _ = self.signals.next() => break,
                reason = spool.failed() => return Err(RunError::Disk(reason)),
                reason = dead_letters.failed() => return Err(RunError::Disk(reason)),
                ended = publishing.finished() => break ended.map_err(RunError::Bug)?,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        let orderly = async {
            let deadline = Instant::now() + self.shutdown_deadline;
            stop.send_replace(Some(deadline));
            publishing.all_ended().await;
            let kept = spool.clone();
            let kept = tokio::task::spawn_blocking(move || kept.keep_cursors()).await;
            tokio::join!(close(&spool, &dead_letters), flush(exporting, deadline));
            // A runtime that ends asks nobody.
            kept.unwrap_or(false)
        };
        let kept = tokio::select! {
            kept = orderly => kept,
            reason = spool.failed() => return Err(RunError::Disk(reason)),
            _ = self.signals.next() => return Err(RunError::StoppedAtOnce),
        };
        let published = |route: &RouteSnapshot| self.metrics.published.with_label_values(&[&route.name]).get();
        let routes = snapshots();
        Ok(DrainEnd {
            published: routes.iter().map(published).sum(),
            dead_letters: dead_letters.kept().records,
            forgets: !kept,
            routes,
        })
    }
}
