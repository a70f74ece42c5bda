//! Webhooks are made, changed, tested, disabled and removed.

use std::collections::BTreeSet;

use serde_json::json;

use super::{
    MASK,
    description::ApiDescription,
    provider::{FIRST_ID, FakeProvider, PlannedAnswer},
    webhooks,
};

const URL: &str = "https://hooks.example/millicast/acme?x=1";

#[test]
fn every_call_of_the_description_is_made_and_none_that_it_does_not_have() {
    // Without anything that the API has had since.
    let provider = FakeProvider::with(ApiDescription::published());
    let run = |arguments: &[&str]| webhooks(&provider, arguments).assert(0);
    run(&["add", "--url", URL, "--feeds", "--recordings"]);
    run(&["show", "100"]);
    run(&["list"]);
    run(&["update", "100", "--url", "https://hooks.example/b", "--feeds=false"]);
    provider.disable(FIRST_ID, "2026-01-31T12:00:00Z", "time-outs");
    run(&["enable", "100"]);
    run(&["rotate", "100"]);
    run(&["test", "recordings"]);
    run(&["remove", "100", "--yes"]);
    let all: BTreeSet<String> = ApiDescription::published().calls().into_iter().collect();
    assert_eq!(provider.calls(), all);
    assert_eq!(all.len(), 6);
}

