//! What the tests of a sink publish with.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use forebay_broker::{EnqueueError, Message, PublishFailure, Remedy, SettledMessage, Sink};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::census::Delivered;

/// What a job does with a sink, in its simplest form: everything in order, from the lowest unsettled after a failure.
pub struct Publisher<S> {
    sink: S,
    messages: BTreeMap<u64, Message>,
    /// Every failure that was met, in order.
    pub failures: Vec<PublishFailure>,
    pub dead: Vec<u64>,
    confirmed: Arc<AtomicUsize>,
    /// The labels of all failures, and of what the sink said of itself.
    told: Arc<Mutex<BTreeSet<&'static str>>>,
    one_by_one: bool,
    /// Handed over at once, at most.
    burst: usize,
    /// Between two bursts.
    pause: Duration,
}

impl<S: Sink> Publisher<S> {
    pub fn new(sink: S, messages: impl IntoIterator<Item = Message>) -> Self {
        Self {
            sink,
            messages: messages.into_iter().map(|m| (m.sequence, m)).collect(),
            failures: Vec::new(),
            dead: Vec::new(),
            confirmed: Arc::default(),
            told: Arc::default(),
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
                self.fail(failure);
                sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn session(&mut self) -> Result<(), PublishFailure> {
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
            self.settle(&mut settled).await?;
            for SettledMessage { sequence, result } in settled.drain(..) {
                in_flight -= 1;
                match result {
                    Ok(()) => {
                        self.messages.remove(&sequence);
                        self.confirmed.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(failure) if failure.remedy == Remedy::SetAside => {
                        self.bury(sequence);
                        self.fail(failure);
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
    pub fn after(&self, count: usize) -> impl Future<Output = ()> + use<S> {
        let confirmed = self.confirmed.clone();
        async move {
            while confirmed.load(Ordering::Relaxed) < count {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Until a failure or a trouble of the sink has had this label.
    pub fn told(&self, label: &'static str) -> impl Future<Output = ()> + use<S> {
        let told = self.told.clone();
        async move {
            while !told.lock().unwrap().contains(label) {
                sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// Settles what the sink has for it; while there is nothing, looks at what troubles the sink.
    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        loop {
            if let Ok(over) = timeout(Duration::from_millis(50), self.sink.settle(settled)).await {
                return over;
            }
            if let Some(trouble) = self.sink.trouble() {
                self.tell(trouble.label);
            }
        }
    }

    fn fail(&mut self, failure: PublishFailure) {
        self.tell(failure.label);
        self.failures.push(failure);
    }

    fn tell(&self, label: &'static str) {
        self.told.lock().unwrap().insert(label);
    }

    fn bury(&mut self, sequence: u64) {
        self.messages.remove(&sequence);
        self.dead.push(sequence);
    }

    /// The sink, for another one to publish with.
    pub fn into_sink(self) -> S {
        self.sink
    }

    pub fn labels(&self) -> BTreeSet<&'static str> {
        self.failures.iter().map(|failure| failure.label).collect()
    }
}

/// The order in which the sequence numbers of each key appear first in a place, which is all the order that a broker
/// has.
fn first_seen(records: &[impl Delivered]) -> BTreeMap<(&str, String), Vec<u64>> {
    let mut seen: BTreeMap<_, Vec<u64>> = BTreeMap::new();
    for record in records {
        let sequences = seen.entry((record.key(), record.place())).or_default();
        if !sequences.contains(&record.sequence()) {
            sequences.push(record.sequence());
        }
    }
    seen
}

pub fn assert_in_order(records: &[impl Delivered], expected: impl IntoIterator<Item = u64>) {
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
pub async fn trouble_within(sink: &impl Sink, within: Duration) -> PublishFailure {
    let deadline = Instant::now() + within;
    loop {
        if let Some(trouble) = sink.trouble() {
            return trouble;
        }
        assert!(Instant::now() < deadline, "no trouble told within {within:?}");
        sleep(Duration::from_millis(50)).await;
    }
}
