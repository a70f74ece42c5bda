//! The logs, and the jobs that publish them: made to be what a configuration says.

use std::{collections::BTreeSet, sync::Arc};

use tokio::{task::block_in_place, time::Instant};

use super::{
    BuildError, NamedChanges,
    jobs::{JobMaker, RouteSetup, RunningJobs},
    known_routes::{self, KnownRoutes},
    metrics::NodeMetrics,
    operator::RoutePauses,
    replica, spools,
};
use crate::{
    config::Config,
    job::{DeadLetters, EventRouting, Job, RouteSubscription},
    sink::BoxedSink,
    spool::{Cursor, OpenError, Spool},
    telemetry::{Traces, traces::SpanExporter},
};

/// The logs of a process, and the routes that are published from them.
pub(super) struct LiveRoutes {
    pub spool: Spool,
    pub dead_letters: DeadLetters,
    pub metrics: NodeMetrics,
    pub known: KnownRoutes,
    pub jobs: RunningJobs,
    pub routing: EventRouting,
    pub pauses: RoutePauses,
    pub maker: Arc<JobMaker>,
}

/// What is opened beside the routes.
pub(super) struct OpenedLogs {
    pub replica: Arc<str>,
    pub traces: Traces,
    pub exporter: Option<SpanExporter>,
}

/// What is to change about the routes, none of which can be refused any more.
pub(super) struct PreparedRoutes {
    pub changes: NamedChanges,
    starting: Vec<StartingRoute>,
    ending: Vec<(RouteSetup, BoxedSink)>,
}

/// A route whose job is to start, and whether its cursor counts what it wants from new.
struct StartingRoute {
    setup: RouteSetup,
    sink: BoxedSink,
    cursor: Cursor,
    is_counted_anew: bool,
    /// It had none before.
    is_made: bool,
}

impl LiveRoutes {
    /// Recovers the logs and matches their cursors with the routes of the configuration. No route runs yet.
    ///
    /// # Errors
    ///
    /// The logs cannot be opened, or have what no route of the configuration publishes.
    pub fn open(config: &Config, metrics: &NodeMetrics, jobs: RunningJobs) -> Result<(Self, OpenedLogs), BuildError> {
        let (spool, dead_letters) = spools::open(config, metrics)?;
        let dir = &config.spool.dir;
        let kept = |path| move |source| BuildError::KeptFile { path, source };
        let replica: Arc<str> = replica::name(dir, config.spool.replica.as_deref())
            .map_err(kept(dir.clone()))?
            .into();
        let (traces, exporter) = super::tracing(config, &replica, &metrics.all)?;
        spools::match_cursors(config, &spool)?;
        let known = KnownRoutes::read(dir).map_err(kept(known_routes::path(dir)))?;
        let pauses = RoutePauses::read(dir).map_err(kept(dir.clone()))?;
        let maker = Arc::new(JobMaker::new(
            replica.clone(),
            spool.clone(),
            dead_letters.clone(),
            metrics.clone(),
            traces.clone(),
        ));
        let routes = Self {
            spool,
            dead_letters,
            metrics: metrics.clone(),
            known,
            jobs,
            routing: EventRouting::default(),
            pauses,
            maker,
        };
        let opened = OpenedLogs {
            replica,
            traces,
            exporter,
        };
        Ok((routes, opened))
    }

    /// Prepares what the configuration changes about the routes; nothing is changed yet.
    ///
    /// # Errors
    ///
    /// A sink cannot be set up, a route cannot end, or the names of the routes cannot be kept.
    pub fn prepare(&mut self, next: &Config) -> Result<PreparedRoutes, BuildError> {
        let setups = RouteSetup::of_all(next);
        let running = self.jobs.running().map(|job| (job.setup.name(), &job.setup));
        let changes = NamedChanges::between(running, setups.iter().map(|setup| (setup.name(), setup)));
        self.may_end(&changes.removed, next)?;
        let ending = self.prepare_ending(&changes.removed, next)?;
        let starting = self.prepare_starting(setups, &changes)?;
        if let Err(source) = self.known.save(&next.routes) {
            self.remove_made(&starting)?;
            let path = known_routes::path(&next.spool.dir);
            return Err(BuildError::KeptFile { path, source });
        }
        Ok(PreparedRoutes {
            changes,
            starting,
            ending,
        })
    }

