//! From records that were read to messages that the sink has.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::cause::{JobCause, JobFailure};
use super::{
    Job, SessionEnd,
    deferred::{LOOK_INTERVAL, NextDeferred},
    plan,
    reordering::WaitingEvent,
    window::LaneLoad,
};
use crate::{
    config::UNROUTED,
    event::{Event, RecordedEvent},
    senders::{self, kind_label},
    sink::{EnqueueError, Message, MessagePlace, PublishFailure, Remedy, Sink},
    spool::Record,
};

/// What is the next to go out, and waits for room.
pub(super) enum NextOut {
    /// Its lane has none.
    Waiting(WaitingEvent),
    /// The sink has none.
    Rendered(Message, MessagePlace),
}

impl NextOut {
    fn sequence(&self) -> u64 {
        match self {
            Self::Waiting(waiting) => waiting.sequence,
            Self::Rendered(message, _) => message.sequence,
        }
    }
}

impl<S: Sink> Job<S> {
    /// Whether anything more may be in flight.
    pub(super) fn has_room(&self) -> bool {
        let in_flight = self.window.in_flight();
        in_flight.records < self.limits.records && in_flight.bytes < self.limits.bytes_max
    }

    /// Whether there is use for more records.
    pub(super) fn wants_more(&self) -> bool {
        let is_empty = self.ahead.is_empty() && self.turn.is_none();
        is_empty
            && self.ahead_through < self.last()
            && self.has_room()
            && !self.deferred.is_full()
            && !self.stuck.is_full()
    }

    /// A lane whose deferred records can go: one that has come to have room for a good part of what it may have in
    /// flight.
    pub(super) fn lane_with_room(&self) -> Option<u64> {
        if !self.has_room() || self.resting_until.is_some_and(|until| until > Instant::now()) {
            return None;
        }
        let max = self.lane_max();
        let half = LaneLoad {
            records: max.records.div_ceil(2),
            bytes: max.bytes.div_ceil(2),
        };
        self.deferred.lane_with_room(|lane| self.lane_has_room(lane, half))
    }

    /// Whether a lane has room below `max`.
    fn lane_has_room(&self, lane: u64, max: LaneLoad) -> bool {
        !self.stuck.lane_is_full(lane) && self.window.lane(lane).has_room_below(max)
    }

    /// Whether a lane without room is to be read past. Of one that flows like the others room is waited for: what is
    /// read past is read twice.
    fn is_slow(&self, lane: u64, now: Instant) -> bool {
        self.stuck.lane_is_full(lane) || self.window.is_slow(lane, now)
    }

    fn lane_max(&self) -> LaneLoad {
        self.window.lane_max(LaneLoad {
            records: self.limits.records,
            bytes: self.limits.bytes_max,
        })
    }

    /// Hands over what was read, as far as there is room.
    pub(super) async fn fill(&mut self) -> Result<(), SessionEnd> {
        let (position_before, now) = (self.cursor.position(), Instant::now());
        self.hand_over_deferred(now).await?;
        while self.has_room() {
            if let Some(turn) = self.turn.take().or_else(|| self.release()) {
                if !self.take_turn(turn, now).await? {
                    break;
                }
                continue;
            }
            let Some(record) = self.ahead.pop_front() else { break };
            self.accept_record(record);
        }
        self.keep_refused().await;
        if self.ahead.is_empty() && self.ahead_through > self.window.read() {
            // A hole behind the last record is settled with it.
            self.pass(self.ahead_through);
        }
        if self.cursor.position() != position_before {
            self.publish_progress();
        }
        Ok(())
    }

