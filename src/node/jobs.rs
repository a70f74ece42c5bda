//! The jobs that run: one for each route, and those of routes that are gone and still publish what they have.

use std::{collections::BTreeMap, future::poll_fn, sync::Arc, task::Poll};

use tokio::{sync::watch, time::Instant};

use super::{BuildError, ONCE, metrics::NodeMetrics, tasks::EndingTask};
use crate::{
    config::{self, Config},
    job::{DeadLetters, Job, JobMetrics, JobUntil, RouteStatus, RouteSubscription},
    sink::{self, BoxedSink, BrokerMetrics, SinkLimits, UnroutedSink},
    spool::{Cursor, Spool},
    telemetry::Traces,
};

/// All that a route's job is made of. While none of it changes, the job is not touched.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RouteSetup {
    pub route: config::RouteConfig,
    /// `None`: for what no route wants.
    sink: Option<config::SinkConfig>,
    body_bytes_max: u64,
}

impl RouteSetup {
    /// Those of a configuration, the route of what no other wants last.
    pub fn of_all(config: &Config) -> Vec<Self> {
        let routes = config.routes.iter().chain(&config.unrouted);
        let setup = routes.map(|route| Self {
            sink: config.sinks.iter().find(|sink| sink.name == route.sink).cloned(),
            route: route.clone(),
            body_bytes_max: config.server.body_bytes_max,
        });
        setup.collect()
    }

    pub fn name(&self) -> &str {
        &self.route.name
    }

    /// Whether it is published, and not kept for what no route wants.
    pub fn has_sink(&self) -> bool {
        self.sink.is_some()
    }
}

/// What every job is made with.
pub(super) struct JobMaker {
    replica: Arc<str>,
    spool: Spool,
    dead_letters: DeadLetters,
    metrics: NodeMetrics,
    brokers: Vec<BrokerMetrics>,
    traces: Traces,
}

impl JobMaker {
    pub fn new(
        replica: Arc<str>,
        spool: Spool,
        dead_letters: DeadLetters,
        metrics: NodeMetrics,
        traces: Traces,
    ) -> Self {
        let registered = sink::brokers().iter();
        let registered = registered.map(|broker| broker.register_metrics(&metrics.all.registry).expect(ONCE));
        Self {
            replica,
            spool,
            dead_letters,
            brokers: registered.collect(),
            metrics,
            traces,
        }
    }

    /// What a route publishes through. Nothing is connected yet.
    ///
    /// # Errors
    ///
    /// The client of the broker takes no such configuration.
    pub fn sink(&self, setup: &RouteSetup) -> Result<BoxedSink, BuildError> {
        let route = &setup.route;
        let (Some(sink), Some(address)) = (&setup.sink, &route.address) else {
            return Ok(BoxedSink::new(UnroutedSink));
        };
        let limits = SinkLimits {
            body_bytes_max: setup.body_bytes_max,
            in_flight_records_max: route.in_flight_records_max,
        };
        let broker = self
            .brokers
            .iter()
            .find(|broker| broker.broker() == sink.settings.broker());
        broker
            .expect("a sink's broker is registered")
            .sink((&sink.name, &sink.settings), (&route.name, address), limits)
            .map_err(|failure| BuildError::Sink {
                sink: route.sink.clone(),
                text: failure.text,
            })
    }

    /// The job of a route.
    pub fn job(&self, setup: &RouteSetup, sink: BoxedSink, cursor: Cursor) -> Job<BoxedSink> {
        let job = self.job_over(setup, sink, cursor, self.spool.clone(), self.metrics.jobs.clone());
        match setup.has_sink() {
            true => job.traced(self.traces.clone()),
            false => job,
        }
    }

    /// A job that publishes a log as the route does.
    pub fn job_over(
        &self,
        setup: &RouteSetup,
        sink: BoxedSink,
        cursor: Cursor,
        log: Spool,
        metrics: Arc<JobMetrics>,
    ) -> Job<BoxedSink> {
        Job::new(
            &setup.route,
            self.replica.clone(),
            sink,
            cursor,
            log,
            self.dead_letters.clone(),
            metrics,
        )
    }
}

