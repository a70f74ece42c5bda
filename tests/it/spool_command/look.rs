//! `inspect`, `verify` and `export`: nothing is changed by them.

use std::{collections::BTreeSet, fs};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::*;

#[test]
fn a_spool_in_use_is_shown_and_its_process_is_not_disturbed() {
    let setup = setup(NOWHERE);
    let mut forebay = setup.start();
    post_feeds(&setup, 0..20);
    let found = inspect(setup.spool(), &[]);
    let log = of_type(&found.lines, "log").next().unwrap();
    assert_eq!((&log["records"], &log["replica"]), (&json!(20), &json!("replica-0")));
    assert_eq!((&log["closed_in_order"], &log["damage"]), (&json!(false), &json!(0)));
    let cursor = of_type(&found.lines, "cursor").find(|cursor| cursor["name"] == "events");
    assert_eq!(cursor.unwrap()["needs_records"], 20);
    let open = of_type(&found.lines, "segment").next().unwrap();
    assert_eq!((&open["records"], &open["sealed"]), (&json!(20), &json!(false)));

    let said = spool("inspect", &[setup.spool().to_str().unwrap()]);
    assert!(said.stdout.contains("last held by pid "), "{}", said.stdout);
    assert!(
        said.stdout.lines().all(|line| line.chars().count() <= 120),
        "{}",
        said.stdout
    );
    let (_, summary) = verify(setup.spool());
    assert_eq!((&summary["is_whole"], &summary["records"]), (&json!(true), &json!(20)));
    post_feeds(&setup, 20..21);
    assert_eq!(forebay.get("/readyz").unwrap().0, 200);
    assert_eq!(forebay.metrics_sum("forebay_spool_damage_total"), 0.0);

    assert!(forebay.terminate(SOON).success());
    let found = inspect(setup.spool(), &[]);
    assert_eq!(of_type(&found.lines, "log").next().unwrap()["closed_in_order"], true);
    let config = setup.config();
    let by_config = spool("verify", &["--config", config.to_str().unwrap()]);
    assert_eq!(by_config.code, Some(0), "{}{}", by_config.stdout, by_config.stderr);
}

