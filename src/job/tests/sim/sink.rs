//! A publisher that does by the weather what a broker may do.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};

use super::{
    shape::{Fate, Shape},
    world::{Pending, World},
};
use crate::sink::{
    EnqueueError, Message, MessageDestination, MessagePlace, PublishFailure, Remedy, SettledMessage, Sink, SinkLabels,
};

/// The lane of what nobody knows the partition of.
const UNKNOWN_LANE: u64 = 99;

pub(super) struct SimulatedSink {
    pub world: Arc<Mutex<World>>,
    pub route: usize,
}

fn failure(remedy: Remedy) -> PublishFailure {
    PublishFailure {
        remedy,
        label: "scripted",
        text: "by script".into(),
    }
}

fn passing(world: &mut World) -> PublishFailure {
    failure(if world.random.one_in(2) {
        Remedy::Retry
    } else {
        Remedy::Hold
    })
}

impl Sink for SimulatedSink {
    fn labels(&self) -> SinkLabels {
        SinkLabels {
            failures: vec!["scripted"],
            dead_letters: vec!["scripted"],
        }
    }

    async fn reopen(&mut self) -> Result<(), PublishFailure> {
        let takes = {
            let world = &mut *self.world.lock();
            world.forget_session(self.route);
            world.note("session", self.route, 0);
            world.random.below(200)
        };
        sleep(Duration::from_millis(takes)).await;
        let world = &mut *self.world.lock();
        let refuses = &mut world.routes[self.route].weather.refuses;
        if *refuses > 0 {
            *refuses -= 1;
            world.note("session refused", self.route, 0);
            return Err(passing(world));
        }
        Ok(())
    }

    fn place(&self, _: &str, key: &str) -> MessagePlace {
        let world = self.world.lock();
        let stream = Shape::stream(key);
        let lane = match world.routes[self.route].weather.is_ignorant {
            true => UNKNOWN_LANE,
            false => stream % world.shape.lanes,
        };
        MessagePlace { lane, stream }
    }

    fn destination(&self, message: &Message) -> MessageDestination {
        MessageDestination {
            name: message.address.to_string(),
            attributes: Vec::new(),
        }
    }

    fn enqueue(&mut self, message: Message) -> Result<(), EnqueueError> {
        let world = &mut *self.world.lock();
        let index = message.id.as_u128() as u64;
        let full_one_in = world.routes[self.route].weather.full_one_in;
        if full_one_in > 0 && world.random.one_in(full_one_in) {
            world.note("no room", self.route, message.sequence);
            return Err(EnqueueError::Full(Box::new(message)));
        }
        if world.shape.fate(index) == Fate::TooLarge {
            world.note("too large", self.route, message.sequence);
            let remedy = if index.is_multiple_of(2) {
                Remedy::DeadLetter
            } else {
                Remedy::SetAside
            };
            return Err(EnqueueError::Failed(failure(remedy)));
        }
        if world.routes[self.route].weather.dies && world.random.one_in(3) {
            world.routes[self.route].weather.dies = false;
            world.note("died at once", self.route, message.sequence);
            return Err(EnqueueError::Failed(passing(world)));
        }
        world.hand_over(self.route, message.sequence, index, Shape::stream(&message.key));
        Ok(())
    }

    async fn settle(&mut self, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
        loop {
            let at = {
                let world = &mut *self.world.lock();
                let delay_ms = 1 + world.random.below(1 + world.routes[self.route].weather.delay_ms_max);
                let at = &mut world.routes[self.route].answers_at;
                *at.get_or_insert_with(|| Instant::now() + Duration::from_millis(delay_ms))
            };
            sleep_until(at).await;
            let world = &mut *self.world.lock();
            world.routes[self.route].answers_at = None;
            let over = answer(world, self.route, settled);
            if over.is_err() || !settled.is_empty() {
                return over;
            }
        }
    }

    fn trouble(&self) -> Option<PublishFailure> {
        let has_trouble = self.world.lock().routes[self.route].weather.trouble;
        has_trouble.then(|| failure(Remedy::Hold))
    }
}