    /// What was deferred and was read again goes out, as far as its lanes have room.
    async fn hand_over_deferred(&mut self, now: Instant) -> Result<(), SessionEnd> {
        while let Some(lane) = self.lane_with_room()
            && let Some(next) = self.deferred.first(lane)
        {
            let record = match next {
                NextDeferred::Record(record) if self.window.is_held(record.sequence) => record,
                // It had to go.
                NextDeferred::Record(_) => {
                    self.deferred.pop(lane);
                    continue;
                }
                NextDeferred::Gone(sequence) => {
                    self.deferred.pop(lane);
                    self.settle_held(sequence);
                    continue;
                }
            };
            // It was decoded before.
            let republished = match &self.again {
                None => None,
                Some(_) => self.event_record(&record),
            };
            let of_event = republished.as_ref().unwrap_or(&record);
            let Some(event) = decode(&of_event.bytes) else {
                self.deferred.pop(lane);
                continue;
            };
            let waiting = WaitingEvent {
                sequence: record.sequence,
                replica_sequence: of_event.sequence,
                bytes: record.bytes.len(),
                event,
            };
            let (destination, place) = self.place(&waiting);
            if !self.lane_has_room(place.lane, self.lane_max()) {
                self.deferred.wait_for(lane, place.lane);
                continue;
            }
            let message = self.render(&waiting, destination);
            if self.offer(message, place, now).await? {
                self.deferred.pop(lane);
            } else {
                break;
            }
        }
        Ok(())
    }

    /// Decides what becomes of one record: passed over, dead-lettered, or its turn.
    fn accept_record(&mut self, record: Record) {
        let sequence = record.sequence;
        if sequence <= self.cursor.position() {
            // It had to go before it was read.
            return self.pass(sequence);
        }
        if let Some((_, failure)) = self.condemned.take_if(|(condemned, _)| *condemned == sequence) {
            self.limits.records = self.limits.records_max;
            self.window.hold(sequence, record.bytes.len(), recorded_ms(&record));
            return self.refuse(record, failure);
        }
        let republished = match &self.again {
            None => None,
            Some(_) => match self.event_record(&record) {
                Some(event) => Some(event),
                None => return self.pass(sequence),
            },
        };
        let of_event = republished.as_ref().unwrap_or(&record);
        let recorded = RecordedEvent::read(&of_event.bytes);
        let interest = recorded.as_ref().ok().map(RecordedEvent::interest);
        if let (Some(held), Some(interest)) = (&mut self.reordering, interest) {
            held.observe(interest.recorded);
        }
        if republished.is_none() && !plan::accepts(self.plan.matches(), interest) {
            return self.pass(sequence);
        }
        let event = match recorded.and_then(RecordedEvent::event) {
            Ok(event) => event,
            Err(error) => {
                let failure = PublishFailure::from(JobFailure {
                    remedy: Remedy::DeadLetter,
                    cause: JobCause::Undecodable,
                    text: format!("record {sequence} cannot be read: {error}"),
                });
                self.window.hold(sequence, record.bytes.len(), 0);
                return self.refuse(record, failure);
            }
        };
        let bytes = record.bytes.len();
        self.window.hold(sequence, bytes, event.recorded.0);
        if self.stuck.contains(sequence) {
            // It is to be a dead letter, for which there is no room yet.
            return;
        }
        if self.route == UNROUTED && self.again.is_none() {
            let labels = [&*event.endpoint, kind_label(&event.kind)];
            self.metrics.all.unrouted.with_label_values(&labels).inc();
        }
        if self.plan.has_no_sink() {
            return self.refuse(record, unrouted());
        }
        let waiting = WaitingEvent {
            sequence,
            replica_sequence: of_event.sequence,
            bytes,
            event,
        };
        if let Some(reordering) = &mut self.reordering {
            reordering.hold(waiting);
        } else {
            self.turn = Some(NextOut::Waiting(waiting));
        }
    }

    /// The next event of those that were held back, if its turn has come.
    fn release(&mut self) -> Option<NextOut> {
        self.reordering.as_mut()?.release().map(NextOut::Waiting)
    }

    /// When the next event that is held back goes out, if all that the spool has was read.
    pub(super) fn release_at(&self) -> Option<Instant> {
        let is_at_end = self.reader.is_at_head() || self.ahead_through >= self.last();
        self.reordering.as_ref().filter(|_| is_at_end)?.release_at()
    }

