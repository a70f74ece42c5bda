//! The disk is full, and then it is not.

use std::{collections::HashSet, fs, io::Write as _, path::Path, time::Duration};

use serde_json::Value;

use super::{assert_kept, key, setup};
use crate::support::{
    census::assert_in_order,
    disk::{Mount, can_mount, has_btrfs, run, scratch},
    forebay::{Setup, wait_until},
    kafka::{self, create_topic},
    program,
    sender::Sender,
    topic::read_to_end,
};

const DEADLINE: Duration = Duration::from_secs(30);

#[test]
fn a_full_disk_is_answered_503_until_there_is_space_again() {
    if !can_mount("a_full_disk_is_answered_503_until_there_is_space_again") {
        return;
    }
    let scratch = scratch();
    let disk = Mount::tmpfs(&scratch.path().join("disk"), "14M");
    let ballast = disk.path().join("ballast");
    run("fallocate", &["-l", "8M", ballast.to_str().unwrap()]);
    let mut setup = setup(&disk.path().join("spool"));
    // Segments of 4 MiB: beside the ballast there is room for one.
    setup.wrapper.push(key("SPOOL__BYTES_MAX", "16MiB"));
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 8, 4_000, 200);
    wait_until("the disk is full", Duration::from_secs(60), || {
        sender.so_far().count(503) > 50
    });
    let full = sender.so_far();
    assert_eq!(forebay.get("/readyz").unwrap().0, 503, "not ready while full");
    assert_eq!(forebay.get("/livez").unwrap().0, 200, "alive while full");

    fs::remove_file(&ballast).unwrap();
    wait_until("it is ready again", DEADLINE, || {
        matches!(forebay.get("/readyz"), Some((200, _)))
    });
    wait_until("it accepts again", DEADLINE, || {
        sender.so_far().count(200) > full.count(200) + 500
    });
    let outcome = sender.stop();
    assert_eq!(
        (outcome.unanswered, outcome.without_retry_after),
        (0, 0),
        "{:?}",
        outcome.answers
    );
    let codes: Vec<u16> = outcome.answers.keys().copied().collect();
    assert_eq!(codes, [200, 503]);
    let told = forebay.log().matches("no room for a new segment").count();
    assert!((1..10).contains(&told), "said {told} times");
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
    assert_kept(setup.spool(), &outcome);
}

/// A limit on the size of files: a write beyond it is a signal, SIGXFSZ, and EFBIG where that is caught.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_the_size_of_files_is_a_full_disk_and_does_not_keep_it_from_draining() {
    let topic = create_topic(&kafka::shared(), "file-size", 3, &[]).await;
    let mut setup = Setup::new(&kafka::shared(), &topic);
    let mut away = Setup::new("127.0.0.1:1", &topic).spool_at(setup.spool());
    away.wrapper = vec!["env".into(), key("SERVER__SHUTDOWN_DEADLINE", "1s")];
    let mut forebay = away.start();
    let sender = Sender::start(away.public, 2, 500, 20);
    wait_until("some are acknowledged", DEADLINE, || sender.acknowledged() > 100);
    let outcome = sender.stop();
    forebay.kill();

    let limited = ["sh", "-c", "ulimit -f \"$0\"; exec \"$@\"", "0"].map(str::to_owned);
    setup.wrapper = limited.to_vec();
    let mut forebay = setup.launch();
    wait_until("the operator is answered", DEADLINE, || forebay.get("/livez").is_some());
    forebay.wait_until_drained(DEADLINE);
    assert_eq!(
        forebay.get("/readyz").map(|(code, _)| code),
        Some(503),
        "it takes nothing in"
    );
    let refused = Sender::start(setup.public, 2, 500, 20);
    wait_until("new ones are refused", DEADLINE, || refused.so_far().count(503) > 50);
    let refused = refused.stop();
    assert_eq!(
        refused.count(503),
        refused.answers.values().sum::<usize>(),
        "{:?}",
        refused.answers
    );
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
    let feeds = |records: &[kafka::Read]| -> HashSet<String> {
        let events = records
            .iter()
            .map(|record| serde_json::from_slice::<Value>(&record.value).unwrap());
        events
            .map(|event| event["feedid"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(feeds(&kafka::read_all(&kafka::shared(), &topic)).is_superset(&outcome.acknowledged));

    // Its positions could not be kept; `drain` begins where they are, and ends all the same.
    let output = program::forebay_by(&setup.wrapper)
        .arg("drain")
        .arg("--config")
        .arg(setup.config())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");

    setup.wrapper.clear();
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 2, 500, 20);
    wait_until("it accepts without the limit", DEADLINE, || sender.acknowledged() > 100);
    sender.stop();
    forebay.wait_until_drained(DEADLINE);
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
}

/// A file system that writes nothing in place: when it is full, a file cannot even be made shorter.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_btrfs_does_not_keep_it_from_starting_and_draining() {
    let test = "a_full_btrfs_does_not_keep_it_from_starting_and_draining";
    if !can_mount(test) || !has_btrfs(test) {
        return;
    }
    let topic = create_topic(&kafka::shared(), "btrfs", 3, &[]).await;
    let scratch = scratch();
    let disk = Mount::new_btrfs(scratch.path(), "120M");
    let away = setup(&disk.path().join("spool"));
    let mut forebay = away.start();
    let sender = Sender::start(away.public, 32, 2_000, 200);
    wait_until("some are acknowledged", DEADLINE, || sender.acknowledged() > 500);
    let outcome = sender.stop();
    assert_eq!(outcome.unanswered, 0, "{:?}", outcome.answers);
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
    fill(&disk.path().join("rest"));

    let mut setup = Setup::new(&kafka::shared(), &topic).spool_at(away.spool());
    setup.wrapper.clone_from(&away.wrapper);
    let mut forebay = setup.launch();
    wait_until("the operator is answered", DEADLINE, || forebay.get("/livez").is_some());
    forebay.wait_until_drained(Duration::from_secs(120));
    let census = assert_in_order(&read_to_end(&kafka::shared(), &topic));
    let lost = outcome.acknowledged.difference(&census.feed_ids).count();
    assert_eq!((lost, census.repeats), (0, 0), "lost, came twice: {}", forebay.log());
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
}

/// Writes until not a block is left.
fn fill(path: &Path) {
    let mut file = fs::File::create(path).expect("a name of a file still fits");
    for bytes in [1 << 20, 4096] {
        let block = vec![0x5a; bytes];
        while file.write_all(&block).and_then(|()| file.sync_all()).is_ok() {}
    }
}
