//! What an operator does to a node: routes are paused, dead letters shown, redriven and discarded, what is retained is
//! replayed. Each change is a line in the log, with who made it.

mod jobs;
mod letters;
mod pauses;
mod record;
mod requests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::RwLock;
use serde_json::{Value, json};

use self::jobs::OperatorJobs;
pub(super) use self::{
    jobs::RUNNING_JOBS_MAX,
    pauses::{RoutePause, RoutePauses},
    record::ShownJob,
};
use super::{
    jobs::{JobMaker, RouteSetup},
    metrics::OperatorMetrics,
    routes::LiveRoutes,
};
use crate::{
    api::{OperatorAnswer, OperatorCaller, OperatorCommand, OperatorRefusal, OperatorService, RefusalReason},
    job::{DeadLetters, RouteStatus},
    spool::Spool,
};

/// What runs of a route.
#[derive(Clone)]
pub(super) struct OperatedRoute {
    pub setup: RouteSetup,
    /// `None`: nothing runs.
    pub status: Option<RouteStatus>,
}

/// Answers what an operator asks. Clones share it.
#[derive(Clone)]
pub(super) struct NodeOperator {
    shared: Arc<OperatorParts>,
}

struct OperatorParts {
    dir: PathBuf,
    spool: Spool,
    dead_letters: DeadLetters,
    maker: Arc<JobMaker>,
    metrics: Arc<OperatorMetrics>,
    pauses: RoutePauses,
    routes: RwLock<BTreeMap<String, OperatedRoute>>,
    jobs: OperatorJobs,
}

impl NodeOperator {
    /// Must be called within the runtime that is to run its jobs.
    ///
    /// # Errors
    ///
    /// The jobs that were under way cannot be read.
    pub fn open(dir: &Path, routes: &LiveRoutes) -> std::io::Result<Self> {
        let shared = OperatorParts {
            jobs: OperatorJobs::read(dir)?,
            dir: dir.to_owned(),
            spool: routes.spool.clone(),
            dead_letters: routes.dead_letters.clone(),
            maker: routes.maker.clone(),
            metrics: routes.metrics.operator.clone(),
            pauses: routes.pauses.clone(),
            routes: RwLock::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// These are the routes from here on.
    pub fn show(&self, routes: impl IntoIterator<Item = OperatedRoute>) {
        let routes: BTreeMap<String, OperatedRoute> = routes
            .into_iter()
            .map(|route| (route.setup.name().to_owned(), route))
            .collect();
        // They are counted from 0 on.
        for route in routes.keys() {
            self.shared.metrics.redriven.with_label_values(&[route]).inc_by(0);
            self.shared.metrics.replayed.with_label_values(&[route]).inc_by(0);
        }
        *self.shared.routes.write() = routes;
    }

    /// Brings its gauges up to date.
    pub fn collect(&self) {
        for route in self.shared.routes.read().keys() {
            let is_paused = self.shared.pauses.get(route).is_some();
            let gauge = self.shared.metrics.route_paused.with_label_values(&[route]);
            gauge.set(i64::from(is_paused));
        }
    }

    /// Its jobs, the oldest first.
    pub fn jobs(&self) -> Vec<ShownJob> {
        self.shared.jobs.shown()
    }

    pub fn pause_of(&self, route: &str) -> Option<RoutePause> {
        self.shared.pauses.get(route)
    }

    fn route(&self, name: &str) -> Result<OperatedRoute, OperatorRefusal> {
        let routes = self.shared.routes.read();
        routes.get(name).cloned().ok_or_else(|| {
            let known: Vec<&str> = routes.keys().map(String::as_str).collect();
            let text = format!("there is no route {name:?}; there are: {}", known.join(", "));
            OperatorRefusal::new(RefusalReason::UnknownRoute, text)
        })
    }

    fn routes(&self) -> Value {
        let routes = self.shared.routes.read();
        let shown = routes.iter().map(|(name, route)| {
            let snapshot = route.status.as_ref().map(RouteStatus::snapshot);
            json!({
                "name": name,
                "paused": self.shared.pauses.get(name),
                "sink": route.setup.route.sink,
                "backlog_records": snapshot.as_ref().map(|snapshot| snapshot.backlog_records),
                "oldest_seconds": snapshot.as_ref().map(|snapshot| snapshot.oldest_seconds),
                "blocked": snapshot.as_ref().and_then(|snapshot| snapshot.blocked.as_ref()),
            })
        });
        json!({ "routes": shown.collect::<Vec<_>>() })
    }

    fn pause(&self, name: &str, is_paused: bool, caller: OperatorCaller) -> Result<Value, OperatorRefusal> {
        self.route(name)?;
        let pause = RoutePause {
            since_ms: now_ms(),
            uid: caller.uid,
        };
        let changed = match is_paused {
            true => self.shared.pauses.pause(name, pause),
            false => self.shared.pauses.resume(name),
        };
        let changed = changed.map_err(|error| disk(format!("it cannot be kept which routes are paused: {error}")))?;
        if changed {
            let done = if is_paused { "paused" } else { "resumed" };
            tracing::warn!(route = name, uid = caller.uid, "an operator has {done} the route");
        }
        Ok(json!({ "name": name, "paused": self.shared.pauses.get(name), "changed": changed }))
    }

    async fn carry_out(&self, command: OperatorCommand, caller: OperatorCaller) -> Result<Value, OperatorRefusal> {
        match command {
            OperatorCommand::Routes => Ok(self.routes()),
            OperatorCommand::PauseRoute(name) => self.pause(&name, true, caller),
            OperatorCommand::ResumeRoute(name) => self.pause(&name, false, caller),
            OperatorCommand::Jobs => Ok(json!({ "jobs": self.shared.jobs.shown() })),
            OperatorCommand::ShowJob(id) => shown(self.shared.jobs.show(&id)?),
            OperatorCommand::PauseJob(id) => shown(self.pause_job(&id, true, caller)?),
            OperatorCommand::ResumeJob(id) => shown(self.pause_job(&id, false, caller)?),
            OperatorCommand::CancelJob(id) => shown(self.cancel_job(&id, caller).await?),
            OperatorCommand::Letters(page) => self.letters(page).await,
            OperatorCommand::ShowLetter { route, number } => self.letter(&route, number).await,
            OperatorCommand::Redrive(request) => self.redrive(request, caller).await,
            OperatorCommand::Discard(request) => self.discard(request, caller).await,
            OperatorCommand::Replay(request) => self.replay(request, caller).await,
        }
    }
}

impl OperatorService for NodeOperator {
    fn call(&self, command: OperatorCommand, caller: OperatorCaller) -> OperatorAnswer<'_> {
        Box::pin(self.carry_out(command, caller))
    }
}

fn shown(job: record::ShownJob) -> Result<Value, OperatorRefusal> {
    Ok(serde_json::to_value(job).expect("texts and numbers always serialize"))
}

fn disk(text: String) -> OperatorRefusal {
    OperatorRefusal::new(RefusalReason::Disk, text)
}

/// Milliseconds since the Unix epoch.
fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
