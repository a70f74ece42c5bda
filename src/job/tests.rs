//! Jobs against a real spool and a sink that fails by script.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::*;
use crate::{
    config::{EventMatch, RouteConfig},
    event::{Content, ProviderNumber, Time, render::RenderMode},
    senders::RoutePayload,
    sink::{self, EnqueueError, Message, MessageDestination, MessagePlace, SinkLabels},
    spool::{self, CursorStart, LogObserver, RecordClass},
};

mod again;
mod pinned;
mod reorder;
mod sim;
mod standing;

/// Partitions of the scripted broker.
const LANES: u64 = 3;

struct Quiet;

impl LogObserver for Quiet {
    fn synced(&self, _records: usize, _took: Duration) {}
    fn damage(&self, _kind: &'static str) {}
}

/// What the scripted broker does with the messages of one batch.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Verdict {
    Confirm,
    /// The session breaks after the first half was confirmed.
    Break(Remedy),
    /// The session cannot be opened.
    Refuse(Remedy),
}

/// A broker that takes what it is given, by script, and refuses poisoned messages together with their batch.
#[derive(Default)]
struct Broker {
    log: Vec<(String, u64)>,
    script: Vec<Verdict>,
    poisoned: HashSet<u64>,
    /// Refused one by one, while the session goes on.
    unroutable: HashSet<u64>,
    /// Lanes that take what they are given and confirm nothing.
    standing: HashSet<u64>,
    /// A lane that confirms one message at a time, so far apart.
    trickling: Option<(u64, Duration)>,
    /// The session ends by itself, once.
    breaks: bool,
    opened: usize,
    in_flight_max: usize,
}

struct ScriptedSink {
    broker: Arc<Mutex<Broker>>,
    queue: Vec<Message>,
    capacity: usize,
    trickled_at: Instant,
}

impl ScriptedSink {
    /// What is not in a lane that stands, or has to wait for its turn in one that trickles.
    fn take_answered(&mut self) -> Vec<Message> {
        let broker = self.broker.lock();
        let mut is_next = broker
            .trickling
            .is_some_and(|(_, apart)| self.trickled_at.elapsed() >= apart);
        let mut trickled_at = self.trickled_at;
        let stands = |message: &Message| {
            let lane = place_of(&message.key).lane;
            if broker.trickling.is_some_and(|(trickling, _)| trickling == lane) {
                if !std::mem::take(&mut is_next) {
                    return true;
                }
                trickled_at = Instant::now();
            }
            broker.standing.contains(&lane)
        };
        let (standing, answered) = std::mem::take(&mut self.queue).into_iter().partition(stands);
        self.queue = standing;
        self.trickled_at = trickled_at;
        answered
    }
}

fn place_of(key: &str) -> MessagePlace {
    let stream = key
        .bytes()
        .fold(0_u64, |number, byte| number.wrapping_mul(31).wrapping_add(byte.into()));
    MessagePlace {
        lane: stream % LANES,
        stream,
    }
}

fn failure(remedy: Remedy) -> PublishFailure {
    PublishFailure {
        remedy,
        label: "scripted",
        text: "by script".into(),
    }
}

