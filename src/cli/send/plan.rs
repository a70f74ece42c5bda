//! Which webhooks go out, in which order. The same options make the same plan.

use std::collections::VecDeque;

use crate::{
    event::Time,
    senders::{Sample, SampleKind, SampleParameters, Sender},
};

const ACCOUNT: &str = "ZG6NWV";

/// 2026-01-01T00:00:00Z, from which seeded plans count.
const SEEDED_START_MS: i64 = 1_767_225_600_000;

/// A copy goes out at most so many webhooks after its original.
const DUPLICATE_DISTANCE_MAX: u64 = 16;

pub struct SendOptions {
    pub sender: &'static dyn Sender,
    /// What happens in a stream, over and over; empty: its sender's life of one.
    pub life: Vec<SampleKind>,
    /// Events, all different.
    pub count: u64,
    pub streams: u64,
    /// Webhooks among which the order is shuffled; 1 keeps it.
    pub shuffle: u64,
    /// How many of the events are sent twice, from 0.0 to 1.0.
    pub duplicate_share: f64,
    pub seed: Option<u64>,
    /// The time of the last event, when there is no seed.
    pub now: Time,
}

/// One webhook of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SendStep {
    /// Which event it is, from 0.
    pub event: u64,
    pub stream: u64,
    pub is_duplicate: bool,
}

/// The webhooks, in order. Only those that wait for their turn are in memory.
pub struct SendPlan {
    options: SendOptions,
    content: SendContent,
    random: SendRandom,
    next_event: u64,
    /// Copies that wait until so many webhooks have gone out.
    copies: VecDeque<(u64, SendStep)>,
    planned: u64,
    block: Vec<SendStep>,
}

/// Makes the webhooks of a plan's steps.
#[derive(Clone)]
pub struct SendContent {
    sender: &'static dyn Sender,
    life: Vec<SampleKind>,
    streams: u64,
    seed: u64,
    start: Time,
}

impl SendPlan {
    pub fn new(options: SendOptions) -> Self {
        let seed = options.seed.unwrap_or(options.now.0 as u64);
        let mut random = SendRandom(seed);
        let start = match options.seed {
            // Any second of the 300 days that follow, so that other seeds make other times.
            Some(_) => Time(SEEDED_START_MS + (random.below(300 * 86_400) * 1000) as i64),
            None => Time(options.now.0 - options.count as i64),
        };
        let life = if options.life.is_empty() {
            options.sender.life().to_vec()
        } else {
            options.life.clone()
        };
        let content = SendContent {
            sender: options.sender,
            life,
            streams: options.streams,
            seed,
            start,
        };
        Self {
            options,
            content,
            random,
            next_event: 0,
            copies: VecDeque::new(),
            planned: 0,
            block: Vec::new(),
        }
    }

    pub fn content(&self) -> SendContent {
        self.content.clone()
    }

    /// How many webhooks there are, duplicates included.
    pub fn len(&self) -> u64 {
        self.options.count + self.duplicates_before(self.options.count)
    }

    /// How many of the first `events` are sent twice.
    fn duplicates_before(&self, events: u64) -> u64 {
        (events as f64 * self.options.duplicate_share) as u64
    }

    fn in_order(&mut self) -> Option<SendStep> {
        let is_due = |(due, _): &mut (u64, SendStep)| *due <= self.planned;
        let no_more_events = self.next_event == self.options.count;
        let copy = match self.copies.front_mut() {
            Some(_) if no_more_events => self.copies.pop_front(),
            _ => self.copies.pop_front_if(is_due),
        };
        self.planned += 1;
        if let Some((_, copy)) = copy {
            return Some(copy);
        }
        if no_more_events {
            return None;
        }
        let event = self.next_event;
        self.next_event += 1;
        let step = SendStep {
            event,
            stream: event % self.options.streams,
            is_duplicate: false,
        };
        if self.duplicates_before(event + 1) > self.duplicates_before(event) {
            let due = self.planned + self.random.below(DUPLICATE_DISTANCE_MAX);
            self.copies.push_back((
                due,
                SendStep {
                    is_duplicate: true,
                    ..step
                },
            ));
        }
        Some(step)
    }
}

impl Iterator for SendPlan {
    type Item = SendStep;

    fn next(&mut self) -> Option<SendStep> {
        if self.options.shuffle <= 1 {
            return self.in_order();
        }
        if self.block.is_empty() {
            while self.block.len() < self.options.shuffle as usize
                && let Some(step) = self.in_order()
            {
                self.block.push(step);
            }
            for last in (1..self.block.len()).rev() {
                let other = self.random.below(last as u64 + 1) as usize;
                self.block.swap(last, other);
            }
        }
        self.block.pop()
    }
}

