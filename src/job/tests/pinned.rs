//! What a route pins of the spool, and what goes where it may pin no more.

use std::future::poll_fn;

use super::{
    reorder::{reordering, wait_until},
    *,
};
use crate::{
    config::{BacklogFull, BacklogLimit},
    spool::{AppendError, AppendReplies},
};

const LIMIT: u64 = 64 << 10;

fn limited(route: RouteConfig, when_full: BacklogFull) -> RouteConfig {
    let bytes_max = Some(LIMIT);
    RouteConfig {
        backlog: BacklogLimit { bytes_max, when_full },
        ..route
    }
}

impl Bench {
    /// Appends an event as ingress does.
    async fn take_in(&self, routing: &EventRouting, event: Event) -> Result<u64, AppendError> {
        let desk = Arc::new(AppendReplies::default());
        routing.append(&self.spool, &event, event.encode(), RecordClass::Ordinary, (&desk, 0))?;
        let mut answers = Vec::new();
        poll_fn(|context| desk.poll(context, &mut answers)).await;
        answers.remove(0).1
    }

    async fn take_in_all(&self, routing: &EventRouting, count: u64) {
        for index in 1..=count {
            let kind = if index % 10 == 0 { "thumbnail" } else { "feeds" };
            self.take_in(routing, event(index, kind)).await.unwrap();
        }
    }

    fn stand(&self, stands: bool) {
        let lanes = if stands { 0..LANES } else { 0..0 };
        self.broker.lock().standing = lanes.collect();
    }

    fn published_once(&self) -> HashSet<u64> {
        let log = self.broker.lock().log.clone();
        let seen: HashSet<u64> = log.iter().map(|(_, sequence)| *sequence).collect();
        assert_eq!(seen.len(), log.len(), "nothing twice");
        seen
    }

    fn dropped(&self) -> u64 {
        self.metrics.backlog_dropped.with_label_values(&["events"]).get()
    }
}

/// A route that runs.
struct Started {
    status: RouteStatus,
    routing: EventRouting,
    stop: Stop,
}

struct Stop {
    signal: watch::Sender<Option<Instant>>,
    running: tokio::task::JoinHandle<()>,
}

impl Bench {
    fn start(&self, route: &RouteConfig) -> Started {
        let job = self.job(route);
        let routing = EventRouting::new(vec![job.subscription()]);
        let status = job.status();
        let (signal, stopped) = watch::channel(None);
        let running = tokio::spawn(job.run(stopped));
        let stop = Stop { signal, running };
        Started { status, routing, stop }
    }
}

impl Stop {
    async fn now(self) {
        self.signal.send(Some(Instant::now())).unwrap();
        self.running.await.unwrap();
    }
}

fn pinned(status: &RouteStatus) -> u64 {
    status.snapshot().pinned_bytes
}

fn wanted(count: u64) -> HashSet<u64> {
    (1..=count).filter(|sequence| sequence % 10 != 0).collect()
}

