//! What the disk does.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread::sleep,
    time::{Duration, Instant},
};

use forebay_test_support::{
    clock::SteppingClock,
    disk::{Mount, Strace, copy_image, end_of_data, resize_device, survived},
    forebay::{Setup, wait_until},
    sender::Load,
};

use crate::{
    scenario::{AROUND, DiskPlan, Group, LANDED, Scenario, Stage},
    subject::Replica,
};

const SOON: Duration = Duration::from_secs(30);
/// As `<sysexits.h>` has it: an error of input or output.
const EXIT_DISK: i32 = 74;

const BASE: Scenario = Scenario {
    group: Group::Disk,
    ..Scenario::KAFKA
};

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "the power is cut at some moment (ext4; what was not synced is gone)",
        disk: DiskPlan::Image,
        goes_away: true,
        load: Load {
            keeps: true,
            ..Load::new(8, 1000, 200)
        },
        configure: small,
        cause: power_cut,
        ..BASE
    },
    Scenario {
        name: "each of the log's system calls fails, one after the other",
        quick: true,
        goes_away: true,
        allowed: &[503],
        configure: small,
        cure: "the process ends, and is started again, as by Kubernetes",
        cause: every_call_fails,
        ..BASE
    },
    Scenario {
        name: "the device fails: a sync that the kernel refuses",
        disk: DiskPlan::Image,
        goes_away: true,
        allowed: &[503],
        configure: small,
        cure: "the device is mended; the process was started again",
        cause: device_fails,
        ..BASE
    },
    Scenario {
        name: "a sync takes four seconds, three times",
        allowed: &[503],
        goes_away: true,
        cause: slow_syncs,
        ..BASE
    },
    Scenario {
        name: "the disk is full while the broker is away",
        disk: DiskPlan::Memory("40M"),
        allowed: &[503],
        load: Load {
            large: Some((2, 60_000)),
            ..BASE.load
        },
        configure: small,
        cause: full,
        ..BASE
    },
    Scenario {
        name: "all cursors are lost while the process is away",
        goes_away: true,
        cause: cursors_lost,
        ..BASE
    },
    Scenario {
        name: "a bit flips in each of ten records that wait",
        quick: true,
        goes_away: true,
        cure: "what is left of them is lost, counted and named",
        cause: bits_flip,
        ..BASE
    },
    Scenario {
        name: "a second process comes to the directory, again and again",
        cause: second_process,
        ..BASE
    },
    Scenario {
        name: "the clock steps years, back and forth",
        goes_away: true,
        cause: clock_steps,
        ..BASE
    },
    Scenario {
        name: "ten gigabytes of backlog",
        load: Load {
            keeps: true,
            large: Some((1, 500_000)),
            ..Load::new(8, 250, 200)
        },
        configure: |setup| setup.environment(&["FOREBAY__SPOOL__BYTES_MAX=14GiB"]),
        goes_away: true,
        cause: ten_gigabytes,
        ..BASE
    },
];

/// Small segments, of which many come and go.
fn small(setup: Setup) -> Setup {
    setup.environment(&[
        "FOREBAY__SPOOL__BYTES_MAX=64MiB",
        "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
    ])
}

/// The broker hangs meanwhile, so that everything is in the spool.
///
/// Forebay is stopped, the device is copied, and the copy is mounted and read, as after a power cut: what the kernel
/// had only in memory is not in it.
fn power_cut(stage: &mut Stage) {
    let count = stage.scale.pick(10, 220);
    // What is at the broker is not in the spool for ever. While nobody publishes, it is read.
    stage.subjects[0].replicas()[0].running.freeze();
    sleep(LANDED);
    let arrived = stage.feeds_at_the_broker();
    stage.broker.freeze();
    stage.forebay().signal("CONT");
    let unsynced = stage.disk.path().join("unsynced");
    let mut file = File::create(&unsynced).unwrap();
    let (mut felt, mut lost, mut damaged) = (0, 0, 0);
    for number in 0..count {
        if number % 8 == 7 {
            stage.subjects[0].restart(false);
        }
        stage.sleep_up_to(Duration::from_millis(150));
        file.write_all(b"a line\n").unwrap();
        stage.subjects[0].replicas()[0].running.freeze();
        let outcome = stage.senders[0].so_far();
        let copy = stage.disk.scratch.path().join("copy");
        copy_image(&stage.disk.image(), &copy);
        stage.forebay().signal("CONT");
        let after = Mount::image(&copy, &stage.disk.scratch.path().join("after"), "noinit_itable");
        let kept = survived(&after.path().join("replica-0"));
        let missing = outcome.acknowledged.difference(&kept.feed_ids);
        lost += missing.filter(|feed| !arrived.contains(*feed)).count();
        damaged += kept.damage;
        let length = |path: &Path| fs::metadata(path).map_or(0, |metadata| metadata.len());
        felt += usize::from(length(&after.path().join("unsynced")) < length(&unsynced));
    }
    stage.broker.thaw();
    assert!(felt > count / 2, "{felt} of {count} cuts were felt");
    assert_eq!((lost, damaged), (0, 0), "of {count} cuts: lost, damaged");
    stage.note = format!("{count} cuts, after each everything answered 200 was in the copy");
}

