//! `repair`: a whole spool takes the place of a damaged one, or nothing changes.

use std::{collections::BTreeSet, fs, thread};

use rdkafka::{mocking::MockCluster, producer::DefaultProducerContext};
use serde_json::json;

use super::*;
use crate::support::{kafka, terminal::TestTerminal};

/// A Kafka in this process.
fn cluster() -> MockCluster<'static, DefaultProducerContext> {
    let cluster = MockCluster::new(1).unwrap();
    cluster.create_topic("events", 3, 1).unwrap();
    cluster
}

/// The directories beside a spool whose names begin like it.
fn beside(dir: &Path) -> BTreeSet<String> {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let entries = fs::read_dir(dir.parent().unwrap()).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names
        .filter_map(|other| Some(other.strip_prefix(&format!("{name}."))?.to_owned()))
        .collect()
}

#[test]
fn a_repaired_spool_publishes_all_that_was_intact_and_nothing_that_was_settled() {
    let first = cluster();
    let mut setup = setup(&first.bootstrap_servers());
    let mut forebay = setup.start();
    post_feeds(&setup, 0..20);
    wait_until("the first are published", SOON, || forebay.published() == 20.0);
    drop(first);
    post_feeds(&setup, 20..40);
    post_media(&setup, 100);
    wait_until("what no route wants is a dead letter", SOON, || {
        forebay.metric("forebay_dead_letters{route=\"unrouted\"}") == 1.0
    });
    wait_until("the page has what is settled", SOON, || {
        let found = inspect(setup.spool(), &[]);
        let cursors: Vec<_> = of_type(&found.lines, "cursor").collect();
        let needs = |name: &str, records: u64| {
            let cursor = cursors.iter().find(|cursor| cursor["name"] == name);
            cursor.is_some_and(|cursor| cursor["needs_records"] == records)
        };
        needs("events", 20) && needs("unrouted", 0)
    });
    let held = spool("repair", &[setup.spool().to_str().unwrap(), "--yes"]);
    assert_eq!(held.code, Some(74));
    assert!(
        held.stderr.contains(&format!("(pid {} ", forebay.pid())),
        "{}",
        held.stderr
    );
    forebay.kill();
    let before = numbers(setup.spool());
    damage(setup.spool(), 25);
    damage(setup.spool(), 7);

    let unasked = spool("repair", &[setup.spool().to_str().unwrap()]);
    assert_eq!(unasked.code, Some(64), "{}{}", unasked.stdout, unasked.stderr);
    assert!(unasked.stderr.contains("--yes") && beside(setup.spool()).is_empty());
    let damaged = files(setup.spool());
    let terminal = TestTerminal::open();
    let mut command = program::forebay();
    command.args(["spool", "repair", setup.spool().to_str().unwrap()]);
    let asked = terminal.start(command, "[y/N]");
    terminal.type_in("no\n");
    let (code, told) = asked.end();
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("not confirmed: nothing was changed"), "{told}");
    assert!(beside(setup.spool()).is_empty() && files(setup.spool()) == damaged);
    let said = in_json("repair", setup.spool(), &["--yes"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    let repaired = said.lines.last().unwrap();
    assert_eq!(
        (
            &repaired["saved_records"],
            &repaired["saved_dead_letters"],
            &repaired["missing_records_max"]
        ),
        (&json!(39), &json!(1), &json!(2))
    );
    let original = Path::new(repaired["original"].as_str().unwrap());
    let kept: Vec<_> = files(original).into_iter().map(|(_, bytes)| bytes).collect();
    assert!(
        kept == damaged.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(),
        "the original is as it was"
    );
    assert_eq!(beside(setup.spool()).len(), 1, "{:?}", beside(setup.spool()));
    let intact: Vec<_> = before.into_iter().filter(|(feed, _)| ![7, 25].contains(feed)).collect();
    assert_eq!(numbers(setup.spool()), intact, "each has its old number");
    assert_eq!(verify(setup.spool()).0.code, Some(0));

    let second = cluster();
    setup.change(&routes(&second.bootstrap_servers()));
    let config = setup.config();
    let drained = program::forebay()
        .args(["drain", "--config"])
        .arg(config)
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&drained.stdout).into_owned();
    assert!(
        drained.status.success(),
        "{stdout}{}",
        String::from_utf8_lossy(&drained.stderr)
    );
    assert!(
        stdout.contains("19 messages published\n1 dead letters stay in "),
        "{stdout}"
    );
    let published = kafka::read_all(&second.bootstrap_servers(), "events");
    let published: BTreeSet<String> = published
        .iter()
        .map(|message| String::from_utf8_lossy(&message.value).into_owned())
        .collect();
    assert_eq!(published.len(), 19);
    for number in (20..40).filter(|number| *number != 25) {
        let count = published.iter().filter(|value| value.contains(&feed(number))).count();
        assert_eq!(count, 1, "webhook {number}");
    }
    let mut forebay = setup.start();
    post_feeds(&setup, 40..41);
    wait_until("it goes on", SOON, || forebay.published() == 1.0);
    assert_eq!(
        forebay.metrics_sum("forebay_spool_damage_total"),
        0.0,
        "{}",
        forebay.log()
    );
    forebay.terminate(SOON);
}

