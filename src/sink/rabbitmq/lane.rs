//! One partition's way to the broker: a channel, and the one task that publishes on it.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    future::Future as _,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use lapin::{
    Channel, Confirmation, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use super::{
    encode, failure,
    session::Shared,
    settlement::{Answer, Fate, fates},
};
use crate::sink::{Failure, Message, Remedy, Settled};

/// What waits for a lane, on its way there and in its streams.
pub(super) const FEED_RECORDS_MAX: usize = 2048;
const WAITING_RECORDS_MAX: usize = 2048;
/// A batch: published without waiting, and settled as a whole.
const BATCH_RECORDS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The broker's answer to a whole batch is waited for so long, and longer by the time that its bytes take on a slow network.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: usize = 256 << 10;
const CHANNEL_DEADLINE: Duration = Duration::from_secs(10);
/// A lane that was refused so long gets a new channel. RabbitMQ's channels keep a view of the queues that they publish to: one that was
/// opened while a quorum queue had lost its leader goes on refusing after there is a new one.
const CHANNEL_REFUSED_MAX: Duration = Duration::from_secs(5);
/// Between two offers of a message that a queue refuses.
const REFUSED_DELAY_MIN: Duration = Duration::from_millis(20);
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(1);

/// A lane, owned by its task: nothing else can publish on its channel.
pub(super) struct Lane {
    partition: u32,
    shared: Arc<Shared>,
    channel: Channel,
    feed: mpsc::Receiver<Message>,
    waiting: Waiting,
    refused: Option<Refused>,
}

/// Taken from the feed, by stream: at most one message of a key is on its way, so none can overtake another.
#[derive(Default)]
struct Waiting {
    /// Each stream that has something waiting or on its way.
    streams: HashMap<String, VecDeque<Message>>,
    /// The keys of those with nothing on its way, in the order of their turn.
    ready: VecDeque<String>,
    records: usize,
}

/// A message on its way to the socket.
enum Sending<F> {
    Queued(Pin<Box<F>>),
    Sent(PublisherConfirm),
}

/// Some of the last batch was not taken.
struct Refused {
    since: Instant,
    delay: Duration,
    /// When the channel is to be replaced.
    renewal: Instant,
}

impl Lane {
    /// Publishes what comes through `feed`, until it is closed or the session fails, which it then tells.
    pub async fn run(partition: u32, shared: Arc<Shared>, feed: mpsc::Receiver<Message>) {
        let ended = async {
            let channel = open_channel(&shared).await?;
            shared.channel_opened();
            let mut lane = Self {
                partition,
                shared: shared.clone(),
                channel,
                feed,
                waiting: Waiting::default(),
                refused: None,
            };
            while lane.fill().await {
                lane.publish().await?;
            }
            Ok(())
        };
        if let Err(failure) = ended.await {
            shared.end(failure);
        }
    }

    /// Takes what waits; waits for something if there is nothing. `false`: nothing will come any more.
    async fn fill(&mut self) -> bool {
        if self.waiting.records == 0 {
            match self.feed.recv().await {
                Some(message) => self.waiting.push(message),
                None => return false,
            }
        }
        while self.waiting.records < WAITING_RECORDS_MAX
            && let Ok(message) = self.feed.try_recv()
        {
            self.waiting.push(message);
        }
        true
    }

    /// Publishes one batch and settles it.
    async fn publish(&mut self) -> Result<(), Failure> {
        let batch = self.waiting.batch();
        let (answers, returned) = self.exchange(&batch).await?;
        self.shared.count_returned(returned.len());
        let sequences: Vec<u64> = batch.iter().map(|message| message.sequence).collect();
        let fates = fates(&sequences, &answers, &returned).map_err(|contradiction| {
            let text = format!("sink '{}': a batch's confirms: {contradiction}", self.shared.names.sink);
            failure::failure(Remedy::Retry, failure::OTHER, text)
        })?;
        let mut settled = Vec::with_capacity(batch.len());
        let mut refused = Vec::new();
        let mut reason = None;
        for (message, fate) in batch.into_iter().zip(fates) {
            let result = match fate {
                Fate::Delivered => Ok(()),
                Fate::Returned => {
                    let key = encode::routing_key(self.partition, &message);
                    if self.shared.hold_unroutable {
                        reason = Some(self.shared.unroutable(Remedy::Hold, &key));
                        refused.push(message);
                        continue;
                    }
                    Err(self.shared.unroutable(Remedy::SetAside, &key))
                }
                Fate::Nacked => {
                    self.shared.count_nack();
                    let (sink, exchange) = (&self.shared.names.sink, self.shared.exchange.as_str());
                    reason.get_or_insert_with(|| failure::nacked(sink, exchange, self.partition));
                    refused.push(message);
                    continue;
                }
            };
            settled.push(Settled {
                sequence: message.sequence,
                result,
            });
            self.waiting.settled(message.key);
        }
        self.waiting.refused(refused);
        let progress = !settled.is_empty();
        self.shared.settle(settled.into_iter());
        match reason {
            None => self.went_well(),
            Some(reason) => self.was_refused(reason, progress).await?,
        }
        Ok(())
    }

