//! The memory for bodies that are being read or wait for the disk.
//!
//! What is counted is what has come, not what a head declares. A part of the memory is for small bodies alone, so that
//! pictures never push out events, nor strangers who send large bodies those who send events. Where it is used up all
//! the same, a body on a connection that carried a verified request before, or a small one, takes the place of the
//! largest of those that are neither and are still being read.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::Notify;

use super::answer::RequestRefusal;

/// A body of no more than this is small.
pub(super) const SMALL_BODY_BYTES_MAX: u64 = 64 * 1024;
/// Of the memory for bodies, one part in so many is for small ones alone.
const SMALL_SHARE: u64 = 4;

/// How much a body is missed when there is no memory for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BodyStanding {
    LargeFromStranger,
    Small,
    Verified,
}

/// The memory set aside for all bodies together.
#[derive(Clone)]
pub(super) struct BodyBudget(Arc<BudgetShared>);

struct BudgetShared {
    bytes_max: AtomicU64,
    large_bytes_max: AtomicU64,
    use_: Mutex<BudgetUse>,
}

#[derive(Default)]
struct BudgetUse {
    bytes: u64,
    /// Of them, those of large bodies.
    large_bytes: u64,
    holders: Slab<BodyHolder>,
}

struct BodyHolder {
    bytes: u64,
    verified: bool,
    /// Told to give its memory back; none once the body is complete.
    given_up: Option<Arc<Notify>>,
}

/// A part of the budget, given back when dropped.
pub(super) struct BodyReservation {
    budget: BodyBudget,
    key: usize,
    given_up: Arc<Notify>,
}

/// How much of the budget is in use, in bytes.
pub(super) struct BudgetReading {
    pub bytes: u64,
    pub large_bytes: u64,
}

impl BodyHolder {
    fn is_large(&self) -> bool {
        self.bytes > SMALL_BODY_BYTES_MAX
    }

    fn standing(&self) -> BodyStanding {
        if self.verified {
            BodyStanding::Verified
        } else if self.is_large() {
            BodyStanding::LargeFromStranger
        } else {
            BodyStanding::Small
        }
    }
}

impl BudgetUse {
    fn set(&mut self, key: usize, bytes: u64) {
        let holder = &mut self.holders[key];
        let large_before = if holder.is_large() { holder.bytes } else { 0 };
        self.bytes = self.bytes - holder.bytes + bytes;
        holder.bytes = bytes;
        let large = if holder.is_large() { bytes } else { 0 };
        self.large_bytes = self.large_bytes - large_before + large;
    }

    /// Takes the memory of the largest body that is missed less than one of this standing; `false`: there is none.
    /// `large`: it must be a large one.
    fn give_up_one(&mut self, standing: BodyStanding, large: bool) -> bool {
        let candidates = self.holders.iter().filter(|(_, holder)| {
            let reading = holder.given_up.is_some() && holder.bytes > 0;
            reading && holder.standing() < standing && (holder.is_large() || !large)
        });
        let largest = candidates.max_by_key(|(_, holder)| (std::cmp::Reverse(holder.standing()), holder.bytes));
        let Some((key, _)) = largest else { return false };
        if let Some(given_up) = self.holders[key].given_up.take() {
            given_up.notify_one();
        }
        self.set(key, 0);
        true
    }
}

impl BodyBudget {
    /// `body_bytes_max`: a body of this size fits in any case.
    pub fn new(bytes_max: u64, body_bytes_max: u64) -> Self {
        let budget = Self(Arc::new(BudgetShared {
            bytes_max: AtomicU64::new(0),
            large_bytes_max: AtomicU64::new(0),
            use_: Mutex::default(),
        }));
        budget.limit(bytes_max, body_bytes_max);
        budget
    }

    /// From here on so much is set aside; what is reserved stays.
    pub fn limit(&self, bytes_max: u64, body_bytes_max: u64) {
        let large_bytes_max = (bytes_max - bytes_max / SMALL_SHARE).max(body_bytes_max);
        self.0.bytes_max.store(bytes_max, Ordering::Relaxed);
        self.0.large_bytes_max.store(large_bytes_max, Ordering::Relaxed);
    }

    pub fn bytes_max(&self) -> u64 {
        self.0.bytes_max.load(Ordering::Relaxed)
    }

    /// What large bodies may use of it.
    pub fn large_bytes_max(&self) -> u64 {
        self.0.large_bytes_max.load(Ordering::Relaxed)
    }

    pub fn reading(&self) -> BudgetReading {
        let use_ = self.0.use_.lock();
        BudgetReading {
            bytes: use_.bytes,
            large_bytes: use_.large_bytes,
        }
    }