    /// Hands over what is the next to go, or defers it; `false` when it has to wait.
    async fn take_turn(&mut self, turn: NextOut, now: Instant) -> Result<bool, SessionEnd> {
        if !self.window.is_held(turn.sequence()) {
            // It had to go.
            return Ok(true);
        }
        let (message, place) = match turn {
            NextOut::Rendered(message, place) => (message, place),
            NextOut::Waiting(waiting) => {
                if !self.is_paced(now) {
                    self.turn = Some(NextOut::Waiting(waiting));
                    return Ok(false);
                }
                let (destination, place) = self.place(&waiting);
                let is_behind = self.deferred.behind(place).is_some();
                if is_behind || !self.lane_has_room(place.lane, self.lane_max()) {
                    let is_deferred =
                        (is_behind || self.is_slow(place.lane, now)) && self.deferred.add(waiting.sequence, place, now);
                    if !is_deferred {
                        self.turn = Some(NextOut::Waiting(waiting));
                    }
                    return Ok(is_deferred);
                }
                (self.render(&waiting, destination), place)
            }
        };
        let sequence = message.sequence;
        match self.enqueue(message, place, now) {
            Ok(()) => {
                self.deferred.found();
                Ok(true)
            }
            Err(EnqueueError::Full(message)) => {
                self.turn = Some(NextOut::Rendered(*message, place));
                Ok(false)
            }
            Err(EnqueueError::Failed(failure)) => self.refused_at_once(sequence, place, failure).await.map(|()| true),
        }
    }

    /// Hands over what was deferred; `false` when the sink has no room.
    async fn offer(&mut self, message: Message, place: MessagePlace, now: Instant) -> Result<bool, SessionEnd> {
        let sequence = message.sequence;
        match self.enqueue(message, place, now) {
            Ok(()) => Ok(true),
            Err(EnqueueError::Full(_)) => {
                self.spans.confirmed(sequence);
                self.resting_until = Some(now + LOOK_INTERVAL);
                Ok(false)
            }
            Err(EnqueueError::Failed(failure)) => self.refused_at_once(sequence, place, failure).await.map(|()| true),
        }
    }

    fn place(&self, waiting: &WaitingEvent) -> (Arc<str>, MessagePlace) {
        let address = self.plan.address(&waiting.event);
        let place = self.sink.place(&address, &waiting.event.key);
        (address, place)
    }

    fn render(&mut self, waiting: &WaitingEvent, address: Arc<str>) -> Message {
        let again = self.published_again(waiting.replica_sequence);
        let mut message = self.plan.message(&waiting.event, waiting.sequence, again, address);
        let sink = &self.sink;
        self.spans
            .begin(&waiting.event, &mut message, |message| sink.destination(message));
        message
    }

    fn enqueue(&mut self, message: Message, place: MessagePlace, now: Instant) -> Result<(), EnqueueError> {
        let sequence = message.sequence;
        let is_idle = self.window.in_flight().records == 0;
        match self.sink.enqueue(message) {
            Ok(()) => {
                self.not_taken_since = None;
                if is_idle {
                    self.settled_at = now;
                }
                self.window.hand_over(sequence, place, now);
                Ok(())
            }
            Err(EnqueueError::Full(message)) => {
                if is_idle {
                    self.not_taken_since.get_or_insert(now);
                }
                Err(EnqueueError::Full(message))
            }
            Err(failed) => Err(failed),
        }
    }
}

fn recorded_ms(record: &Record) -> i64 {
    Event::decode(&record.bytes).map_or(0, |event| event.recorded.0)
}

/// What is wrong with every event of the route without a sink.
fn unrouted() -> PublishFailure {
    JobFailure {
        remedy: Remedy::SetAside,
        cause: JobCause::Unrouted,
        text: "no route wants it: see `match` of the routes, or say by a route with `discard = true` that it is meant"
            .into(),
    }
    .into()
}

/// The event of a record, if it is one of a sender that is known.
fn decode(record: &Bytes) -> Option<Event> {
    Event::decode(record)
        .ok()
        .filter(|event| senders::numbered(event.provider).is_some())
}
