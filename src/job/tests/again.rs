//! What was published before, or was to be: dead letters redriven, events replayed; and jobs that are paused.

use super::*;
use crate::job::{EventSelection, RepublishProgress, RepublishSource, Republishing};

/// Of so many events the broker refuses every third.
const EVENTS: u64 = 300;

impl Bench {
    /// A bench whose broker has refused some, each of which is a dead letter.
    async fn with_letters() -> Self {
        let bench = Self::new();
        bench.append(EVENTS).await;
        bench.broker.lock().unroutable = (1..=EVENTS).filter(|number| number % 3 == 0).collect();
        bench.publish_all().await;
        *bench.broker.lock() = Broker::default();
        bench
    }

    /// The numbers of the dead letters that are kept, each with its event's number and how often it was refused.
    async fn kept(&self) -> Vec<(u64, u64, u32)> {
        let mut reading = self.dead_letters.read("events", 0).await.unwrap().unwrap();
        let mut kept = Vec::new();
        while let Some(one) = reading.next().await.unwrap() {
            kept.push((one.number, one.letter.sequence, one.letter.attempts));
        }
        kept
    }

    /// Redrives what is selected, of what there is.
    async fn redrive(&self, selection: EventSelection) -> Arc<RepublishProgress> {
        let (log, gone) = self.dead_letters.gone("events").await.unwrap().unwrap();
        let cursor = log.detached_cursor(gone.position());
        gone.settled().into_iter().for_each(|numbers| cursor.settle(numbers));
        let last = log.state().head;
        let progress = Arc::new(RepublishProgress::default());
        let job = self.job_over(cursor, log).republishing(Republishing {
            selection,
            source: RepublishSource::DeadLetters(gone),
            rate: None,
            progress: progress.clone(),
        });
        self.run_to_end(job.until(JobUntil::Number(last))).await;
        progress
    }

    fn job_over(&self, cursor: Cursor, log: Spool) -> Job<ScriptedSink> {
        let sink = ScriptedSink {
            broker: self.broker.clone(),
            queue: Vec::new(),
            capacity: 40,
            trickled_at: Instant::now(),
        };
        let metrics = JobMetrics::register(&crate::telemetry::Metrics::new());
        Job::new(
            &route(),
            "replica-0".into(),
            sink,
            cursor,
            log,
            self.dead_letters.clone(),
            metrics,
        )
    }

    async fn run_to_end(&self, job: Job<ScriptedSink>) {
        let (_never, signal) = watch::channel(None);
        let running = tokio::time::timeout(Duration::from_secs(60), job.run(signal));
        assert!(running.await.is_ok(), "not published in time");
    }
}

fn of_streams(numbers: [u64; 2]) -> EventSelection {
    EventSelection {
        streams: numbers.map(|number| format!("ZG6NWV/stream-{number}")).to_vec(),
        ..EventSelection::default()
    }
}