    /// For a body of which nothing has come. `verified`: its connection carried a verified request before.
    pub fn open(&self, verified: bool) -> BodyReservation {
        let given_up = Arc::new(Notify::new());
        let key = self.0.use_.lock().holders.insert(BodyHolder {
            bytes: 0,
            verified,
            given_up: Some(Arc::clone(&given_up)),
        });
        BodyReservation {
            budget: self.clone(),
            key,
            given_up,
        }
    }
}

impl BodyReservation {
    /// Reserves `bytes` in all.
    pub fn set(&self, bytes: u64) -> Result<(), RequestRefusal> {
        let shared = &self.budget.0;
        let (bytes_max, large_bytes_max) = (self.budget.bytes_max(), self.budget.large_bytes_max());
        let mut use_ = shared.use_.lock();
        let before = use_.holders[self.key].bytes;
        use_.set(self.key, bytes);
        loop {
            let holder = &use_.holders[self.key];
            let large_full = holder.is_large() && use_.large_bytes > large_bytes_max;
            if use_.bytes <= bytes_max && !large_full {
                return Ok(());
            }
            let standing = holder.standing();
            if !use_.give_up_one(standing, large_full) {
                use_.set(self.key, before);
                return Err(RequestRefusal::BodiesFull);
            }
        }
    }

    /// The body is complete: nobody takes its place any more.
    pub fn complete(&self) {
        self.budget.0.use_.lock().holders[self.key].given_up = None;
    }

    /// Ends when the memory was given to another body.
    pub async fn given_up(&self) {
        self.given_up.notified().await;
    }
}

impl Drop for BodyReservation {
    fn drop(&mut self) {
        let mut use_ = self.budget.0.use_.lock();
        use_.set(self.key, 0);
        use_.holders.remove(self.key);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const LARGE: u64 = SMALL_BODY_BYTES_MAX + 1;

    #[test]
    fn memory_comes_back_and_never_exceeds_the_budget() {
        let budget = BodyBudget::new(100, 0);
        let (first, second) = (budget.open(true), budget.open(true));
        first.set(60).unwrap();
        assert_eq!(second.set(41), Err(RequestRefusal::BodiesFull));
        second.set(40).unwrap();
        assert_eq!(first.set(61), Err(RequestRefusal::BodiesFull));
        drop(first);
        second.set(100).unwrap();
        drop(second);
        let reading = budget.reading();
        assert_eq!((reading.bytes, reading.large_bytes), (0, 0));
    }

    #[test]
    fn large_bodies_leave_a_share_to_small_ones() {
        let budget = BodyBudget::new(4 * LARGE, 0);
        let large: Vec<_> = (0..4).map(|_| budget.open(true)).collect();
        for reservation in &large[..3] {
            reservation.set(LARGE).unwrap();
        }
        assert_eq!(large[3].set(LARGE), Err(RequestRefusal::BodiesFull));
        budget.open(false).set(SMALL_BODY_BYTES_MAX).unwrap();
    }

    #[test]
    fn the_largest_body_of_a_stranger_gives_way() {
        let budget = BodyBudget::new(4 * LARGE, 0);
        let strangers = [budget.open(false), budget.open(false), budget.open(false)];
        strangers[0].set(LARGE).unwrap();
        strangers[1].set(LARGE + 5).unwrap();
        strangers[2].set(10).unwrap();

        let verified = budget.open(true);
        verified.set(LARGE + 100).unwrap();
        assert!(strangers[1].given_up().now_or_never().is_some());
        assert!(strangers[0].given_up().now_or_never().is_none());
        strangers[0].complete();
        let other = budget.open(true);
        assert_eq!(
            other.set(LARGE + 100),
            Err(RequestRefusal::BodiesFull),
            "a complete body stays"
        );
        assert_eq!(budget.open(false).set(LARGE + 100), Err(RequestRefusal::BodiesFull));
    }

    #[test]
    fn a_verified_connection_s_body_goes_before_a_stranger_s_small_ones() {
        let budget = BodyBudget::new(100, 0);
        let strangers: Vec<_> = (0..10).map(|_| budget.open(false)).collect();
        for stranger in &strangers {
            stranger.set(10).unwrap();
        }
        assert_eq!(
            budget.open(false).set(10),
            Err(RequestRefusal::BodiesFull),
            "strangers are alike"
        );
        let verified = budget.open(true);
        verified.set(15).unwrap();
        let gave_way = strangers
            .iter()
            .filter(|stranger| stranger.given_up().now_or_never().is_some());
        assert_eq!(gave_way.count(), 2);
    }
}
