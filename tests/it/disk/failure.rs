//! A write or a sync fails: those who wait are told, nothing more is written, the process ends, and the next one finds
//! everything that was acknowledged.

use std::{fs, time::Duration};

use super::{ENDED, EXIT_DISK, assert_kept, setup};
use crate::support::{
    disk::{Mount, Strace, can_mount, end_of_data, make_image, resize_device, scratch},
    forebay::wait_until,
    sender::Sender,
};

const CONNECTIONS: usize = 8;
const RESTARTED: Duration = Duration::from_secs(30);

/// Runs Forebay with a fault of strace's under load, until it ends.
fn fail(fault: &str, starts: bool) {
    let scratch = scratch();
    let plain = setup(&scratch.path().join("spool"));
    let strace = Strace::new(&scratch.path().join("strace"));
    let mut faulty = setup(plain.spool());
    faulty.wrapper.extend(strace.wrapper(&[fault]));

    let mut forebay = faulty.launch();
    let sender = starts.then(|| {
        forebay.wait_until_ready();
        Sender::start(faulty.public, CONNECTIONS, 2_000, 100)
    });
    wait_until(&format!("{fault} is injected\n{}", forebay.log()), RESTARTED, || {
        strace.injected() > 0
    });
    let status = forebay.wait(ENDED);
    assert_eq!(status.code(), EXIT_DISK, "{fault}\n{}", forebay.log());
    wait_until("strace has seen the end", ENDED, || forebay.log().contains("forebay: "));
    let after = strace.after_the_fault();
    assert!(after.is_empty(), "{fault}: something is written after it: {after:?}");

    let outcome = sender.map(Sender::stop).unwrap_or_default();
    if starts {
        let told = outcome.count(503);
        assert!(
            told >= CONNECTIONS,
            "{fault}: all who wait are told, not {told}\n{}",
            forebay.log()
        );
        let only = outcome.answers.keys().all(|code| [200, 503].contains(code));
        assert!(only, "{:?}", outcome.answers);
        assert_eq!(outcome.without_retry_after, 0);
    }

    let mut forebay = plain.start();
    let sender = Sender::start(plain.public, 2, 200, 100);
    wait_until("it accepts again", RESTARTED, || sender.so_far().count(200) > 20);
    let again = sender.stop();
    assert_eq!(forebay.terminate(RESTARTED).code(), Some(0), "{}", forebay.log());
    let survived = assert_kept(plain.spool(), &outcome);
    assert!(again.acknowledged.is_subset(&survived.feed_ids));
}

#[test]
fn a_failed_sync_ends_the_process_and_loses_nothing() {
    // Each thread counts for itself. The first makes the superblock; on the spool's thread the first makes the page of
    // the cursors, the second the first segment, and then comes one for each batch.
    fail("fdatasync:error=EIO:when=1", false);
    for n in [2, 3, 4, 10, 60] {
        fail(&format!("fdatasync:error=EIO:delay_enter=300000:when={n}"), true);
    }
}

#[test]
fn a_failed_write_ends_the_process_and_loses_nothing() {
    // Each thread counts for itself. Two make the superblock; on the spool's thread two make the page of the cursors,
    // the third is the first segment's header, and then comes one for each batch.
    fail("pwrite64:error=EIO:when=1", false);
    fail("pwrite64:error=EIO:delay_enter=300000:when=3", true);
    for n in [4, 5, 40] {
        fail(&format!("pwrite64:error=EIO:delay_enter=300000:when={n}"), true);
    }
}

#[test]
fn a_write_without_room_is_answered_503_and_passes() {
    // On the spool's thread the fourth is the first batch; see above.
    for (error, when) in [("EDQUOT", "4"), ("ENOSPC", "40..60+3"), ("ENOMEM", "40..45")] {
        let fault = format!("pwrite64:error={error}:when={when}");
        let scratch = scratch();
        let strace = Strace::new(&scratch.path().join("strace"));
        let mut setup = setup(&scratch.path().join("spool"));
        setup.wrapper.extend(strace.wrapper(&[&fault]));
        let mut forebay = setup.start();
        let sender = Sender::start(setup.public, CONNECTIONS, 1_000, 100);
        wait_until("it is injected", RESTARTED, || strace.injected() > 0);
        let during = sender.so_far().count(200);
        wait_until("it accepts again", RESTARTED, || {
            sender.so_far().count(200) > during + 500
        });
        let outcome = sender.stop();
        let codes: Vec<u16> = outcome.answers.keys().copied().collect();
        assert_eq!(codes, [200, 503], "{fault}: {:?}", outcome.answers);
        assert_eq!((outcome.unanswered, outcome.without_retry_after), (0, 0), "{fault}");
        assert!(forebay.log().contains("no room to write a batch"), "{}", forebay.log());
        assert_eq!(forebay.terminate(RESTARTED).code(), Some(0), "{}", forebay.log());
        assert_kept(setup.spool(), &outcome);
    }
}