/// The jobs that run.
#[derive(Default)]
pub(super) struct RunningJobs {
    /// When those of configured routes end by themselves.
    until: JobUntil,
    running: BTreeMap<String, RunningJob>,
    /// Of routes that are no longer configured: they take nothing new, and publish what they have.
    ending: BTreeMap<String, RunningJob>,
}

/// A job that runs.
pub(super) struct RunningJob {
    pub setup: RouteSetup,
    pub status: RouteStatus,
    pub subscription: RouteSubscription,
    stop: watch::Sender<Option<Instant>>,
    task: EndingTask,
}

/// Which job has ended by itself.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum JobEnd {
    /// Of a route that is gone: it has published all that it had.
    Published(String),
    /// A bug.
    Unasked(String),
}

impl RunningJob {
    fn start(setup: RouteSetup, job: Job<BoxedSink>) -> Self {
        let (stop, stop_signal) = watch::channel(None);
        Self {
            setup,
            status: job.status(),
            subscription: job.subscription(),
            stop,
            task: EndingTask::spawn(job.run(stop_signal)),
        }
    }

    /// Has it settle what it has in flight, until the deadline, and waits for its end.
    async fn stop(mut self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        if let Err(error) = self.task.ended().await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
}

impl RunningJobs {
    pub fn until(until: JobUntil) -> Self {
        Self {
            until,
            ..Self::default()
        }
    }

    pub fn start(&mut self, setup: RouteSetup, job: Job<BoxedSink>) {
        let job = RunningJob::start(setup, job.until(self.until));
        self.running.insert(job.setup.name().to_owned(), job);
    }

    /// Starts the job of a route that is gone: it publishes up to this number.
    pub fn start_ending(&mut self, setup: RouteSetup, job: Job<BoxedSink>, last: u64) {
        let job = RunningJob::start(setup, job.until(JobUntil::Number(last)));
        self.ending.insert(job.setup.name().to_owned(), job);
    }

    pub fn running(&self) -> impl Iterator<Item = &RunningJob> {
        self.running.values()
    }

    pub fn ending(&self) -> impl Iterator<Item = &RunningJob> {
        self.ending.values()
    }

    pub fn get(&self, route: &str) -> Option<&RunningJob> {
        self.running.get(route)
    }

    /// Waits until a job ends by itself. Cancel-safe.
    pub async fn ended(&mut self) -> JobEnd {
        poll_fn(|context| {
            for (name, job) in &mut self.running {
                if job.task.poll_ended(context).is_ready() {
                    return Poll::Ready(JobEnd::Unasked(name.clone()));
                }
            }
            for (name, job) in &mut self.ending {
                match job.task.poll_ended(context) {
                    Poll::Ready(Ok(())) => return Poll::Ready(JobEnd::Published(name.clone())),
                    Poll::Ready(Err(_)) => return Poll::Ready(JobEnd::Unasked(name.clone())),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until all have ended by themselves, as they should. Cancel-safe.
    ///
    /// # Errors
    ///
    /// The route of one that panicked.
    pub async fn finished(&mut self) -> Result<(), String> {
        for (name, job) in &mut self.running {
            job.task.ended().await.map_err(|_| name.clone())?;
        }
        Ok(())
    }

    /// A route that is gone has published all.
    pub fn forget_ended(&mut self, route: &str) -> Option<RouteSetup> {
        self.ending.remove(route).map(|job| job.setup.clone())
    }

    /// Stops the jobs of these routes: each may settle what it has in flight until the deadline.
    pub async fn stop(&mut self, routes: &[String], deadline: Instant) {
        let jobs = routes
            .iter()
            .flat_map(|route| [self.running.remove(route), self.ending.remove(route)]);
        stop_all(jobs.flatten(), deadline).await;
    }

    /// Stops all of them likewise.
    pub async fn stop_all(&mut self, deadline: Instant) {
        let jobs = std::mem::take(self);
        stop_all(jobs.running.into_values().chain(jobs.ending.into_values()), deadline).await;
    }
}

async fn stop_all(jobs: impl Iterator<Item = RunningJob>, deadline: Instant) {
    futures_util::future::join_all(jobs.map(|job| job.stop(deadline))).await;
}
