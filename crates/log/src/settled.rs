//! Numbers that are settled above a low mark, as ranges.

use std::{collections::BTreeMap, ops::RangeInclusive};

/// Ranges that neither overlap nor touch, all above the low mark.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct SettledRanges {
    /// First and last number of each.
    ranges: BTreeMap<u64, u64>,
}

impl SettledRanges {
    /// Adds a range above the low mark `low`, and returns the low mark that this makes.
    pub(super) fn insert_settled(&mut self, low: u64, numbers: RangeInclusive<u64>) -> u64 {
        let (mut first, mut last) = numbers.into_inner();
        if first > last {
            return low;
        }
        // The one that begins at or before the next number after `last` may reach beyond it; all that begin behind
        // `first` are covered or join.
        while let Some((&start, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back() {
            if end.saturating_add(1) < first {
                break;
            }
            self.ranges.remove(&start);
            (first, last) = (first.min(start), last.max(end));
        }
        self.ranges.insert(first, last);
        self.raise(low)
    }

    /// Drops what is at or below the low mark, and returns the low mark with what joins it.
    pub(super) fn raise(&mut self, mut low: u64) -> u64 {
        while let Some((&start, &end)) = self.ranges.first_key_value() {
            if start > low.saturating_add(1) {
                break;
            }
            self.ranges.remove(&start);
            low = low.max(end);
        }
        low
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        let before = self.ranges.range(..=number).next_back();
        before.is_some_and(|(_, last)| *last >= number)
    }

    pub(super) fn len(&self) -> usize {
        self.ranges.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RangeInclusive<u64>> + '_ {
        self.ranges.iter().map(|(first, last)| *first..=*last)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::testing::Random;

    #[test]
    fn ranges_are_the_set_of_what_was_settled_and_raise_the_low_mark() {
        for seed in 0..200 {
            let mut random = Random::new(seed);
            let (mut low, mut ranges) = (random.below(20), SettledRanges::default());
            let mut settled: BTreeSet<u64> = (0..=low).collect();
            for _ in 0..40 {
                let first = random.below(100);
                let last = (first + random.below(9)).saturating_sub(1);
                low = ranges.insert_settled(low, first..=last);
                settled.extend(first..=last);
                let expected = (0..).find(|number| !settled.contains(number)).unwrap() - 1;
                assert_eq!(low, expected, "seed {seed}");
                let above: Vec<u64> = ranges.iter().flatten().collect();
                assert!(above.iter().eq(settled.range(low + 1..)), "seed {seed}");
                let contained = (low + 1..120).filter(|number| ranges.contains(*number));
                assert!(contained.eq(above.iter().copied()), "seed {seed}");
                let all: Vec<_> = ranges.iter().collect();
                assert!(
                    all.windows(2).all(|two| two[0].end() + 1 < *two[1].start()),
                    "seed {seed}"
                );
            }
            low = ranges.raise(low + 10);
            assert!(ranges.iter().all(|range| *range.start() > low + 1), "seed {seed}");
        }
    }
}