#[test]
fn records_are_selected_and_bodies_shown_where_they_are_asked_for() {
    let setup = stranded();
    let all = numbers(setup.spool());
    assert_eq!(all.len(), 14);
    let shown = |more: &[&str]| -> Vec<Value> {
        let found = inspect(setup.spool(), &[&["--records"], more].concat());
        of_type(&found.lines, "record").cloned().collect()
    };
    let (second, third) = (all[1].1.to_string(), all[2].1.to_string());
    let some = shown(&["--from", &second, "--to", &third]);
    let found: Vec<_> = some.iter().map(|record| record["event"]["feed_id"].clone()).collect();
    assert_eq!(found, [json!(feed(1)), json!(feed(2))]);
    assert!(some.iter().all(|record| record.get("body_base64").is_none()));
    assert_eq!(
        (&some[0]["endpoint"], &some[0]["kind"]),
        (&json!("acme"), &json!("feeds"))
    );

    assert_eq!(shown(&["--stream", "ZG6NWV/stream-1"]).len(), 4);
    let media = shown(&["--kind", "media"]);
    let letters: Vec<_> = media.iter().filter(|record| !record["dead_letter"].is_null()).collect();
    assert_eq!(
        (media.len(), letters.len()),
        (4, 2),
        "each is a record and a dead letter"
    );
    assert_eq!(letters[0]["log"], "dead-letters/routes/unrouted");
    let letter = &letters[0]["dead_letter"];
    assert_eq!(
        (&letter["route"], &letter["number"]),
        (&json!("unrouted"), &json!(all[12].1))
    );
    assert!(letter["reason"].is_string() && letter["text"].is_string() && letter["at"].is_string());

    let with_body = shown(&["--from", &second, "--to", &second, "--bodies"]);
    let body = STANDARD.decode(with_body[0]["body_base64"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8(body).unwrap(), webhook(1, &feed(1)));
}

#[test]
fn damage_is_named_with_its_place_its_numbers_and_who_needs_them() {
    let setup = stranded();
    let (said, summary) = verify(setup.spool());
    assert_eq!(
        (said.code, &summary["records"]),
        (Some(0), &json!(16)),
        "{}",
        said.stdout
    );
    let lost = number_of(setup.spool(), 5);
    damage(setup.spool(), 5);
    let before = files(setup.spool());
    let (said, summary) = verify(setup.spool());
    assert_eq!(said.code, Some(1));
    assert_eq!(
        (&summary["damage"], &summary["missing_records_max"], &summary["records"]),
        (&json!(1), &json!(1), &json!(15))
    );
    let place = of_type(&said.lines, "damage").next().unwrap();
    assert_eq!(place["kind"], "record");
    assert_eq!(
        place["missing"],
        json!({ "first": lost, "last": lost, "records_max": 1 })
    );
    let (offset, length) = (place["offset"].as_u64().unwrap(), place["length"].as_u64().unwrap());
    let bytes = fs::read(setup.spool().join(place["file"].as_str().unwrap())).unwrap();
    let within = &bytes[offset as usize..(offset + length) as usize];
    assert!(
        String::from_utf8_lossy(within).contains("spool-0005"),
        "the place is that of the record"
    );
    let needed = |route: &str| {
        let mut routes = of_type(&said.lines, "route");
        let route = routes.find(|line| line["route"] == route).unwrap();
        route["needed_and_lost"].clone()
    };
    assert_eq!(
        (needed("events"), needed("unrouted")),
        (json!([[lost, lost]]), json!([]))
    );

    let told = spool("verify", &[setup.spool().to_str().unwrap()]);
    assert!(
        told.stdout
            .contains(&format!("route events: had yet to publish, and cannot: {lost}"))
    );
    assert!(
        told.stdout
            .lines()
            .last()
            .unwrap()
            .starts_with("DAMAGED: damaged places 1, ")
    );
    assert!(files(setup.spool()) == before, "nothing is written");
}

#[test]
fn whatever_is_gone_or_garbled_is_named_and_the_rest_is_read() {
    let setup = stranded();
    let scratch = tempfile::tempdir().unwrap();
    type Change = fn(&Path);
    let cases: [(&str, Change, u64); 5] = [
        ("superblock", |dir| fs::remove_file(dir.join("superblock")).unwrap(), 16),
        (
            "cursor",
            |dir| fs::write(dir.join("cursors/page"), vec![0x5a; 524_288]).unwrap(),
            16,
        ),
        ("segment_header", |dir| garble(&segment(dir), 0..96), 16),
        ("segment_missing", |dir| fs::remove_file(segment(dir)).unwrap(), 2),
        ("record", |dir| garble(&segment(dir), 4096..67_108_864), 2),
    ];
    for (kind, change, records) in cases {
        let dir = scratch.path().join(kind);
        copy(setup.spool(), &dir);
        change(&dir);
        let (said, summary) = verify(&dir);
        assert_eq!(said.code, Some(1), "{kind}: {}", said.stdout);
        let kinds: BTreeSet<_> = of_type(&said.lines, "damage")
            .map(|line| line["kind"].as_str().unwrap())
            .collect();
        assert_eq!(kinds, [kind].into(), "{}", said.stdout);
        assert_eq!(summary["records"], records, "{kind}: {}", said.stdout);
        inspect(&dir, &["--records"]);
    }
}

fn garble(path: &Path, place: std::ops::Range<usize>) {
    let mut bytes = fs::read(path).unwrap();
    let end = place.end.min(bytes.len());
    bytes[place.start..end].fill(0x99);
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_page_that_is_gone_is_a_loss_also_before_the_first_orderly_end() {
    let setup = stranded();
    fs::remove_file(setup.spool().join("cursors/page")).unwrap();
    let (said, _) = verify(setup.spool());
    assert_eq!(said.code, Some(1), "{}", said.stdout);
    assert_eq!(of_type(&said.lines, "damage").next().unwrap()["kind"], "cursor");
    let routes: Vec<_> = of_type(&said.lines, "route").collect();
    assert!(
        routes.iter().all(|route| route["position_lost"] == true) && !routes.is_empty(),
        "{}",
        said.stdout
    );
}

#[test]
fn what_is_no_spool_or_badly_asked_for_has_its_own_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    for verb in ["inspect", "verify"] {
        let none = spool(verb, &[path]);
        assert_eq!(none.code, Some(74));
        assert!(
            none.stderr.contains("is not the directory of a spool"),
            "{}",
            none.stderr
        );
        assert_eq!(spool(verb, &["/nowhere/at/all"]).code, Some(74));
        assert_eq!(spool(verb, &[]).code, Some(64));
        assert_eq!(spool(verb, &[path, "--config", "forebay.toml"]).code, Some(64));
    }
    assert_eq!(
        spool("inspect", &[path, "--stream", "a"]).code,
        Some(64),
        "without --records"
    );
    assert_eq!(spool("export", &[path]).code, Some(64), "without --to");
}

#[test]
fn all_that_is_intact_is_exported_and_no_file_is_written_over() {
    let setup = stranded();
    damage(setup.spool(), 5);
    garble(&segment(setup.spool()), 0..96);
    let scratch = tempfile::tempdir().unwrap();
    let to = scratch.path().join("saved.jsonl");
    let dir = setup.spool().to_str().unwrap();
    let said = in_json("export", setup.spool(), &["--to", to.to_str().unwrap()]);
    assert_eq!(said.code, Some(1), "{}{}", said.stdout, said.stderr);
    assert_eq!(said.lines.last().unwrap()["saved_records"], 15);
    let text = fs::read_to_string(&to).unwrap();
    let saved: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let feeds: BTreeSet<_> = saved
        .iter()
        .map(|line| line["event"]["feed_id"].as_str().unwrap())
        .collect();
    let intact: Vec<String> = (0..12)
        .filter(|number| *number != 5)
        .chain([100, 101])
        .map(feed)
        .collect();
    assert!(feeds.into_iter().eq(intact.iter().map(String::as_str)), "{text}");
    for line in &saved {
        let record = STANDARD.decode(line["record_base64"].as_str().unwrap()).unwrap();
        let feed = line["event"]["feed_id"].as_str().unwrap();
        assert!(
            String::from_utf8_lossy(&record).contains(feed),
            "the record has the body"
        );
        assert!(line["number"].is_u64() && line["recorded"].is_string() && line["class"] == "ordinary");
    }

    let again = spool("export", &[dir, "--to", to.to_str().unwrap()]);
    assert_eq!(again.code, Some(74));
    assert!(again.stderr.contains("nothing is written over"), "{}", again.stderr);
    assert_eq!(fs::read_to_string(&to).unwrap(), text);
    let piped = spool("export", &[dir, "--to", "-"]);
    assert_eq!((piped.code, piped.lines.len()), (Some(1), 15));
    assert_eq!(piped.stdout, text);
    assert!(piped.stderr.contains("15 records saved to stdout"), "{}", piped.stderr);
}
