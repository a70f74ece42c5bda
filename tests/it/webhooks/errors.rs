//! What goes wrong is said with the API's own text and a cure, and a call is repeated only where that is safe.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    WebhooksOutput, command,
    provider::{FakeProvider, PlannedAnswer},
    webhooks,
};
use crate::support::{
    process::free_port,
    program,
    secrets::{API_TOKEN, MISPLACED},
};

const ADD: &[&str] = &["add", "--url", "https://hooks.example/a", "--feeds"];

#[test]
fn what_the_api_says_is_shown_with_a_cure_and_the_exit_code_says_whose_it_is() {
    let provider = FakeProvider::start();
    let error = PlannedAnswer::error;
    let fail = |data| PlannedAnswer::new(400, json!({ "status": "fail", "data": data }));
    let page = PlannedAnswer::new(404, "<html>not here</html>");
    let detailed = json!({ "status": "error", "message": "no", "code": 7, "data": { "why": "because" } });
    for (answer, code, told) in [
        (
            error(401, "Unauthorized"),
            64,
            "answers 401, \"Unauthorized\" (code 401): the token is no API secret",
        ),
        (error(403, "Forbidden"), 64, "the token may not do that"),
        (error(404, "gone"), 1, "there is no such webhook in the token's account"),
        (page, 1, "answers 404, and does not say why: there is no such"),
        (
            fail(json!("itemCount")),
            1,
            "answers 400, \"itemCount\": correct what it names",
        ),
        (
            fail(json!({ "itemCount": ["too large"] })),
            1,
            "itemCount: [\\\"too large\\\"]",
        ),
        (
            PlannedAnswer::new(409, detailed),
            1,
            "answers 409, \"no; why: because\" (code 7)\n",
        ),
        (error(501, "later"), 69, "the provider has trouble: try again later"),
        (
            error(400, &format!("{API_TOKEN} is not\u{1b}[2J it")),
            1,
            "\"… is not [2J it\"",
        ),
        (
            PlannedAnswer::new(200, "<html>"),
            69,
            "status 200, cannot be read: it is not JSON: is that the address",
        ),
        (
            PlannedAnswer::new(200, json!({ "status": "success", "data": [{}] })),
            69,
            "missing field `id`",
        ),
        (
            PlannedAnswer::new(200, "x".repeat(9 << 20)),
            69,
            "longer than 8388608 bytes",
        ),
    ] {
        provider.plan([answer]);
        let said = webhooks(&provider, &["list"]).assert(code).stderr;
        assert!(
            said.starts_with("forebay: failed to list webhooks: ") && said.contains(told),
            "{told}: {said}"
        );
        assert_eq!((said.lines().count(), provider.received().len()), (1, 1), "{said}");
    }
    let said = webhooks(&provider, &["show", "5"]).assert(1).stderr;
    assert!(
        said.contains("failed to read webhook 5: the API answers 404, \"Webhook not found\""),
        "{said}"
    );
    let said = webhooks(&provider, &["add", "--url", "http://a/", "--feeds"])
        .assert(1)
        .stderr;
    assert!(
        said.contains("failed to add a webhook: the API answers 400, \"url: must be https\""),
        "{said}"
    );
}

/// Runs a command after one call was carried out and its answer got lost; says how many requests there were.
fn requests_after_a_lost_answer(arguments: &[&str], code: i32) -> (usize, WebhooksOutput) {
    let provider = FakeProvider::start();
    provider.has(json!({ "isFeedHooks": true }));
    provider.plan([PlannedAnswer::error(502, "Bad Gateway").carried_out()]);
    let said = webhooks(&provider, arguments).assert(code);
    (provider.received().len(), said)
}

#[test]
fn a_call_is_repeated_only_where_that_comes_to_the_same() {
    for arguments in [&["show", "100"][..], &["update", "100", "--media"], &["enable", "100"]] {
        let (requests, said) = requests_after_a_lost_answer(arguments, 0);
        assert_eq!(requests, 2, "{arguments:?}");
        assert!(
            said.stderr.contains("\"Bad Gateway\" (code 502)") && said.stderr.contains("asking again in"),
            "{}",
            said.stderr
        );
    }
    for arguments in [
        ADD,
        &["rotate", "100"],
        &["remove", "100", "--yes"],
        &["test", "feeds", "--stream-name", "a"],
    ] {
        let (requests, said) = requests_after_a_lost_answer(arguments, 69);
        assert_eq!(requests, 1, "{arguments:?}");
        assert!(
            said.stderr.contains("look whether it was done, then try again"),
            "{}",
            said.stderr
        );
    }
}

#[test]
fn what_goes_on_failing_is_given_up() {
    let provider = FakeProvider::start();
    provider.plan((0..10).map(|_| PlannedAnswer::error(500, "simple error reason")));
    let said = webhooks(&provider, &["list"]).assert(69).stderr;
    assert_eq!(provider.received().len(), 4, "{said}");
    let last = said.lines().last().unwrap();
    assert!(
        last.contains("\"simple error reason\" (code 500): the provider has trouble"),
        "{said}"
    );
}