    /// Publishes a batch and waits until the broker has answered for every message of it.
    async fn exchange(&self, batch: &[Message]) -> Result<(Vec<Answer>, BTreeSet<u64>), Failure> {
        let bytes: usize = batch.iter().map(|message| message.body.len()).sum();
        let deadline = CONFIRM_DEADLINE + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64);
        let mut answered = std::pin::pin!(self.answers(batch));
        loop {
            match timeout(deadline, &mut answered).await {
                Ok(answered) => return answered.map_err(|error| self.of_error(&error, batch)),
                // A blocked connection is named as such, and its silence is no sign of anything.
                Err(_) if self.shared.was_blocked_within(deadline) => {}
                Err(_) => {
                    let (sink, seconds) = (&self.shared.names.sink, deadline.as_secs());
                    return Err(failure::unconfirmed(sink, self.partition, batch.len(), seconds));
                }
            }
        }
    }

    async fn answers(&self, batch: &[Message]) -> lapin::Result<(Vec<Answer>, BTreeSet<u64>)> {
        let records = batch.len();
        let mut sendings = Vec::with_capacity(records);
        for message in batch {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let (key, properties) = encode::message(self.partition, message);
            let exchange = self.shared.exchange.clone();
            let mut publish = Box::pin(
                self.channel
                    .basic_publish(exchange, key, options, &message.body, properties),
            );
            // The first poll numbers the message and queues its frames; the rest of it is waiting, which is done for all at once.
            sendings.push(match publish.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(sent) => Sending::Sent(sent?),
                Poll::Pending => Sending::Queued(publish),
            });
        }
        // The last one first: one wake-up for what comes in order.
        let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(records);
        for sending in sendings.into_iter().rev() {
            confirms.push(match sending {
                Sending::Sent(confirm) => confirm,
                Sending::Queued(publish) => publish.await?,
            });
        }
        let mut answers = Vec::with_capacity(records);
        let mut returned = BTreeSet::new();
        for confirm in confirms {
            let (answer, message) = match confirm.await? {
                Confirmation::Ack(message) => (Answer::Ack, message),
                Confirmation::Nack(message) => (Answer::Nack, message),
                Confirmation::NotRequested => (Answer::None, None),
            };
            answers.push(answer);
            // A message without a sequence is not one of ours, and 0 is nobody's.
            returned.extend(message.map(|message| encode::sequence_of(&message.delivery.properties).unwrap_or(0)));
        }
        answers.reverse();
        Ok((answers, returned))
    }

    /// The batch failed as a whole. If the broker said which of it was too large, that one is set aside.
    fn of_error(&self, error: &lapin::Error, batch: &[Message]) -> Failure {
        let found = failure::of_session(error, &self.shared.names.sink, self.shared.exchange.as_str());
        if found.label != failure::TOO_LARGE {
            return found;
        }
        let bytes = failure::refused_bytes(&found.text);
        let refused = |message: &&Message| batch.len() == 1 || Some(message.body.len()) == bytes;
        let Some(culprit) = batch.iter().find(refused) else {
            return found;
        };
        self.shared.settle(std::iter::once(Settled {
            sequence: culprit.sequence,
            result: Err(Failure {
                remedy: Remedy::SetAside,
                ..found.clone()
            }),
        }));
        Failure {
            remedy: Remedy::Retry,
            ..found
        }
    }

    fn went_well(&mut self) {
        if self.refused.take().is_some() {
            self.shared.lane_is_well(self.partition);
        }
    }

    /// Messages were not taken: they are offered again after a pause. `progress`: others of the batch were taken.
    async fn was_refused(&mut self, found: Failure, progress: bool) -> Result<(), Failure> {
        let shared = &self.shared;
        let now = Instant::now();
        let refused = match self.refused.take() {
            Some(refused) if !progress => Refused {
                delay: (refused.delay * 2).min(REFUSED_DELAY_MAX),
                ..refused
            },
            before => Refused {
                // A full queue that takes some is slow. What has no binding waits for somebody, whatever else is taken.
                since: before
                    .filter(|_| found.label == failure::UNROUTABLE)
                    .map_or(now, |before| before.since),
                delay: REFUSED_DELAY_MIN,
                renewal: now + CHANNEL_REFUSED_MAX,
            },
        };
        shared.lane_is_refused(self.partition, refused.since, found);
        sleep(refused.delay).await;
        let refused = self.refused.insert(refused);
        if Instant::now() >= refused.renewal {
            refused.renewal = Instant::now() + CHANNEL_REFUSED_MAX;
            // Everything on the old one is answered.
            let old = std::mem::replace(&mut self.channel, open_channel(shared).await?);
            // An error says that it is closed already.
            let _ = timeout(CHANNEL_DEADLINE, old.close(200, "OK".into())).await;
        }
        Ok(())
    }
}

