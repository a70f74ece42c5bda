//! A configuration that is read again while webhooks come: what changes, what does not, and what is said where the
//! operator looks. Here what needs no broker; `brokers` has the rest.

mod brokers;

use std::{fs, net::SocketAddr, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::rotation::mount;
use crate::support::{
    forebay::{Forebay, PATH, SECRET, Setup, kafka_route, wait_until},
    http,
    secrets::NEXT_WEBHOOK as NEXT,
    sender::{Sender, sign_with, webhook},
};

const SOON: Duration = Duration::from_secs(30);
const SUCCESSFUL: &str = "forebay_config_last_reload_successful";
const APPLIED_AT: &str = "forebay_config_last_reload_timestamp_seconds";

/// Routes to a broker that is not there.
fn setup() -> Setup {
    let mut setup = Setup::publishing(&kafka_route("events", "127.0.0.1:1", "none"));
    setup.env = vec![("FOREBAY__SERVER__SHUTDOWN_DEADLINE".into(), "1s".into())];
    setup
}

/// The answer to a webhook that comes to this path, signed with this secret.
fn post(to: SocketAddr, path: &str, secret: &str) -> Option<u16> {
    post_body(to, path, secret, &webhook(1, "feed"))
}

fn post_body(to: SocketAddr, path: &str, secret: &str, body: &str) -> Option<u16> {
    let headers = format!("X-Millicast-Signature: {}\r\n", sign_with(secret, body.as_bytes()));
    http::request(to, "POST", path, &headers, body).map(|answer| answer.code)
}

/// Lines of the log that tell how a reload came out.
fn told(forebay: &Forebay) -> Vec<String> {
    let log = forebay.log();
    let lines = log
        .lines()
        .filter(|line| line.contains("the configuration was applied") || line.contains("cannot be used"));
    lines.map(str::to_owned).collect()
}

/// What is said of the reload that `ask` asks for.
fn reload(forebay: &Forebay, ask: impl FnOnce()) -> String {
    let before = told(forebay).len();
    ask();
    wait_until(&format!("the reload is told: {}", forebay.log()), SOON, || {
        told(forebay).len() > before
    });
    told(forebay).pop().unwrap()
}

/// Writes the configuration and has it read again.
fn apply(setup: &Setup, forebay: &Forebay) -> String {
    setup.config();
    reload(forebay, || forebay.signal("HUP"))
}

/// The same, with more keys at its top.
fn apply_with(setup: &Setup, forebay: &Forebay, keys: &str) -> String {
    let path = setup.config();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("{keys}\n{text}")).unwrap();
    reload(forebay, || forebay.signal("HUP"))
}

fn configuration(forebay: &Forebay) -> Value {
    forebay.status()["configuration"].take()
}

#[test]
fn endpoints_secrets_and_limits_change_and_no_honest_request_is_refused() {
    let mut setup = setup().with("\n[endpoints.gone]\npath = \"/gone\"\nsecrets = [\"base64:b2xk\"]\n");
    let forebay = setup.start();
    let sender = Sender::start(setup.public, 4, 200, 10);
    assert_eq!(post(setup.public, PATH, NEXT), Some(400));
    assert_eq!(post(setup.public, "/gone", "b2xk"), Some(200));
    assert_eq!(post(setup.public, "/new", "bmV3"), Some(404));
    assert_eq!(forebay.metric("forebay_secrets_active{endpoint=\"gone\"}"), 1.0);

    setup.secrets.push(format!("base64:{NEXT}"));
    setup.change(&kafka_route("events", "127.0.0.1:1", "none"));
    let setup = setup.with(
        r#"
        [endpoints.new]
        path = "/new"
        secrets = ["base64:bmV3"]
        "#,
    );
    let said = apply(&setup, &forebay);
    assert!(said.contains("endpoints: +new ~acme -gone"), "{said}");
    assert!(!said.contains("routes"), "{said}");
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
    assert_eq!(post(setup.public, "/gone", "b2xk"), Some(404));
    assert_eq!(post(setup.public, "/new", "bmV3"), Some(200));
    let series = |endpoint: &str| format!("forebay_secrets_active{{endpoint=\"{endpoint}\"}}");
    assert_eq!(forebay.metric(&series("acme")), 2.0);
    assert_eq!(forebay.metric(&series("new")), 1.0);
    let (_, metrics) = forebay.get("/metrics").unwrap();
    assert!(!metrics.contains(&series("gone")), "{metrics}");

    let said = apply(&setup, &forebay);
    assert!(said.contains("it changed nothing"), "{said}");

    let large = format!("{}{}", webhook(1, "feed"), " ".repeat(3000));
    assert_eq!(post_body(setup.public, PATH, SECRET, &large), Some(200));
    let said = apply_with(
        &setup,
        &forebay,
        r#"
        server.body_bytes_max = 2048
        server.bodies_bytes_max = "1MiB"
        server.connections_max = 321
        server.health_path = "/health"
        "#,
    );
    for key in ["body_bytes_max", "bodies_bytes_max", "connections_max", "health_path"] {
        assert!(said.contains(&format!("server.{key}")), "{said}");
    }
    assert_eq!(post_body(setup.public, PATH, SECRET, &large), Some(413));
    let health = http::request(setup.public, "GET", "/health", "", "");
    assert_eq!(health.map(|answer| answer.code), Some(200));
    let limit = |name: &str| forebay.metric(&format!("forebay_limit_max{{limit=\"{name}\"}}"));
    assert_eq!(limit("connections"), 321.0);
    wait_until("the limit of bodies is shown", SOON, || {
        limit("bodies_bytes") == 1_048_576.0
    });

    let outcome = sender.stop();
    let answers: Vec<u16> = outcome.answers.keys().copied().collect();
    assert_eq!((answers, outcome.unanswered), (vec![200], 0), "{}", forebay.log());
}