#[test]
fn a_limit_of_requests_is_kept_by_every_call_up_to_a_bound() {
    let provider = FakeProvider::start();
    let limited = |after: &str| PlannedAnswer::error(429, "Too many").with("Retry-After", after);
    provider.plan([limited("1"), limited("Sun, 06 Nov 1994 08:49:37 GMT")]);
    let began = Instant::now();
    webhooks(&provider, ADD).assert(0);
    assert!(began.elapsed() >= Duration::from_secs(1));
    assert_eq!((provider.received().len(), provider.count()), (3, 1));

    provider.plan([limited("3600")]);
    let said = webhooks(&provider, &["list"]).assert(69).stderr;
    assert!(
        said.contains("too many requests") && said.contains("after 3600 s"),
        "{said}"
    );
    assert_eq!(provider.received().len(), 1);
}

#[test]
fn an_answer_that_does_not_come_is_waited_for_so_long_and_no_longer() {
    let provider = FakeProvider::start();
    let late = || PlannedAnswer::error(500, "late").after(Duration::from_secs(20));
    provider.plan([late()]);
    let said = webhooks(&provider, &["list", "--timeout", "200ms"]).assert(0).stderr;
    assert!(
        said.contains("no answer of http://127.0.0.1") && said.contains("none within 200 ms"),
        "{said}"
    );
    provider.plan([late().carried_out()]);
    let said = webhooks(&provider, &[ADD, &["--timeout", "200ms"]].concat())
        .assert(69)
        .stderr;
    assert!(said.contains("none within 200 ms: look whether it was done"), "{said}");
    assert_eq!(provider.count(), 1);
}

#[test]
fn a_token_goes_to_no_other_address() {
    let (provider, other) = (FakeProvider::start(), FakeProvider::start());
    let redirect = PlannedAnswer::new(302, "").with("Location", &format!("{}/api/webhooks/list", other.url()));
    provider.plan([redirect]);
    let said = webhooks(&provider, &["list"]).assert(64).stderr;
    assert!(
        said.contains("answers 302") && said.contains("redirects are not followed"),
        "{said}"
    );
    assert_eq!(other.received(), []);
}

/// Without a fake: with this address.
fn with_address(api: &str) -> WebhooksOutput {
    let mut command = program::forebay();
    command
        .args(["webhooks", "list", "--token", "env:MILLICAST_TOKEN", "--api", api])
        .env("MILLICAST_TOKEN", API_TOKEN)
        .env("NO_PROXY", "127.0.0.1");
    WebhooksOutput::new(command.output().unwrap())
}

#[test]
fn an_address_that_is_none_is_named_without_what_may_be_secret_in_it() {
    let said = with_address(&format!("http://127.0.0.1:{}", free_port()))
        .assert(69)
        .stderr;
    assert!(
        said.contains("cannot be reached: Connection refused") && said.contains("correct the address"),
        "{said}"
    );
    for api in [
        "api.millicast.com",
        "ftp://127.0.0.1",
        &format!("https://user:{MISPLACED}@127.0.0.1"),
        &format!("https://127.0.0.1/?token={MISPLACED}"),
    ] {
        let said = with_address(api).assert(64).stderr;
        assert!(
            said.contains("--api: expected a URL such as https://api.millicast.com"),
            "{said}"
        );
        assert!(!said.contains(MISPLACED), "{said}");
    }
}

#[test]
fn a_token_comes_from_a_variable_or_a_file_and_never_from_an_argument() {
    let provider = FakeProvider::start();
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        format!("file:{}", path.display())
    };
    let list = |token: &[&str]| {
        let mut command = command(&provider, &["list"]);
        WebhooksOutput::new(command.args(token).env("WRONG", MISPLACED).output().unwrap())
    };
    list(&["--token", &file("good", &format!("{API_TOKEN}\n"))]).assert(0);
    let said = list(&["--token", "env:WRONG"]).assert(64).stderr;
    assert!(said.contains("answers 401, \"Unauthorized\""), "{said}");
    provider.received();
    for (token, told) in [
        (MISPLACED, "--token: expected env:NAME or file:PATH"),
        (
            &format!("base64:{MISPLACED}"),
            "--token: expected env:NAME or file:PATH",
        ),
        (
            "env:NOT_THERE",
            "--token env:NOT_THERE: the environment variable is not set",
        ),
        (
            "file:/not/there",
            "--token file:/not/there: cannot be read: No such file",
        ),
        (&file("empty", " \n"), "empty: it goes in as the dashboard shows it"),
        (&file("two", &format!("{MISPLACED}\n{MISPLACED}\n")), "has white space"),
        (&file("long", &"x".repeat(2 << 20)), "larger than 1048576 bytes"),
    ] {
        let said = list(&["--token", token]).assert(64).stderr;
        assert!(said.contains(told) && !said.contains(MISPLACED), "{said}");
    }
    let said = list(&[]).assert(64).stderr;
    assert!(
        said.contains("nobody can be asked here: say --token env:NAME"),
        "{said}"
    );
    assert_eq!(provider.received(), []);
}