impl Waiting {
    fn push(&mut self, message: Message) {
        self.records += 1;
        match self.streams.get_mut(&message.key) {
            Some(stream) => stream.push_back(message),
            None => {
                self.ready.push_back(message.key.clone());
                self.streams.insert(message.key.clone(), VecDeque::from([message]));
            }
        }
    }

    /// The next message of each stream whose turn it is; at least one, if anything waits.
    fn batch(&mut self) -> Vec<Message> {
        let mut batch: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_RECORDS_MAX
            && let Some(key) = self.ready.pop_front()
        {
            let stream = self.streams.get_mut(&key).expect("a stream that is ready is known");
            let next = stream.front().expect("a stream that is ready has something waiting");
            bytes += next.body.len();
            if !batch.is_empty() && bytes > BATCH_BYTES_MAX {
                self.ready.push_front(key);
                break;
            }
            batch.extend(stream.pop_front());
        }
        self.records -= batch.len();
        batch
    }

    /// A message of this key was on its way and is settled: the stream's next one may go.
    fn settled(&mut self, key: String) {
        match self.streams.get(&key) {
            Some(stream) if !stream.is_empty() => self.ready.push_back(key),
            _ => drop(self.streams.remove(&key)),
        }
    }

    /// Messages were on their way and come back: each is the next of its stream again, and first in turn.
    fn refused(&mut self, messages: Vec<Message>) {
        self.records += messages.len();
        for message in messages.into_iter().rev() {
            let stream = self
                .streams
                .get_mut(&message.key)
                .expect("a stream stays while it is on its way");
            self.ready.push_front(message.key.clone());
            stream.push_front(message);
        }
    }
}

async fn open_channel(shared: &Shared) -> Result<Channel, Failure> {
    let opening = async {
        let channel = shared.link.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    };
    let sink = &shared.names.sink;
    match timeout(CHANNEL_DEADLINE, opening).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(failure::of_session(&error, sink, shared.exchange.as_str())),
        Err(_) if shared.was_blocked_within(CHANNEL_DEADLINE) => {
            Err(failure::blocked(sink, "no channel could be opened meanwhile"))
        }
        Err(_) => Err(failure::closed(sink, "no channel could be opened in time")),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bytes::Bytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn message(sequence: u64, key: u8, bytes: usize) -> Message {
        Message {
            sequence,
            replica: "forebay-0".into(),
            id: Uuid::from_u128(sequence.into()),
            destination: "feeds.started.A.cam".into(),
            key: format!("A/{key}"),
            content_type: "application/json".into(),
            attributes: Vec::new(),
            body: Bytes::from(vec![b'x'; bytes]),
            time_ms: 0,
            trace: None,
        }
    }

    proptest! {
        /// Whatever a broker refuses, and whenever messages come.
        #[test]
        fn a_stream_has_one_message_on_its_way_and_all_go_out_in_its_order(
            keys in proptest::collection::vec(0_u8..5, 1..80),
            refusals in proptest::collection::vec(any::<bool>(), 1..300),
            arrivals in 1_usize..9,
        ) {
            let mut waiting = Waiting::default();
            let mut coming = keys.iter().zip(1..).map(|(key, sequence)| message(sequence, *key, 10));
            let mut refusals = refusals.into_iter();
            let mut taken: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            loop {
                coming.by_ref().take(arrivals).for_each(|message| waiting.push(message));
                let batch = waiting.batch();
                if batch.is_empty() {
                    break;
                }
                let of_batch: BTreeSet<&String> = batch.iter().map(|message| &message.key).collect();
                prop_assert_eq!(of_batch.len(), batch.len(), "one of each");
                let mut refused = Vec::new();
                for message in batch {
                    if refusals.next().unwrap_or(false) {
                        refused.push(message);
                    } else {
                        taken.entry(message.key.clone()).or_default().push(message.sequence);
                        waiting.settled(message.key);
                    }
                }
                waiting.refused(refused);
            }
            prop_assert!(waiting.streams.is_empty() && waiting.ready.is_empty() && waiting.records == 0);
            prop_assert_eq!(taken.values().map(Vec::len).sum::<usize>(), keys.len());
            for (key, sequences) in taken {
                prop_assert!(sequences.is_sorted(), "{}: {:?}", key, sequences);
            }
        }
    }

    #[test]
    fn a_batch_is_limited_by_bytes_and_takes_one_large_message_alone() {
        let mut waiting = Waiting::default();
        for (sequence, bytes) in [(1, BATCH_BYTES_MAX + 1), (2, BATCH_BYTES_MAX), (3, 1)] {
            waiting.push(message(sequence, sequence as u8, bytes));
        }
        let mut batches = Vec::new();
        while waiting.records > 0 {
            let batch = waiting.batch();
            batches.push(batch.iter().map(|message| message.sequence).collect::<Vec<_>>());
            batch.into_iter().for_each(|message| waiting.settled(message.key));
        }
        assert_eq!(batches, [[1], [2], [3]]);
    }
}
