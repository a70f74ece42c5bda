//! The composition root: build (bind first, port 0 works), run, shut down in order.
//!
//! Start: the spool is opened and recovered, routes are matched with the cursors that it holds, both servers are bound,
//! and only then is anything accepted. Stop: not ready at once, but accepting for `drain_delay`, because the
//! sender's proxy learns late; then no new request; then every route may settle what it has in flight; then the
//! spool is closed. Each step has a deadline, so the sum of them bounds the stop.
//!
//! A listening socket that was handed over is shared with the next process, and what connects between the two waits for
//! that one. So that it does not wait for long, the routes end first, while requests are still taken in; and so that
//! nothing that was accepted is refused, all of it is answered before the phase is `Stopping`.

mod descriptors;
mod drain;
mod error;
mod handed;
mod kept_file;
mod known_routes;
mod observe;
mod replica;
mod secret_sources;
mod secrets;
mod spools;
mod stop;
mod supervisor;
mod tasks;

pub use error::{BuildError, RunError};
pub use handed::{Handed, HandedError};

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};

use crate::{
    admin,
    config::{self, Config, SinkKind},
    ingress,
    job::{Broker, DeadLetters, Job, Routing},
    lifecycle::{Lifecycle, Phase},
    provider::{KIND_OTHER, KINDS},
    sink::{
        AnySink, Certificates,
        kafka::{self, KafkaMetrics, KafkaSink},
        rabbitmq::{self, RabbitMqMetrics, RabbitMqSink},
    },
    spool::Spool,
    telemetry::{
        Metrics, Traces,
        traces::{Exporter, Exporting, SetupError},
    },
};
pub use drain::{Drain, DrainEnd};
use known_routes::KnownRoutes;
use observe::Overview;
use secrets::Endpoints;
use stop::{Hangups, StopSignals};
use supervisor::State;
use tasks::Tasks;

/// Of metrics.
const ONCE: &str = "each metric is registered once";
/// Closing the spool takes one fsync; a disk that takes longer is given up.
const SPOOL_CLOSE_DEADLINE: Duration = Duration::from_secs(10);
/// The collector gets the last spans within this, and within the deadline of the stop; while the spool is closed in any
/// case.
const SPANS_DEADLINE: Duration = Duration::from_secs(5);
const SPANS_DEADLINE_MIN: Duration = Duration::from_secs(1);

/// Once the disk has failed, those who wait for it may take this long to read their 503.
const FAILED_ANSWERS_DEADLINE: Duration = Duration::from_secs(1);

/// A Forebay that listens, and is ready to run.
pub struct App {
    config: Config,
    spool: Spool,
    dead_letters: DeadLetters,
    lifecycle: Arc<Lifecycle>,
    ingress: ingress::Bound,
    /// The listening socket was handed over, and stays open for the next process.
    shares_socket: bool,
    admin: ingress::Bound,
    routes: Vec<Job<AnySink>>,
    routing: Routing,
    endpoints: Endpoints,
    certificates: Certificates,
    signals: StopSignals,
    hangups: Hangups,
    exporter: Option<Exporter>,
}

