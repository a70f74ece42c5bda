//! The node: logs, endpoints, listeners and jobs of one process. It is opened (bind first, port 0 works), runs what is
//! configured, takes over what changes (`apply.rs`), and shuts down in order.
//!
//! Start: the spool is opened and recovered, its cursors are matched with the routes, both servers are bound, and then
//! the configuration is applied to a node that has nothing, as it is again at every change; only then is anything
//! accepted. Stop: not ready at once, but accepting for `drain_delay`, because the
//! sender's proxy learns late; then no new request; then every route may settle what it has in flight; then the
//! spool is closed. Each step has a deadline, so the sum of them bounds the stop.
//!
//! A listening socket that was handed over is shared with the next process, and what connects between the two waits for
//! that one. So that it does not wait for long, the routes end first, while requests are still taken in; and so that
//! nothing that was accepted is refused, all of it is answered before the phase is `Stopping`.

mod alone;
mod apply;
mod changes;
mod descriptors;
mod drain;
mod endpoints;
mod error;
mod handed;
mod jobs;
mod kept_file;
mod known_routes;
mod metrics;
mod observe;
mod operator;
mod reload;
mod replica;
mod routes;
mod secret_sources;
mod spools;
mod stop;
mod supervisor;
mod tasks;

pub use alone::OperatorRun;
pub use changes::{ConfigChanges, NamedChanges};
pub use error::{BuildError, RunError};
pub use handed::{HandedError, HandedSockets};
pub use known_routes::names as known_route_names;
pub use reload::ConfigFile;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use tokio::time::{Instant, timeout, timeout_at};

use crate::{
    admin,
    api::{self, ApiServer},
    config::{Config, ServerConfig},
    ingress,
    job::DeadLetters,
    lifecycle::{ProcessLifecycle, ProcessPhase},
    sink::CertificateWatch,
    spool::Spool,
    telemetry::{
        Metrics, Traces,
        traces::{RunningExporter, SetupError, SpanExporter},
    },
};
use apply::{LiveNode, PinnedCounting};
pub use drain::{DrainEnd, DrainRun};
use endpoints::OpenEndpoints;
use jobs::RunningJobs;
use metrics::NodeMetrics;
use observe::NodeOverview;
use operator::NodeOperator;
use reload::{ReloadRequests, ReloadStatus};
use routes::LiveRoutes;
use stop::{Hangups, StopSignals};
use supervisor::SupervisorState;
use tasks::LastingTasks;

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
pub struct Node {
    live: LiveNode,
    lifecycle: Arc<ProcessLifecycle>,
    ingress: ingress::BoundServer,
    /// The listening socket was handed over, and stays open for the next process.
    shares_socket: bool,
    admin: ingress::BoundServer,
    signals: StopSignals,
    hangups: Hangups,
    exporter: Option<SpanExporter>,
    /// `None`: it cannot be asked anything.
    api: Option<ApiServer>,
}

