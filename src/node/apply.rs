//! One verb: makes running what is configured.
//!
//! What can be refused comes first, and changes nothing: secrets that cannot be read, a sink that cannot be set up, a
//! route that cannot end. Then, in this order, so that nothing that is accepted is lost or overtaken:
//!
//! 1. Jobs that are to change, or to go, settle what they have in flight and end.
//! 2. From one moment on, events are for the new routes ([`Routing::replace`](crate::job::EventRouting::replace)). The
//!    log settles nothing for a new route before, so one with `start = "oldest"` misses none.
//! 3. Jobs that are new or changed start, each where its cursor is. One of a route that is gone publishes all that was
//!    accepted before that moment, and ends; then its cursor goes.
//! 4. Requests find the new endpoints and limits.
//!
//! A job, an endpoint or a limit that is the same before and after is not touched.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{
    task::{JoinHandle, block_in_place, spawn_blocking},
    time::Instant,
};

use super::{
    BuildError, ConfigChanges, NamedChanges, changes, descriptors,
    endpoints::OpenEndpoints,
    jobs::{JobEnd, JobMaker, RouteSetup, RunningJobs},
    known_routes::KnownRoutes,
    observe::{NodeOverview, born_unrouted},
    reload::{ConfigFile, ReloadReason, ReloadRequests, ReloadStatus},
    spools, task_of_route,
};
use crate::{
    config::{Config, ServerConfig},
    ingress,
    job::{DeadLetters, EventRouting, Job, RouteSubscription},
    sink::{BoxedSink, CertificateWatch},
    spool::{Cursor, OpenError, Spool},
    telemetry::Metrics,
};

/// What runs, and can be changed while it does.
pub(super) struct LiveNode {
    /// What the process was started with.
    pub started: Config,
    /// What runs.
    pub config: Config,
    /// Where the next one comes from; `None`: there is none.
    pub file: Option<ConfigFile>,
    pub maker: JobMaker,
    pub spool: Spool,
    pub dead_letters: DeadLetters,
    pub metrics: Arc<Metrics>,
    pub known: KnownRoutes,
    pub jobs: RunningJobs,
    pub routing: EventRouting,
    pub counting: PinnedCounting,
    pub settings: ingress::IngressSettings,
    pub endpoints: OpenEndpoints,
    pub certificates: CertificateWatch,
    pub overview: Arc<NodeOverview>,
    pub reload: ReloadStatus,
}

/// The counting of what the log holds for the routes and was not counted yet, beside them.
#[derive(Default)]
pub(super) struct PinnedCounting(Option<JoinHandle<()>>);

impl PinnedCounting {
    /// Counts what is left to count; whoever counted before ends.
    pub fn restart(&mut self, routing: &EventRouting, spool: &Spool) {
        self.stop();
        self.0 = Some(tokio::spawn(routing.clone().count_found(spool.clone())));
    }

    pub fn stop(&mut self) {
        if let Some(before) = self.0.take() {
            before.abort();
        }
    }

    /// Resolves if it panicked. Cancel-safe.
    async fn panicked(&mut self) {
        if let Some(counting) = &mut self.0 {
            let ended = counting.await;
            self.0 = None;
            if ended.is_err() {
                return;
            }
        }
        std::future::pending().await
    }
}

/// A route whose job is to start, and whether its cursor counts what it wants from new.
struct StartingRoute {
    setup: RouteSetup,
    sink: BoxedSink,
    cursor: Cursor,
    is_counted_anew: bool,
}

impl LiveNode {
    /// Applies what it is asked to, until a part of it ends, which is a bug; returns its name. Cancel-safe, if nothing
    /// is to go on after it.
    pub async fn serve(&mut self, reloads: &mut ReloadRequests) -> String {
        loop {
            tokio::select! {
                biased;
                ended = self.jobs.ended() => match ended {
                    JobEnd::Published(route) => self.forget(&route),
                    JobEnd::Unasked(route) => return task_of_route(&route),
                },
                () = self.counting.panicked() => return "the task that counts what the routes pin".to_owned(),
                reason = reloads.next() => self.reload(reason).await,
            }
        }
    }

