//! Replays and redrives: started, shown, paused, cancelled, and taken up again after a restart.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::{
    NodeOperator, now_ms,
    record::{OperatorJobKind, OperatorJobRecord, OperatorJobState, ShownJob},
    requests::PreparedJob,
};
use crate::{
    api::{OperatorCaller, OperatorRefusal, RefusalReason},
    job::{JobMetrics, JobUntil, RepublishCounts, RepublishProgress, Republishing, RouteStatus},
    telemetry::Metrics,
};

/// Each has a client of the broker of its own, for which descriptors are set aside.
pub(in crate::node) const RUNNING_JOBS_MAX: usize = 4;
/// Jobs that have ended and are still shown.
const ENDED_MAX: usize = 100;
/// How often it is kept how far a job is, and counted.
const KEPT_INTERVAL: Duration = Duration::from_millis(500);
/// What a job that is cancelled has in flight may settle within this.
const CANCEL_DEADLINE: Duration = Duration::from_secs(5);

/// The jobs of operators.
pub(super) struct OperatorJobs {
    /// The one that a job must outlive its caller on.
    runtime: Handle,
    jobs: Mutex<BTreeMap<String, OperatorJob>>,
    is_stopping: AtomicBool,
}

struct OperatorJob {
    record: OperatorJobRecord,
    running: Option<RunningJob>,
}

/// A job that has not ended.
struct RunningJob {
    progress: Arc<RepublishProgress>,
    status: RouteStatus,
    pause: watch::Sender<bool>,
    stop: watch::Sender<Option<Instant>>,
    /// It was told to stop by an operator.
    is_cancelled: bool,
    task: Option<JoinHandle<()>>,
}

impl OperatorJob {
    /// As it is now, also where that is not counted yet.
    fn shown(&self) -> ShownJob {
        let mut record = self.record.clone();
        let running = self.running.as_ref();
        record.counts = running.map_or(record.counts, |running| running.progress.counts());
        ShownJob {
            record,
            blocked: running.and_then(|running| running.status.snapshot().blocked),
        }
    }

    /// Takes over how far it is; returns what came since.
    fn update(&mut self) -> RepublishCounts {
        let Some(running) = &self.running else {
            return RepublishCounts::default();
        };
        let (before, now) = (self.record.counts, running.progress.counts());
        self.record.counts = now;
        self.record.position = self.record.position.max(running.progress.read());
        RepublishCounts {
            chosen: now.chosen.saturating_sub(before.chosen),
            published: now.published.saturating_sub(before.published),
            failed: now.failed.saturating_sub(before.failed),
        }
    }
}

impl OperatorJobs {
    /// Those that were kept in a spool's directory. None runs yet.
    pub fn read(dir: &Path) -> io::Result<Self> {
        let records = OperatorJobRecord::read_all(dir)?.into_iter();
        let jobs = records.map(|record| (record.id.clone(), OperatorJob { record, running: None }));
        Ok(Self {
            runtime: Handle::current(),
            jobs: Mutex::new(jobs.collect()),
            is_stopping: AtomicBool::new(false),
        })
    }

    /// All, the oldest first.
    pub fn shown(&self) -> Vec<ShownJob> {
        let mut shown: Vec<ShownJob> = self.jobs.lock().values().map(OperatorJob::shown).collect();
        shown.sort_by_key(|job| job.record.started_ms);
        shown
    }

    pub fn show(&self, id: &str) -> Result<ShownJob, OperatorRefusal> {
        let all = self.shown().into_iter();
        let mut found = all.filter(|job| job.record.id == id);
        found.next().ok_or_else(|| unknown(id))
    }

    /// One job at a time decides what becomes of a route's dead letters.
    pub fn refuse_second_redrive(&self, route: &str) -> Result<(), OperatorRefusal> {
        let jobs = self.jobs.lock();
        let runs = |job: &&OperatorJob| {
            let OperatorJobRecord { kind, state, .. } = job.record;
            kind == OperatorJobKind::Redrive && !state.has_ended() && job.record.route == route
        };
        match jobs.values().find(runs) {
            None => Ok(()),
            Some(job) => Err(OperatorRefusal::new(
                RefusalReason::JobRuns,
                format!(
                    "{} redrives dead letters of route {route:?}: wait for it, or cancel it",
                    job.record.id
                ),
            )),
        }
    }

    pub(super) fn refuse_too_many(&self) -> Result<(), OperatorRefusal> {
        if self.is_stopping.load(Ordering::Acquire) {
            return Err(OperatorRefusal::new(RefusalReason::Stopping, "the process is stopping"));
        }
        let jobs = self.jobs.lock();
        match jobs.values().filter(|job| !job.record.state.has_ended()).count() < RUNNING_JOBS_MAX {
            true => Ok(()),
            false => Err(OperatorRefusal::new(
                RefusalReason::TooManyJobs,
                format!("{RUNNING_JOBS_MAX} jobs run, which is the most: wait for one, or cancel one"),
            )),
        }
    }

