//! Publishes what a spool holds and takes nothing in: for a volume whose replica is gone.

use std::time::Duration;

use tokio::{task::block_in_place, time::Instant};

use super::{
    BuildError, RunError, close, descriptors, flush,
    jobs::RunningJobs,
    metrics::NodeMetrics,
    routes::LiveRoutes,
    stop::{Hangups, StopSignals},
    task_of_route,
};
use crate::{
    config::Config,
    job::{JobUntil, RouteSnapshot, RouteStatus},
    spool::Spool,
    telemetry::traces::SpanExporter,
};

/// How often it says how far the routes are.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A spool that is to be emptied.
pub struct DrainRun {
    routes: LiveRoutes,
    exporter: Option<SpanExporter>,
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
    /// Opens the spool, and starts the routes of the configuration: each publishes until it is empty.
    ///
    /// # Errors
    ///
    /// There is no spool, another process holds it, or its routes are not those of the configuration.
    pub async fn open(config: &Config) -> Result<Self, BuildError> {
        // A wrong directory must not pass for an empty one.
        if !Spool::exists(&config.spool.dir) {
            return Err(BuildError::NoSpool(config.spool.dir.clone()));
        }
        descriptors::check(config)?;
        let signals = StopSignals::listen().map_err(BuildError::Signals)?;
        let hangups = Hangups::listen().map_err(BuildError::Signals)?;
        let jobs = RunningJobs::until(JobUntil::Head);
        let (mut routes, logs) = LiveRoutes::open(config, &NodeMetrics::new(), jobs)?;
        if let Some(paused) = config
            .routes
            .iter()
            .find(|route| routes.pauses.get(&route.name).is_some())
        {
            return Err(BuildError::RoutePaused(paused.name.clone()));
        }
        let prepared = block_in_place(|| routes.prepare(config))?;
        let deadline = Instant::now() + config.server.shutdown_deadline;
        routes.change(prepared, config, deadline).await?;
        Ok(Self {
            routes,
            exporter: logs.exporter,
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
        let LiveRoutes {
            spool,
            dead_letters,
            metrics,
            mut jobs,
            ..
        } = self.routes;
        let exporting = self.exporter.map(SpanExporter::start);
        let statuses: Vec<RouteStatus> = jobs.running().map(|job| job.status.clone()).collect();
        let snapshots = || -> Vec<RouteSnapshot> { statuses.iter().map(RouteStatus::snapshot).collect() };
        loop {
            progress(&snapshots());
            tokio::select! {
                biased;
                _ = self.signals.next() => break,
                reason = spool.failed() => return Err(RunError::Disk(reason)),
                reason = dead_letters.failed() => return Err(RunError::Disk(reason)),
                ended = jobs.finished() => break ended.map_err(|route| RunError::Bug(task_of_route(&route)))?,
                () = tokio::time::sleep(LOOK_INTERVAL) => {}
            }
        }
        let orderly = async {
            let deadline = Instant::now() + self.shutdown_deadline;
            jobs.stop_all(deadline).await;
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
        let published = |route: &RouteSnapshot| metrics.jobs.published.with_label_values(&[&route.name]).get();
        let routes = snapshots();
        Ok(DrainEnd {
            published: routes.iter().map(published).sum(),
            dead_letters: dead_letters.kept().records,
            forgets: !kept,
            routes,
        })
    }
}
