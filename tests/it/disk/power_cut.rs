//! The power is cut: what had not reached the device is gone.
//!
//! Forebay is stopped, the image behind its file system is copied, and the copy is mounted, as a disk is after a power
//! cut: what the kernel had only in memory is not in it.

use std::{fs, io::Write, path::Path, thread::sleep, time::Duration};

use super::setup;
use crate::support::{
    disk::{Mount, Strace, can_mount, copy_image, make_image, scratch, survived},
    sender::Sender,
};

/// What is seen in the copies.
#[derive(Debug, Default)]
struct Cuts {
    acknowledged: usize,
    /// Acknowledged webhooks that are not in a copy, of all copies.
    lost: usize,
    damage: usize,
    /// Cuts after which something was missing of a file that nobody syncs.
    felt: usize,
}

/// Cuts the power `count` times under load.
fn cut(count: usize, faults: &[&str]) -> Cuts {
    let scratch = scratch();
    let image = scratch.path().join("image");
    make_image(&image, "128M", &[]);
    let disk = Mount::image(&image, &scratch.path().join("disk"), "commit=600,noinit_itable");
    let mut setup = setup(&disk.path().join("spool"));
    if !faults.is_empty() {
        setup
            .wrapper
            .extend(Strace::new(&scratch.path().join("strace")).wrapper(faults));
    }
    let unsynced_path = disk.path().join("unsynced");
    let mut unsynced = fs::File::create(&unsynced_path).unwrap();

    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 1_000, 200);
    let mut cuts = Cuts::default();
    for i in 0..count {
        if i % 8 == 7 {
            // Recovery, and new segments, are cut as well.
            forebay.kill();
            forebay = setup.start();
        }
        // The moments differ; that they come from a table makes them no less random to a writer that never waits.
        sleep(Duration::from_millis(10 + i as u64 * 37 % 140));
        unsynced.write_all(b"a line\n").unwrap();
        forebay.freeze();
        // It is stopped: what was acknowledged until now was acknowledged before the cut.
        let outcome = sender.so_far();
        let copy = scratch.path().join("copy");
        copy_image(&image, &copy);
        forebay.signal("CONT");

        let after = Mount::image(&copy, &scratch.path().join("after"), "noinit_itable");
        let survived = survived(&after.path().join("spool"));
        cuts.acknowledged = outcome.acknowledged.len();
        cuts.lost += outcome.acknowledged.difference(&survived.feed_ids).count();
        cuts.damage += survived.damage;
        cuts.felt += usize::from(len(&after.path().join("unsynced")) < len(&unsynced_path));
    }
    drop(forebay);
    sender.stop();
    cuts
}

/// The length of a file, 0 when it is not there.
fn len(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

#[test]
fn no_acknowledged_webhook_is_lost_when_the_power_is_cut() {
    if !can_mount("no_acknowledged_webhook_is_lost_when_the_power_is_cut") {
        return;
    }
    let cuts = cut(60, &[]);
    assert!(cuts.acknowledged > 1_000, "there was load: {cuts:?}");
    assert!(cuts.felt > 30, "the cuts were real: {cuts:?}");
    assert_eq!((cuts.lost, cuts.damage), (0, 0), "{cuts:?}");
}

#[test]
fn the_power_cut_finds_the_loss_where_syncs_are_left_out() {
    if !can_mount("the_power_cut_finds_the_loss_where_syncs_are_left_out") {
        return;
    }
    let cuts = cut(3, &["fdatasync:retval=0", "fsync:retval=0"]);
    assert!(cuts.lost > 0, "webhooks that were never synced are lost: {cuts:?}");
}