    /// A name that no job has.
    pub(super) fn name(&self, kind: OperatorJobKind) -> String {
        let jobs = self.jobs.lock();
        let stamp = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ").to_string();
        let base = format!("{}-{stamp}", kind.label());
        let mut names = std::iter::once(base.clone()).chain((2..).map(|n: u32| format!("{base}-{n}")));
        names
            .find(|name| !jobs.contains_key(name))
            .expect("there are more names than jobs")
    }
}

fn unknown(id: &str) -> OperatorRefusal {
    OperatorRefusal::new(
        RefusalReason::UnknownJob,
        format!("there is no job {id:?}: see `forebay jobs list`"),
    )
}

impl NodeOperator {
    /// Takes up the jobs that were under way when the process before ended.
    pub(in crate::node) async fn resume_jobs(&self) {
        let records: Vec<OperatorJobRecord> = {
            let jobs = self.shared.jobs.jobs.lock();
            let left = jobs.values().filter(|job| !job.record.state.has_ended());
            left.map(|job| job.record.clone()).collect()
        };
        for record in records {
            if record.ends_with_process {
                self.cut_short(record, "the process ended before it".to_owned());
                continue;
            }
            match self.prepare(&record).await {
                Ok(setup) => {
                    tracing::info!(
                        job = record.id,
                        route = record.route,
                        "a job that was under way goes on"
                    );
                    self.start(record, setup);
                }
                Err(refusal) => self.cut_short(record, refusal.text),
            }
        }
    }

    fn cut_short(&self, mut record: OperatorJobRecord, text: String) {
        tracing::warn!(job = record.id, route = record.route, "a job was cut short: {text}");
        record.state = OperatorJobState::CutShort;
        record.ended_ms = Some(now_ms());
        record.text = Some(text);
        self.keep(&record);
        let mut jobs = self.shared.jobs.jobs.lock();
        jobs.insert(record.id.clone(), OperatorJob { record, running: None });
    }

    fn keep(&self, record: &OperatorJobRecord) {
        if let Err(error) = record.keep(&self.shared.dir) {
            tracing::warn!(job = record.id, %error, "how far the job is cannot be kept: after a restart it repeats more");
        }
    }

    pub(super) fn start(&self, record: OperatorJobRecord, PreparedJob { setup, sink, log }: PreparedJob) {
        let progress = Arc::new(RepublishProgress::from_counts(record.counts));
        // What it counts is the job's, and not the route's.
        let metrics = JobMetrics::register(&Metrics::new());
        let job = self.shared.maker.job_over(&setup, sink, log.cursor, log.log, metrics);
        let (pause, pause_signal) = watch::channel(record.state == OperatorJobState::Paused);
        let (stop, stop_signal) = watch::channel(None);
        let job = job
            .republishing(Republishing {
                selection: record.selection.clone(),
                source: log.source,
                rate: record.rate,
                progress: progress.clone(),
            })
            .pausable(pause_signal)
            .until(JobUntil::Number(record.last));
        let id = record.id.clone();
        let mut running = RunningJob {
            progress,
            status: job.status(),
            pause,
            stop,
            is_cancelled: false,
            task: None,
        };
        let mut jobs = self.shared.jobs.jobs.lock();
        let (operator, of_task) = (self.clone(), id.clone());
        running.task = Some(self.shared.jobs.runtime.spawn(async move {
            let mut publishing = tokio::spawn(job.run(stop_signal));
            let ended = loop {
                tokio::select! {
                    ended = &mut publishing => break ended,
                    () = sleep(KEPT_INTERVAL) => operator.note(&of_task),
                }
            };
            operator.end(&of_task, ended.is_err()).await;
        }));
        jobs.insert(
            id,
            OperatorJob {
                record,
                running: Some(running),
            },
        );
    }

    /// Counts what a job has done, and keeps how far it is.
    fn note(&self, id: &str) {
        let record = {
            let mut jobs = self.shared.jobs.jobs.lock();
            let Some(job) = jobs.get_mut(id) else { return };
            let before = job.record.clone();
            let since = job.update();
            self.count(&job.record, since);
            (job.record != before).then(|| job.record.clone())
        };
        if let Some(record) = record {
            self.keep(&record);
        }
    }

    fn count(&self, record: &OperatorJobRecord, since: RepublishCounts) {
        let metrics = &self.shared.metrics;
        let of_route = match record.kind {
            OperatorJobKind::Replay => &metrics.replayed,
            OperatorJobKind::Redrive => &metrics.redriven,
        };
        of_route.with_label_values(&[&record.route]).inc_by(since.published);
        for (outcome, records) in [
            ("chosen", since.chosen),
            ("published", since.published),
            ("failed", since.failed),
        ] {
            metrics
                .job_records
                .with_label_values(&[record.kind.label(), outcome])
                .inc_by(records);
        }
    }

