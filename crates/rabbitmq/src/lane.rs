//! A partition's way to the broker: a channel, and the one task that publishes on it. Where fewer channels are granted
//! than there are partitions, several share one.
//!
//! What a queue refuses (nacks) may have been taken by others that are bound to the same key, so each try of it is a
//! copy there. While something was refused, one message of all those is tried at a time, in turn, and once it is taken
//! two, four, and so on. What came back unroutable is in no queue at all: of that, everything is tried again.
//!
//! A queue that answers nothing (a quorum queue without a majority) is waited for as long as other lanes are confirmed
//! by the same connection, for [`SILENT_MAX`] at most. Then, or where nothing at all is confirmed, the session ends, so
//! that the next one can be with another node. In that, the lane begins with a single message.

use std::{
    collections::{BTreeSet, HashMap, HashSet, VecDeque},
    future::Future as _,
    mem,
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
    time::{Instant, sleep_until, timeout},
};

use super::{
    encode, failure,
    session::SessionShared,
    settlement::{BatchAnswer, MessageFate, fates},
};
use crate::failure::{RabbitMqCause, RabbitMqFailure};
use forebay_broker::{Message, Remedy, SettledMessage};

/// A batch: published without waiting, and settled as a whole.
const BATCH_RECORDS_MAX: usize = 1024;
const BATCH_BYTES_MAX: usize = 1 << 20;
/// The broker's answer to a whole batch is waited for so long, and longer by the time that its bytes take on a slow
/// network.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(30);
const BYTES_PER_SECOND_MIN: usize = 256 << 10;
const CHANNEL_DEADLINE: Duration = Duration::from_secs(10);
/// A lane without an answer for so long ends the session, though others go on: another node may be nearer to its queue.
const SILENT_MAX: Duration = Duration::from_secs(300);
/// A lane that was refused so long gets a new channel. RabbitMQ's channels keep a view of the queues that they publish
/// to: one that was opened while a quorum queue had lost its leader goes on refusing after there is a new one.
const CHANNEL_REFUSED_MAX: Duration = Duration::from_secs(5);
/// Between two offers of a message that a queue refuses.
const REFUSED_DELAY_MIN: Duration = Duration::from_millis(20);
const REFUSED_DELAY_MAX: Duration = Duration::from_secs(1);

/// A lane, owned by its task: nothing else can publish on its channel.
pub(super) struct ChannelLane {
    number: usize,
    shared: Arc<SessionShared>,
    channel: Channel,
    feed: mpsc::UnboundedReceiver<Message>,
    waiting: UnconfirmedMessage,
    refused: Option<RefusedMessage>,
    /// There was no answer to anything, in this session or the one before.
    silent: bool,
}

/// Taken from the feed, by stream: at most one message of a key is on its way, so none can overtake another.
#[derive(Default)]
struct UnconfirmedMessage {
    /// Each stream that has something waiting or on its way.
    streams: HashMap<String, VecDeque<Message>>,
    /// The keys of those with nothing on its way, in the order of their turn.
    ready: VecDeque<String>,
    /// The keys of those whose next message was nacked, or came back.
    nacked: VecDeque<String>,
    returned: Vec<String>,
    /// Of these the next message was refused before, and is ready or on its way again.
    tried: HashSet<String>,
}

/// A message on its way to the socket.
enum LaneSending<F> {
    Queued(Pin<Box<F>>),
    Sent(PublisherConfirm),
}

/// Something was not taken, and waits to be tried again.
struct RefusedMessage {
    since: Instant,
    delay: Duration,
    /// When it is tried again, and how many of what was nacked.
    again: Instant,
    nacked_max: usize,
    /// When the channel is to be replaced.
    renewal: Instant,
    reason: RabbitMqFailure,
}

/// What became of those messages of a batch that had been refused before.
#[derive(Default)]
struct RefusedTries {
    taken: usize,
    refused: usize,
}