#[test]
fn a_whole_spool_is_left_as_it_is() {
    let setup = stranded();
    let before = files(setup.spool());
    let said = spool("repair", &[setup.spool().to_str().unwrap()]);
    assert_eq!(
        (said.code, said.stdout.as_str()),
        (Some(0), "nothing is damaged, and nothing was changed\n")
    );
    assert!(files(setup.spool()) == before && beside(setup.spool()).is_empty());
}

#[test]
fn lost_positions_are_said_loudly_and_every_route_begins_at_the_oldest_record() {
    let setup = stranded();
    let known = fs::read(setup.spool().join("routes.json")).unwrap();
    fs::remove_file(setup.spool().join("superblock")).unwrap();
    fs::write(setup.spool().join("cursors/page"), b"no page").unwrap();
    let said = spool("repair", &[setup.spool().to_str().unwrap(), "--yes"]);
    assert_eq!(said.code, Some(0), "{}{}", said.stdout, said.stderr);
    assert!(
        said.stdout.contains("WARNING: where the routes were is lost"),
        "{}",
        said.stdout
    );
    assert!(
        said.stdout.contains("saved: 14 records and 2 dead letters"),
        "{}",
        said.stdout
    );
    assert_eq!(fs::read(setup.spool().join("routes.json")).unwrap(), known);
    let mut forebay = setup.start();
    assert_eq!(
        forebay.status()["routes"][0]["backlog_records"],
        12,
        "{}",
        forebay.status()
    );
    forebay.kill();
}

#[test]
fn a_repair_that_is_killed_leaves_the_damaged_spool_or_a_whole_one() {
    let setup = stranded();
    damage(setup.spool(), 5);
    let scratch = tempfile::tempdir().unwrap();
    let mut ends = BTreeSet::new();
    for round in 0..40 {
        let dir = scratch.path().join(format!("round-{round}"));
        copy(setup.spool(), &dir);
        let mut child = program::forebay()
            .args(["spool", "repair", dir.to_str().unwrap(), "--yes"])
            .spawn();
        // It is the moments that differ; each of them must do.
        thread::sleep(Duration::from_millis(round * 4));
        child.kill().unwrap();
        child.wait().unwrap();
        let (said, summary) = verify(&dir);
        let records = summary["records"].clone();
        assert_eq!(records, 15, "round {round}: {}", said.stdout);
        if said.code == Some(0) {
            assert!(
                beside(&dir).iter().any(|name| name.starts_with("damaged-")),
                "{:?}",
                beside(&dir)
            );
        }
        ends.insert(said.code);
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(ends.contains(&Some(1)), "some were killed before the end: {ends:?}");
}
