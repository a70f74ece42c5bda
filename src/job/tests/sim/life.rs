//! One life of the process: logs, routes and a sender on one thread, in one task, in an order that the seed decides.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::poll_fn,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, Sleep, sleep},
};

use super::{
    sink::SimulatedSink,
    weather::Sky,
    world::{Pinned, Settlement, World},
};
use crate::{
    config::RouteConfig,
    event::Event,
    job::JobMetrics,
    job::{DeadLetters, EventRouting, Job, RouteStatus, backoff::SessionBackoff},
    spool::{
        AppendError, AppendReplies, Audience, Cursor, CursorStart, LogOptions, OpenError, RecordClass, Spool,
        testing::{
            disk::FakeDisk,
            stepped::{StepPlace, SteppedLog},
        },
    },
};

/// Events that are sent in one life.
const EVENTS_MAX: usize = 200;
/// After an append that was refused.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// No life has more.
const NUMBERS_PER_MS: u64 = 1000;
const TICK: Duration = Duration::from_millis(500);
/// Beyond the deadline of a stop: what is on its way to the dead letters is finished.
const STOP_SLACK: Duration = Duration::from_secs(1);

/// How a life is to go.
pub(super) struct Plan {
    pub lasts: Duration,
    pub ending: Ending,
    /// Something new every so often; none: all is well from the start.
    pub weather_ms: Option<u64>,
    /// Bursts come so far apart; none: nobody sends.
    pub sends_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The process is killed, or the power goes: the caller's.
    Cut,
    /// It stops in order, with so much time for what is in flight.
    Stop(Duration),
    /// As `Stop`, once all is settled.
    Settled,
}

/// What the futures of a life share.
pub(super) struct Logs {
    pub log: SteppedLog,
    pub dead: SteppedLog,
    next_dead: u64,
    /// Of each route.
    pub cursors: Vec<Cursor>,
}

impl Logs {
    fn settlements(&self) -> Vec<Settlement> {
        let of = |cursor: &Cursor| (cursor.position(), cursor.settled());
        self.cursors.iter().map(of).collect()
    }

    fn pinned(&self) -> impl Iterator<Item = Pinned> {
        self.cursors.iter().map(|cursor| Pinned {
            bytes: cursor.pinned_bytes(),
            uncounted: cursor.uncounted(),
            refuses: cursor.refuses_above_limit(),
        })
    }

    /// What waits for the disk is written.
    fn append(&mut self, world: &mut World) {
        if self.log.has_work() {
            world.pinned_before = self.pinned().collect();
            self.log.append();
        }
        if self.dead.has_work() {
            self.dead.append();
            world.dead_letters_full |= self.dead.lacks_room();
            let pinned: Vec<u64> = self.cursors.iter().map(Cursor::pinned_bytes).collect();
            for letter in self.dead.newest_from(self.next_dead) {
                self.next_dead = letter.sequence + 1;
                world.bury(&letter.bytes, Some(&pinned));
            }
        }
    }

    fn tick(&mut self, world: &mut World) {
        let (head, settlements) = (self.log.head(), self.settlements());
        let compacted = self.log.keep_cursors();
        if !self.log.is_failed() && self.log.is_written() {
            world.page_knows = world.page_knows.max(head);
            world.made_durable(settlements);
        }
        if compacted > 0 {
            world.note("compacted", 0, compacted as u64);
        }
        self.log.tick();
        self.dead.keep_cursors();
        self.dead.tick();
    }

    /// Where the records of the log stand.
    pub(super) fn places(&self, disk: &FakeDisk) -> Vec<StepPlace> {
        without_faults(disk, || self.log.places())
    }

    fn has_failed(&self) -> bool {
        self.log.is_failed() || self.dead.is_failed()
    }
}

/// Looks at the disk from outside of the simulation.
fn without_faults<T>(disk: &FakeDisk, look: impl FnOnce() -> T) -> T {
    let mut before = None;
    disk.behave(|behaviour| {
        before = Some(*behaviour);
        (behaviour.fault_one_in, behaviour.power_loss_in) = (0, None);
    });
    let found = look();
    disk.behave(|behaviour| *behaviour = before.expect("it was just set"));
    found
}