impl ChannelLane {
    /// Publishes what comes through `feed`, until it is closed or the session fails, which it then tells.
    pub async fn run(number: usize, shared: Arc<SessionShared>, feed: mpsc::UnboundedReceiver<Message>) {
        let ended = async {
            let channel = open_channel(&shared).await?;
            shared.channel_opened();
            let silent = shared.was_silent(number);
            let mut lane = Self {
                number,
                shared: shared.clone(),
                channel,
                feed,
                waiting: UnconfirmedMessage::default(),
                refused: None,
                silent,
            };
            while lane.fill().await? {
                lane.publish().await?;
            }
            Ok(())
        };
        if let Err(failure) = ended.await {
            shared.end(failure);
        }
    }

    /// Takes what waits; waits for something if there is nothing that can go. `Ok(false)`: nothing will come any more.
    async fn fill(&mut self) -> Result<bool, RabbitMqFailure> {
        loop {
            while let Ok(message) = self.feed.try_recv() {
                self.waiting.push(message);
            }
            if self
                .refused
                .as_ref()
                .is_some_and(|refused| refused.again <= Instant::now())
            {
                self.try_again().await?;
            }
            if !self.waiting.ready.is_empty() {
                return Ok(true);
            }
            let again = self.refused.as_ref().map(|refused| refused.again);
            tokio::select! {
                message = self.feed.recv() => match message {
                    Some(message) => self.waiting.push(message),
                    None => return Ok(false),
                },
                () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {}
            }
        }
    }

    /// Publishes one batch and settles it.
    async fn publish(&mut self) -> Result<(), RabbitMqFailure> {
        let batch = self.waiting.batch(if self.silent { 1 } else { BATCH_RECORDS_MAX });
        let (answers, returned) = self.exchange(&batch).await?;
        if mem::take(&mut self.silent) {
            self.shared.lane_is_well(self.number);
        }
        self.shared.count_returned(returned.len());
        let sequences: Vec<u64> = batch.iter().map(|message| message.sequence).collect();
        let fates = fates(&sequences, &answers, &returned).map_err(|contradiction| {
            let text = format!("sink '{}': a batch's confirms: {contradiction}", self.shared.names.sink);
            failure::failure(Remedy::Retry, RabbitMqCause::Other, text)
        })?;
        let mut settled = Vec::with_capacity(batch.len());
        let mut tries = RefusedTries::default();
        let mut reason = None;
        let mut missing = None;
        for (message, fate) in batch.into_iter().zip(fates) {
            let tried = self.waiting.tried.remove(&message.key);
            let result = match fate {
                MessageFate::Delivered => Ok(()),
                MessageFate::Returned => {
                    let key = encode::routing_key(self.shared.partition(&message), &message);
                    if self.shared.is_to_be_declared_for(message.sequence) {
                        missing = Some(failure::undeclared(&self.shared.names.sink, &key));
                        continue;
                    }
                    if self.shared.hold_unroutable {
                        reason = Some(self.shared.unroutable(Remedy::Hold, &key));
                        tries.refused += usize::from(tried);
                        self.waiting.returned(message);
                        continue;
                    }
                    Err(self.shared.unroutable(Remedy::SetAside, &key))
                }
                MessageFate::Nacked => {
                    self.shared.count_nack();
                    let (sink, exchange) = (&self.shared.names.sink, self.shared.exchange.as_str());
                    reason.get_or_insert_with(|| failure::nacked(sink, exchange, self.shared.partition(&message)));
                    tries.refused += usize::from(tried);
                    self.waiting.nacked(message);
                    continue;
                }
            };
            tries.taken += usize::from(tried);
            settled.push(SettledMessage {
                sequence: message.sequence,
                result: result.map_err(Into::into),
            });
            self.waiting.settled(message.key);
        }
        if settled.iter().any(|settled| settled.result.is_ok()) {
            self.shared.confirmed();
        }
        self.shared.report_settled(settled.into_iter());
        if let Some(missing) = missing {
            return Err(missing);
        }
        self.note(reason, &tries);
        Ok(())
    }

