//! The causes, made to happen to real Forebays that a real Prometheus scrapes: each alert fires, and goes out when its
//! cause is gone.
//!
//! A rule says minutes, hours and days. Here they are seconds ([`HURRIED`]), in every rule alike; nothing else of a
//! rule is changed. Each cause has a job of its own, so that all of them happen side by side, and what fires for a job
//! is its own.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::runtime::Handle;

use super::{DEADLINE, files, send_too_large};
use crate::support::{
    disk::Strace,
    forebay::{EXCHANGE, PATH, Setup, rabbitmq_route, wait_until},
    http,
    kafka::{self, Cluster, create_topic, create_topic_named},
    program,
    prometheus::Prometheus,
    rabbitmq::{self, CLASSIC, Vhost},
    sender::{Sender, sign, webhook},
    tls,
};

/// How many milliseconds of the test a minute is, an hour, … They keep their order, and each is longer than what
/// happens within it.
const HURRIED: [(&str, u64); 4] = [("m", 1_000), ("h", 20_000), ("d", 45_000), ("w", 100_000)];

/// The rules in a hurry.
fn hurried(rules: &Value) -> String {
    let mut rules = rules.clone();
    for group in rules["groups"].as_array_mut().unwrap() {
        for rule in group["rules"].as_array_mut().unwrap() {
            for part in ["expr", "for"] {
                if let Some(text) = rule[part].as_str() {
                    rule[part] = hurry(text).into();
                }
            }
        }
    }
    rules.to_string()
}

/// Replaces each duration, and the numbers of seconds that are an hour and ten minutes. Not that of a day, in which
/// certificates are counted: for those nobody waits.
fn hurry(text: &str) -> String {
    let mut whole = String::new();
    let mut word = String::new();
    for c in text.chars().chain([' ']) {
        if c.is_ascii_alphanumeric() || c == '_' || c == ':' {
            word.push(c);
            continue;
        }
        whole.push_str(&hurry_word(&word));
        whole.push(c);
        word.clear();
    }
    whole.pop();
    whole
}

fn hurry_word(word: &str) -> String {
    let duration = HURRIED.iter().find_map(|(unit, ms)| {
        let count: u64 = word.strip_suffix(unit)?.parse().ok()?;
        Some(format!("{}ms", count * ms))
    });
    match duration {
        Some(duration) => duration,
        None if word == "3600" => (HURRIED[1].1 / 1_000).to_string(),
        None if word == "600" => (10 * HURRIED[0].1 / 1_000).to_string(),
        None => word.to_owned(),
    }
}

#[test]
fn a_hurried_rule_differs_in_its_durations_only() {
    let text = "a:b:rate5m[1w] offset 15m > 5 * x[1h] and y{c=\"503\"} < 3600 or z > 600 * 86400";
    let fast = "a:b:rate5m[100000ms] offset 15000ms > 5 * x[20000ms] and y{c=\"503\"} < 20 or z > 10 * 86400";
    assert_eq!(hurry(text), fast);
}

/// Alerts that are not made to fire here, but in the rules' cases.
const BY_CASES_ALONE: [&str; 5] = [
    "ForebayDiskHangs",
    "ForebayLimitNear",
    "ForebayRouteFull",
    "ForebaySecretUnreadable",
    "ForebayUnrouted",
];

type Cause = Box<dyn FnOnce(&Stage) + Send>;

/// One cause and what it is made with. All of it is there before Prometheus, which is told whom to scrape.
struct Case {
    job: &'static str,
    setups: Vec<Setup>,
    happen: Cause,
}

/// Where a cause is made to happen.
struct Stage<'a> {
    job: &'static str,
    setups: &'a [Setup],
    prometheus: &'a Prometheus,
    runtime: &'a Handle,
    /// The alerts that have fired and gone out, of all causes.
    seen: &'a Mutex<BTreeSet<String>>,
}

