//! Sends the plan: lanes side by side, in each one webhook after the other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Client, Url, header::CONTENT_TYPE, redirect};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, sleep_until},
};

use super::{
    plan::{SendContent, SendPlan, SendStep},
    report::{SendReport, SendTally},
};
use crate::{
    cli::{CommandFailure, stopped},
    senders::{Secret, Sender},
};

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);
/// Webhooks that wait for their lane.
const LANE_STEPS_MAX: usize = 256;
/// Without a single answer, so many failures mean that nobody is there.
const FAILURES_MAX: u64 = 20;

pub struct SendTarget {
    pub sender: &'static dyn Sender,
    pub url: Url,
    pub secret: Secret,
}

pub struct SendPace {
    /// Webhooks under way at once.
    pub lanes: usize,
    /// Webhooks a second; `None`: each as soon as its lane is free.
    pub rate: Option<f64>,
}

/// A webhook on its way to its lane, and when it was due, on a schedule.
type DueStep = (SendStep, Option<Instant>);

/// Sends all of `plan`. Ctrl-C ends it after the webhooks under way; a second one does not wait for them.
pub async fn send(target: SendTarget, plan: SendPlan, pace: SendPace) -> Result<SendReport, CommandFailure> {
    let client = Client::builder()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_DEADLINE)
        .timeout(ANSWER_DEADLINE)
        .pool_max_idle_per_host(pace.lanes)
        .tcp_nodelay(true)
        .user_agent(concat!("forebay-send/", env!("CARGO_PKG_VERSION")))
        // The provider's requests come directly; a proxy for the way out is another one's.
        .no_proxy()
        .build()
        .map_err(|error| CommandFailure::unavailable(format!("failed to set up HTTP: {error}")))?;
    let shared = Arc::new(SendShared {
        client,
        target,
        content: plan.content(),
        progress: progress(plan.len()),
        failures: AtomicU64::new(0),
        is_answered: AtomicBool::new(false),
        is_stopped: AtomicBool::new(false),
    });

    // From the first request on a signal is heard.
    let mut stop = Box::pin(stopped());
    let mut tasks = JoinSet::new();
    let lanes: Vec<mpsc::Sender<DueStep>> = (0..pace.lanes)
        .map(|_| {
            let (sender, turns) = mpsc::channel(LANE_STEPS_MAX);
            tasks.spawn(lane(Arc::clone(&shared), turns));
            sender
        })
        .collect();

    let started = Instant::now();
    tokio::select! {
        () = hand_out(plan, &pace, started, &lanes, &shared) => {}
        () = &mut stop => shared.is_stopped.store(true, Ordering::Relaxed),
    }
    drop(lanes);
    let mut total = SendTally::default();
    loop {
        let tally = tokio::select! {
            tally = tasks.join_next() => tally,
            // Those that still wait for an answer are given up.
            () = stopped(), if shared.is_stopped.load(Ordering::Relaxed) => None,
        };
        let Some(tally) = tally else { break };
        total.add(tally.map_err(|error| CommandFailure::bug(format!("a lane: {error}")))?);
    }
    shared.progress.finish_and_clear();
    Ok(SendReport::new(shared.target.url.clone(), total, started.elapsed()))
}

/// What the lanes share.
struct SendShared {
    client: Client,
    target: SendTarget,
    content: SendContent,
    progress: ProgressBar,
    failures: AtomicU64,
    is_answered: AtomicBool,
    is_stopped: AtomicBool,
}

impl SendShared {
    /// Nothing more is sent: Ctrl-C, or nobody is there.
    fn is_over(&self) -> bool {
        let is_unanswered = !self.is_answered.load(Ordering::Relaxed);
        let is_nobody_there = is_unanswered && self.failures.load(Ordering::Relaxed) >= FAILURES_MAX;
        is_nobody_there || self.is_stopped.load(Ordering::Relaxed)
    }
}

/// Gives each webhook to its stream's lane, on schedule.
async fn hand_out(
    plan: SendPlan,
    pace: &SendPace,
    started: Instant,
    lanes: &[mpsc::Sender<DueStep>],
    shared: &SendShared,
) {
    for (place, step) in plan.enumerate() {
        let due = pace
            .rate
            .map(|rate| started + Duration::from_secs_f64(place as f64 / rate));
        if let Some(due) = due
            && due > Instant::now()
        {
            sleep_until(due).await;
        }
        let lane = &lanes[step.stream as usize % lanes.len()];
        if shared.is_over() || lane.send((step, due)).await.is_err() {
            return;
        }
    }
}

async fn lane(shared: Arc<SendShared>, mut turns: mpsc::Receiver<DueStep>) -> SendTally {
    let mut tally = SendTally::default();
    while let Some((step, due)) = turns.recv().await {
        if shared.is_over() {
            break;
        }
        let sample = shared.content.sample(step);
        let mut request = shared
            .client
            .post(shared.target.url.clone())
            .header(CONTENT_TYPE, sample.content_type);
        let SendTarget { sender, secret, .. } = &shared.target;
        let signed = sender.sign(secret, &sample.body);
        for (name, value) in sample.headers.into_iter().chain(signed) {
            request = request.header(name, value);
        }
        let started = due.unwrap_or_else(Instant::now);
        match answer(request.body(sample.body)).await {
            Ok(status) => {
                shared.is_answered.store(true, Ordering::Relaxed);
                tally.answered(status, started.elapsed(), step.is_duplicate);
            }
            Err(error) => {
                shared.failures.fetch_add(1, Ordering::Relaxed);
                tally.failed(class(&error), step.is_duplicate);
            }
        }
        shared.progress.inc(1);
    }
    tally
}

/// The status, once the whole answer was read: only so the connection can be used again.
async fn answer(request: reqwest::RequestBuilder) -> reqwest::Result<u16> {
    let response = request.send().await?;
    let status = response.status().as_u16();
    response.bytes().await?;
    Ok(status)
}

fn class(error: &reqwest::Error) -> &'static str {
    if error.is_connect() {
        "not connected"
    } else if error.is_timeout() {
        "no answer in 30 s"
    } else {
        "connection broken"
    }
}

/// On stderr, and only when that is a terminal.
fn progress(webhooks: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {pos}/{len} webhooks, {per_sec}, {eta} left")
        .expect("the template is a constant");
    ProgressBar::new(webhooks).with_style(style)
}
