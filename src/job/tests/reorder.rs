//! A route with a reorder window.

use super::*;

/// The times of so many neighbours are in no order.
const BLOCK: u64 = 20;

pub(super) fn reordering(window: Duration) -> RouteConfig {
    RouteConfig {
        reorder_window: Some(window),
        ..route()
    }
}

impl Bench {
    /// Appends events that were taken in a millisecond after one another, their times turned around in each block.
    pub(super) async fn append_turned(&self, count: u64) {
        for index in 1..=count {
            let (block, place) = ((index - 1) / BLOCK, (index - 1) % BLOCK);
            let event = Event {
                time: Time(1_638_463_486_359 + (block * BLOCK + BLOCK - place) as i64),
                recorded: Time(1_638_463_487_000 + index as i64),
                ..event(index, "feeds")
            };
            self.spool.append(event.encode(), RecordClass::Ordinary).await.unwrap();
        }
    }

    /// Of each stream, in the order of first sight, the times.
    pub(super) async fn assert_in_order_of_time(&self, count: u64, dead: &[u64]) {
        let log = self.broker.lock().log.clone();
        let mut seen = HashSet::new();
        let mut newest: HashMap<String, Time> = HashMap::new();
        for (key, sequence) in log {
            if !seen.insert(sequence) {
                continue;
            }
            let time = Event::decode(&event_bytes(self, sequence).await).unwrap().time;
            let newest = newest.entry(key.clone()).or_insert(time);
            assert!(time >= *newest, "{key}: {sequence} of {time:?} after {newest:?}");
            *newest = time;
        }
        let expected: HashSet<u64> = (1..=count).filter(|sequence| !dead.contains(sequence)).collect();
        assert_eq!(seen, expected);
    }

    fn counted(&self, metric: &prometheus::IntCounterVec) -> u64 {
        metric.with_label_values(&["events"]).get()
    }

    fn held(&self) -> i64 {
        self.metrics.reorder_records.with_label_values(&["events"]).get()
    }
}

pub(super) async fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_events_of_a_stream_go_out_in_the_order_of_their_times() {
    let bench = Bench::new();
    bench.append_turned(600).await;
    bench.publish_all_of(&reordering(Duration::from_millis(60))).await;
    bench.assert_in_order_of_time(600, &[]).await;
    assert_eq!(bench.broker.lock().log.len(), 600, "nothing twice when nothing fails");
    assert!(bench.counted(&bench.metrics.reordered) > 200);
    assert_eq!(bench.counted(&bench.metrics.reorder_cut_short), 0);
    assert_eq!(bench.held(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_do_through_broken_sessions_and_dead_letters() {
    let bench = Bench::new();
    bench.append_turned(400).await;
    bench.broker.lock().poisoned = HashSet::from([3, 78]);
    bench.broker.lock().unroutable = HashSet::from([31, 191]);
    bench.broker.lock().script = vec![Verdict::Break(Remedy::Retry); 6];
    bench.publish_all_of(&reordering(Duration::from_millis(60))).await;
    let dead = [3, 31, 78, 191];
    bench.assert_in_order_of_time(400, &dead).await;
    assert!(bench.broker.lock().script.is_empty(), "every fault of the script fired");
    let mut letters: Vec<u64> = bench
        .dead_letters()
        .await
        .iter()
        .map(|letter| letter.sequence)
        .collect();
    letters.sort_unstable();
    assert_eq!(letters, dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_inside_the_window_loses_nothing_and_a_stop_lets_everything_out() {
    let bench = Bench::new();
    let route = reordering(Duration::from_secs(60));
    bench.append_turned(100).await;
    let (_stop, signal) = watch::channel(None);
    let crashing = tokio::spawn(bench.job(&route).run(signal));
    wait_until("all is held", || bench.held() == 100).await;
    crashing.abort();
    assert!(crashing.await.unwrap_err().is_cancelled());
    assert_eq!(bench.broker.lock().log, [], "nothing went out");
    assert_eq!(bench.spool.cursor("events", CursorStart::Oldest).unwrap().position(), 0);

    let (stop, signal) = watch::channel(None);
    bench.metrics.reorder_records.with_label_values(&["events"]).set(0);
    let running = tokio::spawn(bench.job(&route).run(signal));
    wait_until("all is held again", || bench.held() == 100).await;
    stop.send(Some(Instant::now() + Duration::from_secs(10))).unwrap();
    running.await.unwrap();
    bench.assert_in_order_of_time(100, &[]).await;
    assert_eq!(bench.broker.lock().log.len(), 100);
    assert_eq!(
        bench.spool.cursor("events", CursorStart::Oldest).unwrap().position(),
        100
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_the_head_an_event_waits_for_the_window_and_no_longer() {
    let bench = Bench::new();
    let route = reordering(Duration::from_millis(300));
    let (stop, signal) = watch::channel(None);
    let running = tokio::spawn(bench.job(&route).run(signal));
    bench.append_turned(1).await;
    let appended = Instant::now();
    wait_until("it is held", || bench.held() == 1).await;
    wait_until("it went out", || !bench.broker.lock().log.is_empty()).await;
    assert!(
        appended.elapsed() >= Duration::from_millis(290),
        "{:?}",
        appended.elapsed()
    );
    // In the log's time the second is a year older: the clock was set back. It waits no longer for it.
    let before = Event {
        recorded: Time(1_638_463_487_000 - 365 * 86_400_000),
        ..event(2, "feeds")
    };
    bench
        .spool
        .append(before.encode(), RecordClass::Ordinary)
        .await
        .unwrap();
    wait_until("the second went out", || bench.broker.lock().log.len() == 2).await;
    stop.send(Some(Instant::now())).unwrap();
    running.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_full_window_lets_out_is_counted_and_the_window_stays_bounded() {
    let bench = Bench::new();
    for (records, bytes) in [(10, usize::MAX), (usize::MAX, 3000)] {
        let route = RouteConfig {
            reorder_records_max: records,
            reorder_bytes_max: bytes,
            ..reordering(Duration::from_secs(60))
        };
        bench.append_turned(200).await;
        let already = bench.broker.lock().log.len();
        let cut_short = bench.counted(&bench.metrics.reorder_cut_short);
        let (stop, signal) = watch::channel(None);
        let running = tokio::spawn(bench.job(&route).run(signal));
        wait_until("what is too much went out", || {
            let out = bench.broker.lock().log.len() - already;
            out as i64 + bench.held() == 200 && out > 100
        })
        .await;
        assert!(bench.held() > 0 && bench.held() as usize <= records.min(bytes / 60));
        let now = bench.counted(&bench.metrics.reorder_cut_short);
        assert_eq!(now - cut_short, 200 - bench.held() as u64);
        stop.send(Some(Instant::now() + Duration::from_secs(10))).unwrap();
        running.await.unwrap();
        assert_eq!(bench.broker.lock().log.len() - already, 200);
    }
}