/// What the broker does at one moment.
fn answer(world: &mut World, at: usize, settled: &mut Vec<SettledMessage>) -> Result<(), PublishFailure> {
    let weather = world.routes[at].weather.clone();
    let lanes: Vec<u64> = world.routes[at].lanes.keys().copied().collect();
    for lane in lanes {
        if weather.standing.contains(&lane) && !weather.dies {
            continue;
        }
        let mut pending = std::mem::take(world.routes[at].lanes.entry(lane).or_default()).into();
        let refused = take_some(world, at, &mut pending, settled);
        // A session that dies may not have learned of it.
        if !weather.dies || world.random.one_in(2) {
            confirm_some(world, at, &mut pending, settled);
        }
        world.routes[at].lanes.insert(lane, pending.into());
        if refused {
            return Ok(());
        }
    }
    if weather.doubles && !settled.is_empty() && world.random.one_in(2) {
        let at = world.random.below(settled.len() as u64) as usize;
        if settled[at].result.is_ok() {
            let sequence = settled[at].sequence;
            settled.push(SettledMessage {
                sequence,
                result: Ok(()),
            });
        }
    }
    if weather.dies {
        world.routes[at].weather.dies = false;
        world.note("died", at, settled.len() as u64);
        return Err(passing(world));
    }
    Ok(())
}

/// Some messages of a lane arrive, in order; returns whether a batch of them was refused.
fn take_some(world: &mut World, at: usize, pending: &mut Vec<Pending>, settled: &mut Vec<SettledMessage>) -> bool {
    let mut first = pending.iter().position(|one| !one.has_arrived).unwrap_or(pending.len());
    let waiting = (pending.len() - first) as u64;
    let mut end = first + world.random.below(waiting + 1) as usize;
    // All or the first is what happens most.
    if waiting > 0 && world.random.one_in(2) {
        end = pending.len();
    }
    let poisonous = (first..end).find(|one| world.shape.fate(pending[*one].index) == Fate::Poisonous);
    let refused = poisonous.map(|poisonous| {
        let before = world.random.below((poisonous - first) as u64 + 1) as usize;
        std::mem::replace(&mut end, poisonous - before)
    });
    while first < end {
        let Pending {
            sequence,
            index,
            stream,
            ..
        } = pending[first];
        if world.shape.fate(index) == Fate::Unroutable {
            pending.remove(first);
            world.routes[at].in_flight -= 1;
            end -= 1;
            world.set_aside(at, sequence, stream);
            settled.push(SettledMessage {
                sequence,
                result: Err(failure(Remedy::SetAside)),
            });
            continue;
        }
        world.arrive(at, sequence, stream);
        pending[first].has_arrived = true;
        first += 1;
    }
    if refused.is_some() {
        // The session is over for all of them.
        for one in pending.drain(first..) {
            world.note("refused", at, one.sequence);
            settled.push(SettledMessage {
                sequence: one.sequence,
                result: Err(failure(Remedy::DeadLetter)),
            });
        }
    }
    refused.is_some()
}

/// Some of what arrived is confirmed, mostly in order.
fn confirm_some(world: &mut World, at: usize, pending: &mut Vec<Pending>, settled: &mut Vec<SettledMessage>) {
    let arrived = pending.iter().take_while(|one| one.has_arrived).count();
    let mut left = match world.random.below(4) {
        0 => world.random.below(arrived as u64 + 1) as usize,
        _ => arrived,
    };
    let is_in_order = !world.random.one_in(4);
    let mut next = 0;
    while left > 0 {
        left -= 1;
        if !is_in_order && world.random.one_in(3) {
            next += 1;
            continue;
        }
        let one = pending.remove(next);
        world.routes[at].in_flight -= 1;
        world.confirm(at, one.sequence, one.stream);
        settled.push(SettledMessage {
            sequence: one.sequence,
            result: Ok(()),
        });
    }
}
