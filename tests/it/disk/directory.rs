//! The spool's directory between two processes: who holds it, what is missing in it, and what the clock says.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{EXIT_DISK, assert_kept, key, setup};
use crate::support::{
    census::assert_in_order,
    clock::SteppingClock,
    disk::scratch,
    forebay::{Setup, wait_until},
    kafka::{self, create_topic},
    sender::{Outcome, Sender},
    topic::read_to_end,
};

const DEADLINE: Duration = Duration::from_secs(30);
const DRAINED: Duration = Duration::from_secs(60);
const EXIT_USAGE: Option<i32> = Some(64);

/// Sends until so many are acknowledged.
fn send(setup: &Setup, count: usize) -> Outcome {
    let sender = Sender::start(setup.public, 4, 1_000, 50);
    wait_until("webhooks are acknowledged", DEADLINE, || {
        sender.so_far().count(200) >= count
    });
    sender.stop()
}

#[test]
fn a_second_process_on_the_directory_ends_at_once_and_names_the_holder() {
    let scratch = scratch();
    let first = setup(&scratch.path().join("spool"));
    let mut holder = first.start();
    let outcome = send(&first, 50);
    let second = setup(first.spool());
    let began = Instant::now();
    let mut refused = second.launch();
    assert_eq!(refused.wait(DEADLINE).code(), EXIT_DISK, "{}", refused.log());
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        began.elapsed()
    );
    let named = format!("held by another process (pid {} ", holder.pid());
    wait_until("it says who", DEADLINE, || refused.log().contains(&named));
    assert_eq!(holder.get("/readyz").unwrap().0, 200, "the holder is not disturbed");

    holder.kill();
    assert!(
        first.spool().join("LOCK").exists(),
        "a killed process leaves its lock file"
    );
    let mut next = second.start();
    assert_eq!(next.terminate(DEADLINE).code(), Some(0), "{}", next.log());
    assert_kept(first.spool(), &outcome);
}

#[test]
fn a_clock_that_steps_years_deletes_and_stops_nothing() {
    let scratch = scratch();
    let clock = SteppingClock::new(scratch.path());
    let mut setup = setup(&scratch.path().join("spool"));
    setup.wrapper.extend(clock.variables());
    let mut forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 400, 50);
    let accepts = |what: &str| {
        let before = sender.so_far().count(200);
        wait_until(what, DEADLINE, || sender.so_far().count(200) > before + 100);
    };
    accepts("webhooks are accepted");
    // While it runs, and around a restart, each way.
    for (offset, restart) in [
        ("+5y", false),
        ("-5y", false),
        ("+5y", true),
        ("-5y", true),
        ("+0", true),
    ] {
        clock.step(offset);
        if restart {
            // Not told to stop: it would not end.
            forebay.kill();
            forebay = setup.start();
        }
        accepts(&format!("webhooks are accepted at {offset}"));
        assert_eq!(forebay.get("/readyz").unwrap().0, 200, "ready at {offset}");
    }
    let outcome = sender.stop();
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
    let survived = assert_kept(setup.spool(), &outcome);

    const YEAR_MS: i64 = 365 * 24 * 3600 * 1000;
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for years in [-4, 4] {
        let seen = survived
            .recorded_ms
            .iter()
            .any(|ms| (ms - now_ms) / YEAR_MS == years || (ms - now_ms) / YEAR_MS == years / 4 * 5);
        assert!(
            seen,
            "no record is {years} years or more off: the clock was not stepped"
        );
    }
}

/// What happens to the cursors' files between two runs.
fn each_cursor(spool: &Path, change: impl Fn(&Path)) {
    let files: Vec<_> = fs::read_dir(spool.join("cursors")).unwrap().flatten().collect();
    assert!(!files.is_empty(), "there are cursors");
    files.iter().for_each(|file| change(&file.path()));
}

fn delete(file: &Path) {
    fs::remove_file(file).unwrap();
}

fn garble(file: &Path) {
    let garbage: Vec<u8> = (0..1024_u32).map(|i| (i * 31 % 251) as u8).collect();
    fs::write(file, garbage).unwrap();
}

