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

use std::sync::Arc;

use tokio::{
    task::{JoinHandle, block_in_place, spawn_blocking},
    time::Instant,
};

use super::{
    BuildError, ConfigChanges, NamedChanges, changes, descriptors,
    endpoints::OpenEndpoints,
    jobs::{JobEnd, RouteSetup},
    observe::{NodeOverview, born_unrouted},
    operator::OperatedRoute,
    reload::{ConfigFile, ReloadReason, ReloadRequests, ReloadStatus},
    routes::LiveRoutes,
    task_of_route,
};
use crate::{
    config::{Config, ServerConfig},
    ingress,
    job::EventRouting,
    sink::CertificateWatch,
    spool::Spool,
};

/// What runs, and can be changed while it does.
pub(super) struct LiveNode {
    /// What the process was started with.
    pub started: Config,
    /// What runs.
    pub config: Config,
    /// Where the next one comes from; `None`: there is none.
    pub file: Option<ConfigFile>,
    pub routes: LiveRoutes,
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

impl LiveNode {
    /// Applies what it is asked to, until a part of it ends, which is a bug; returns its name. Cancel-safe, if nothing
    /// is to go on after it.
    pub async fn serve(&mut self, reloads: &mut ReloadRequests) -> String {
        loop {
            tokio::select! {
                biased;
                ended = self.routes.jobs.ended() => match ended {
                    JobEnd::Published(route) => {
                        self.routes.forget(&route);
                        self.show();
                    }
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
        descriptors::log_lowered(&next, shares);
        let settings = changes::settings(&self.config, &next);
        let endpoints = NamedChanges::between(changes::endpoints(&self.config), changes::endpoints(&next));
        let opened = block_in_place(|| self.endpoints.open_anew(&next.endpoints, &self.routes.metrics.ingress))?;
        let prepared = block_in_place(|| self.routes.prepare(&next))?;

        // From here on it happens.
        self.counting.stop();
        let deadline = Instant::now() + next.server.shutdown_deadline;
        let routes = self.routes.change(prepared, &next, deadline).await?;
        self.counting.restart(&self.routes.routing, &self.routes.spool);
        self.endpoints.replace(opened);
        born_unrouted(&next, &self.routes.metrics.jobs);
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

    /// Has `/status` and the metrics show what runs.
    fn show(&self) {
        let order = self.config.routes.iter().chain(&self.config.unrouted);
        let running = order.filter_map(|route| self.routes.jobs.get(&route.name));
        self.overview.show(
            running.map(|job| job.status.clone()).collect(),
            self.routes.jobs.ending().map(|job| job.status.clone()).collect(),
            self.endpoints.shown(),
        );
        self.overview
            .operator
            .show(RouteSetup::of_all(&self.config).into_iter().map(|setup| OperatedRoute {
                status: self.routes.jobs.get(setup.name()).map(|job| job.status.clone()),
                setup,
            }));
    }
}