fn is_selected(number: u64) -> bool {
    [1, 4].contains(&(number % 7))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_was_selected_and_published_is_gone_whatever_sessions_break() {
    let bench = Bench::with_letters().await;
    let before = bench.kept().await;
    bench.broker.lock().script = vec![
        Verdict::Break(Remedy::Retry),
        Verdict::Refuse(Remedy::Retry),
        Verdict::Break(Remedy::Hold),
    ];
    let progress = bench.redrive(of_streams([1, 4])).await;
    let expected: Vec<_> = before
        .iter()
        .copied()
        .filter(|(_, event, _)| !is_selected(*event))
        .collect();
    assert_eq!(bench.kept().await, expected, "what was not selected stays");
    let chosen = (before.len() - expected.len()) as u64;
    let counts = progress.counts();
    assert_eq!((counts.chosen, counts.published, counts.failed), (chosen, chosen, 0));
    let broker = bench.broker.lock();
    let published: HashSet<u64> = broker.log.iter().map(|(_, number)| *number).collect();
    let numbers = before
        .iter()
        .filter(|(_, event, _)| is_selected(*event))
        .map(|(number, ..)| *number);
    assert_eq!(published, numbers.collect());
    assert!(broker.script.is_empty(), "every fault of the script fired");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_again_is_a_dead_letter_again_and_counted() {
    let bench = Bench::with_letters().await;
    let before = bench.kept().await;
    let refused: Vec<_> = before.iter().copied().filter(|(_, event, _)| event % 9 == 0).collect();
    bench.broker.lock().unroutable = refused.iter().map(|(number, ..)| *number).collect();
    let progress = bench.redrive(EventSelection::default()).await;
    let kept: Vec<_> = bench
        .kept()
        .await
        .into_iter()
        .map(|(_, event, attempts)| (event, attempts))
        .collect();
    let mut expected: Vec<_> = refused.iter().map(|(_, event, _)| (*event, 2)).collect();
    expected.sort_unstable();
    let mut sorted = kept;
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    let counts = progress.counts();
    assert_eq!(
        (counts.published, counts.failed),
        ((before.len() - refused.len()) as u64, refused.len() as u64)
    );
    // Discarded, they take no more room than the newest segment.
    assert_eq!(
        bench
            .dead_letters
            .discard("events", &EventSelection::default())
            .await
            .unwrap(),
        refused.len() as u64
    );
    assert_eq!(bench.kept().await, []);
    assert_eq!(bench.dead_letters.kept().routes["events"].records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_are_replayed_that_the_route_wants_and_were_selected() {
    let bench = Bench::new();
    bench.append(EVENTS).await;
    let progress = Arc::new(RepublishProgress::default());
    let job = bench.job_over(bench.spool.detached_cursor(0), bench.spool.clone());
    let job = job.republishing(Republishing {
        selection: of_streams([1, 4]),
        source: RepublishSource::Events,
        rate: None,
        progress: progress.clone(),
    });
    bench.broker.lock().unroutable = HashSet::from([8]);
    bench.run_to_end(job.until(JobUntil::Number(EVENTS))).await;
    let expected: Vec<u64> = (1..=EVENTS).filter(|n| is_selected(*n) && n % 10 != 0).collect();
    let published: Vec<u64> = bench.broker.lock().log.iter().map(|(_, number)| *number).collect();
    let without_refused: Vec<u64> = expected.iter().copied().filter(|number| *number != 8).collect();
    assert_eq!(
        published.iter().copied().collect::<HashSet<_>>(),
        without_refused.iter().copied().collect()
    );
    let counts = progress.counts();
    assert_eq!((counts.chosen, counts.failed), (expected.len() as u64, 1));
    assert!(
        bench.dead_letters.log("events").is_none(),
        "what is replayed is no dead letter"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_job_publishes_nothing_until_it_goes_on() {
    let bench = Bench::new();
    bench.append(EVENTS).await;
    let (pause, signal) = watch::channel(true);
    let job = bench.job(&route()).until(JobUntil::Head).pausable(signal);
    let (_never, stop) = watch::channel(None);
    let running = tokio::spawn(job.run(stop));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bench.broker.lock().opened, 0);
    pause.send_replace(false);
    tokio::time::timeout(Duration::from_secs(60), running)
        .await
        .unwrap()
        .unwrap();
    bench.assert_in_order(EVENTS, &[]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_with_a_rate_takes_its_time() {
    let bench = Bench::new();
    bench.append(60).await;
    let job = bench.job_over(bench.spool.detached_cursor(0), bench.spool.clone());
    let job = job.republishing(Republishing {
        selection: EventSelection::default(),
        source: RepublishSource::Events,
        rate: std::num::NonZeroU32::new(50),
        progress: Arc::default(),
    });
    let began = Instant::now();
    bench.run_to_end(job.until(JobUntil::Number(60))).await;
    // 54 of them, of which five may go at once.
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    assert_eq!(bench.broker.lock().log.len(), 54);
}
