//! What is settled behind gaps, and what compaction makes of it.

use std::sync::atomic::Ordering;

use super::{CURSORS, Log, Model, Sim};
use crate::CursorStart;

impl Sim {
    /// A cursor settles records behind a gap, or all of them do.
    pub(super) fn settle_some(&mut self, log: &mut Log) {
        let only = match self.random.below(6) {
            chosen @ 0..3 => Some(CURSORS[chosen as usize]),
            _ => None,
        };
        let head = log.shared().head();
        let first = 2 + self.random.below(head + 1);
        let last = head.min(first + self.random.below(60));
        for name in CURSORS {
            let Some(position) = self.model.cursors.get_mut(name) else {
                continue;
            };
            let first = first.max(*position + 2);
            if only.is_some_and(|only| only != name) || first > last {
                continue;
            }
            let Ok(state) = log.cursor(name, CursorStart::Head) else {
                return;
            };
            state.mark_settled(first..=last);
            self.model.settled.entry(name).or_default().extend(first..=last);
            *position = state.position.load(Ordering::Acquire);
        }
        self.model.settle();
    }

    pub(super) fn compact(&mut self, log: &Log) {
        let Model {
            cursors,
            settled,
            certain,
            ..
        } = &self.model;
        let is_settled = |number: &u64| {
            let mut cursors = cursors.iter();
            cursors
                .all(|(name, position)| number <= position || settled.get(name).is_some_and(|all| all.contains(number)))
        };
        let gone: Vec<u64> = certain.keys().copied().filter(is_settled).collect();
        self.model.compacted.extend(gone);
        match self.compactor.run(log.cursors(), log.shared()) {
            Ok(0) => {}
            Ok(_) => self.fire("compacted"),
            Err(_) => {
                log.shared().fail("compaction");
                self.model.unfinished_compaction = true;
            }
        }
        self.model.unfinished_compaction |= !self.disk.is_powered();
    }
}