/// Each call of the log's thread and of a start fails at its first, second, third… time, as strace counts them.
fn every_call_fails(stage: &mut Stage) {
    let faults: &[(&str, &str, usize)] = &[
        ("pwrite64", "EIO", stage.scale.pick(4, 30)),
        ("fdatasync", "EIO", stage.scale.pick(4, 30)),
        ("fsync", "EIO", stage.scale.pick(2, 12)),
        ("fallocate", "EIO", stage.scale.pick(1, 6)),
        ("ftruncate", "EIO", stage.scale.pick(1, 6)),
        ("unlink", "EIO", stage.scale.pick(1, 6)),
    ];
    let log = stage.disk.scratch.path().join("strace");
    let (mut fired, mut ended) = (0, 0);
    for (call, error, most) in faults {
        for time in 1..=*most {
            let _ = fs::remove_file(&log);
            let strace = Strace::new(&log);
            let replica = &mut stage.subjects[0].replicas()[0];
            replica.running.kill();
            replica.launch_under(strace.wrapper(&[&format!("{call}:error={error}:when={time}")]));
            let status = until_ended(replica, || strace.injected() > 0);
            let injected = strace.injected() > 0;
            fired += usize::from(injected);
            if let Some(status) = status {
                assert!(
                    injected,
                    "{call} {time}: it ended by itself: {status}\n{}",
                    replica.running.log()
                );
                assert_eq!(
                    status.code(),
                    Some(EXIT_DISK),
                    "{call} {time}:\n{}",
                    replica.running.log()
                );
                ended += 1;
            } else {
                replica.running.kill();
            }
            replica.start();
            // As many calls as that are not made within the time.
            if !injected {
                break;
            }
        }
    }
    assert!(fired > 8, "{fired} faults fired");
    stage.note = format!("{fired} faults, {ended} ends");
}

/// How a process ends within some seconds, of which one comes after `is_there`; nothing where it goes on.
fn until_ended(replica: &mut Replica, is_there: impl Fn() -> bool) -> Option<ExitStatus> {
    let began = Instant::now();
    let mut there = None;
    while began.elapsed() < Duration::from_secs(6) {
        if let Some(status) = replica.running.child.try_wait().unwrap() {
            return Some(status);
        }
        if there.is_none() && is_there() {
            there = Some(Instant::now());
        }
        if there.is_some_and(|at: Instant| at.elapsed() > Duration::from_secs(1)) {
            break;
        }
        sleep(Duration::from_millis(20));
    }
    None
}

/// The broker hangs until the device has failed, so that it is written to.
fn device_fails(stage: &mut Stage) {
    const SIZE: u64 = 256 << 20;
    let image = stage.disk.image();
    stage.broker.freeze();
    sleep(AROUND);
    // The device ends a little behind what is on it: what goes further is an error.
    resize_device(&image, end_of_data(&image) + (1 << 20));
    let replica = &mut stage.subjects[0].replicas()[0];
    let status = replica.running.wait(Duration::from_secs(120));
    assert_eq!(status.code(), Some(EXIT_DISK), "{}", replica.running.log());
    resize_device(&image, SIZE);
    replica.start();
    stage.broker.thaw();
}

fn slow_syncs(stage: &mut Stage) {
    let strace = Strace::new(&stage.disk.scratch.path().join("strace"));
    let replica = &mut stage.subjects[0].replicas()[0];
    replica.running.kill();
    replica.launch_under(strace.wrapper(&["fdatasync:delay_enter=4000000:when=20..22"]));
    wait_until("three syncs dawdle", SOON, || strace.injected() == 3);
    sleep(AROUND);
    // In order: killed it would leave strace behind.
    replica.stop();
    replica.start();
}

fn full(stage: &mut Stage) {
    stage.broker.kill(0);
    stage.broker.assert_away();
    let sender = &stage.senders[0];
    wait_until("the disk is full", Duration::from_secs(60), || {
        sender.so_far().count(503) > 50
    });
    sleep(stage.scale.outage() / 2);
    stage.broker.restart(0);
    let before = sender.so_far().count(200);
    wait_until("it accepts again", Duration::from_secs(60), || {
        sender.so_far().count(200) > before + 100
    });
}