    /// A job has ended: by itself, because an operator or the process stopped it, or by a panic.
    async fn end(&self, id: &str, has_panicked: bool) {
        let is_redrive = {
            let jobs = self.shared.jobs.jobs.lock();
            let route =
                |job: &OperatorJob| (job.record.kind == OperatorJobKind::Redrive).then(|| job.record.route.clone());
            jobs.get(id).and_then(route)
        };
        if let Some(route) = is_redrive
            && let Err(error) = self.shared.dead_letters.keep_gone(&route).await
        {
            tracing::warn!(route, %error, "the room of dead letters that were redriven is given back later, and they may be redriven again");
        }
        let record = {
            let mut jobs = self.shared.jobs.jobs.lock();
            let Some(job) = jobs.get_mut(id) else { return };
            let since = job.update();
            self.count(&job.record, since);
            let Some(running) = job.running.take() else { return };
            let is_over = job.record.position >= job.record.last;
            job.record.state = match (running.is_cancelled, has_panicked, is_over) {
                (true, ..) => OperatorJobState::Cancelled,
                (_, true, _) => OperatorJobState::CutShort,
                (_, _, true) => OperatorJobState::Done,
                // The process stops; it goes on with the next one.
                _ => {
                    self.keep(&job.record);
                    return;
                }
            };
            job.record.text = has_panicked.then(|| "it panicked, which is a bug".to_owned());
            job.record.ended_ms = Some(now_ms());
            job.record.clone()
        };
        self.keep(&record);
        let RepublishCounts {
            chosen,
            published,
            failed,
        } = record.counts;
        tracing::info!(
            job = record.id,
            route = record.route,
            chosen,
            published,
            failed,
            "the {} has ended",
            record.kind.label()
        );
        self.forget_old();
    }

    fn forget_old(&self) {
        let mut jobs = self.shared.jobs.jobs.lock();
        let mut ended: Vec<_> = jobs
            .values()
            .filter(|job| job.record.state.has_ended())
            .map(|job| (job.record.ended_ms, job.record.id.clone()))
            .collect();
        ended.sort_unstable();
        let excess = ended.len().saturating_sub(ENDED_MAX);
        for (_, id) in ended.drain(..excess) {
            if let Some(job) = jobs.remove(&id) {
                job.record.forget(&self.shared.dir);
            }
        }
    }

    pub(super) fn pause_job(
        &self,
        id: &str,
        is_paused: bool,
        caller: OperatorCaller,
    ) -> Result<ShownJob, OperatorRefusal> {
        let (record, shown) = {
            let mut jobs = self.shared.jobs.jobs.lock();
            let job = jobs.get_mut(id).ok_or_else(|| unknown(id))?;
            let running = job.running.as_ref().ok_or_else(|| has_ended(id))?;
            running.pause.send_replace(is_paused);
            job.record.state = match is_paused {
                true => OperatorJobState::Paused,
                false => OperatorJobState::Running,
            };
            (job.record.clone(), job.shown())
        };
        self.keep(&record);
        let done = if is_paused { "paused" } else { "resumed" };
        tracing::warn!(job = id, uid = caller.uid, "an operator has {done} the job");
        Ok(shown)
    }

    pub(super) async fn cancel_job(&self, id: &str, caller: OperatorCaller) -> Result<ShownJob, OperatorRefusal> {
        let task = {
            let mut jobs = self.shared.jobs.jobs.lock();
            let job = jobs.get_mut(id).ok_or_else(|| unknown(id))?;
            if job.running.is_none() && !job.record.state.has_ended() {
                // It was to go on with the next process.
                job.record.state = OperatorJobState::Cancelled;
                job.record.ended_ms = Some(now_ms());
                self.keep(&job.record);
                return Ok(job.shown());
            }
            let running = job.running.as_mut().ok_or_else(|| has_ended(id))?;
            running.is_cancelled = true;
            running.stop.send_replace(Some(Instant::now() + CANCEL_DEADLINE));
            running.task.take()
        };
        tracing::warn!(job = id, uid = caller.uid, "an operator has cancelled the job");
        if let Some(task) = task {
            // One that panicked has ended too.
            let _ = task.await;
        }
        self.shared.jobs.show(id)
    }

    /// Stops all jobs: what they have in flight may settle until the deadline. They go on with the next process.
    pub(in crate::node) async fn stop(&self, deadline: Instant) {
        self.shared.jobs.is_stopping.store(true, Ordering::Release);
        let tasks: Vec<_> = {
            let mut jobs = self.shared.jobs.jobs.lock();
            let running = jobs.values_mut().filter_map(|job| job.running.as_mut());
            running
                .filter_map(|running| {
                    running.stop.send_replace(Some(deadline));
                    running.task.take()
                })
                .collect()
        };
        futures_util::future::join_all(tasks).await;
    }
}

fn has_ended(id: &str) -> OperatorRefusal {
    OperatorRefusal::new(RefusalReason::JobEnded, format!("the job {id:?} has ended"))
}