impl Node {
    /// Opens the spool, binds both servers, unless their sockets were handed over, and applies the configuration: its
    /// routes begin to publish what the spool holds. Nothing is accepted yet.
    ///
    /// # Errors
    ///
    /// The first thing that is not as it must be.
    pub async fn open(config: Config, handed: HandedSockets) -> Result<Self, BuildError> {
        let signals = StopSignals::listen().map_err(BuildError::Signals)?;
        let hangups = Hangups::listen().map_err(BuildError::Signals)?;
        let shares = descriptors::share(&config)?;
        let metrics = NodeMetrics::new();
        let lifecycle = Arc::new(ProcessLifecycle::starting());
        let (routes, logs) = LiveRoutes::open(&config, &metrics, RunningJobs::default())?;
        let (routing, spool, dead_letters) = (
            routes.routing.clone(),
            routes.spool.clone(),
            routes.dead_letters.clone(),
        );
        let certificates = CertificateWatch::register(&metrics.all.registry, &[]).expect(ONCE);
        let endpoints = OpenEndpoints::open(&[], &config.spool.dir, &metrics.ingress)?;
        let shares_socket = handed.ingress.is_some();
        for (name, socket) in [("ingress", &handed.ingress), ("admin", &handed.admin)] {
            if let Some(address) = socket.as_ref().and_then(|socket| socket.local_addr().ok()) {
                tracing::info!(name, %address, "took over a listening socket");
            }
        }
        let intake: ingress::EventIntake = {
            let (routing, spool) = (routing.clone(), spool.clone());
            Arc::new(move |event, record, class, asker| routing.append(&spool, event, record, class, asker))
        };
        let server = ServerConfig {
            connections_max: shares.public,
            ..config.server.clone()
        };
        let (ingress, settings) = ingress::bind(
            handed.ingress,
            &server,
            endpoints.served(),
            intake,
            lifecycle.clone(),
            metrics.ingress.clone(),
            logs.traces,
        )?;
        let operator = NodeOperator::open(&config.spool.dir, &routes).map_err(|source| BuildError::KeptFile {
            path: config.spool.dir.join("jobs"),
            source,
        })?;
        let api = open_api(&config.spool.dir, &operator);
        let reload = ReloadStatus::new(metrics.reload.clone());
        let overview = Arc::new(NodeOverview {
            replica: logs.replica,
            spool: spool.clone(),
            dead_letters,
            metrics: metrics.clone(),
            reload: reload.clone(),
            operator: operator.clone(),
            parts: Default::default(),
        });
        let admin = admin::bind(
            handed.admin,
            &config.admin,
            shares.admin,
            admin::AdminSources {
                lifecycle: lifecycle.clone(),
                spool: spool.clone(),
                metrics: metrics.all.clone(),
                servers: metrics.ingress.servers.clone(),
                collect: {
                    let overview = overview.clone();
                    Arc::new(move || overview.collect())
                },
                status: {
                    let overview = overview.clone();
                    Arc::new(move || overview.status())
                },
            },
        )?;
        let mut live = LiveNode {
            config: config.without_routes(),
            started: config.clone(),
            file: None,
            routes,
            counting: PinnedCounting::default(),
            settings,
            endpoints,
            certificates,
            overview,
            reload,
        };
        live.apply(config).await?;
        operator.resume_jobs().await;
        Ok(Self {
            live,
            lifecycle,
            ingress,
            shares_socket,
            admin,
            signals,
            hangups,
            exporter: logs.exporter,
            api,
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

    /// Accepts and publishes until SIGTERM or Ctrl-C, then stops in order. The configuration is read again from `file`,
    /// if there is one, at SIGHUP, or when it changes.
    ///
    /// # Errors
    ///
    /// The disk failed, a part ended by itself, or a second signal came.
    pub async fn run(mut self, file: Option<ConfigFile>) -> Result<(), RunError> {
        let live = &mut self.live;
        let (ingress, admin) = (self.ingress.handle(), self.admin.handle());
        let mut servers = LastingTasks::new();
        servers.spawn("the server for webhooks", self.ingress.run());
        servers.spawn("the server for the operator", self.admin.run());
        let operator = live.overview.operator.clone();
        let api = self.api.as_ref().map(ApiServer::handle);
        if let Some(server) = self.api {
            servers.spawn("the server for the operator's commands", server.run());
        }
        let mut keepers = LastingTasks::new();
        keepers.spawn("the task that keeps endpoints", live.endpoints.clone().watch_sources());
        keepers.spawn(
            "the task that keeps certificates",
            live.certificates.clone().watch_files(),
        );
        let exporting = self.exporter.map(SpanExporter::start);
        let mut reloads = ReloadRequests::new(self.hangups, file.as_ref());
        live.file = file;
        let (spool, dead_letters) = (live.routes.spool.clone(), live.routes.dead_letters.clone());
        self.lifecycle.advance(ProcessPhase::Ready);
        tracing::info!("ready");
        supervisor::tell(SupervisorState::Ready);

        let told = tokio::select! {
            // The routes end with the spool: the disk is the reason, not they.
            biased;
            name = self.signals.next() => name,
            reason = spool.failed() => return Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            reason = dead_letters.failed() => return Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            name = servers.ended() => return Err(RunError::Bug(name)),
            name = keepers.ended() => return Err(RunError::Bug(name)),
            name = live.serve(&mut reloads) => return Err(RunError::Bug(name)),
        };

        let server = live.config.server.clone();
        let orderly = async {
            tracing::info!(signal = told, drain_delay = ?server.drain_delay, "stopping; accepting until the drain delay is over");
            self.lifecycle.advance(ProcessPhase::Draining);
            supervisor::tell(SupervisorState::Stopping);
            tokio::time::sleep(server.drain_delay).await;
            let deadline = Instant::now() + server.shutdown_deadline;
            if self.shares_socket {
                live.routes.jobs.stop_all(deadline).await;
                if timeout_at(deadline, ingress.let_go()).await.is_err() {
                    tracing::warn!("connections were open that did not end in time");
                }
            }
            self.lifecycle.advance(ProcessPhase::Stopping);
            ingress.stop().await;
            drop(keepers);
            tokio::join!(live.routes.jobs.stop_all(deadline), operator.stop(deadline));
            live.counting.stop();
            tokio::join!(close(&spool, &dead_letters), flush(exporting, deadline));
            if let Some(api) = api {
                api.stop(true).await;
            }
            admin.stop().await;
            tracing::info!("stopped");
        };
        tokio::select! {
            () = orderly => Ok(()),
            reason = spool.failed() => Err(disk_failed(reason, &self.lifecycle, &ingress).await),
            _ = self.signals.next() => Err(RunError::StoppedAtOnce),
        }
    }
}

/// Listens for what operators ask.
fn open_api(dir: &Path, operator: &NodeOperator) -> Option<ApiServer> {
    let bound = ApiServer::bind(dir, Arc::new(operator.clone()));
    bound
        .inspect_err(|error| {
            let path = api::socket_path(dir);
            tracing::error!(
                path = %path.display(), %error,
                "no command of an operator can be taken: `forebay dead-letters`, `replay`, `jobs` and `routes` work once nothing runs"
            );
        })
        .ok()
}

/// The name of the task that publishes for a route.
fn task_of_route(route: &str) -> String {
    format!("the task of route {route}")
}

/// Hands the last spans to the collector.
async fn flush(exporting: Option<RunningExporter>, deadline: Instant) {
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
async fn disk_failed(reason: String, lifecycle: &ProcessLifecycle, ingress: &ingress::BoundServerHandle) -> RunError {
    lifecycle.advance(ProcessPhase::Stopping);
    if timeout(FAILED_ANSWERS_DEADLINE, ingress.stop()).await.is_err() {
        tracing::warn!("requests were open that did not end in time");
    }
    RunError::Disk(reason)
}

/// Off, unless there is somewhere to export to.
fn tracing(config: &Config, replica: &str, metrics: &Metrics) -> Result<(Traces, Option<SpanExporter>), SetupError> {
    let Some(tracing) = &config.tracing else {
        return Ok((Traces::off(), None));
    };
    let (traces, exporter) = Traces::to(&tracing.endpoint, tracing.sample_ratio, replica, metrics)?;
    Ok((traces, Some(exporter)))
}