/// Where a log keeps what is read.
fn cursors(spool: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(spool.join("cursors")).unwrap();
    files.map(|file| file.unwrap().path()).collect()
}

fn cursors_lost(stage: &mut Stage) {
    for _ in 0..stage.scale.pick(2, 5) {
        sleep(AROUND);
        let replica = &mut stage.subjects[0].replicas()[0];
        replica.running.kill();
        let files = cursors(replica.setup.spool());
        assert!(!files.is_empty(), "there are cursors");
        for file in files {
            // Garbled, as likely as gone.
            match stage.rng.one_in(2) {
                true => fs::remove_file(file).unwrap(),
                false => File::options()
                    .write(true)
                    .open(file)
                    .unwrap()
                    .write_all_at(&[0xa5; 4096], 0)
                    .unwrap(),
            }
        }
        stage.subjects[0].replicas()[0].start();
    }
}

fn bits_flip(stage: &mut Stage) {
    const RECORDS: usize = 10;
    const FIELD: &[u8] = b"\"feedId\"";
    stage.broker.freeze();
    sleep(AROUND);
    sleep(AROUND);
    let replica = &mut stage.subjects[0].replicas()[0];
    replica.running.kill();
    let files = fs::read_dir(replica.setup.spool().join("segments")).unwrap();
    let files = files.map(|file| file.unwrap().path());
    let segments = files.filter(|path| path.extension().is_some_and(|end| end == "seg"));
    let newest = segments.max().expect("there is a segment");
    let bytes = fs::read(&newest).unwrap();
    // Those of the last half wait: what is before was published.
    let places: Vec<usize> = (0..bytes.len() - FIELD.len())
        .filter(|at| bytes[*at..].starts_with(FIELD))
        .collect();
    let mut places = places[places.len() / 2..places.len() - 1].to_vec();
    let file = File::options().write(true).open(&newest).unwrap();
    for _ in 0..RECORDS {
        let at = places.swap_remove(stage.rng.below(places.len()));
        file.write_all_at(&[bytes[at] ^ 4], at as u64).unwrap();
    }
    stage.unreadable = RECORDS;
    let replica = &mut stage.subjects[0].replicas()[0];
    replica.start();
    stage.broker.thaw();
    wait_until("all damage is counted", SOON, || {
        replica.running.metric("forebay_spool_damage_total{kind=\"record\"}") >= RECORDS as f64
    });
}

fn second_process(stage: &mut Stage) {
    for _ in 0..stage.scale.pick(2, 10) {
        let replica = &mut stage.subjects[0].replicas()[0];
        let setup = Setup::new("127.0.0.1:1", "nowhere").spool_at(replica.setup.spool());
        let mut second = setup.launch();
        let began = Instant::now();
        let status = second.wait(SOON);
        assert!(
            !status.success() && began.elapsed() < AROUND,
            "{status} after {:?}",
            began.elapsed()
        );
        assert!(second.log().contains("held by another process"), "{}", second.log());
    }
}

fn clock_steps(stage: &mut Stage) {
    let clock = SteppingClock::new(stage.disk.scratch.path());
    let replica = &mut stage.subjects[0].replicas()[0];
    let words: Vec<String> = std::iter::once("env".to_owned()).chain(clock.variables()).collect();
    for offset in ["+5y", "-5y", "+0"] {
        replica.running.kill();
        replica.launch_under(words.clone());
        replica.running.wait_until_ready();
        let before = year(&replica.running.log());
        clock.step(offset);
        sleep(AROUND);
        // A line of the log has the new time.
        replica.running.signal("HUP");
        wait_until("the clock has stepped", SOON, || year(&replica.running.log()) != before);
    }
    replica.running.kill();
    replica.start();
}

/// The year of the newest line of a log.
fn year(log: &str) -> String {
    log.lines().last().unwrap_or_default().chars().take(4).collect()
}

/// The broker is away until there are ten gigabytes, and the process is killed then.
fn ten_gigabytes(stage: &mut Stage) {
    let bytes = stage.scale.pick(1e8, 1e10);
    stage.broker.kill(0);
    let replica = &mut stage.subjects[0].replicas()[0];
    wait_until("the backlog is there", Duration::from_secs(900), || {
        replica.running.metric("forebay_spool_bytes") > bytes
    });
    replica.running.kill();
    let began = Instant::now();
    replica.start();
    let ready = began.elapsed();
    stage.broker.restart(0);
    stage.note = format!("ready {:.1} s after its start", ready.as_secs_f64());
}