/// Begins a life; `None` when the disk does not let it.
fn begin(disk: &FakeDisk, world: &Arc<Mutex<World>>) -> Result<Option<(Spool, Spool, Logs)>, String> {
    let options = |of: fn(&World) -> &LogOptions| of(&world.lock()).clone();
    let (mut log_options, dead_options) = (
        options(|world| &world.shape.log),
        options(|world| &world.shape.dead_letters),
    );
    // A life begins its numbers at the clock: the last ones of the life before may be damaged beyond being known.
    log_options.numbers_from = world.lock().now_ms() * NUMBERS_PER_MS + 1;
    // Where there is no room, or the disk has just failed.
    let refused = |error: &OpenError| match error {
        OpenError::Io { .. } => Ok(None),
        error => Err(error.to_string()),
    };
    let alarms = world.lock().alarms.clone();
    let (spool, mut log) = match SteppedLog::open(disk, &log_options, alarms.clone()) {
        Ok(opened) => opened,
        Err(error) => return refused(&error),
    };
    let (dead_spool, dead) = match SteppedLog::open(disk, &dead_options, alarms) {
        Ok(opened) => opened,
        Err(error) => return refused(&error),
    };
    let names: Vec<String> = world
        .lock()
        .shape
        .routes
        .iter()
        .map(|route| route.name.clone())
        .collect();
    let mut cursors = Vec::new();
    for name in names {
        match log.cursor(&name, CursorStart::Oldest) {
            Ok(cursor) => cursors.push(cursor),
            Err(error) => return refused(&error),
        }
    }
    let logs = Logs {
        next_dead: dead.head() + 1,
        log,
        dead,
        cursors,
    };
    let world = &mut *world.lock();
    for record in without_faults(disk, || logs.log.records()) {
        world.find(record.sequence, &record.bytes);
    }
    world.begin(logs.settlements());
    if let Ok(letters) = logs.dead.read_from(1) {
        letters.iter().for_each(|letter| world.bury(&letter.bytes, None));
    }
    Ok(Some((spool, dead_spool, logs)))
}

type Part = Pin<Box<dyn Future<Output = ()>>>;

/// Lives once, and returns where the records of the log are then. `Err`: what must not be.
pub(super) async fn live(
    disk: &FakeDisk,
    world: &Arc<Mutex<World>>,
    metrics: &Arc<JobMetrics>,
    plan: Plan,
) -> Result<Vec<StepPlace>, String> {
    let Some((spool, dead_spool, logs)) = begin(disk, world)? else {
        world.lock().note("not opened", 0, 0);
        return Ok(Vec::new());
    };
    let dead_options = world.lock().shape.dead_letters.clone();
    let routes = world.lock().shape.routes.clone();
    let by_route = routes.iter().map(|route| (route.name.clone(), dead_spool.clone()));
    let dead_letters = DeadLetters::of_logs(
        dead_options,
        by_route.collect::<BTreeMap<_, _>>(),
        world.lock().alarms.clone(),
    );
    let (stop, signal) = watch::channel(None);
    let logs = Rc::new(RefCell::new(logs));
    let (mut jobs, mut statuses) = (Vec::new(), Vec::new());
    for (at, route) in routes.iter().enumerate() {
        let cursor = logs.borrow_mut().log.cursor(&route.name, CursorStart::Oldest);
        let cursor = cursor.map_err(|error| error.to_string())?;
        let world = world.clone();
        let sink = SimulatedSink { world, route: at };
        let (spool, dead_letters, metrics) = (spool.clone(), dead_letters.clone(), metrics.clone());
        let mut job = Job::new(route, "replica-0".into(), sink, cursor, spool, dead_letters, metrics);
        statuses.push(job.status());
        job.backoff = SessionBackoff::without_jitter();
        jobs.push(job);
    }
    let routing = EventRouting::new(jobs.iter().map(Job::subscription).collect());
    let mut parts: Vec<Option<Part>> = Vec::new();
    for job in jobs {
        parts.push(Some(Box::pin(job.run(signal.clone()))));
    }
    let counting = routing.clone().count_found(spool.clone());
    parts.push(Some(Box::pin(async move {
        counting.await;
        std::future::pending().await
    })));
    if let Some(every_ms) = plan.sends_ms {
        let sender = Sender {
            audience_of_all: Audience::from_cursors(&logs.borrow().cursors),
            spool: spool.clone(),
            world: world.clone(),
            routing,
        };
        parts.push(Some(Box::pin(sender.send(every_ms))));
    }
    let dropped_before = dropped(metrics, &routes);
    let sky = Sky {
        disk: disk.clone(),
        world: world.clone(),
        logs: logs.clone(),
    };
    if let Some(every_ms) = plan.weather_ms {
        parts.push(Some(Box::pin(sky.change(every_ms))));
    } else {
        parts.push(Some(Box::pin(sky.clear())));
    }
    let mut life = Life {
        disk,
        world,
        logs,
        statuses,
        parts,
        stop,
        stops_at: None,
        append_at: None,
        tick: Box::pin(sleep(TICK)),
        ends: Box::pin(sleep(plan.lasts)),
        is_failing: false,
        plan,
    };
    poll_fn(|context| life.poll(context)).await?;
    for (at, (after, before)) in dropped(metrics, &routes).into_iter().zip(dropped_before).enumerate() {
        world.lock().require_dropped(at, after - before);
    }
    world.lock().end();
    let places = life.logs.borrow().places(disk);
    world.lock().violation.take().map_or(Ok(places), Err)
}