fn empty(file: &Path) {
    fs::write(file, "").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_cursors_cost_repeats_and_no_webhook() {
    let brokers = kafka::shared();
    for (name, change) in [
        ("deleted", delete as fn(&Path)),
        ("garbled", garble),
        ("emptied", empty),
    ] {
        let topic = create_topic(&brokers, &format!("cursors-{name}"), 3, &[]).await;
        let scratch = scratch();
        let away = setup(&scratch.path().join("spool"));
        let mut forebay = away.start();
        let before = send(&away, 200);
        assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
        each_cursor(away.spool(), change);

        // Nothing of it was published.
        let there = Setup::new(&brokers, &topic).spool_at(away.spool());
        let mut forebay = there.start();
        let after = send(&there, 100);
        forebay.wait_until_drained(DRAINED);
        let census = assert_in_order(&read_to_end(&brokers, &topic));
        for outcome in [&before, &after] {
            let lost = outcome.acknowledged.difference(&census.feed_ids).count();
            assert_eq!(lost, 0, "cursor {name}: of {} acknowledged", outcome.acknowledged.len());
        }
        assert_eq!(census.repeats, 0);

        // All of it was; a part is still in the spool.
        assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
        each_cursor(there.spool(), change);
        let forebay = there.start();
        let damage = forebay.metric("forebay_spool_damage_total{kind=\"cursor\"}");
        assert!(damage >= 1.0, "cursor {name}: the loss is counted");
        assert!(
            forebay.log().contains("the route's cursor is gone"),
            "{}",
            forebay.log()
        );
        forebay.wait_until_drained(DRAINED);
        let again = assert_in_order(&read_to_end(&brokers, &topic));
        assert_eq!(again.feed_ids, census.feed_ids);
        assert!(
            again.repeats > 0,
            "cursor {name}: what is still in the spool comes once more"
        );
    }
}

#[test]
fn where_the_routes_names_cannot_be_kept_there_is_no_start() {
    let scratch = scratch();
    let setup = setup(&scratch.path().join("spool"));
    // They are written there, and then moved to their place.
    let in_the_way = setup.spool().join("routes.new");
    fs::create_dir_all(&in_the_way).unwrap();
    let mut refused = setup.launch();
    assert_eq!(refused.wait(DEADLINE).code(), EXIT_DISK, "{}", refused.log());
    assert!(refused.log().contains("routes.json"), "{}", refused.log());

    fs::remove_dir(&in_the_way).unwrap();
    let mut forebay = setup.start();
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
}

#[test]
fn a_route_that_left_the_configuration_with_webhooks_unpublished_stops_the_start_with_a_question() {
    const AUDIT: &str = "[routes.audit]\nsink = \"main\"\ntopic = \"audit\"\n";
    let scratch = scratch();
    let dir = scratch.path().join("spool");
    let both = setup(&dir).with(AUDIT);
    let mut forebay = both.start();
    let outcome = send(&both, 50);
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());

    let mut one = setup(&dir);
    let mut refused = one.launch();
    assert_eq!(refused.wait(DEADLINE).code(), EXIT_USAGE, "{}", refused.log());
    for said in [
        "route \"audit\"",
        "put the route back",
        "spool.abandon_routes = [\"audit\"]",
    ] {
        wait_until(&format!("{said:?} in {}", refused.log()), DEADLINE, || {
            refused.log().contains(said)
        });
    }

    let mut back = both.start();
    assert_eq!(back.terminate(DEADLINE).code(), Some(0), "{}", back.log());
    one.wrapper.push(key("SPOOL__ABANDON_ROUTES", "[\"audit\"]"));
    let mut given_up = one.start();
    assert_eq!(given_up.terminate(DEADLINE).code(), Some(0), "{}", given_up.log());
    assert_kept(&dir, &outcome);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_has_published_everything_can_be_taken_out() {
    let brokers = kafka::shared();
    let events = create_topic(&brokers, "stays", 3, &[]).await;
    let audit = create_topic(&brokers, "leaves", 3, &[]).await;
    let scratch = scratch();
    let one = Setup::new(&brokers, &events).spool_at(&scratch.path().join("spool"));
    let both = Setup::new(&brokers, &events)
        .spool_at(&scratch.path().join("spool"))
        .with(&format!("[routes.audit]\nsink = \"main\"\ntopic = \"{audit}\"\n"));
    let mut forebay = both.start();
    let before = send(&both, 50);
    forebay.wait_until_drained(DRAINED);
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());

    let mut forebay = one.start();
    let after = send(&one, 50);
    forebay.wait_until_drained(DRAINED);
    assert_eq!(forebay.terminate(DEADLINE).code(), Some(0), "{}", forebay.log());
    let census = assert_in_order(&read_to_end(&brokers, &events));
    for outcome in [&before, &after] {
        assert_eq!(outcome.acknowledged.difference(&census.feed_ids).count(), 0);
    }
    assert_eq!(census.repeats, 0);
}