impl App {
    /// Opens the spool, binds both servers, unless their sockets were handed over, and prepares the routes. Nothing is
    /// accepted or published yet.
    ///
    /// # Errors
    ///
    /// The first thing that is not as it must be.
    pub async fn build(mut config: Config, handed: Handed) -> Result<Self, BuildError> {
        let signals = StopSignals::listen().map_err(BuildError::Signals)?;
        let hangups = Hangups::listen().map_err(BuildError::Signals)?;
        let shares = descriptors::share(&config)?;
        config.server.connections_max = shares.public;
        let metrics = Metrics::new();
        let lifecycle = Arc::new(Lifecycle::starting());
        let Stored {
            spool,
            dead_letters,
            replica,
            routes,
            traces,
            exporter,
        } = Stored::open(&config, &metrics)?;
        let routing = Routing::of(&routes);
        let certificates = Certificates::register(&metrics.registry, &config.sinks).expect(ONCE);
        let endpoints = Endpoints::open(&config.endpoints, &config.spool.dir, &metrics)?;
        let served = endpoints.served();
        let shares_socket = handed.ingress.is_some();
        for (name, socket) in [("ingress", &handed.ingress), ("admin", &handed.admin)] {
            if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
                tracing::info!(name, %address, "took over a listening socket");
            }
        }
        let ingress = ingress::bind(
            handed.ingress,
            &config.server,
            served,
            ingress::Intake {
                spool: spool.clone(),
                audience: {
                    let routing = routing.clone();
                    Arc::new(move |event| routing.audience(event))
                },
            },
            lifecycle.clone(),
            metrics.clone(),
            traces,
        )?;
        let overview = Arc::new(Overview {
            replica,
            spool: spool.clone(),
            dead_letters: dead_letters.clone(),
            routes: routes.iter().map(Job::status).collect(),
            endpoints: endpoints.shown(),
            metrics: metrics.clone(),
        });
        let admin = admin::bind(
            handed.admin,
            &config.admin,
            shares.admin,
            admin::Sources {
                lifecycle: lifecycle.clone(),
                spool: spool.clone(),
                metrics,
                collect: {
                    let overview = overview.clone();
                    Arc::new(move || overview.collect())
                },
                status: Arc::new(move || overview.status()),
            },
        )?;
        Ok(Self {
            config,
            spool,
            dead_letters,
            lifecycle,
            ingress,
            shares_socket,
            admin,
            routes,
            routing,
            endpoints,
            certificates,
            signals,
            hangups,
            exporter,
        })
    }

    /// Where webhooks are taken in; where port 0 was asked for, with the port that it became.
    pub fn public_addresses(&self) -> &[SocketAddr] {
        self.ingress.addresses()
    }

    /// Where the operator's pages are.
    pub fn admin_addresses(&self) -> &[SocketAddr] {
        self.admin.addresses()
    }

    /// Accepts and publishes until SIGTERM or Ctrl-C, then stops in order.
    ///
    /// # Errors
    ///
    /// The disk failed, a part ended by itself, or a second signal came.
    pub async fn run(mut self) -> Result<(), RunError> {
        let (stop, stop_signal) = watch::channel(None);
        let mut publishing = Tasks::new();
        for route in self.routes {
            publishing.spawn(task_of_route(route.status().name()), route.run(stop_signal.clone()));
        }
        let (ingress, admin) = (self.ingress.handle(), self.admin.handle());
        let mut servers = Tasks::new();
        servers.spawn("the server for webhooks", self.ingress.run());
        servers.spawn("the server for the operator", self.admin.run());
        let mut keepers = Tasks::new();
        keepers.spawn("the task that keeps endpoints", self.endpoints.keep(self.hangups));
        keepers.spawn("the task that keeps certificates", self.certificates.keep());
        keepers.spawn(
            "the task that counts what the routes pin",
            self.routing.count_found(self.spool.clone()),
        );
        let exporting = self.exporter.map(Exporter::start);
        self.lifecycle.advance(Phase::Ready);
        tracing::info!("ready");
        supervisor::tell(State::Ready);

        let told = tokio::select! {
            // The routes end with the spool: the disk is the reason, not they.
            biased;
            name = self.signals.next() => name,
            reason = self.spool.failed() => return Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            reason = self.dead_letters.failed() => return Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            name = publishing.ended() => return Err(RunError::Bug(name)),
            name = servers.ended() => return Err(RunError::Bug(name)),
            name = keepers.ended() => return Err(RunError::Bug(name)),
        };

        let orderly = async {
            tracing::info!(signal = told, drain_delay = ?self.config.server.drain_delay, "stopping; accepting until the drain delay is over");
            self.lifecycle.advance(Phase::Draining);
            supervisor::tell(State::Stopping);
            tokio::time::sleep(self.config.server.drain_delay).await;
            let deadline = Instant::now() + self.config.server.shutdown_deadline;
            if self.shares_socket {
                settled(&stop, deadline, &mut publishing).await;
                if timeout_at(deadline, ingress.let_go()).await.is_err() {
                    tracing::warn!("connections were open that did not end in time");
                }
            }
            self.lifecycle.advance(Phase::Stopping);
            ingress.stop().await;
            drop(keepers);
            settled(&stop, deadline, &mut publishing).await;
            tokio::join!(close(&self.spool, &self.dead_letters), flush(exporting, deadline));
            admin.stop().await;
            tracing::info!("stopped");
        };
        tokio::select! {
            () = orderly => Ok(()),
            reason = self.spool.failed() => Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            _ = self.signals.next() => Err(RunError::StoppedAtOnce),
        }
    }
}