/// How many events each route has given up.
fn dropped(metrics: &JobMetrics, routes: &[RouteConfig]) -> Vec<u64> {
    let of = |route: &RouteConfig| metrics.backlog_dropped.with_label_values(&[&route.name]).get();
    routes.iter().map(of).collect()
}

struct Life<'a> {
    disk: &'a FakeDisk,
    world: &'a Arc<Mutex<World>>,
    logs: Rc<RefCell<Logs>>,
    /// Of each route.
    statuses: Vec<RouteStatus>,
    /// The routes, and whatever else there is.
    parts: Vec<Option<Part>>,
    stop: watch::Sender<Option<Instant>>,
    /// It was to stop by then.
    stops_at: Option<Instant>,
    append_at: Option<Pin<Box<Sleep>>>,
    tick: Pin<Box<Sleep>>,
    ends: Pin<Box<Sleep>>,
    /// The disk failed.
    is_failing: bool,
    plan: Plan,
}

impl Life<'_> {
    /// Everything that can go on does, in the same order each time.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), String>> {
        for part in &mut self.parts {
            if part.as_mut().is_some_and(|part| part.as_mut().poll(context).is_ready()) {
                *part = None;
            }
        }
        let (logs, world) = (self.logs.clone(), self.world.clone());
        let (logs, world) = (&mut *logs.borrow_mut(), &mut *world.lock());
        while logs.log.has_work() || logs.dead.has_work() {
            let delay_ms = world.random.below(4);
            let at = self
                .append_at
                .get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(delay_ms))));
            if at.as_mut().poll(context).is_pending() {
                break;
            }
            self.append_at = None;
            logs.append(world);
        }
        if self.tick.as_mut().poll(context).is_ready() {
            logs.tick(world);
            self.tick.as_mut().reset(Instant::now() + TICK);
            context.waker().wake_by_ref();
        }
        for (at, (settlement, pinned)) in logs.settlements().into_iter().zip(logs.pinned()).enumerate() {
            world.settles(at, settlement, pinned.bytes);
            world.pins(at, pinned);
        }
        world.require_no_alarm();
        let (held, max) = (logs.log.held_bytes(), world.shape.held_bytes_max());
        world.require(held <= max, || format!("readers hold {held} bytes of {max}"));
        if let Some(violation) = world.violation.take() {
            return Poll::Ready(Err(violation));
        }
        if logs.has_failed() && self.disk.is_powered() && !self.is_failing {
            // The process is some time about to end.
            self.is_failing = true;
            self.plan.ending = Ending::Cut;
            self.stops_at = None;
            let delay_ms = world.random.below(30);
            self.ends
                .as_mut()
                .reset(Instant::now() + Duration::from_millis(delay_ms));
            world.note("failed", 0, delay_ms);
        }
        if !self.disk.is_powered() {
            world.note("cut short", 0, 0);
            return Poll::Ready(Ok(()));
        }
        if self.stops_at.is_some() {
            return self.stopping(context, logs, world);
        }
        let is_settled = world.routes.iter().all(|route| route.unsettled.is_empty())
            && logs.cursors.iter().all(|cursor| cursor.backlog().records == 0);
        let ends = self.ends.as_mut().poll(context).is_ready();
        match self.plan.ending {
            Ending::Cut if ends => return Poll::Ready(Ok(())),
            Ending::Stop(time) if ends => self.stop_within(time, world),
            Ending::Settled if is_settled => self.stop_within(Duration::from_secs(5), world),
            Ending::Settled if ends => return Poll::Ready(Err(self.stands(logs, world))),
            _ => return Poll::Pending,
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn stands(&self, logs: &Logs, world: &World) -> String {
        let routes = logs.cursors.iter().enumerate().map(|(at, cursor)| {
            let mut waits = world.waits(at, Duration::ZERO);
            waits.truncate(10);
            let (backlog, position) = (cursor.backlog().records, cursor.position());
            let blocked = self.statuses[at].snapshot().blocked.map(|blocked| blocked.text);
            format!("route {at} at {position}, {backlog} left, of those acknowledged {waits:?}, blocked: {blocked:?}")
        });
        let routes: Vec<_> = routes.collect();
        let dead = logs.dead.segments();
        format!(
            "all is well and not all is settled: {}; dead letters: {dead}",
            routes.join("; ")
        )
    }

    fn stop_within(&mut self, time: Duration, world: &mut World) {
        world.note("stop", 0, time.as_millis() as u64);
        let deadline = Instant::now() + time;
        self.stop.send_replace(Some(deadline));
        // Nobody sends any more, and the weather stays.
        self.parts.truncate(self.statuses.len());
        self.stops_at = Some(deadline + STOP_SLACK);
        self.ends.as_mut().reset(deadline + STOP_SLACK);
    }

    fn stopping(&mut self, context: &mut Context<'_>, logs: &mut Logs, world: &mut World) -> Poll<Result<(), String>> {
        if self.parts.iter().all(Option::is_none) {
            logs.append(world);
            logs.log.close();
            logs.dead.close();
            if !logs.has_failed() {
                // Where the disk has no room for the page, the next process begins where the cursors were.
                if logs.log.is_written() {
                    world.page_knows = logs.log.head();
                    world.made_durable(logs.settlements());
                }
                world.note("closed", 0, 0);
            }
            return Poll::Ready(Ok(()));
        }
        match self.ends.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err("a stop takes longer than it may".into())),
            Poll::Pending => Poll::Pending,
        }
    }
}