/// What is published of each stream is in order, and behind its gap there is none before the newest that went.
fn assert_order(bench: &Bench, count: u64, gone: &HashSet<u64>) {
    let gone: Vec<u64> = gone.iter().copied().collect();
    bench.assert_in_order(count, &gone);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_that_are_not_in_flight_are_given_up_and_all_others_go_out_in_order() {
    const COUNT: u64 = 2000;
    for (route, waits) in [(route(), false), (reordering(Duration::from_millis(50)), true)] {
        let bench = Bench::new();
        bench.stand(true);
        let Started { status, routing, stop } = bench.start(&limited(route, BacklogFull::DropOldest));
        bench.take_in_all(&routing, COUNT).await;
        wait_until("it pins no more than it may", || pinned(&status) <= LIMIT).await;
        assert!(pinned(&status) > LIMIT / 2, "and not much less");
        assert!(bench.dropped() > 500, "{}", bench.dropped());
        bench.stand(false);
        wait_until("the rest is published", || status.snapshot().backlog_records == 0).await;
        let published = bench.published_once();
        assert_eq!(published.len() as u64 + bench.dropped(), wanted(COUNT).len() as u64);
        assert!(published.contains(&(COUNT - 1)), "the newest stay");
        assert!(published.contains(&1) || waits, "it was in flight");
        assert_order(&bench, COUNT, &wanted(COUNT).difference(&published).copied().collect());
        assert_eq!(pinned(&status), 0);
        stop.now().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_to_the_dead_letters_is_there_or_published_and_never_both() {
    const COUNT: u64 = 2000;
    let bench = Bench::new();
    // No session is opened for a while.
    bench.broker.lock().script = vec![Verdict::Refuse(Remedy::Hold); 4];
    bench.stand(true);
    let Started { status, routing, stop } = bench.start(&limited(route(), BacklogFull::DeadLetter));
    bench.take_in_all(&routing, COUNT).await;
    wait_until("it pins no more than it may", || pinned(&status) <= LIMIT).await;
    bench.stand(false);
    wait_until("the rest is published", || status.snapshot().backlog_records == 0).await;
    let letters = bench.dead_letters().await;
    assert!(letters.iter().all(|letter| letter.reason == "backlog_full"));
    let gone: HashSet<u64> = letters.iter().map(|letter| letter.sequence).collect();
    assert_eq!(gone.len(), letters.len(), "each once");
    assert_order(&bench, COUNT, &gone);
    assert_eq!(
        bench.published_once(),
        wanted(COUNT).difference(&gone).copied().collect()
    );
    assert_eq!(
        bench
            .metrics
            .dead_letters
            .with_label_values(&["events", "backlog_full"])
            .get(),
        letters.len() as u64
    );
    stop.now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_dead_letters_are_full_too_events_are_refused_until_there_is_room() {
    let bench = Bench::with_dead_letters(256 << 10);
    bench.stand(true);
    let Started { status, routing, stop } = bench.start(&limited(route(), BacklogFull::DeadLetter));
    let deadline = Instant::now() + Duration::from_secs(60);
    let mut taken = 0;
    loop {
        match bench.take_in(&routing, event(taken + 1, "feeds")).await {
            Ok(_) => taken += 1,
            Err(refused) => {
                assert_eq!(refused, AppendError::RouteFull);
                break;
            }
        }
        assert!(Instant::now() < deadline, "{taken} taken, {} pinned", pinned(&status));
    }
    assert_eq!(
        status.snapshot().blocked.map(|blocked| blocked.reason),
        Some("dead_letters_full")
    );
    let other = bench.take_in(&routing, event(1, "thumbnail")).await;
    assert!(other.is_ok(), "another route's: {other:?}");
    bench.stand(false);
    wait_until("the rest is published", || status.snapshot().backlog_records == 0).await;
    assert_eq!(
        bench.published_once().len() + bench.dead_letters().await.len(),
        taken as usize
    );
    assert!(bench.take_in(&routing, event(1, "feeds")).await.is_ok());
    stop.now().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_there_before_is_counted_while_it_is_published() {
    const COUNT: u64 = 1000;
    let bench = Bench::new();
    bench.append(COUNT).await;
    bench.stand(true);
    let Started { status, routing, stop } = bench.start(&route());
    assert_eq!(pinned(&status), 0);
    let counting = tokio::spawn(routing.clone().count_found(bench.spool.clone()));
    let len = event(1, "feeds").encode().len() as u64;
    let about = len * wanted(COUNT).len() as u64;
    wait_until("all is counted", || pinned(&status) >= about).await;
    assert!(pinned(&status) < about + 50 * wanted(COUNT).len() as u64);
    let before = pinned(&status);
    bench.take_in(&routing, event(1, "thumbnail")).await.unwrap();
    assert_eq!(pinned(&status), before);
    bench.take_in(&routing, event(1, "feeds")).await.unwrap();
    assert!(pinned(&status) >= before + len);
    bench.stand(false);
    wait_until("all is published", || status.snapshot().backlog_records == 0).await;
    assert_eq!(pinned(&status), 0);
    counting.await.expect("it ends once all is counted");
    stop.now().await;
}