/// Ends the routes: each may settle what it has in flight until the deadline.
async fn settled(stop: &watch::Sender<Option<Instant>>, deadline: Instant, publishing: &mut Tasks<()>) {
    stop.send_replace(Some(deadline));
    publishing.all_ended().await;
}

/// The name of the task that publishes for a route.
fn task_of_route(route: &str) -> String {
    format!("the task of route {route}")
}

/// What is on disk, and the routes that publish it.
struct Stored {
    spool: Spool,
    dead_letters: DeadLetters,
    replica: Arc<str>,
    routes: Vec<Job<AnySink>>,
    traces: Traces,
    exporter: Option<Exporter>,
}

impl Stored {
    /// Recovers the spool and matches its cursors with the routes. Nothing is published yet.
    fn open(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, BuildError> {
        let (spool, dead_letters) = spools::open(config, metrics)?;
        let dir = &config.spool.dir;
        let replica: Arc<str> = replica::name(dir, config.spool.replica.as_deref())
            .map_err(|source| BuildError::KeptFile {
                path: dir.clone(),
                source,
            })?
            .into();
        let (traces, exporter) = tracing(config, &replica, metrics)?;
        spools::match_cursors(config, &spool)?;
        let kept = |path: PathBuf| move |source| BuildError::KeptFile { path, source };
        let mut known = KnownRoutes::read(dir).map_err(kept(known_routes::path(dir)))?;
        let routes = jobs(config, &known, &replica, &spool, &dead_letters, metrics, &traces)?;
        known.keep(&config.routes).map_err(kept(known_routes::path(dir)))?;
        Ok(Self {
            spool,
            dead_letters,
            replica,
            routes,
            traces,
            exporter,
        })
    }
}

/// Hands the last spans to the collector.
async fn flush(exporting: Option<Exporting>, deadline: Instant) {
    if let Some(exporting) = exporting {
        let now = Instant::now();
        exporting
            .finish(deadline.min(now + SPANS_DEADLINE).max(now + SPANS_DEADLINE_MIN))
            .await;
    }
}

/// Makes the cursors durable and seals the logs.
async fn close(spool: &Spool, dead_letters: &DeadLetters) {
    let closed = async {
        spool.close().await;
        dead_letters.close().await;
    };
    if timeout(SPOOL_CLOSE_DEADLINE, closed).await.is_err() {
        tracing::warn!("the spool was not closed in time; the next start recovers it");
    }
}

/// Lets those who wait for the disk be answered before the process ends: the writer has told them all that it failed.
async fn disk_failed(reason: String, lifecycle: &Lifecycle, ingress: &ingress::Handle) -> RunError {
    lifecycle.advance(Phase::Stopping);
    if timeout(FAILED_ANSWERS_DEADLINE, ingress.stop()).await.is_err() {
        tracing::warn!("requests were open that did not end in time");
    }
    RunError::Disk(reason)
}

/// Off, unless there is somewhere to export to.
fn tracing(config: &Config, replica: &str, metrics: &Metrics) -> Result<(Traces, Option<Exporter>), SetupError> {
    let Some(tracing) = &config.tracing else {
        return Ok((Traces::off(), None));
    };
    let (traces, exporter) = Traces::to(&tracing.endpoint, tracing.sample_ratio, replica, metrics)?;
    Ok((traces, Some(exporter)))
}

fn jobs(
    config: &Config,
    known: &KnownRoutes,
    replica: &Arc<str>,
    spool: &Spool,
    dead_letters: &DeadLetters,
    metrics: &Arc<Metrics>,
    traces: &Traces,
) -> Result<Vec<Job<AnySink>>, BuildError> {
    let sink_metrics = SinkMetrics::register(metrics);
    let mut jobs = Vec::new();
    let cursors = spool.cursors();
    for route in &config.routes {
        if known.contains(&route.name) && !cursors.contains(&route.name) {
            tracing::error!(
                route = route.name,
                "the route's cursor is gone: it starts again at the oldest record"
            );
            metrics.spool_damage.with_label_values(&["cursor"]).inc();
        }
        let cursor = spool.cursor(&route.name, known.start(route))?;
        let sink = open_sink(config, route, &sink_metrics)?;
        let job = Job::new(
            route,
            replica.clone(),
            sink,
            cursor,
            spool.clone(),
            dead_letters.clone(),
            metrics.clone(),
        );
        jobs.push(job.traced(traces.clone(), broker(config, route)));
    }
    for endpoint in &config.endpoints {
        for kind in KINDS.into_iter().chain([KIND_OTHER]) {
            metrics
                .unrouted
                .with_label_values(&[endpoint.name.as_str(), kind])
                .inc_by(0);
        }
    }
    if let Some(unrouted) = &config.unrouted {
        jobs.push(Job::new(
            unrouted,
            replica.clone(),
            AnySink::Unrouted,
            spool.cursor(&unrouted.name, unrouted.start)?,
            spool.clone(),
            dead_letters.clone(),
            metrics.clone(),
        ));
    }
    Ok(jobs)
}

/// What the clients of the brokers tell of themselves.
struct SinkMetrics {
    kafka: Arc<KafkaMetrics>,
    rabbitmq: Arc<RabbitMqMetrics>,
}

impl SinkMetrics {
    fn register(metrics: &Metrics) -> Self {
        Self {
            kafka: Arc::new(KafkaMetrics::register(&metrics.registry).expect(ONCE)),
            rabbitmq: Arc::new(RabbitMqMetrics::register(&metrics.registry).expect(ONCE)),
        }
    }
}

fn sink_of<'a>(config: &'a Config, route: &config::Route) -> &'a config::Sink {
    let mut sinks = config.sinks.iter();
    sinks
        .find(|sink| sink.name == route.sink)
        .expect("a checked route names a sink that exists")
}