#[test]
fn a_configuration_that_cannot_be_used_changes_nothing_and_the_operator_is_told() {
    let mut setup = setup();
    let forebay = setup.start();
    assert_eq!(forebay.metric(SUCCESSFUL), 1.0);
    let started = forebay.metric(APPLIED_AT);
    assert!(started > 1.7e9, "{started}");
    assert!(configuration(&forebay)["error"].is_null());
    let path = setup.config();
    let right = fs::read_to_string(&path).unwrap();

    let wrong_secret = right.replace(SECRET, "not base64!");
    let no_secret = right.replace(&format!("base64:{SECRET}"), "file:/nowhere/at/all");
    for (text, expected) in [
        ("this is no TOML".to_owned(), "forebay.toml"),
        (format!("{right}\nnobody.knows = 1"), "nobody"),
        (wrong_secret, "endpoints.acme.secrets"),
        (no_secret, "/nowhere/at/all"),
        (right.replace("sink = \"main\"", "sink = \"none\""), "sink"),
    ] {
        fs::write(&path, text).unwrap();
        let said = reload(&forebay, || forebay.signal("HUP"));
        assert!(
            said.contains("cannot be used, and nothing was changed") && said.contains(expected),
            "{expected}: {said}"
        );
        assert_eq!(forebay.metric(SUCCESSFUL), 0.0, "{expected}");
        assert_eq!(forebay.metric(APPLIED_AT), started, "{expected}");
        let error = configuration(&forebay)["error"].take();
        assert!(error["text"].as_str().unwrap().contains(expected), "{error}");
        assert_eq!(post(setup.public, PATH, SECRET), Some(200), "{expected}");
        assert_eq!(forebay.get("/readyz").unwrap().0, 200, "{expected}");
    }

    setup.secrets.push(format!("base64:{NEXT}"));
    let said = apply(&setup, &forebay);
    assert!(said.contains("endpoints: ~acme"), "{said}");
    assert_eq!(forebay.metric(SUCCESSFUL), 1.0);
    assert!(forebay.metric(APPLIED_AT) >= started);
    assert!(configuration(&forebay)["error"].is_null());
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
}

#[test]
fn what_only_a_restart_changes_is_named_and_the_rest_is_applied() {
    let setup = setup();
    let forebay = setup.start();
    let path = setup.config();
    let right = fs::read_to_string(&path).unwrap();
    let other = right
        .replace(
            &format!("server.listen = \"{}\"", setup.public),
            "server.listen = \"127.0.0.1:1\"",
        )
        .replace(
            "spool.replica = \"replica-0\"",
            "spool.replica = \"replica-0\"\nspool.bytes_max = \"512MiB\"",
        )
        .replace(SECRET, NEXT);
    assert_ne!(other, right);
    fs::write(&path, other).unwrap();
    let said = reload(&forebay, || forebay.signal("HUP"));
    assert!(said.contains("endpoints: ~acme"), "{said}");
    assert_eq!(post(setup.public, PATH, NEXT), Some(200), "where it listened before");
    let needs_restart = configuration(&forebay)["needs_restart"].take();
    assert_eq!(needs_restart, serde_json::json!(["server.listen", "spool.bytes_max"]));
    wait_until("it is logged", SOON, || {
        let log = forebay.log();
        let line = log.lines().find(|line| line.contains("only a restart can change"));
        line.is_some_and(|line| line.contains("server.listen spool.bytes_max"))
    });
    assert_eq!(forebay.metric(SUCCESSFUL), 1.0);
    // As the process was started, after all.
    fs::write(&path, right).unwrap();
    reload(&forebay, || forebay.signal("HUP"));
    assert_eq!(configuration(&forebay)["needs_restart"], serde_json::json!([]));
}