    /// Publishes a batch and waits until the broker has answered for every message of it.
    async fn exchange(&mut self, batch: &[Message]) -> Result<(Vec<BatchAnswer>, BTreeSet<u64>), RabbitMqFailure> {
        let bytes: usize = batch.iter().map(|message| message.body.len()).sum();
        let deadline = CONFIRM_DEADLINE + Duration::from_secs((bytes / BYTES_PER_SECOND_MIN) as u64);
        let began = Instant::now();
        let mut silent = false;
        let answered = {
            let mut answered = std::pin::pin!(self.answers(batch));
            loop {
                match timeout(deadline, &mut answered).await {
                    Ok(answered) => break answered,
                    // A blocked connection is named as such, and its silence is no sign of anything.
                    Err(_) if self.shared.was_blocked_within(deadline) => {}
                    Err(_) => {
                        let (sink, seconds) = (&self.shared.names.sink, deadline.as_secs());
                        let partition = self.shared.partition(&batch[0]);
                        let reason = failure::unconfirmed(sink, partition, batch.len(), seconds);
                        self.shared.lane_is_refused(self.number, began, reason.clone());
                        silent = true;
                        // By the same connection. What this lane was confirmed is longer ago.
                        let others_go_on = self.shared.was_confirmed_within(deadline);
                        if !others_go_on || began.elapsed() >= SILENT_MAX {
                            return Err(reason);
                        }
                    }
                }
            }
        };
        self.silent |= silent;
        answered.map_err(|error| self.of_error(&error, batch))
    }