struct Sender {
    spool: Spool,
    world: Arc<Mutex<World>>,
    routing: EventRouting,
    audience_of_all: Audience,
}

impl Sender {
    /// Sends events in bursts, and waits for the answers.
    async fn send(self, every_ms: u64) {
        let desk = Arc::new(AppendReplies::default());
        let most = self.world.lock().submitted.len() + EVENTS_MAX;
        while self.world.lock().submitted.len() < most {
            let (delay_ms, burst) = {
                let random = &mut self.world.lock().random;
                (random.below(every_ms), 1 + random.below(12))
            };
            sleep(Duration::from_millis(delay_ms)).await;
            let mut answers = Vec::new();
            for _ in 0..burst {
                if let Err((index, error)) = self.submit(&desk) {
                    answers.push((index, Err(error)));
                }
            }
            while answers.len() < burst as usize {
                poll_fn(|context| desk.poll(context, &mut answers)).await;
            }
            if self.world.lock().is_answered(answers) {
                sleep(REFUSED_PAUSE).await;
            }
        }
    }

    fn submit(&self, desk: &Arc<AppendReplies>) -> Result<(), (u64, AppendError)> {
        let world = &mut *self.world.lock();
        let (index, record) = world.submit();
        let class = match world.shape.is_picture(index) {
            true => RecordClass::Bulk,
            false => RecordClass::Ordinary,
        };
        // Only damage makes an event that cannot be read: of that nobody knows for whom it was.
        let event = Event::decode(&record).ok();
        let audience = event.map_or(self.audience_of_all, |event| self.routing.audience(&event));
        let appended = self.spool.append_for(desk, index, record, class, audience);
        appended.map_err(|error| (index, error))
    }
}