#[test]
fn a_route_that_cannot_publish_what_it_has_stays_unless_it_is_abandoned() {
    let both = format!(
        "{}\n[routes.copies]\nsink = \"main\"\ntopic = \"copies\"\noverlap = true\nmatch = {{ kinds = [\"feeds\"] }}\n",
        kafka_route("events", "127.0.0.1:1", "none")
    );
    let mut setup = setup();
    setup.change(&both);
    let mut forebay = setup.start();
    assert_eq!(post(setup.public, PATH, SECRET), Some(200));
    wait_until("the route is blocked", SOON, || {
        let status = forebay.status();
        let routes = status["routes"].as_array().unwrap();
        routes
            .iter()
            .any(|route| route["name"] == "copies" && route["blocked"].is_object())
    });
    setup.change(&kafka_route("events", "127.0.0.1:1", "none"));
    let said = apply(&setup, &forebay);
    for part in [
        "cannot be used",
        "route \"copies\" has 1 records",
        "spool.abandon_routes",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert_eq!(forebay.status()["routes"].as_array().unwrap().len(), 2);

    let said = apply_with(&setup, &forebay, "spool.abandon_routes = [\"copies\"]");
    assert!(said.contains("routes: -copies"), "{said}");
    assert!(
        forebay
            .log()
            .contains("giving up what the abandoned route has not published")
    );
    let status = forebay.status();
    assert_eq!(status["routes"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!(status["ending_routes"], serde_json::json!([]), "{status}");
    let (_, metrics) = forebay.get("/metrics").unwrap();
    assert!(!metrics.contains("forebay_route_blocked{reason=\"kafka_unreachable\",route=\"copies\"}"));
    assert!(
        metrics.contains("forebay_published_total{route=\"copies\"} 0"),
        "{metrics}"
    );
    assert!(forebay.terminate(SOON).success(), "{}", forebay.log());
    // Its cursor is gone: nothing has to be abandoned any more.
    setup.start();
}

#[test]
fn a_file_that_is_watched_is_applied_when_it_changes_also_one_that_kubernetes_mounts() {
    let setup = setup();
    let text = fs::read_to_string(setup.config()).unwrap();
    let volume: PathBuf = setup.dir.path().join("volume");
    fs::create_dir(&volume).unwrap();
    let mount = |version: &str, text: &str| mount(&volume, version, &[("forebay.toml", text)]);
    mount("..1", &text);
    let forebay = setup.serve(&["--watch"], &volume.join("forebay.toml"));
    forebay.wait_until_ready();

    let said = reload(&forebay, || mount("..2", &text.replace(SECRET, NEXT)));
    assert!(said.contains("endpoints: ~acme"), "{said}");
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
    let said = reload(&forebay, || mount("..3", "nothing of this kind"));
    assert!(said.contains("cannot be used"), "{said}");
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
    let said = reload(&forebay, || mount("..4", &text));
    assert!(said.contains("endpoints: ~acme"), "{said}");
    assert_eq!(post(setup.public, PATH, SECRET), Some(200));
    assert_eq!(told(&forebay).len(), 3, "a file that does not change is not read again");
}

/// What a process may have open lowers `connections_max`, which the file does not say.
#[test]
fn a_limit_that_was_lowered_is_no_change_of_the_configuration() {
    let mut setup = setup();
    setup.wrapper = ["sh", "-c", "ulimit -n 600; exec \"$@\"", "sh"]
        .map(str::to_owned)
        .to_vec();
    let forebay = setup.start();
    assert!(
        forebay.log().contains("connections_max is lowered"),
        "{}",
        forebay.log()
    );
    let lowered = forebay.metric("forebay_limit_max{limit=\"connections\"}");
    assert!(lowered < 600.0, "{lowered}");
    for _ in 0..2 {
        let said = apply(&setup, &forebay);
        assert!(said.contains("it changed nothing"), "{said}");
    }
    let now = forebay.metric("forebay_limit_max{limit=\"connections\"}");
    assert_eq!(now, lowered);
}

#[test]
fn a_file_that_is_not_watched_waits_for_the_signal() {
    let mut setup = setup();
    let forebay = setup.start();
    setup.secrets = vec![format!("base64:{NEXT}")];
    setup.config();
    // Longer than a file that is watched is left alone.
    wait_until("time has passed", SOON, {
        let begin = std::time::Instant::now();
        move || begin.elapsed() > Duration::from_millis(2500)
    });
    assert_eq!(post(setup.public, PATH, NEXT), Some(400));
    apply(&setup, &forebay);
    assert_eq!(post(setup.public, PATH, NEXT), Some(200));
}
