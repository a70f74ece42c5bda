//! What a replay, or a redrive, is asked for: all that can be refused about it, before it starts.

use serde_json::{Value, json};

use super::{
    NodeOperator, disk,
    letters::{selected, unreadable},
    now_ms,
    record::{OperatorJobKind, OperatorJobRecord, OperatorJobState},
    shown,
};
use crate::{
    api::{OperatorCaller, OperatorRefusal, RefusalReason, RepublishRequest},
    job::{RepublishCounts, RepublishSource, count_selected},
    node::jobs::RouteSetup,
    sink::BoxedSink,
    spool::{Cursor, Spool},
};

/// A job that can start.
pub(super) struct PreparedJob {
    pub setup: RouteSetup,
    pub sink: BoxedSink,
    pub log: JobLog,
}

/// Where a job reads, and what is settled by it.
pub(super) struct JobLog {
    pub log: Spool,
    pub source: RepublishSource,
    pub cursor: Cursor,
}

impl NodeOperator {
    /// Publishes dead letters again.
    pub(super) async fn redrive(
        &self,
        request: RepublishRequest,
        caller: OperatorCaller,
    ) -> Result<Value, OperatorRefusal> {
        selected(&request)?;
        let (mut chosen, mut to_start, mut left_out) = (0, Vec::new(), Vec::new());
        for route in self.letter_routes(request.route.as_deref())? {
            let counted = self.shared.dead_letters.count(&route, &request.selection).await;
            let counted = counted.map_err(unreadable)?;
            if counted == 0 {
                continue;
            }
            match self.published_by(&route, request.through.as_deref()) {
                Ok(_) => {
                    chosen += counted;
                    to_start.push(route);
                }
                // Of all routes those that have somewhere to publish to; of one that was named it is an error.
                Err(refusal) if request.route.is_none() && request.through.is_none() => {
                    left_out.push(json!({ "route": route, "dead_letters": counted, "text": refusal.text }));
                }
                Err(refusal) => return Err(refusal),
            }
        }
        let mut started = Vec::new();
        if !request.dry_run {
            to_start
                .iter()
                .try_for_each(|route| self.shared.jobs.refuse_second_redrive(route))?;
            for route in to_start {
                let reading = self.shared.dead_letters.read(&route, 0).await.map_err(unreadable)?;
                let last = reading.map_or(0, |reading| reading.last());
                let record = self.record(OperatorJobKind::Redrive, &route, &request, caller, last);
                started.push(self.begin(record).await?);
            }
        }
        Ok(json!({ "chosen": chosen, "dry_run": request.dry_run, "jobs": started, "left_out": left_out }))
    }

    /// Publishes events again that are retained.
    pub(super) async fn replay(
        &self,
        request: RepublishRequest,
        caller: OperatorCaller,
    ) -> Result<Value, OperatorRefusal> {
        let Some(route) = request.route.as_deref() else {
            return Err(OperatorRefusal::new(
                RefusalReason::Malformed,
                "route: a replay names the route",
            ));
        };
        if request.through.is_some() {
            let text = "through: a replay goes through the route that it names";
            return Err(OperatorRefusal::new(RefusalReason::Malformed, text));
        }
        selected(&request)?;
        self.published_by(route, None)?;
        let last = self.shared.spool.state().head;
        if request.dry_run {
            let chosen = self.count_retained(route, &request, last).await?;
            return Ok(json!({ "chosen": chosen, "dry_run": true, "jobs": [] }));
        }
        let record = self.record(OperatorJobKind::Replay, route, &request, caller, last);
        let started = self.begin(record).await?;
        Ok(json!({ "dry_run": false, "jobs": [started] }))
    }