    async fn reload(&mut self, reason: ReloadReason) {
        match reason {
            ReloadReason::Hangup => tracing::info!("reading secrets and configuration again, as SIGHUP asks"),
            ReloadReason::Changed => tracing::info!("the configuration has changed; reading it"),
        }
        self.endpoints.read_again();
        let Some(file) = self.file.clone() else { return };
        let loaded = match spawn_blocking(move || file.load()).await {
            Ok(loaded) => loaded,
            Err(panicked) => std::panic::resume_unwind(panicked.into_panic()),
        };
        let applied = match loaded {
            Ok(config) => {
                config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                self.apply(config).await.map_err(|error| error.to_string())
            }
            Err(problems) => Err(problems.to_string()),
        };
        match applied {
            Ok(changes) => {
                tracing::info!("the configuration was applied; it changed {changes}");
                if !changes.needs_restart.is_empty() {
                    let keys = changes.needs_restart.join(" ");
                    tracing::warn!(
                        keys,
                        "the configuration has other values than the process, which only a restart can change"
                    );
                }
                self.reload.applied(&changes);
            }
            Err(error) => {
                tracing::error!("the configuration cannot be used, and nothing was changed: {error}");
                self.reload.failed(&error);
            }
        }
    }

    /// Makes running what is configured, and returns what that changed.
    ///
    /// # Errors
    ///
    /// It cannot be used, and nothing was changed; or the disk failed.
    pub async fn apply(&mut self, mut next: Config) -> Result<ConfigChanges, BuildError> {
        let needs_restart = changes::keep_what_needs_a_restart(&mut next, &self.started);
        let shares = descriptors::share(&next)?;
        let settings = changes::settings(&self.config, &next);
        let setups = RouteSetup::of_all(&next);
        let running = self.jobs.running().map(|job| (job.setup.name(), &job.setup));
        let routes = NamedChanges::between(running, setups.iter().map(|setup| (setup.name(), setup)));
        let endpoints = NamedChanges::between(changes::endpoints(&self.config), changes::endpoints(&next));
        self.may_end(&routes.removed, &next)?;
        let opened = block_in_place(|| self.endpoints.open_anew(&next.endpoints, &self.metrics))?;
        let ending = self.prepare_ending(&routes.removed, &next)?;
        let starting = block_in_place(|| self.prepare(setups, &routes))?;

        // From here on it happens.
        let readded = self.jobs.ending().map(|job| job.setup.name().to_owned());
        let readded = readded.filter(|name| routes.added.contains(name));
        let stopped = [&routes.changed[..], &routes.removed[..]].concat();
        let stopped: Vec<String> = stopped.into_iter().chain(readded).collect();
        let deadline = Instant::now() + next.server.shutdown_deadline;
        self.jobs.stop(&stopped, deadline).await;
        block_in_place(|| self.dead_letters.keep_for(spools::keep_dead_letters(&next)));
        self.spool.limit_readers(spools::readers_bytes_max(&next));
        self.change_routes(starting, ending)?;
        for route in routes.removed.iter().filter(|route| !self.is_ending(route)) {
            self.give_up(route)?;
        }
        if let Err(error) = self.known.keep(&next.routes) {
            tracing::error!(%error, "the routes' names are not kept; the next start takes a new route for one whose cursor is gone");
        }

        self.endpoints.replace(opened);
        born_unrouted(&next, &self.metrics);
        let server = ServerConfig {
            connections_max: shares.public,
            ..next.server.clone()
        };
        self.settings.change(&server, self.endpoints.served());
        block_in_place(|| self.certificates.watch(&next.sinks));
        self.config = next;
        self.show();
        Ok(ConfigChanges {
            routes,
            endpoints,
            settings,
            needs_restart,
        })
    }

    /// Whether these routes can publish what they have.
    fn may_end(&self, routes: &[String], next: &Config) -> Result<(), BuildError> {
        for route in routes.iter().filter(|route| !next.spool.abandon_routes.contains(route)) {
            let snapshot = self.jobs.get(route).map(|job| job.status.snapshot());
            if let Some((records, trouble)) = snapshot.and_then(|s| Some((s.backlog_records, s.blocked?))) {
                return Err(BuildError::RouteCannotEnd {
                    route: route.clone(),
                    records,
                    reason: trouble.reason,
                });
            }
        }
        Ok(())
    }

    /// The routes that go, unless they are abandoned, each with a sink for what it still has.
    fn prepare_ending(&self, routes: &[String], next: &Config) -> Result<Vec<(RouteSetup, BoxedSink)>, BuildError> {
        let kept = routes.iter().filter(|route| !next.spool.abandon_routes.contains(route));
        let setups = kept.filter_map(|route| self.jobs.get(route).map(|job| job.setup.clone()));
        setups
            .map(|setup| {
                let sink = self.maker.sink(&setup)?;
                Ok((setup, sink))
            })
            .collect()
    }