#[test]
fn one_is_made_with_every_field_of_the_api() {
    let provider = FakeProvider::start();
    let shown = webhooks(&provider, &["add", "--url", URL, "--media", "--json"])
        .assert(0)
        .objects();
    let sent = provider.received().pop().unwrap();
    assert_eq!(
        sent.json(),
        json!({ "url": URL, "isFeedHooks": false, "isMediaHooks": true })
    );
    assert_eq!(
        (&shown[0]["id"], &shown[0]["url"], &shown[0]["secret"]),
        (&json!(100), &json!(URL), &json!(MASK))
    );

    let all = [
        "--feeds",
        "--recordings",
        "--thumbnails",
        "--transcoder",
        "--media",
        "--viewer-connection",
    ];
    let add = ["add", "--url", URL, "--filter", "^live-", "--show-secret"];
    let shown = webhooks(&provider, &[&add[..], &all].concat()).assert(0).stdout;
    for line in [
        "id: 101",
        &format!("url: {URL}"),
        "sends: feeds,recordings,thumbnails,transcoder,media,viewer-connection",
        "filter: ^live-",
        "state: enabled",
        &format!("secret: {}", provider.secret(101)),
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    let sent = provider.received().pop().unwrap().json();
    for flag in [
        "Feed",
        "Recording",
        "Thumbnail",
        "Transcoder",
        "Media",
        "ViewerConnection",
    ] {
        assert_eq!(sent[format!("is{flag}Hooks")], true, "{sent}");
    }
    assert_eq!(sent["filter"], "^live-");
}

#[test]
fn only_what_is_said_is_changed() {
    let provider = FakeProvider::start();
    let id = provider.has(json!({ "isFeedHooks": true, "filter": "^a" }));
    let mut expected = provider.webhook(id);
    for (arguments, sent, changed) in [
        (
            &["--thumbnails", "--feeds=false"][..],
            json!({ "isThumbnailHooks": true, "isFeedHooks": false }),
            json!({}),
        ),
        (&["--transcoder=true"], json!({ "isTranscoderHooks": true }), json!({})),
        (&["--filter", "b|c"], json!({ "filter": "b|c" }), json!({})),
        (&["--no-filter"], json!({ "filter": null }), json!({})),
        (&["--url", URL], json!({ "url": URL }), json!({ "disabled": null })),
    ] {
        let shown = webhooks(
            &provider,
            &[&["update", "100", "--json", "--show-secret"], arguments].concat(),
        );
        for members in [&sent, &changed] {
            expected
                .as_object_mut()
                .unwrap()
                .extend(members.as_object().unwrap().clone());
        }
        assert_eq!(provider.received().pop().unwrap().json(), sent);
        assert_eq!(provider.webhook(id), expected);
        assert_eq!(shown.assert(0).objects(), [expected.clone()]);
    }
}

#[test]
fn what_cannot_be_meant_is_not_asked_for() {
    let provider = FakeProvider::start();
    let (long, scheme) = ("x".repeat(129), "hooks.example/a");
    for (arguments, told) in [
        (&["add", "--url", URL][..], "of no kind would send nothing"),
        (&["add", "--url", URL, "--feeds=false"], "of no kind"),
        (&["add", "--feeds"], "--url"),
        (&["add", "--url", scheme, "--feeds"], "expected a URL such as"),
        (
            &["add", "--url", URL, "--feeds", "--filter", ""],
            "0 characters: the API takes 1 to 128",
        ),
        (&["add", "--url", URL, "--feeds", "--filter", &long], "129 characters"),
        (&["update", "100"], "nothing of webhook 100 is to change"),
        (
            &["update", "100", "--filter", "a", "--no-filter"],
            "cannot be used with",
        ),
        (&["update", "100", "--feeds=maybe"], "true, false"),
        (&["show", "one"], "invalid digit"),
        (&["remove", "100"], "nobody can be asked here: say --yes"),
        (&["test"], "<KIND>"),
        (
            &["test", "feed"],
            "feeds, recordings, thumbnails, transcoder, media, viewer-connection",
        ),
        (&["list", "--item-count", "1"], "2..=1000"),
        (&["list", "--timeout", "1h"], "from 100ms to 10m"),
    ] {
        let said = webhooks(&provider, arguments).assert(64).stderr;
        assert!(said.contains(told), "{arguments:?}: {said}");
    }
    assert_eq!(provider.received(), []);
}

#[test]
fn a_secret_is_renewed_and_shown_only_where_that_is_asked_for() {
    let provider = FakeProvider::start();
    let id = provider.has(json!({ "isFeedHooks": true }));
    let before = provider.secret(id);
    let said = webhooks(&provider, &["rotate", "100"]).assert(0).stdout;
    assert_eq!(
        provider.received().pop().unwrap().json(),
        json!({ "refreshSecret": true })
    );
    let second = provider.secret(id);
    assert!(
        before != second && said.contains(MASK) && said.contains("Its secret is new"),
        "{said}"
    );
    assert!(!said.contains(&before) && !said.contains(&second), "{said}");

    let said = webhooks(&provider, &["rotate", "100", "--show-secret", "--json"])
        .assert(0)
        .objects();
    let third = provider.secret(id);
    assert!(second != third);
    assert_eq!(said[0]["secret"], *third);
    let shown = webhooks(&provider, &["show", "100", "--show-secret"]).assert(0).stdout;
    assert!(shown.contains(&format!("secret: {third}")), "{shown}");
}

#[test]
fn a_field_that_is_not_known_is_shown_but_for_a_secret() {
    let provider = FakeProvider::start();
    let answer = json!({ "id": 7, "region": "eu", "previousSecret": "hidden-one", "secret": null });
    let answer = json!({ "status": "success", "data": answer });
    for arguments in [&["show", "7"][..], &["show", "7", "--json"]] {
        provider.plan([PlannedAnswer::new(200, &answer)]);
        let said = webhooks(&provider, arguments).assert(0).stdout;
        assert!(
            said.contains("region") && said.contains(MASK) && !said.contains("hidden-one"),
            "{said}"
        );
    }
}

#[test]
fn what_is_disabled_is_enabled_at_once() {
    let provider = FakeProvider::start();
    let id = provider.has(json!({ "isFeedHooks": true }));
    provider.disable(id, "2026-01-31T12:00:00Z", "too many time-outs");
    let shown = webhooks(&provider, &["show", "100"]).assert(0).stdout;
    assert!(
        shown.contains("state: disabled until 2026-01-31T12:00:00Z: too many time-outs\n"),
        "{shown}"
    );
    let disabled = json!({ "status": "success", "data": provider.webhook(id) });
    let shown = webhooks(&provider, &["enable", "100"]).assert(0).stdout;
    assert!(shown.contains("state: enabled\n"), "{shown}");
    assert_eq!(provider.received().pop().unwrap().json(), json!({ "reEnable": true }));
    assert!(provider.webhook(id)["disabled"].is_null());

    provider.plan([PlannedAnswer::new(200, disabled)]);
    let said = webhooks(&provider, &["enable", "100"]).assert(1).stderr;
    assert!(said.contains("webhook 100 is still disabled"), "{said}");
}

#[test]
fn test_events_are_asked_for_by_kind_and_those_that_are_refused_are_named() {
    let provider = FakeProvider::start();
    provider.has(json!({ "isFeedHooks": true, "isThumbnailHooks": true, "isViewerConnectionHooks": true }));
    let kinds = ["test", "feeds", "Thumbnail", "viewerConnection", "viewer-connection"];
    let names = ["--stream-name", "live", "--transcoder-name", "t"];
    let said = webhooks(&provider, &[&kinds[..], &names].concat()).assert(0).stdout;
    assert_eq!(said.lines().next(), Some("feeds: the provider sends one"));
    let sent = provider.received();
    let paths: Vec<&str> = sent.iter().map(|sent| sent.path.rsplit('/').next().unwrap()).collect();
    assert_eq!(paths, ["Feeds", "Thumbnail", "ViewerConnection", "ViewerConnection"]);
    assert_eq!(sent[0].json(), json!({ "streamName": "live", "transcoderName": "t" }));

    // Without names it is asked as the description has it, and then as the API has it since.
    let said = webhooks(&provider, &["test", "feeds"]).assert(0).stdout;
    assert_eq!(said, "feeds: the provider sends one\n");
    let sent = provider.received();
    let bodies: Vec<&[u8]> = sent.iter().map(|sent| &sent.body[..]).collect();
    assert_eq!(bodies, [b"", b"{}" as &[u8]]);

    let said = webhooks(&provider, &["test", "media", "feeds"]).assert(1).stdout;
    assert!(
        said.contains("media: failed to have a test event sent of Media: the API answers 400"),
        "{said}"
    );
    assert!(
        said.contains("no webhook has isMediaHooks") && said.contains("\nfeeds: the provider"),
        "{said}"
    );
    let said = webhooks(&provider, &["test", "--json", "media", "feeds"])
        .assert(1)
        .objects();
    assert_eq!((&said[0]["asked"], &said[1]["asked"]), (&json!(false), &json!(true)));
    provider.plan([PlannedAnswer::new(200, json!({ "status": "success", "data": false }))]);
    assert!(
        webhooks(&provider, &["test", "feeds"])
            .assert(1)
            .stdout
            .contains("\"false\"")
    );
}

#[test]
fn one_is_removed_once_that_is_meant() {
    let provider = FakeProvider::start();
    for _ in 0..2 {
        provider.has(json!({ "isFeedHooks": true }));
    }
    assert_eq!(
        webhooks(&provider, &["remove", "100", "--yes"]).assert(0).stdout,
        "webhook 100 is removed\n"
    );
    let said = webhooks(&provider, &["remove", "101", "--yes", "--json"])
        .assert(0)
        .objects();
    assert_eq!(
        (said[0].clone(), provider.count()),
        (json!({ "id": 101, "removed": true }), 0)
    );
    let said = webhooks(&provider, &["remove", "100", "--yes"]).assert(1).stderr;
    assert!(
        said.contains("failed to remove webhook 100: the API answers 404, \"Webhook not found\""),
        "{said}"
    );
}
