//! What goes wrong while a process lives: at the brokers, and on the disk.

use std::{cell::RefCell, collections::BTreeSet, path::PathBuf, rc::Rc, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::sleep;

use super::{
    life::Logs,
    world::{Weather, World},
};
use crate::spool::{
    CursorStart,
    testing::{Random, disk::FakeDisk, stepped::StepPlace},
};

const EMPTIED_INTERVAL: Duration = Duration::from_secs(3);
const SECTOR_BYTES: u64 = 512;
/// What the disk does not give back is read by the page.
const PAGE_BYTES: u64 = 4096;

/// Makes the weather of one life.
pub(super) struct Sky {
    pub disk: FakeDisk,
    pub world: Arc<Mutex<World>>,
    pub logs: Rc<RefCell<Logs>>,
}

impl Sky {
    pub(super) async fn change(self, every_ms: u64) {
        loop {
            let delay_ms = self.world.lock().random.below(every_ms);
            sleep(Duration::from_millis(delay_ms)).await;
            self.change_once();
        }
    }

    /// Somebody empties the dead letters.
    pub(super) async fn clear(self) {
        loop {
            sleep(EMPTIED_INTERVAL).await;
            self.empty_dead_letters(&mut self.world.lock());
        }
    }

    fn change_once(&self) {
        let world = &mut *self.world.lock();
        let at = world.random.below(world.routes.len() as u64) as usize;
        let (lanes, what) = (world.shape.lanes, world.random.below(16));
        let random = &mut world.random;
        let weather = &mut world.routes[at].weather;
        let name = match what {
            0 | 1 => {
                weather.standing.insert(random.below(lanes));
                "a lane stands"
            }
            2 => {
                weather.standing = (0..lanes).collect();
                "all lanes stand"
            }
            3 | 4 => {
                weather.dies = true;
                "about to die"
            }
            5 => {
                weather.refuses = 1 + random.below(4);
                weather.dies = true;
                "refuses sessions"
            }
            6 => {
                weather.full_one_in = random.below(4);
                "room is short"
            }
            7 => {
                weather.doubles = true;
                "answers twice"
            }
            8 => {
                weather.delay_ms_max = [0, 20, 300, 8000][random.below(4) as usize];
                "answers late"
            }
            9 => {
                weather.trouble = !weather.trouble;
                "trouble"
            }
            10 => {
                weather.is_ignorant = !weather.is_ignorant;
                "knows no partitions"
            }
            11 | 12 => {
                *weather = Weather::default();
                "all well"
            }
            13 => {
                let full = random.one_in(2);
                self.disk.behave(|behaviour| behaviour.full = full);
                "disk full"
            }
            14 => return self.empty_dead_letters(world),
            _ => {
                if world.shape.is_damaged {
                    damage(&self.disk, world, &self.logs.borrow().places(&self.disk));
                }
                return;
            }
        };
        world.note(name, at, what);
    }

    fn empty_dead_letters(&self, world: &mut World) {
        let logs = &mut *self.logs.borrow_mut();
        if let Ok(emptied) = logs.dead.cursor("emptied", CursorStart::Oldest) {
            world.note("dead letters emptied", 0, logs.dead.head());
            emptied.advance(logs.dead.head());
        }
    }
}

/// One place of the log rots, or is not given back any more.
pub(super) fn damage(disk: &FakeDisk, world: &mut World, places: &[StepPlace]) {
    // Of what is younger than the page nobody could know that it was there.
    let known: Vec<&StepPlace> = places
        .iter()
        .filter(|place| place.sequence <= world.page_knows)
        .collect();
    let Some(place) = pick(&mut world.random, &known) else {
        return;
    };
    let (path, kind) = (place.path.clone(), world.random.below(3));
    let within = place.bytes.end - place.bytes.start;
    let mut at = place.bytes.start + world.random.below(within);
    if world.random.one_in(8) {
        // What stands before the records: header and seal.
        at = world.random.below(PAGE_BYTES);
    }
    let lost = match kind {
        0 => at..at + 1,
        1 => at / SECTOR_BYTES * SECTOR_BYTES..(at / SECTOR_BYTES + 1) * SECTOR_BYTES,
        _ => at / PAGE_BYTES * PAGE_BYTES..(at / PAGE_BYTES + 1) * PAGE_BYTES,
    };
    let taken: BTreeSet<u64> = (places.iter())
        .filter(|place| place.path == path && place.bytes.start < lost.end && place.bytes.end > lost.start)
        .map(|place| place.sequence)
        .collect();
    // The rest of a page that is still written to is not known.
    let end = places
        .iter()
        .filter(|place| place.path == path)
        .map(|place| place.bytes.end)
        .max();
    if taken.last().is_some_and(|newest| *newest > world.page_knows) || end.is_none_or(|end| lost.end > end) {
        return;
    }
    let bit = 1 << world.random.below(8);
    let path: PathBuf = path;
    match kind {
        0 => disk.corrupt(&path, |bytes| bytes[at as usize] ^= bit),
        1 => disk.corrupt(&path, |bytes| bytes[lost.start as usize..lost.end as usize].fill(0)),
        _ => disk.spoil(&path, lost.start as usize..lost.end as usize),
    }
    world.note(
        ["bit flipped", "sector zeroed", "page unreadable"][kind as usize],
        0,
        at,
    );
    taken.into_iter().for_each(|sequence| world.is_damaged(sequence));
}

fn pick<'a, T>(random: &mut Random, all: &'a [T]) -> Option<&'a T> {
    all.get(random.below(all.len() as u64) as usize)
}