    async fn answers(&self, batch: &[Message]) -> lapin::Result<(Vec<BatchAnswer>, BTreeSet<u64>)> {
        let records = batch.len();
        let mut sendings = Vec::with_capacity(records);
        for message in batch {
            let options = BasicPublishOptions {
                mandatory: true,
                ..BasicPublishOptions::default()
            };
            let (key, properties) = encode::message(self.shared.partition(message), message);
            let exchange = self.shared.exchange.clone();
            let mut publish = Box::pin(
                self.channel
                    .basic_publish(exchange, key, options, &message.body, properties),
            );
            // The first poll numbers the message and queues its frames; the rest of it is waiting, which is done for
            // all at once.
            sendings.push(match publish.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(sent) => LaneSending::Sent(sent?),
                Poll::Pending => LaneSending::Queued(publish),
            });
        }
        // The last one first: one wake-up for what comes in order.
        let mut confirms: Vec<PublisherConfirm> = Vec::with_capacity(records);
        for sending in sendings.into_iter().rev() {
            confirms.push(match sending {
                LaneSending::Sent(confirm) => confirm,
                LaneSending::Queued(publish) => publish.await?,
            });
        }
        let mut answers = Vec::with_capacity(records);
        let mut returned = BTreeSet::new();
        for confirm in confirms {
            let (answer, message) = match confirm.await? {
                Confirmation::Ack(message) => (BatchAnswer::Ack, message),
                Confirmation::Nack(message) => (BatchAnswer::Nack, message),
                Confirmation::NotRequested => (BatchAnswer::None, None),
            };
            answers.push(answer);
            // A message without a sequence is not one of ours, and 0 is nobody's.
            returned.extend(message.map(|message| encode::sequence_of(&message.delivery.properties).unwrap_or(0)));
        }
        answers.reverse();
        Ok((answers, returned))
    }

    /// The batch failed as a whole. If the broker said which of it was too large, that one is set aside.
    fn of_error(&self, error: &lapin::Error, batch: &[Message]) -> RabbitMqFailure {
        let found = failure::of_session(error, &self.shared.names.sink, self.shared.exchange.as_str());
        if found.cause != RabbitMqCause::TooLarge {
            return found;
        }
        let bytes = failure::refused_bytes(&found.text);
        let refused = |message: &&Message| batch.len() == 1 || Some(message.body.len()) == bytes;
        let Some(culprit) = batch.iter().find(refused) else {
            return found;
        };
        self.shared.report_settled(std::iter::once(SettledMessage {
            sequence: culprit.sequence,
            result: Err(RabbitMqFailure {
                remedy: Remedy::SetAside,
                ..found.clone()
            }
            .into()),
        }));
        RabbitMqFailure {
            remedy: Remedy::Retry,
            ..found
        }
    }

    /// What was refused in a batch, and became of what had been refused before, decides when that is tried again, and
    /// how much of it.
    fn note(&mut self, reason: Option<RabbitMqFailure>, tries: &RefusedTries) {
        let now = Instant::now();
        if !self.waiting.has_refused() {
            if self.refused.take().is_some() {
                self.shared.lane_is_well(self.number);
            }
            return;
        }
        let refused = match (self.refused.take(), reason) {
            (Some(before), reason) => {
                let reason = reason.unwrap_or(before.reason);
                match tries {
                    // What was refused for the first time waits for the others.
                    RefusedTries { taken: 0, refused: 0 } => RefusedMessage { reason, ..before },
                    RefusedTries { taken: 0, .. } => {
                        let delay = (before.delay * 2).min(REFUSED_DELAY_MAX);
                        RefusedMessage {
                            reason,
                            delay,
                            again: now + delay,
                            nacked_max: 1,
                            ..before
                        }
                    }
                    RefusedTries { refused, .. } => RefusedMessage {
                        // A full queue that takes some is slow. What has no binding waits for somebody, whatever else
                        // is taken.
                        since: if reason.cause == RabbitMqCause::Unroutable {
                            before.since
                        } else {
                            now
                        },
                        reason,
                        delay: REFUSED_DELAY_MIN,
                        again: if *refused == 0 { now } else { now + REFUSED_DELAY_MIN },
                        nacked_max: if *refused == 0 { before.nacked_max * 2 } else { 1 },
                        renewal: now + CHANNEL_REFUSED_MAX,
                    },
                }
            }
            (None, Some(reason)) => RefusedMessage {
                since: now,
                delay: REFUSED_DELAY_MIN,
                again: now + REFUSED_DELAY_MIN,
                nacked_max: 1,
                renewal: now + CHANNEL_REFUSED_MAX,
                reason,
            },
            (None, None) => unreachable!("what is refused has a reason"),
        };
        (self.shared).lane_is_refused(self.number, refused.since, refused.reason.clone());
        self.refused = Some(refused);
    }

    /// Makes ready what is to be tried again.
    async fn try_again(&mut self) -> Result<(), RabbitMqFailure> {
        let Some(refused) = &mut self.refused else {
            return Ok(());
        };
        let now = Instant::now();
        self.waiting.again(refused.nacked_max);
        // Until it is known what became of it.
        refused.again = now + refused.delay;
        if now >= refused.renewal {
            refused.renewal = now + CHANNEL_REFUSED_MAX;
            // Everything on it is answered. An error says that it is closed already.
            let _ = timeout(CHANNEL_DEADLINE, self.channel.close(200, "OK".into())).await;
            self.channel = open_channel(&self.shared).await?;
        }
        Ok(())
    }
}

impl UnconfirmedMessage {
    fn push(&mut self, message: Message) {
        match self.streams.get_mut(&message.key) {
            Some(stream) => stream.push_back(message),
            None => {
                self.ready.push_back(message.key.clone());
                self.streams.insert(message.key.clone(), VecDeque::from([message]));
            }
        }
    }

    /// The next message of each stream whose turn it is, so many at most; at least one, if anything waits.
    fn batch(&mut self, records_max: usize) -> Vec<Message> {
        let mut batch: Vec<Message> = Vec::new();
        let mut bytes = 0;
        while batch.len() < records_max
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
        batch
    }

    /// A message of this key was on its way and is settled: the stream's next one may go.
    fn settled(&mut self, key: String) {
        match self.streams.get(&key) {
            Some(stream) if !stream.is_empty() => self.ready.push_back(key),
            _ => drop(self.streams.remove(&key)),
        }
    }