    /// The setup by which something of a route is published.
    fn published_by(&self, route: &str, through: Option<&str>) -> Result<RouteSetup, OperatorRefusal> {
        let setup = self.route(through.unwrap_or(route))?.setup;
        match setup.has_sink() {
            true => Ok(setup),
            false => Err(OperatorRefusal::new(
                RefusalReason::NoSink,
                format!(
                    "route {:?} has no sink: say through which route (--through NAME)",
                    setup.name()
                ),
            )),
        }
    }

    async fn count_retained(&self, route: &str, request: &RepublishRequest, last: u64) -> Result<u64, OperatorRefusal> {
        let setup = self.route(route)?.setup;
        let counting = count_selected(&self.shared.spool, &setup.route.matches, &request.selection, last);
        counting
            .await
            .map_err(|error| disk(format!("the spool cannot be read: {error}")))
    }

    fn record(
        &self,
        kind: OperatorJobKind,
        route: &str,
        request: &RepublishRequest,
        caller: OperatorCaller,
        last: u64,
    ) -> OperatorJobRecord {
        OperatorJobRecord {
            id: self.shared.jobs.name(kind),
            kind,
            route: route.to_owned(),
            selection: request.selection.clone(),
            to_topic: request.to_topic.clone(),
            through: request.through.clone(),
            rate: request.rate,
            ends_with_process: request.ends_with_process,
            state: OperatorJobState::Running,
            uid: caller.uid,
            started_ms: now_ms(),
            ended_ms: None,
            position: 0,
            last,
            counts: RepublishCounts::default(),
            text: None,
        }
    }

    /// Starts a job, once it is kept.
    async fn begin(&self, record: OperatorJobRecord) -> Result<Value, OperatorRefusal> {
        self.shared.jobs.refuse_too_many()?;
        let setup = self.prepare(&record).await?;
        let kept = record.keep(&self.shared.dir);
        kept.map_err(|error| disk(format!("the job cannot be kept: {error}")))?;
        tracing::warn!(
            route = record.route,
            uid = record.uid,
            job = record.id,
            "an operator has started a {}",
            record.kind.label()
        );
        let id = record.id.clone();
        self.start(record, setup);
        shown(self.shared.jobs.show(&id)?)
    }

    /// All that can be refused about a job.
    pub(super) async fn prepare(&self, record: &OperatorJobRecord) -> Result<PreparedJob, OperatorRefusal> {
        let mut setup = self.published_by(&record.route, record.through.as_deref())?;
        // What comes again was in order, or its order is lost.
        setup.route.reorder_window = None;
        setup.route.backlog = Default::default();
        if let (Some(topic), Some(address)) = (&record.to_topic, &setup.route.address) {
            let address = address.with_topic(topic);
            setup.route.address = Some(
                address
                    .map_err(|text| OperatorRefusal::new(RefusalReason::NoSuchTopic, format!("to_topic: {text}")))?,
            );
        }
        let sink = self.shared.maker.sink(&setup);
        let sink = sink.map_err(|error| OperatorRefusal::new(RefusalReason::NoSink, error.to_string()))?;
        // A dead letter that is refused again is one of the same route.
        setup.route.name.clone_from(&record.route);
        let log = match record.kind {
            OperatorJobKind::Replay => {
                let spool = &self.shared.spool;
                JobLog {
                    log: spool.clone(),
                    source: RepublishSource::Events,
                    cursor: spool.detached_cursor(record.position),
                }
            }
            OperatorJobKind::Redrive => {
                let found = self.shared.dead_letters.gone(&record.route).await;
                let found = found.map_err(|error| unreadable(error.into()))?;
                let Some((log, gone)) = found else {
                    let text = format!("route {:?} has no dead letters", record.route);
                    return Err(OperatorRefusal::new(RefusalReason::UnknownLetter, text));
                };
                let cursor = log.detached_cursor(gone.position());
                gone.settled().into_iter().for_each(|numbers| cursor.settle(numbers));
                JobLog {
                    log,
                    source: RepublishSource::DeadLetters(gone),
                    cursor,
                }
            }
        };
        Ok(PreparedJob { setup, sink, log })
    }
}