    /// Sinks and cursors of the routes that are new or changed. Cursors that were made go again if one cannot be made.
    fn prepare(&self, setups: Vec<RouteSetup>, routes: &NamedChanges) -> Result<Vec<StartingRoute>, BuildError> {
        let is_starting = |setup: &RouteSetup| {
            let is_named = |names: &[String]| names.iter().any(|name| name == setup.name());
            is_named(&routes.added) || is_named(&routes.changed)
        };
        let setups = setups.into_iter().filter(is_starting);
        let sinks = setups.map(|setup| self.maker.sink(&setup).map(|sink| (setup, sink)));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        let before: BTreeSet<String> = self.spool.cursors().into_iter().collect();
        let mut starting: Vec<StartingRoute> = Vec::new();
        for (setup, sink) in sinks {
            let start = match setup.has_sink() {
                true => self.known.start(&setup.route),
                false => setup.route.start,
            };
            let opened = self.spool.open_cursor(setup.name(), start);
            let cursor = match opened {
                Ok(cursor) => cursor,
                Err(error) => {
                    for made in starting.iter().map(|one| one.setup.name()) {
                        if !before.contains(made) {
                            self.spool.remove_cursor(made)?;
                        }
                    }
                    return Err(error.into());
                }
            };
            let wanted = self.jobs.get(setup.name()).map(|job| &job.subscription.matches);
            starting.push(StartingRoute {
                is_counted_anew: wanted != Some(&setup.route.matches),
                setup,
                sink,
                cursor,
            });
        }
        Ok(starting)
    }

    /// Sends events to the new routes, and starts their jobs.
    fn change_routes(
        &mut self,
        starting: Vec<StartingRoute>,
        ending: Vec<(RouteSetup, BoxedSink)>,
    ) -> Result<(), OpenError> {
        if starting.is_empty() && ending.is_empty() {
            self.replace_subscriptions(&[]);
            return Ok(());
        }
        self.counting.stop();
        let mut jobs: Vec<(RouteSetup, Job<BoxedSink>)> = Vec::new();
        let mut counted_anew = Vec::new();
        for one in starting {
            if one.is_counted_anew {
                counted_anew.push(one.cursor.clone());
            }
            let job = self.maker.job(&one.setup, one.sink, one.cursor);
            jobs.push((one.setup, job));
        }
        let started: Vec<RouteSubscription> = jobs.iter().map(|(_, job)| job.subscription()).collect();
        self.replace_subscriptions(&started);
        // What was accepted for the routes before is in the log once this has returned.
        let last = block_in_place(|| {
            for cursor in &counted_anew {
                self.spool.follow(cursor)?;
            }
            self.spool.last_number()
        })?;
        for (setup, job) in jobs {
            self.metrics.route_is_there(setup.name());
            self.jobs.start(setup, job);
        }
        for (setup, sink) in ending {
            let cursor = block_in_place(|| self.spool.open_cursor(setup.name(), setup.route.start))?;
            let job = self.maker.job(&setup, sink, cursor);
            tracing::info!(
                route = setup.name(),
                last,
                "the route is gone; it publishes what was accepted for it"
            );
            self.jobs.start_ending(setup, job, last);
        }
        self.counting.restart(&self.routing, &self.spool);
        Ok(())
    }

    fn replace_subscriptions(&self, started: &[RouteSubscription]) {
        let running = self.jobs.running().map(|job| job.subscription.clone());
        self.routing.replace(running.chain(started.iter().cloned()).collect());
    }

    fn is_ending(&self, route: &str) -> bool {
        self.jobs.ending().any(|job| job.setup.name() == route)
    }

    /// A route that is gone has published all.
    fn forget(&mut self, route: &str) {
        self.jobs.forget_ended(route);
        tracing::info!(
            route,
            "the route that is gone has published all that was accepted for it"
        );
        if let Err(error) = self.remove(route) {
            // Of a log that failed the process ends.
            tracing::error!(route, %error, "the cursor of the route that is gone stays");
        }
        self.show();
    }

    fn give_up(&self, route: &str) -> Result<(), OpenError> {
        tracing::warn!(route, "giving up what the abandoned route has not published");
        self.remove(route)
    }

    fn remove(&self, route: &str) -> Result<(), OpenError> {
        self.metrics.route_is_gone(route);
        block_in_place(|| self.spool.remove_cursor(route))
    }

    /// Has `/status` and the metrics show what runs.
    fn show(&self) {
        let order = self.config.routes.iter().chain(&self.config.unrouted);
        let running = order.filter_map(|route| self.jobs.get(&route.name));
        self.overview.show(
            running.map(|job| job.status.clone()).collect(),
            self.jobs.ending().map(|job| job.status.clone()).collect(),
            self.endpoints.shown(),
        );
    }
}