    /// A message was on its way and is the next of its stream again, to be tried when it is its turn among those that
    /// were nacked.
    fn nacked(&mut self, message: Message) {
        self.nacked.push_back(message.key.clone());
        self.put_back(message);
    }

    /// The same of a message that no queue has.
    fn returned(&mut self, message: Message) {
        self.returned.push(message.key.clone());
        self.put_back(message);
    }

    fn put_back(&mut self, message: Message) {
        let stream = self.streams.get_mut(&message.key);
        stream
            .expect("a stream stays while it is on its way")
            .push_front(message);
    }

    /// What was refused is ready again: of what was nacked so many.
    fn again(&mut self, nacked_max: usize) {
        let nacked = self.nacked.drain(..nacked_max.min(self.nacked.len()));
        let again: Vec<String> = nacked.chain(self.returned.drain(..)).collect();
        self.tried.extend(again.iter().cloned());
        for key in again.into_iter().rev() {
            self.ready.push_front(key);
        }
    }

    fn has_refused(&self) -> bool {
        !(self.nacked.is_empty() && self.returned.is_empty() && self.tried.is_empty())
    }
}

async fn open_channel(shared: &SessionShared) -> Result<Channel, RabbitMqFailure> {
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
            address: "feeds.started.A.cam".into(),
            key: format!("A/{key}"),
            content_type: "application/json".into(),
            attributes: Vec::new(),
            body: Bytes::from(vec![b'x'; bytes]),
            time_ms: 0,
            trace: None,
            again: None,
        }
    }

    proptest! {
        /// Whatever a broker refuses, and whenever messages come.
        #[test]
        fn a_stream_has_one_message_on_its_way_and_all_go_out_in_its_order(
            keys in proptest::collection::vec(0_u8..5, 1..80),
            refusals in proptest::collection::vec(0_u8..3, 1..300),
            arrivals in 1_usize..9,
            nacked_max in 1_usize..4,
        ) {
            let mut waiting = UnconfirmedMessage::default();
            let mut coming = keys.iter().zip(1..).map(|(key, sequence)| message(sequence, *key, 10));
            let mut refusals = refusals.into_iter();
            let mut taken: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            loop {
                coming.by_ref().take(arrivals).for_each(|message| waiting.push(message));
                waiting.again(nacked_max);
                let batch = waiting.batch(BATCH_RECORDS_MAX);
                if batch.is_empty() {
                    break;
                }
                let of_batch: BTreeSet<&String> = batch.iter().map(|message| &message.key).collect();
                prop_assert_eq!(of_batch.len(), batch.len(), "one of each");
                for message in batch {
                    waiting.tried.remove(&message.key);
                    match refusals.next() {
                        Some(1) => waiting.nacked(message),
                        Some(2) => waiting.returned(message),
                        _ => {
                            taken.entry(message.key.clone()).or_default().push(message.sequence);
                            waiting.settled(message.key);
                        }
                    }
                }
            }
            prop_assert!(waiting.streams.is_empty() && waiting.ready.is_empty());
            prop_assert!(!waiting.has_refused());
            prop_assert_eq!(taken.values().map(Vec::len).sum::<usize>(), keys.len());
            for (key, sequences) in taken {
                prop_assert!(sequences.is_sorted(), "{}: {:?}", key, sequences);
            }
        }
    }

    #[test]
    fn a_batch_is_limited_by_bytes_and_takes_one_large_message_alone() {
        let mut waiting = UnconfirmedMessage::default();
        for (sequence, bytes) in [(1, BATCH_BYTES_MAX + 1), (2, BATCH_BYTES_MAX), (3, 1)] {
            waiting.push(message(sequence, sequence as u8, bytes));
        }
        let mut batches = Vec::new();
        while !waiting.ready.is_empty() {
            let batch = waiting.batch(BATCH_RECORDS_MAX);
            batches.push(batch.iter().map(|message| message.sequence).collect::<Vec<_>>());
            batch.into_iter().for_each(|message| waiting.settled(message.key));
        }
        assert_eq!(batches, [[1], [2], [3]]);
    }
}