#[test]
fn a_directory_that_cannot_be_synced_ends_the_start() {
    // The first are those of new directories, the later ones those of recovery and of the files beside the spool.
    for n in [1, 2, 5, 8] {
        fail(&format!("fsync:error=EIO:when={n}"), false);
    }
}

#[test]
fn a_device_that_fails_ends_the_process_and_loses_nothing() {
    if !can_mount("a_device_that_fails_ends_the_process_and_loses_nothing") {
        return;
    }
    const SIZE_MIB: u64 = 64;
    let scratch = scratch();
    let image = scratch.path().join("image");
    make_image(&image, &format!("{SIZE_MIB}M"), &["-b", "4096", "-O", "^has_journal"]);
    let at = scratch.path().join("disk");
    let disk = Mount::image(&image, &at, "noinit_itable,errors=continue");
    let setup = setup(&disk.path().join("spool"));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, CONNECTIONS, 1_000, 100);
    wait_until("the first are acknowledged", RESTARTED, || {
        sender.so_far().count(200) > 200
    });

    // The device ends a little behind what is on it: what goes further is an error. (A device whose backing is full
    // would not do: where a request goes halfway, the loop driver calls it a success.)
    resize_device(&image, end_of_data(&image) + (1 << 20));
    let status = forebay.wait(RESTARTED);
    assert_eq!(status.code(), EXIT_DISK, "{}", forebay.log());
    assert!(
        forebay.log().contains("fsync of "),
        "it was a sync that failed: {}",
        forebay.log()
    );
    let outcome = sender.stop();
    assert!(outcome.count(503) > 0, "{:?}", outcome.answers);

    resize_device(&image, SIZE_MIB << 20);
    let mut forebay = setup.start();
    assert_eq!(forebay.terminate(RESTARTED).code(), Some(0), "{}", forebay.log());
    // Without what the kernel remembers: pages whose sync failed count as clean there.
    drop(disk);
    let disk = Mount::image(&image, &at, "noinit_itable");
    assert_kept(&disk.path().join("spool"), &outcome);
}

#[test]
fn a_sync_that_takes_seconds_is_answered_503_in_time_and_passes() {
    const ACK_DEADLINE: Duration = Duration::from_millis(2500);
    const SLACK: Duration = Duration::from_millis(1500);
    let scratch = scratch();
    let strace = Strace::new(&scratch.path().join("strace"));
    let mut setup = setup(&scratch.path().join("spool"));
    setup
        .wrapper
        .extend(strace.wrapper(&["fdatasync:delay_enter=4000000:when=20..22"]));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 64, 2_000, 200);
    wait_until("three syncs dawdle", RESTARTED, || strace.injected() == 3);
    let during = sender.so_far();
    assert!(during.count(503) > 64, "{:?}", during.answers);
    let resident_kib = resident_kib(forebay.pid());
    assert!(resident_kib < 256 << 10, "{resident_kib} KiB of memory");
    wait_until("it accepts again", RESTARTED, || {
        sender.so_far().count(200) > during.count(200) + 1_000
    });
    assert_eq!(forebay.get("/readyz").unwrap().0, 200);
    let outcome = sender.stop();
    assert!(
        outcome.slowest < ACK_DEADLINE + SLACK,
        "an answer took {:?}",
        outcome.slowest
    );
    assert_eq!(
        (outcome.unanswered, outcome.without_retry_after),
        (0, 0),
        "{:?}",
        outcome.answers
    );
    assert_eq!(forebay.terminate(RESTARTED).code(), Some(0), "{}", forebay.log());
    assert_kept(setup.spool(), &outcome);
}

#[test]
fn a_disk_that_hangs_makes_the_replica_unready() {
    let scratch = scratch();
    let strace = Strace::new(&scratch.path().join("strace"));
    let mut setup = setup(&scratch.path().join("spool"));
    setup
        .wrapper
        .extend(strace.wrapper(&["fdatasync:delay_enter=60000000:when=20"]));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 500, 200);
    wait_until("it is not ready", RESTARTED, || {
        let answer = forebay.get("/readyz");
        answer.is_some_and(|(status, why)| status == 503 && why.contains("the disk has not answered for"))
    });
    for metric in ["forebay_spool_disk_works_seconds", "forebay_spool_append_waits_seconds"] {
        assert!(forebay.metric(metric) >= 5.0, "{metric}: {}", forebay.metric(metric));
    }
    assert_eq!(forebay.get("/livez").unwrap().0, 200);
    let outcome = sender.stop();
    forebay.kill();
    assert_kept(setup.spool(), &outcome);
}

fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}