    /// Makes the routes run that were prepared; returns what that changed. Jobs that end may settle what they have in
    /// flight until the deadline.
    ///
    /// # Errors
    ///
    /// The disk failed.
    pub async fn change(
        &mut self,
        PreparedRoutes {
            changes,
            starting,
            ending,
        }: PreparedRoutes,
        next: &Config,
        deadline: Instant,
    ) -> Result<NamedChanges, BuildError> {
        let readded = self.jobs.ending().map(|job| job.setup.name().to_owned());
        let readded = readded.filter(|name| changes.added.contains(name));
        let stopped = [&changes.changed[..], &changes.removed[..]].concat();
        let stopped: Vec<String> = stopped.into_iter().chain(readded).collect();
        self.jobs.stop(&stopped, deadline).await;
        block_in_place(|| self.dead_letters.keep_for(spools::keep_dead_letters(next)));
        self.spool.limit_readers(spools::readers_bytes_max(next));
        self.spool.retain(spools::retention(next));
        self.exchange(starting, ending)?;
        for route in changes.removed.iter().filter(|route| !self.is_ending(route)) {
            self.give_up(route)?;
        }
        Ok(changes)
    }

    /// Whether these routes can publish what they have.
    fn may_end(&self, routes: &[String], next: &Config) -> Result<(), BuildError> {
        for route in routes.iter().filter(|route| !next.spool.abandon_routes.contains(route)) {
            let Some(snapshot) = self.jobs.get(route).map(|job| job.status.snapshot()) else {
                continue;
            };
            let is_paused = self.pauses.get(route).is_some() && snapshot.backlog_records > 0;
            let paused = is_paused.then_some("paused");
            if let Some(reason) = paused.or(snapshot.blocked.map(|trouble| trouble.reason)) {
                return Err(BuildError::RouteCannotEnd {
                    route: route.clone(),
                    records: snapshot.backlog_records,
                    reason,
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
    fn prepare_starting(
        &self,
        setups: Vec<RouteSetup>,
        routes: &NamedChanges,
    ) -> Result<Vec<StartingRoute>, BuildError> {
        let is_starting = |setup: &RouteSetup| {
            let is_named = |names: &[String]| names.iter().any(|name| name == setup.name());
            is_named(&routes.added) || is_named(&routes.changed)
        };
        let setups = setups.into_iter().filter(is_starting);
        let sinks = setups.map(|setup| self.maker.sink(&setup).map(|sink| (setup, sink)));
        let sinks = sinks.collect::<Result<Vec<_>, _>>()?;
        let before: BTreeSet<String> = self.spool.cursors().into_iter().collect();
        let lost = sinks.iter().map(|(setup, _)| setup.name());
        for route in lost.filter(|name| self.known.contains(name) && !before.contains(*name)) {
            tracing::error!(
                route,
                "the route's cursor is gone: it starts again at the oldest record"
            );
            self.metrics.log.spool_damage.with_label_values(&["cursor"]).inc();
        }
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
                    self.remove_made(&starting)?;
                    return Err(error.into());
                }
            };
            let wanted = self.jobs.get(setup.name()).map(|job| &job.subscription.matches);
            starting.push(StartingRoute {
                is_counted_anew: wanted != Some(&setup.route.matches),
                is_made: !before.contains(setup.name()),
                setup,
                sink,
                cursor,
            });
        }
        Ok(starting)
    }

    /// Takes the cursors away again that were made for routes which do not start after all.
    fn remove_made(&self, starting: &[StartingRoute]) -> Result<(), OpenError> {
        let mut made = starting.iter().filter(|one| one.is_made);
        made.try_for_each(|one| self.spool.remove_cursor(one.setup.name()))
    }

    /// Sends events to the new routes, and starts their jobs.
    fn exchange(
        &mut self,
        starting: Vec<StartingRoute>,
        ending: Vec<(RouteSetup, BoxedSink)>,
    ) -> Result<(), OpenError> {
        if starting.is_empty() && ending.is_empty() {
            self.replace_subscriptions(&[]);
            return Ok(());
        }
        let mut jobs: Vec<(RouteSetup, Job<BoxedSink>)> = Vec::new();
        let mut counted_anew = Vec::new();
        for one in starting {
            if one.is_counted_anew {
                counted_anew.push(one.cursor.clone());
            }
            let job = self.maker.job(&one.setup, one.sink, one.cursor);
            let job = job.pausable(self.pauses.signal(one.setup.name()));
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
            self.metrics.all.route_is_there(setup.name());
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
    pub fn forget(&mut self, route: &str) {
        self.jobs.forget_ended(route);
        tracing::info!(
            route,
            "the route that is gone has published all that was accepted for it"
        );
        if let Err(error) = self.remove(route) {
            // Of a log that failed the process ends.
            tracing::error!(route, %error, "the cursor of the route that is gone stays");
        }
    }

    fn give_up(&self, route: &str) -> Result<(), OpenError> {
        tracing::warn!(route, "giving up what the abandoned route has not published");
        self.remove(route)
    }

    fn remove(&self, route: &str) -> Result<(), OpenError> {
        self.metrics.all.route_is_gone(route);
        block_in_place(|| self.spool.remove_cursor(route))
    }
}