fn broker(config: &Config, route: &config::Route) -> Broker {
    match &sink_of(config, route).kind {
        SinkKind::Kafka(_) => Broker::Kafka,
        SinkKind::RabbitMq(rabbitmq) => Broker::RabbitMq {
            exchange: rabbitmq.exchange.clone(),
            partitions: rabbitmq.partitions,
        },
    }
}

fn open_sink(config: &Config, route: &config::Route, metrics: &SinkMetrics) -> Result<AnySink, BuildError> {
    let sink = sink_of(config, route);
    match &sink.kind {
        SinkKind::Kafka(kafka) => {
            let names = kafka::Names::new(&sink.name, &route.name);
            let topics = kafka::Topics {
                template: route.topic.clone().expect("a checked route to Kafka has a topic"),
                unknown: route.unknown_topic.clone(),
            };
            let limits = kafka::Limits {
                body_bytes_max: config.server.body_bytes_max,
                in_flight_records_max: route.in_flight_records_max,
            };
            let sink = KafkaSink::new(kafka, names, topics, limits, metrics.kafka.clone());
            sink.map(|sink| AnySink::Kafka(Box::new(sink)))
                .map_err(|failure| BuildError::Sink {
                    sink: route.sink.clone(),
                    text: failure.text,
                })
        }
        SinkKind::RabbitMq(rabbitmq) => {
            let names = rabbitmq::Names {
                sink: sink.name.as_str().into(),
                route: route.name.as_str().into(),
            };
            let sink = RabbitMqSink::new(rabbitmq, names, config.server.body_bytes_max, metrics.rabbitmq.clone());
            Ok(AnySink::RabbitMq(Box::new(sink)))
        }
    }
}
