//! Sets of sequence numbers, kept as ranges: a log that is whole is one range, however long.

use std::{collections::BTreeMap, ops::RangeInclusive};

use crate::spool;

/// Sequence numbers that were seen.
#[derive(Debug, Default, Clone)]
pub struct SeenNumbers {
    /// First and last of each range; no two touch.
    ranges: BTreeMap<u64, u64>,
}

impl SeenNumbers {
    /// Adds a number; `false` when it was there.
    pub fn insert(&mut self, number: u64) -> bool {
        let before = self
            .ranges
            .range(..=number)
            .next_back()
            .map(|(first, last)| (*first, *last));
        if before.is_some_and(|(_, last)| last >= number) {
            return false;
        }
        let first = match before {
            Some((first, last)) if last + 1 == number => first,
            _ => number,
        };
        let last = number.checked_add(1).and_then(|next| self.ranges.remove(&next));
        self.ranges.insert(first, last.unwrap_or(number));
        true
    }

    pub fn extend(&mut self, other: &Self) {
        for (&first, &last) in &other.ranges {
            let overlapping: Vec<(u64, u64)> = self
                .ranges
                .range(..=last.saturating_add(1))
                .rev()
                .map(|(a, b)| (*a, *b))
                .take_while(|(_, b)| b.saturating_add(1) >= first)
                .collect();
            let (mut low, mut high) = (first, last);
            for (a, b) in overlapping {
                self.ranges.remove(&a);
                (low, high) = (low.min(a), high.max(b));
            }
            self.ranges.insert(low, high);
        }
    }

    /// What is missing between `from` and the last number, of what was given out.
    pub fn gaps(&self, from: u64) -> Vec<RangeInclusive<u64>> {
        let mut gaps = Vec::new();
        let mut expected = from.max(self.first().unwrap_or(from));
        for (&first, &last) in &self.ranges {
            if first > expected {
                gaps.extend(Some(spool::numbers_given_out(expected..=first - 1)).filter(|gap| !gap.is_empty()));
            }
            expected = expected.max(last.saturating_add(1));
        }
        gaps
    }

    pub fn first(&self) -> Option<u64> {
        self.ranges.keys().next().copied()
    }

    pub fn last(&self) -> Option<u64> {
        self.ranges.values().next_back().copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_ranges_is_a_set(numbers in proptest::collection::vec(0_u64..60, 0..80), more in proptest::collection::vec(0_u64..60, 0..40), from in 0_u64..60) {
            let mut ranges = SeenNumbers::default();
            let mut set = BTreeSet::new();
            for number in numbers {
                prop_assert_eq!(ranges.insert(number), set.insert(number));
            }
            let mut other = SeenNumbers::default();
            for number in more {
                other.insert(number);
                set.insert(number);
            }
            ranges.extend(&other);
            prop_assert_eq!((ranges.first(), ranges.last()), (set.first().copied(), set.last().copied()));
            let missing: Vec<u64> = ranges.gaps(from).into_iter().flatten().collect();
            let expected: Vec<u64> = match (set.first(), set.last()) {
                (Some(&first), Some(&last)) => (first.max(from)..=last).filter(|n| !set.contains(n)).collect(),
                _ => Vec::new(),
            };
            prop_assert_eq!(missing, expected);
            let ends: Vec<_> = ranges.ranges.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 + 1 < *pair[1].0), "{ends:?}");
        }
    }
}
