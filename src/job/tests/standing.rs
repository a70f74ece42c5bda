//! What stands holds back nothing but its own, and what was confirmed behind it is not published again.

use super::{reorder::wait_until, *};

/// A stream of the lane that stands, and so that lane.
fn standing_lane() -> u64 {
    place_of("ZG6NWV/stream-0").lane
}

fn is_standing(sequence: u64) -> bool {
    place_of(&format!("ZG6NWV/stream-{}", sequence % 7)).lane == standing_lane()
}

fn wanted(count: u64) -> impl Iterator<Item = u64> {
    (1..=count).filter(|sequence| sequence % 10 != 0)
}

impl Bench {
    fn published(&self) -> Vec<u64> {
        self.broker.lock().log.iter().map(|(_, sequence)| *sequence).collect()
    }

    /// Runs a route while `during` looks on, then stops it; waits no time for what stands.
    async fn run(&self, route: &RouteConfig, during: impl AsyncFnOnce(&RouteStatus)) {
        let job = self.job(route);
        let status = job.status();
        let (stop, signal) = watch::channel(None);
        let running = tokio::spawn(job.run(signal));
        during(&status).await;
        stop.send(Some(Instant::now())).unwrap();
        running.await.unwrap();
    }
}

/// With room for more than the scripted sink has.
fn small() -> RouteConfig {
    RouteConfig {
        in_flight_records_max: 32,
        ..route()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_stands_holds_back_its_own_only_and_nothing_is_published_twice() {
    const COUNT: u64 = 3000;
    let bench = Bench::new();
    bench.append(COUNT).await;
    bench.broker.lock().standing.insert(standing_lane());
    let others = wanted(COUNT).filter(|sequence| !is_standing(*sequence)).count();
    let behind = wanted(COUNT).filter(|sequence| is_standing(*sequence)).count() as u64;
    assert!(behind > 500);
    bench
        .run(&small(), async |status| {
            wait_until("the other lanes are published", || bench.published().len() == others).await;
            assert_eq!(status.snapshot().backlog_records, behind);
        })
        .await;

    // A new process goes on where the old one was, ranges above the gap and all.
    bench
        .run(&small(), async |status| {
            wait_until("the lane is full again", || status.snapshot().in_flight_records > 1).await;
            assert_eq!(bench.published().len(), others, "nothing is published again");
            bench.broker.lock().standing.clear();
            wait_until("all is published", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    bench.assert_in_order(COUNT, &[]);
    assert_eq!(bench.published().len(), wanted(COUNT).count(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_that_is_slow_is_read_past_and_what_comes_later_in_it_overtakes_nothing() {
    const COUNT: u64 = 600;
    let bench = Bench::new();
    bench.append(COUNT).await;
    bench.broker.lock().trickling = Some((standing_lane(), Duration::from_millis(15)));
    let others = wanted(COUNT).filter(|sequence| !is_standing(*sequence)).count();
    bench
        .run(&small(), async |status| {
            let of_others = || {
                let published = bench.published();
                published.iter().filter(|sequence| !is_standing(**sequence)).count()
            };
            wait_until("the other lanes are published", || of_others() == others).await;
            assert!(
                status.snapshot().backlog_records > 60,
                "it is slow: {}",
                status.snapshot().backlog_records
            );
            wait_until("all is published", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    bench.assert_in_order(COUNT, &[]);
    assert_eq!(bench.published().len(), wanted(COUNT).count(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_break_while_a_lane_stands_repeat_no_more_than_what_was_on_its_way() {
    const COUNT: u64 = 2000;
    let bench = Bench::new();
    bench.append(COUNT).await;
    {
        let mut broker = bench.broker.lock();
        broker.standing.insert(standing_lane());
        broker.script = vec![Verdict::Break(Remedy::Retry); 5];
    }
    bench
        .run(&small(), async |status| {
            wait_until("the broker breaks no more", || bench.broker.lock().script.is_empty()).await;
            bench.broker.lock().standing.clear();
            wait_until("all is published", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    bench.assert_in_order(COUNT, &[]);
    let repeats = bench.published().len() - wanted(COUNT).count();
    assert_eq!(repeats, 0, "the scripted broker says what it took");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_reorder_window_what_was_deferred_goes_in_the_order_of_its_turn() {
    const COUNT: u64 = 600;
    let bench = Bench::new();
    bench.append_turned(COUNT).await;
    bench.broker.lock().standing.insert(standing_lane());
    let route = RouteConfig {
        in_flight_records_max: 32,
        ..reorder::reordering(Duration::from_millis(200))
    };
    bench
        .run(&route, async |status| {
            let others = (1..=COUNT).filter(|sequence| !is_standing(*sequence)).count();
            wait_until("the other lanes are published", || bench.published().len() == others).await;
            bench.broker.lock().standing.clear();
            wait_until("all is published", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    bench.assert_in_order_of_time(COUNT, &[]).await;
    assert_eq!(bench.published().len() as u64, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_without_room_among_the_dead_letters_waits_alone() {
    let bench = Bench::with_dead_letters(256 << 10);
    bench.append(100).await;
    for _ in 0..6 {
        let undecodable = Bytes::from(vec![0xff; 50_000]);
        bench.spool.append(undecodable, RecordClass::Ordinary).await.unwrap();
        bench.append(100).await;
    }
    let all = 7 * 90;
    bench
        .run(&route(), async |status| {
            wait_until("all others are published", || bench.published().len() == all).await;
            let snapshot = status.snapshot();
            assert_eq!(
                snapshot.blocked.map(|blocked| blocked.reason),
                Some("dead_letters_full")
            );
            let kept = bench.dead_letters().await.len() as u64;
            assert!(kept > 0 && kept < 6, "{kept} kept");
            wait_until("the others wait alone", || {
                status.snapshot().backlog_records == 6 - kept
            })
            .await;
            tokio::time::sleep(Duration::from_secs(2)).await;
            assert_eq!(bench.published().len(), all, "nothing is published again");
            assert_eq!(bench.broker.lock().opened, 1);
            let still = status.snapshot().blocked.map(|blocked| blocked.reason);
            assert_eq!(still, Some("dead_letters_full"), "as long as one waits");
        })
        .await;
    bench
        .run(&route(), async |status| {
            wait_until("they are met again", || status.snapshot().blocked.is_some()).await;
        })
        .await;
    assert_eq!(bench.published().len(), all, "nothing is published again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_dead_letters_find_no_room_holds_back_no_other() {
    const COUNT: u64 = 30_000;
    let bench = Bench::with_dead_letters(256 << 10);
    bench.append(COUNT).await;
    let refused: HashSet<u64> = wanted(COUNT).filter(|sequence| is_standing(*sequence)).collect();
    assert!(refused.len() > 4096, "{} are more than may wait", refused.len());
    let others = wanted(COUNT).count() - refused.len();
    bench.broker.lock().unroutable = refused.clone();
    bench
        .run(&route(), async |status| {
            wait_until("all others are published", || bench.published().len() == others).await;
            let reason = status.snapshot().blocked.map(|blocked| blocked.reason);
            assert_eq!(reason, Some("dead_letters_full"));
        })
        .await;
    let kept = bench.dead_letters().await.len();
    assert!(kept > 0 && kept < refused.len(), "{kept} kept");
    // Where they can go is there again.
    bench.broker.lock().unroutable.clear();
    bench
        .run(&route(), async |status| {
            wait_until("all is settled", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    assert_eq!(bench.published().len() + kept, wanted(COUNT).count(), "nothing twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_together_may_be_more_than_readers_may_hold() {
    const COUNT: u64 = 60;
    let bench = Bench::with_dead_letters(64 << 20);
    for index in 1..=COUNT {
        let picture = Event {
            body: Bytes::from(vec![b'1'; 400_000]),
            ..event(index, "feeds")
        };
        bench
            .spool
            .append(picture.encode(), RecordClass::Ordinary)
            .await
            .unwrap();
    }
    bench.broker.lock().unroutable = (1..=COUNT).collect();
    let route = RouteConfig {
        in_flight_bytes_max: 64 << 20,
        ..route()
    };
    bench.broker.lock().standing = (0..LANES).collect();
    bench
        .run(&route, async |status| {
            wait_until("many are in flight", || status.snapshot().in_flight_records > 30).await;
            bench.broker.lock().standing.clear();
            wait_until("all is settled", || status.snapshot().backlog_records == 0).await;
        })
        .await;
    assert_eq!(bench.dead_letters.kept().records, COUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_breaks_beside_as_many_as_may_wait_so_reads_them_again() {
    const WAITING: u64 = 1400;
    let bench = Bench::with_dead_letters(256 << 10);
    for _ in 0..WAITING {
        let undecodable = Bytes::from(vec![0xff; 1000]);
        bench.spool.append(undecodable, RecordClass::Ordinary).await.unwrap();
    }
    bench.append(10).await;
    bench
        .run(&route(), async |status| {
            wait_until("there is no room", || status.snapshot().blocked.is_some()).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
            bench.broker.lock().breaks = true;
            wait_until("the next session", || bench.broker.lock().opened == 2).await;
            // Somebody empties the log, again and again.
            let log = bench.dead_letters.log("events").unwrap();
            let emptied = log.cursor("emptied", CursorStart::Oldest).unwrap();
            let emptying = async {
                loop {
                    emptied.advance(log.state().head);
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::select! {
                () = emptying => {}
                () = wait_until("all is settled", || status.snapshot().backlog_records == 0) => {}
            }
        })
        .await;
    assert_eq!(bench.published().len(), 9);
}

#[tokio::test]
async fn a_job_until_the_head_ends_once_all_is_settled() {
    let bench = Bench::new();
    bench.append(30).await;
    bench.broker.lock().standing.insert(standing_lane());
    let (_never, signal) = watch::channel(None);
    let mut running = tokio::spawn(bench.job(&route()).until(JobUntil::Head).run(signal));
    let early = tokio::time::timeout(Duration::from_millis(300), &mut running).await;
    assert!(early.is_err(), "a lane stands: not all is settled");
    bench.broker.lock().standing.clear();
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
    ended.expect("it ends").unwrap();
    bench.assert_in_order(30, &[]);
}

#[tokio::test]
async fn a_job_until_a_number_publishes_all_up_to_it_and_nothing_behind() {
    let bench = Bench::new();
    bench.append(30).await;
    let (_never, signal) = watch::channel(None);
    let running = tokio::spawn(bench.job(&route()).until(JobUntil::Number(20)).run(signal));
    let ended = tokio::time::timeout(Duration::from_secs(30), running).await;
    ended.expect("it ends").unwrap();
    bench.assert_in_order(20, &[]);
    assert!(bench.published().iter().all(|sequence| *sequence <= 20));
    let cursor = bench.spool.cursor(&route().name, CursorStart::Oldest).unwrap();
    assert_eq!(cursor.position(), 20);
}
