//! The disk is full, and then it is not.

use std::{fs, time::Duration};

use super::{assert_kept, key, setup};
use crate::support::{
    disk::{Mount, can_mount, run, scratch},
    forebay::wait_until,
    sender::Sender,
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