impl SendContent {
    /// The webhook of a step. A duplicate's is its original's, byte for byte.
    pub fn sample(&self, step: SendStep) -> Sample {
        let place = step.event / self.streams;
        let (life, what) = (place / self.life.len() as u64, place % self.life.len() as u64);
        let mut random = SendRandom(self.seed ^ step.stream.rotate_left(32) ^ life.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut feed = [0; 16];
        feed[..8].copy_from_slice(&random.next().to_be_bytes());
        feed[8..].copy_from_slice(&random.next().to_be_bytes());
        self.sender.sample(
            self.life[what as usize],
            &SampleParameters {
                account: ACCOUNT,
                stream_name: &format!("stream-{:04}", step.stream),
                feed_id: uuid::Builder::from_random_bytes(feed).into_uuid(),
                // A millisecond each, which alone makes every event's body its own.
                sent: Time(self.start.0 + step.event as i64),
                counter: step.event,
            },
        )
    }
}

/// SplitMix64: small, and the same everywhere.
struct SendRandom(u64);

impl SendRandom {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is far below 2⁶⁴, so that the rest's bias does not matter.
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use super::*;

    fn plan(count: u64, streams: u64, shuffle: u64, percent: f64, seed: u64) -> SendPlan {
        SendPlan::new(SendOptions {
            sender: crate::senders::usual(),
            life: Vec::new(),
            count,
            streams,
            shuffle,
            duplicate_share: percent / 100.0,
            seed: Some(seed),
            now: Time(0),
        })
    }

    /// A webhook's headers and body.
    type Sent = (Vec<(&'static str, String)>, Vec<u8>);

    fn bodies(plan: SendPlan) -> Vec<Sent> {
        let content = plan.content();
        plan.map(|step| content.sample(step))
            .map(|sample| (sample.headers, sample.body))
            .collect()
    }

    #[test]
    fn every_event_is_different_but_for_duplicates() {
        let plan = plan(3000, 7, 20, 10.0, 1);
        assert_eq!(plan.len(), 3300);
        let bodies = bodies(plan);
        assert_eq!(bodies.len(), 3300);
        assert_eq!(bodies.iter().collect::<HashSet<_>>().len(), 3000);
    }

    #[test]
    fn the_same_seed_makes_the_same_webhooks_and_another_seed_others() {
        let first = bodies(plan(500, 7, 20, 10.0, 1));
        assert_eq!(first, bodies(plan(500, 7, 20, 10.0, 1)));
        let other: HashSet<_> = bodies(plan(500, 7, 20, 10.0, 2)).into_iter().collect();
        assert!(first.iter().all(|body| !other.contains(body)));
    }

    #[test]
    fn without_shuffling_a_stream_lives_in_order() {
        let steps: Vec<SendStep> = plan(1000, 3, 1, 0.0, 1).collect();
        assert!(steps.is_sorted_by_key(|step| step.event));
        let content = plan(1000, 3, 1, 0.0, 1).content();
        let life: Vec<_> = steps
            .iter()
            .filter(|s| s.stream == 1)
            .map(|s| content.sample(*s))
            .collect();
        for (sample, expected) in life.iter().zip(crate::senders::usual().life().iter().cycle()) {
            assert_eq!((sample.kind, sample.event), (expected.kind, expected.event));
        }
    }

    #[test]
    fn shuffling_moves_a_webhook_less_than_its_window() {
        let steps: Vec<SendStep> = plan(1000, 3, 20, 0.0, 1).collect();
        assert!(!steps.is_sorted_by_key(|step| step.event));
        assert!(
            steps
                .iter()
                .enumerate()
                .all(|(place, step)| step.event.abs_diff(place as u64) < 20)
        );
        assert_eq!(steps.iter().map(|s| s.event).collect::<BTreeSet<_>>().len(), 1000);
    }

    #[test]
    fn a_duplicate_follows_its_original() {
        let steps: Vec<SendStep> = plan(1000, 3, 1, 25.0, 1).collect();
        assert_eq!(steps.iter().filter(|step| step.is_duplicate).count(), 250);
        for (place, copy) in steps.iter().enumerate().filter(|(_, step)| step.is_duplicate) {
            let original = steps.iter().position(|step| step.event == copy.event).unwrap();
            assert!(original < place && place - original < 64, "{original} {place}");
        }
    }
}