impl Sink for ScriptedSink {
    fn labels(&self) -> SinkLabels {
        SinkLabels {
            failures: vec!["scripted"],
            dead_letters: vec!["scripted"],
        }
    }

    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        self.queue.clear();
        let mut broker = self.broker.lock();
        broker.opened += 1;
        match broker.script.pop_if(|next| matches!(next, Verdict::Refuse(_))) {
            Some(Verdict::Refuse(remedy)) => Err(failure(remedy)),
            _ => Ok(()),
        }
    }

    fn place(&self, _: &str, key: &str) -> MessagePlace {
        place_of(key)
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        MessageDestination {
            name: message.address.to_string(),
            attributes: Vec::new(),
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        if self.queue.len() >= self.capacity {
            return Err(EnqueueError::Full(Box::new(message)));
        }
        self.queue.push(message);
        let mut broker = self.broker.lock();
        broker.in_flight_max = broker.in_flight_max.max(self.queue.len());
        Ok(())
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        tokio::task::yield_now().await;
        let mut answered = loop {
            let answered = self.take_answered();
            if !answered.is_empty() {
                break answered;
            }
            if std::mem::take(&mut self.broker.lock().breaks) {
                return Err(failure(Remedy::Retry));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        };
        let mut broker = self.broker.lock();
        let confirm = |broker: &mut Broker, message: &Message| {
            broker.log.push((message.key.clone(), message.sequence));
        };
        if answered
            .iter()
            .any(|message| broker.poisoned.contains(&message.sequence))
        {
            settled.extend(answered.iter().map(|message| SettledMessage {
                sequence: message.sequence,
                result: Err(failure(Remedy::DeadLetter)),
            }));
            return Ok(());
        }
        let verdict = broker.script.pop_if(|next| !matches!(next, Verdict::Refuse(_)));
        let taken = match verdict {
            Some(Verdict::Break(_)) => answered.len() / 2,
            _ => answered.len(),
        };
        let unanswered = answered.split_off(taken);
        for message in answered {
            if broker.unroutable.contains(&message.sequence) {
                settled.push(SettledMessage {
                    sequence: message.sequence,
                    result: Err(failure(Remedy::SetAside)),
                });
                continue;
            }
            confirm(&mut broker, &message);
            settled.push(SettledMessage {
                sequence: message.sequence,
                result: Ok(()),
            });
        }
        let refused = unanswered
            .iter()
            .filter(|message| broker.unroutable.contains(&message.sequence));
        settled.extend(refused.map(|message| SettledMessage {
            sequence: message.sequence,
            result: Err(failure(Remedy::SetAside)),
        }));
        match verdict {
            Some(Verdict::Break(remedy)) => Err(failure(remedy)),
            _ => Ok(()),
        }
    }

    fn trouble(&self) -> Option<PublishFailure> {
        None
    }
}

fn event(index: u64, kind: &str) -> Event {
    Event {
        id: Uuid::from_u128(u128::from(index)),
        provider: ProviderNumber(0),
        endpoint: "acme".into(),
        kind: kind.into(),
        name: Some("started".into()),
        key: format!("ZG6NWV/stream-{}", index % 7),
        account: Some("ZG6NWV".into()),
        account_claimed: None,
        stream_name: None,
        feed_id: None,
        token_id: None,
        time: Time(1_638_463_486_359),
        sent: None,
        recorded: Time(now_ms()),
        late_by_ms: None,
        is_stale: false,
        is_repeated: false,
        trace: None,
        content: Content::Json,
        body: Bytes::from_static(b"{}"),
    }
}

fn route() -> RouteConfig {
    RouteConfig {
        name: "events".into(),
        sink: "main".into(),
        matches: EventMatch {
            not_kinds: vec!["thumbnail".into()],
            ..EventMatch::default()
        },
        address: Some(sink::brokers()[0].usual_address("millicast", "events")),
        mode: RenderMode::Structured,
        payload: RoutePayload::Normalized,
        start: CursorStart::Oldest,
        in_flight_records_max: 64,
        in_flight_bytes_max: 1 << 20,
        reorder_window: None,
        reorder_records_max: 1000,
        reorder_bytes_max: 1 << 20,
        dead_letters: crate::config::KeepDeadLetters::default(),
        backlog: crate::config::BacklogLimit::default(),
        overlap: false,
    }
}

/// A spool, a dead-letter spool and a broker, and what a run of the job left in them.
struct Bench {
    dir: tempfile::TempDir,
    spool: Spool,
    dead_letters: DeadLetters,
    broker: Arc<Mutex<Broker>>,
    metrics: Arc<JobMetrics>,
}

impl Bench {
    fn new() -> Self {
        Self::with_dead_letters(16 << 20)
    }

    fn with_dead_letters(bytes_max: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = |name: &str, bytes_max| spool::LogOptions {
            dir: dir.path().join(name),
            bytes_max,
            bulk_share_max: 0.5,
            segment_bytes: 1 << 20,
            record_bytes_max: 0,
            replica: String::new(),
            numbers_from: 0,
            hot_bytes_max: 1 << 20,
            readers_bytes_max: 8 << 20,
        };
        Self {
            spool: Spool::open(options("log", 64 << 20), Arc::new(Quiet)).unwrap(),
            dead_letters: DeadLetters::open(options("dead-letters", bytes_max), BTreeMap::new(), Arc::new(Quiet))
                .unwrap(),
            dir,
            broker: Arc::default(),
            metrics: JobMetrics::register(&crate::telemetry::Metrics::new()),
        }
    }

    async fn append(&self, count: u64) {
        for index in 1..=count {
            let kind = if index % 10 == 0 { "thumbnail" } else { "feeds" };
            self.spool
                .append(event(index, kind).encode(), RecordClass::Ordinary)
                .await
                .unwrap();
        }
    }

    fn job(&self, route: &RouteConfig) -> Job<ScriptedSink> {
        let cursor = self.spool.cursor("events", CursorStart::Oldest).unwrap();
        let sink = ScriptedSink {
            broker: self.broker.clone(),
            queue: Vec::new(),
            capacity: 40,
            trickled_at: Instant::now(),
        };
        Job::new(
            route,
            "replica-0".into(),
            sink,
            cursor,
            self.spool.clone(),
            self.dead_letters.clone(),
            self.metrics.clone(),
        )
    }

    /// Runs the job until its cursor has reached the head.
    async fn publish_all(&self) {
        self.publish_all_of(&route()).await;
    }

    async fn publish_all_of(&self, route: &RouteConfig) {
        let job = self.job(route).until(JobUntil::Head);
        let status = job.status();
        let (_never, signal) = watch::channel(None);
        let running = tokio::time::timeout(Duration::from_secs(60), job.run(signal));
        assert!(running.await.is_ok(), "not published in time: {:?}", status.snapshot());
    }

    async fn dead_letters(&self) -> Vec<DeadLetter> {
        let Some(log) = self.dead_letters.log("events") else {
            return Vec::new();
        };
        let count = log.state().head as usize;
        let mut reader = log.reader(1);
        let mut records = Vec::new();
        while records.len() < count {
            reader.next(count, 1 << 20, &mut records).await.unwrap();
        }
        records
            .iter()
            .map(|record| DeadLetter::decode(&record.bytes).unwrap())
            .collect()
    }

    /// Every wanted record but the dead-lettered ones was confirmed; and of each stream, first sight is in order.
    fn assert_in_order(&self, count: u64, dead: &[u64]) {
        let broker = self.broker.lock();
        let seen: HashSet<u64> = broker.log.iter().map(|(_, sequence)| *sequence).collect();
        for sequence in 1..=count {
            let expected = sequence % 10 != 0 && !dead.contains(&sequence);
            assert_eq!(seen.contains(&sequence), expected, "record {sequence}");
        }
        let mut newest: HashMap<&str, u64> = HashMap::new();
        let mut repeats: BTreeMap<u64, usize> = BTreeMap::new();
        for (key, sequence) in &broker.log {
            let first_sight = *repeats.entry(*sequence).and_modify(|times| *times += 1).or_insert(1) == 1;
            let newest = newest.entry(key).or_insert(0);
            assert!(
                !first_sight || sequence > newest,
                "{key}: {sequence} first seen after {newest}"
            );
            *newest = (*newest).max(*sequence);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_published_in_order_and_unwanted_ones_are_passed_over() {
    let bench = Bench::new();
    bench.append(500).await;
    bench.publish_all().await;
    bench.assert_in_order(500, &[]);
    assert_eq!(bench.broker.lock().log.len(), 450, "nothing twice when nothing fails");
    assert_eq!(bench.metrics.published.with_label_values(&["events"]).get(), 450);
    assert!(bench.broker.lock().in_flight_max <= 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_session_is_replayed_from_the_lowest_unsettled_record() {
    let bench = Bench::new();
    bench.append(300).await;
    bench.broker.lock().script = vec![
        Verdict::Break(Remedy::Retry),
        Verdict::Refuse(Remedy::Hold),
        Verdict::Refuse(Remedy::Retry),
        Verdict::Break(Remedy::Hold),
        Verdict::Confirm,
        Verdict::Break(Remedy::Retry),
    ];
    bench.publish_all().await;
    bench.assert_in_order(300, &[]);
    assert!(bench.broker.lock().script.is_empty(), "every fault of the script fired");
    let errors = bench
        .metrics
        .publish_errors
        .with_label_values(&["events", "scripted"])
        .get();
    assert_eq!(errors, 5);
    let blocked = bench
        .metrics
        .route_blocked
        .with_label_values(&["events", "scripted"])
        .get();
    assert_eq!(blocked, 0, "it publishes again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_message_is_dead_lettered_alone_and_its_neighbours_pass() {
    let bench = Bench::new();
    bench.append(200).await;
    bench.broker.lock().poisoned = HashSet::from([3, 77, 78]);
    bench.publish_all().await;
    bench.assert_in_order(200, &[3, 77, 78]);
    let letters = bench.dead_letters().await;
    let sequences: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
    assert_eq!(sequences, [3, 77, 78]);
    assert_eq!(letters[0].record, event_bytes(&bench, 3).await);
    let count = bench
        .metrics
        .dead_letters
        .with_label_values(&["events", "scripted"])
        .get();
    assert_eq!(count, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_alone_is_set_aside_and_the_session_goes_on() {
    let bench = Bench::new();
    bench.append(200).await;
    let unroutable: Vec<u64> = (1..=200).filter(|n| n % 7 == 0 && n % 10 != 0).collect();
    bench.broker.lock().unroutable = unroutable.iter().copied().collect();
    bench.publish_all().await;
    bench.assert_in_order(200, &unroutable);
    assert_eq!(bench.broker.lock().opened, 1);
    let letters = bench.dead_letters().await;
    let sequences: Vec<u64> = letters.iter().map(|letter| letter.sequence).collect();
    assert_eq!(sequences, unroutable);
    assert_eq!(letters[0].record, event_bytes(&bench, 7).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_set_aside_behind_a_gap_is_passed_over_by_the_replay() {
    let bench = Bench::new();
    bench.append(200).await;
    // The first half of a batch is answered, then the session breaks, again and again.
    bench.broker.lock().unroutable = HashSet::from([2, 31, 91]);
    bench.broker.lock().script = vec![Verdict::Break(Remedy::Retry); 6];
    bench.publish_all().await;
    bench.assert_in_order(200, &[2, 31, 91]);
    let sequences: Vec<u64> = bench
        .dead_letters()
        .await
        .iter()
        .map(|letter| letter.sequence)
        .collect();
    assert_eq!(sequences, [2, 31, 91], "each once");
}

async fn event_bytes(bench: &Bench, sequence: u64) -> Bytes {
    let mut records = Vec::new();
    bench
        .spool
        .reader(sequence)
        .next(1, 1 << 20, &mut records)
        .await
        .unwrap();
    records.remove(0).bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_cannot_be_decoded_is_a_dead_letter() {
    let bench = Bench::new();
    bench.append(5).await;
    bench
        .spool
        .append(Bytes::from_static(b"\xffnot an event"), RecordClass::Ordinary)
        .await
        .unwrap();
    bench.publish_all().await;
    let letters = bench.dead_letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!((letters[0].sequence, letters[0].reason.as_str()), (6, "undecodable"));
    assert_eq!(bench.broker.lock().log.len(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_goes_on_behind_its_cursor() {
    let bench = Bench::new();
    bench.append(50).await;
    bench.publish_all().await;
    bench.append(50).await;
    bench.publish_all().await;
    assert_eq!(
        bench.broker.lock().log.len(),
        90,
        "nothing of the first run was published again"
    );
    assert!(bench.dir.path().exists());
}