impl Stage<'_> {
    fn setup(&self) -> &Setup {
        &self.setups[0]
    }

    /// Waits until exactly these fire.
    fn wait_until_firing(&self, alerts: &[&str]) {
        let expected: BTreeSet<String> = alerts.iter().map(|alert| (*alert).to_owned()).collect();
        let start = Instant::now();
        loop {
            let firing = self.prometheus.firing(self.job);
            if firing == expected {
                let names = firing.iter().filter_map(|alert| alert.split(' ').next());
                self.seen.lock().unwrap().extend(names.map(str::to_owned));
                return;
            }
            assert!(
                start.elapsed() < DEADLINE,
                "waited for {expected:?}, and what fires is {firing:?}: {}",
                self.prometheus.alerts(self.job)
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    fn wait_until_out(&self) {
        self.wait_until_firing(&[]);
    }

    /// Waits until a query has a result; the job's label is `$job` in it.
    fn wait_until_true(&self, query: &str) {
        let query = query.replace("$job", self.job);
        wait_until(&query, DEADLINE, || !self.prometheus.query(&query).is_empty());
    }

    /// Waits until Prometheus has seen all replicas of the job, and nothing fires.
    fn begin(&self) {
        let replicas = self.setups.len();
        self.wait_until_true(&format!("job:forebay_replicas:count{{job=\"$job\"}} == {replicas}"));
        self.wait_until_out();
    }
}

fn post(setup: &Setup, body: &str, signature: &str) -> u16 {
    let headers = format!("X-Millicast-Signature: {signature}\r\n");
    http::request(setup.public, "POST", PATH, &headers, body).map_or(0, |answer| answer.code)
}

/// Sends an event, rightly signed.
fn send(setup: &Setup, feed: &str) {
    let body = webhook(0, feed);
    assert_eq!(post(setup, &body, &sign(body.as_bytes())), 200);
}

/// A small spool, which is soon full.
const SMALL: [&str; 2] = [
    "FOREBAY__SPOOL__BYTES_MAX=16MiB",
    "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
];

/// Frozen, away, back: the route of who has something to publish is blocked, its spool fills, and in the end events are
/// refused. Another replica has nothing to publish, and is told of it all the same.
fn broker_gone(stage: &Stage, mut cluster: Cluster) {
    let [busy, idle] = stage.setups else {
        panic!("two replicas")
    };
    let (busy, _idle) = (busy.start(), idle.start());
    stage.begin();

    // It is there and takes nothing, which might pass. So little comes in that the spool does not fill.
    let sender = Sender::start(stage.setup().public, 1, 20, 10);
    cluster.freeze(0);
    stage.wait_until_firing(&["ForebayRouteBehind events"]);
    cluster.thaw(0);
    stage.wait_until_out();
    sender.stop();

    // The spool fills so slowly that the prediction is the first to say so.
    let sender = Sender::start(stage.setup().public, 4, 800, 100);
    cluster.kill(0);
    stage.wait_until_firing(&["ForebayRouteBlocked events", "ForebaySpoolFilling"]);
    let share = busy.metric("forebay_spool_bytes") / busy.metric("forebay_spool_bytes_max");
    assert!(share <= 0.8, "the prediction came too late: {share}");
    sender.stop();
    let sender = Sender::start(stage.setup().public, 8, 3_000, 100);
    stage.wait_until_firing(&[
        "ForebayEventsRefused",
        "ForebayRouteBlocked events",
        "ForebaySpoolFilling",
    ]);
    let outcome = sender.stop();
    assert!(outcome.count(503) > 0, "{:?}", outcome.answers);

    cluster.restart(0);
    busy.wait_until_drained(DEADLINE);
    stage.wait_until_out();
}

fn what_no_broker_takes(stage: &Stage) {
    let _forebay = stage.setup().start();
    stage.begin();
    send_too_large(stage.setup(), 20_000);
    stage.wait_until_firing(&["ForebayDeadLetters events"]);
    stage.wait_until_out();
}

fn wrong_secret(stage: &Stage) {
    let _forebay = stage.setup().start();
    stage.begin();
    let (is_right, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for feed in 0.. {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                if is_right.load(Ordering::Relaxed) {
                    send(stage.setup(), &format!("right-{feed}"));
                } else {
                    let signature = format!("sha1={}", "0".repeat(40));
                    assert_eq!(post(stage.setup(), &webhook(0, "wrong"), &signature), 400);
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        let checked = catch_unwind(AssertUnwindSafe(|| {
            stage.wait_until_firing(&["ForebayBadSignatures", "ForebaySecretWrong"]);
            is_right.store(true, Ordering::Relaxed);
            stage.wait_until_out();
        }));
        is_over.store(true, Ordering::Relaxed);
        checked.unwrap_or_else(|failure| std::panic::resume_unwind(failure));
    });
}

fn too_large_a_body(stage: &Stage) {
    let _forebay = stage.setup().start();
    stage.begin();
    // The peer may be cut off before it reads its answer.
    let signature = format!("X-Millicast-Signature: sha1={}\r\n", "0".repeat(40));
    let _ = http::request(stage.setup().public, "POST", PATH, &signature, "x".repeat(2 << 20));
    stage.wait_until_firing(&["ForebayBodiesRefused"]);
    stage.wait_until_out();
}

/// Events as yesterday, then none, then some again.
fn no_events(stage: &Stage) {
    let _forebay = stage.setup().start();
    let sender = Sender::start(stage.setup().public, 1, 10, 10);
    stage.begin();
    stage.wait_until_true("endpoint:forebay_events:increase1h{job=\"$job\"} > 100");
    sender.stop();
    stage.wait_until_firing(&["ForebayNoEvents"]);
    send(stage.setup(), "one more");
    stage.wait_until_out();
}

/// A topic and an exchange that are not there, until somebody makes them.
fn nowhere_to_publish(stage: &Stage, topic: &str, vhost: &Vhost) {
    let forebay = stage.setup().start();
    send(stage.setup(), "held back");
    stage.wait_until_firing(&["ForebayRouteBlocked events", "ForebayRouteBlocked queues"]);
    let reasons = ["kafka_unknown_topic", "rabbitmq_unknown_exchange"];
    let text = forebay.status().to_string();
    assert!(reasons.iter().all(|reason| text.contains(reason)), "{text}");
    vhost.topology(EXCHANGE, 2, CLASSIC);
    stage
        .runtime
        .block_on(create_topic_named(&kafka::shared(), topic, 1, &[]));
    forebay.wait_until_drained(DEADLINE);
    stage.wait_until_out();
}

/// A byte on disk is another after a kill; found at the start, and gone with its segment once the route has passed it.
fn damage(stage: &Stage) {
    let mut forebay = stage.setup().start();
    for feed in 0..100 {
        send(stage.setup(), &format!("damaged-{feed}"));
    }
    forebay.kill();
    flip_a_byte(&stage.setup().spool().join("segments"));
    let mut forebay = stage.setup().start();
    let found = forebay.metrics_sum("forebay_spool_damage_total");
    assert!(found > 0.0, "{}", forebay.log());
    stage.wait_until_firing(&["ForebaySpoolDamaged"]);
    forebay.wait_until_drained(DEADLINE);
    forebay.terminate(DEADLINE);
    let _forebay = stage.setup().start();
    stage.wait_until_out();
}

/// In the middle of the first of a hundred records.
fn flip_a_byte(segments: &Path) {
    let mut paths: Vec<PathBuf> = fs::read_dir(segments)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    let path = paths.pop().expect("a segment");
    let bytes = fs::read(&path).unwrap();
    let feed = b"damaged-50";
    let at = bytes
        .windows(feed.len())
        .position(|window| window == feed)
        .expect("a record") as u64;
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(b"D", at).unwrap();
}

/// A configuration that cannot be used, then the right one again.
fn refused_configuration(stage: &Stage) {
    let forebay = stage.setup().start();
    stage.begin();
    let path = stage.setup().config();
    fs::write(&path, "nothing of this kind").unwrap();
    forebay.signal("HUP");
    stage.wait_until_firing(&["ForebayConfigurationRefused"]);
    stage.setup().config();
    forebay.signal("HUP");
    stage.wait_until_out();
}

/// A route that an operator has paused, and lets go on.
fn paused_route(stage: &Stage) {
    let _forebay = stage.setup().start();
    stage.begin();
    let operate = |verb: &str| {
        let mut command = program::forebay();
        command.args(["routes", verb, "--config"]).arg(stage.setup().config());
        assert!(command.arg("events").status().unwrap().success());
    };
    operate("pause");
    stage.wait_until_firing(&["ForebayRoutePaused events"]);
    operate("resume");
    stage.wait_until_out();
}

fn slow_disk(stage: &Stage) {
    let strace = Strace::new(&stage.setup().dir.path().join("strace"));
    let plain = stage.setup().start();
    stage.begin();
    drop(plain);
    let words = strace.wrapper(&["fdatasync:delay_enter=800000"]);
    let mut slow = stage.setup().launch_within(&words);
    slow.wait_until_ready();
    let sender = Sender::start(stage.setup().public, 2, 4, 10);
    stage.wait_until_firing(&["ForebayFsyncSlow"]);
    assert!(strace.injected() > 5);
    sender.stop();
    slow.terminate(DEADLINE);
    let _forebay = stage.setup().start();
    let sender = Sender::start(stage.setup().public, 2, 20, 10);
    stage.wait_until_out();
    sender.stop();
}

/// One of two is gone, then both, then they are back.
fn replicas_gone(stage: &Stage) {
    let [first, second] = stage.setups else {
        panic!("two replicas")
    };
    let (mut one, mut other) = (first.start(), second.start());
    stage.begin();
    other.terminate(DEADLINE);
    stage.wait_until_firing(&["ForebayReplicaMissing"]);
    one.terminate(DEADLINE);
    stage.wait_until_firing(&["ForebayDown"]);
    let _both = (first.start(), second.start());
    stage.wait_until_out();
}

/// A certificate of a day; then it is renewed.
fn certificate(stage: &Stage) {
    let _forebay = stage.setup().start();
    stage.wait_until_firing(&["ForebayCertificateExpires"]);
    tls::self_signed(stage.setup().dir.path(), "client", 90);
    stage.wait_until_out();
}

async fn cases() -> Vec<Case> {
    let brokers = kafka::shared();
    let topic = create_topic(&brokers, "alerting", 1, &[("max.message.bytes", "10000")]).await;
    let (cluster, vhost) = tokio::task::spawn_blocking(|| (Cluster::single(), rabbitmq::shared().vhost("alerting")))
        .await
        .unwrap();
    let of_its_own = cluster.bootstrap();
    let lonely = create_topic(&of_its_own, "alerting", 1, &[]).await;
    let pair = |brokers: &str, topic: &str| {
        let setup = |replica: &str| Setup::new(brokers, topic).replica(replica).environment(&SMALL);
        vec![setup("replica-0"), setup("replica-1")]
    };
    let alone = || vec![Setup::new(&brokers, &topic).environment(&SMALL)];
    let missing = format!("{topic}-missing");
    let nowhere = Setup::new(&brokers, &missing).with(&rabbitmq_route("queues", &vhost.uris(), 2));
    let simple = |job, happen: fn(&Stage)| Case {
        job,
        setups: alone(),
        happen: Box::new(happen),
    };
    let mut certified = simple("certificate", certificate);
    let dir = certified.setups[0].dir.path().to_owned();
    let file = tls::self_signed(&dir, "client", 1);
    let line = format!("[sinks.main.properties]\n\"ssl.certificate.location\" = {file:?}\n");
    certified.setups = certified.setups.into_iter().map(|setup| setup.with(&line)).collect();
    vec![
        Case {
            job: "broker_gone",
            setups: pair(&of_its_own, &lonely),
            happen: Box::new(move |stage| broker_gone(stage, cluster)),
        },
        Case {
            job: "replicas_gone",
            setups: pair(&brokers, &topic),
            happen: Box::new(replicas_gone),
        },
        Case {
            job: "nowhere_to_publish",
            setups: vec![nowhere],
            happen: Box::new(move |stage| nowhere_to_publish(stage, &missing, &vhost)),
        },
        certified,
        simple("what_no_broker_takes", what_no_broker_takes),
        simple("wrong_secret", wrong_secret),
        simple("too_large_a_body", too_large_a_body),
        simple("no_events", no_events),
        simple("damage", damage),
        simple("refused_configuration", refused_configuration),
        simple("paused_route", paused_route),
        simple("slow_disk", slow_disk),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn each_cause_makes_its_alerts_fire_and_they_go_out_with_it() {
    let cases = cases().await;
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || all_at_once(cases, &runtime))
        .await
        .unwrap();
}

fn all_at_once(cases: Vec<Case>, runtime: &Handle) {
    let rules = files::rules();
    let jobs: Vec<_> = cases
        .iter()
        .map(|case| (case.job, case.setups.iter().map(|setup| setup.admin).collect()))
        .collect();
    let prometheus = Prometheus::start(&hurried(&rules), &jobs);
    let seen = Mutex::default();
    let failed: Vec<&str> = std::thread::scope(|scope| {
        let started: Vec<_> = cases
            .into_iter()
            .map(|Case { job, setups, happen }| {
                let (prometheus, seen) = (&prometheus, &seen);
                let run = move || {
                    let setups = &setups[..];
                    happen(&Stage {
                        job,
                        setups,
                        prometheus,
                        runtime,
                        seen,
                    });
                };
                let thread = std::thread::Builder::new().name(job.into());
                (job, thread.spawn_scoped(scope, run).unwrap())
            })
            .collect();
        let over = started.into_iter().map(|(job, thread)| (job, thread.join()));
        over.filter_map(|(job, result)| result.is_err().then_some(job))
            .collect()
    });
    // Each has said why, as the thread of its name.
    assert!(failed.is_empty(), "{failed:?}");
    let seen = seen.into_inner().unwrap();
    let untried: Vec<&str> = files::alerts(&rules)
        .into_iter()
        .filter(|alert| !seen.contains(*alert) && !BY_CASES_ALONE.contains(alert))
        .collect();
    assert!(untried.is_empty(), "never fired: {untried:?}");
}
