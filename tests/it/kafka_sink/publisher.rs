//! What the tests publish with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use forebay::{
    config,
    sink::{
        EnqueueError, Failure, Message, Remedy, Settled, Sink,
        kafka::{KafkaMetrics, KafkaSink, Limits, Names},
    },
};
use tokio::time::{Instant, sleep, timeout_at};
use uuid::Uuid;

use crate::support::kafka as server;

pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn sink_with(brokers: &[String], properties: &[(&str, &str)]) -> KafkaSink {
    let config = config::Kafka {
        brokers: brokers.to_vec(),
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        create_topics: None,
    };
    new_sink_for(&config, &[])
}

pub fn new_sink_for(config: &config::Kafka, topics: &[String]) -> KafkaSink {
    let names = Names {
        sink: "main".into(),
        route: "events".into(),
        topics: topics.into(),
    };
    let limits = Limits {
        body_bytes_max: 4 << 20,
        in_flight_records_max: 10_000,
    };
    let metrics = KafkaMetrics::register(&prometheus::Registry::new()).unwrap();
    KafkaSink::new(config, names, limits, Arc::new(metrics)).unwrap()
}

pub fn sink(bootstrap: &str) -> KafkaSink {
    sink_with(&bootstrap.split(',').map(str::to_string).collect::<Vec<_>>(), &[])
}

pub fn message(topic: &str, sequence: u64) -> Message {
    Message {
        sequence,
        replica: "forebay-0".into(),
        id: Uuid::from_u128(sequence.into()),
        topic: topic.into(),
        key: format!("ZG6NWV/stream-{}", sequence % 7),
        content_type: "application/cloudevents+json; charset=UTF-8".into(),
        attributes: Vec::new(),
        body: Bytes::from(format!("{{\"n\":{sequence}}}")),
    }
}

/// What dispatch does with a sink, in its simplest form: everything in order, from the lowest unsettled after a failure.
pub struct Publisher {
    sink: KafkaSink,
    messages: BTreeMap<u64, Message>,
    /// Every failure that was met, in order.
    pub failures: Vec<Failure>,
    pub dead: Vec<u64>,
    confirmed: Arc<AtomicUsize>,
    one_by_one: bool,
    /// Handed over at once, at most.
    burst: usize,
    /// Between two bursts.
    pause: Duration,
}

impl Publisher {
    pub fn new(sink: KafkaSink, messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            sink,
            messages: messages.into_iter().map(|m| (m.sequence, m)).collect(),
            failures: Vec::new(),
            dead: Vec::new(),
            confirmed: Arc::default(),
            one_by_one: false,
            burst: usize::MAX,
            pause: Duration::ZERO,
        }
    }

    /// A steady trickle, so that there is time to break something while it runs.
    pub fn slowly(mut self, burst: usize, pause: Duration) -> Self {
        self.burst = burst;
        self.pause = pause;
        self
    }

    /// Publishes until nothing is left.
    pub async fn drain(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        if timeout_at(deadline, self.publish()).await.is_err() {
            panic!(
                "{} messages left after {within:?}; failures: {:?}; trouble: {:?}",
                self.messages.len(),
                self.failures.iter().rev().take(3).collect::<Vec<_>>(),
                self.sink.trouble()
            );
        }
    }

    async fn publish(&mut self) {
        while !self.messages.is_empty() {
            if let Err(failure) = self.session().await {
                if failure.remedy == Remedy::DeadLetter {
                    self.one_by_one = true;
                }
                self.failures.push(failure);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn session(&mut self) -> Result<(), Failure> {
        self.sink.reopen().await?;
        let mut waiting: Vec<Message> = self.messages.values().cloned().rev().collect();
        let mut settled = Vec::new();
        let mut in_flight = 0;
        while !self.messages.is_empty() {
            let mut burst = 0;
            while burst < self.burst
                && (!self.one_by_one || in_flight == 0)
                && let Some(next) = waiting.pop()
            {
                burst += 1;
                let sequence = next.sequence;
                match self.sink.enqueue(next) {
                    Ok(()) => in_flight += 1,
                    Err(EnqueueError::Full(same)) => {
                        waiting.push(*same);
                        break;
                    }
                    Err(EnqueueError::Failed(failure)) if failure.remedy == Remedy::DeadLetter => self.bury(sequence),
                    Err(EnqueueError::Failed(failure)) => return Err(failure),
                }
            }
            sleep(self.pause).await;
            self.sink.settle(&mut settled).await?;
            for Settled { sequence, result } in settled.drain(..) {
                in_flight -= 1;
                match result {
                    Ok(()) => {
                        self.messages.remove(&sequence);
                        self.confirmed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(failure) if failure.remedy == Remedy::DeadLetter && self.one_by_one => {
                        self.bury(sequence);
                        return Err(failure);
                    }
                    Err(failure) => return Err(failure),
                }
            }
        }
        Ok(())
    }

    /// Until so many are confirmed: then is the time to break something.
    pub fn after(&self, count: usize) -> impl Future<Output = ()> + use<> {
        let confirmed = self.confirmed.clone();
        async move {
            while confirmed.load(Ordering::Relaxed) < count {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    fn bury(&mut self, sequence: u64) {
        self.messages.remove(&sequence);
        self.dead.push(sequence);
    }

    pub fn labels(&self) -> BTreeSet<&'static str> {
        self.failures.iter().map(|failure| failure.label).collect()
    }
}

/// The order in which the sequence numbers of each key appear first in a partition, which is all the order that Kafka has.
fn first_seen(records: &[server::Read]) -> BTreeMap<(&str, i32), Vec<u64>> {
    let mut seen: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for record in records {
        let sequences = seen.entry((record.key.as_str(), record.partition)).or_default();
        if !sequences.contains(&record.sequence()) {
            sequences.push(record.sequence());
        }
    }
    seen
}

pub fn assert_in_order(records: &[server::Read], expected: impl IntoIterator<Item = u64>) {
    let seen = first_seen(records);
    for (key, sequences) in &seen {
        assert!(sequences.is_sorted(), "key {key:?}: {sequences:?}");
    }
    let all: BTreeSet<u64> = seen.into_values().flatten().collect();
    let expected: BTreeSet<u64> = expected.into_iter().collect();
    let missing: Vec<_> = expected.difference(&all).collect();
    let unexpected: Vec<_> = all.difference(&expected).collect();
    assert!(
        missing.is_empty() && unexpected.is_empty(),
        "missing {missing:?}, unexpected {unexpected:?}"
    );
}

/// What the sink says of itself, once it says something.
pub async fn trouble_within(sink: &KafkaSink, within: Duration) -> Failure {
    let deadline = Instant::now() + within;
    loop {
        if let Some(trouble) = sink.trouble() {
            return trouble;
        }
        assert!(Instant::now() < deadline, "no trouble told within {within:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
