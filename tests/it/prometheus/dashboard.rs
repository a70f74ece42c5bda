//! The dashboard: what is in it, and that a real Prometheus that scrapes a real Forebay has an answer to each of its
//! queries.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    DEADLINE, assert_none,
    files::{self, ROOT, read},
    send_too_large,
};
use crate::support::{
    forebay::{EXCHANGE, Forebay, PATH, Setup, send_command, wait_until},
    http,
    kafka::{self, create_topic},
    program,
    prometheus::{NAMESPACE, Prometheus},
    rabbitmq::{self, CLASSIC, Vhost},
    tls,
    venv::python,
};

const DASHBOARD: &str = "deploy/grafana/forebay.json";
const JOB: &str = "forebay";
const PARTITIONS: usize = 4;
/// What a picture in the documentation may have.
const PICTURE_BYTES_MAX: u64 = 300_000;

fn dashboard() -> Value {
    serde_json::from_str(&read(DASHBOARD)).unwrap()
}

fn each<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

/// The panels that show something: all but the rows' titles.
fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    each(dashboard, "panels").filter(|panel| panel["type"] != "row")
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

#[test]
fn the_dashboard_is_what_its_script_writes() {
    let script = Path::new(ROOT).join("deploy/grafana/dashboard.py");
    let output = Command::new("python3").arg(script).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_panel_says_what_a_person_needs_and_names_metrics_that_are_documented() {
    let dashboard = dashboard();
    assert!(panels(&dashboard).count() > 30);
    let documented = documented(&read("docs/metrics.md"));
    assert_none(&unsaid(&dashboard));
    assert_none(&misplaced(&dashboard));
    assert_none(&undocumented(&dashboard, &documented));
}

/// What panels lack that a person needs.
fn unsaid(dashboard: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    let mut ids = BTreeSet::new();
    for panel in each(dashboard, "panels") {
        if !ids.insert(panel["id"].as_u64()) {
            findings.push(format!("{}: its id {} is another's", panel["title"], panel["id"]));
        }
    }
    for panel in panels(dashboard) {
        let title = text(panel, "title");
        let mut lacks = |what: &str, is_there: bool| {
            if !is_there {
                findings.push(format!("{title:?}: no {what}"));
            }
        };
        let defaults = &panel["fieldConfig"]["defaults"];
        lacks("title", !title.is_empty());
        lacks("description", !text(panel, "description").is_empty());
        lacks("unit", !text(defaults, "unit").is_empty());
        lacks("thresholds", defaults["thresholds"]["steps"].is_array());
        lacks("data source by variable", panel["datasource"]["uid"] == "${datasource}");
        lacks("query", each(panel, "targets").next().is_some());
    }
    findings.extend(links(dashboard).filter_map(|(of, url)| {
        let page = url.strip_prefix("${runbooks}/").unwrap_or_default();
        let exists = !page.is_empty() && Path::new(ROOT).join("docs/runbooks").join(page).exists();
        (!exists).then(|| format!("{of:?}: no page {url}"))
    }));
    findings
}

/// Links of the dashboard and its panels: whose, and where to.
fn links(dashboard: &Value) -> impl Iterator<Item = (&str, &str)> {
    let all = std::iter::once(dashboard).chain(panels(dashboard));
    all.flat_map(|of| each(of, "links").map(|link| (text(of, "title"), text(link, "url"))))
}

/// Panels that lie over others, or beside the grid.
fn misplaced(dashboard: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    let mut taken = BTreeMap::new();
    for panel in each(dashboard, "panels") {
        let at = |name: &str| panel["gridPos"][name].as_u64().unwrap();
        let title = text(panel, "title");
        if at("x") + at("w") > 24 {
            findings.push(format!("{title:?} is wider than the grid"));
        }
        for y in at("y")..at("y") + at("h") {
            for x in at("x")..at("x") + at("w") {
                if let Some(other) = taken.insert((x, y), title) {
                    findings.push(format!("{title:?} lies over {other:?}"));
                }
            }
        }
    }
    findings.dedup();
    findings
}

/// The names in the tables of docs/metrics.md, and the series of its histograms.
fn documented(text: &str) -> String {
    let mut names = String::new();
    for line in text.lines() {
        let mut cells = line.split('|').map(|cell| cell.trim().trim_matches('`')).skip(1);
        let (Some(name), Some(kind)) = (cells.next(), cells.next()) else {
            continue;
        };
        match kind {
            "histogram" => names.extend(["bucket", "sum", "count"].map(|of| format!("{name}_{of}\n"))),
            "counter" | "gauge" => names.push_str(&format!("{name}\n")),
            _ => {}
        }
    }
    names
}

/// Metrics that the dashboard's queries name and `documented` does not.
fn undocumented(dashboard: &Value, documented: &str) -> Vec<String> {
    let mut queries: Vec<String> = queries(dashboard).into_iter().map(|query| query.expr).collect();
    queries.extend(selectors(dashboard).map(|(selector, _)| selector.to_owned()));
    files::unknown_metrics(&queries, &json!({}), &[documented.to_owned()])
}

#[test]
fn what_a_dashboard_lacks_is_found() {
    let panel = |id: u64, x: u64, expr: &str| {
        json!({
            "id": id, "type": "stat", "gridPos": {"x": x, "y": 0, "w": 12, "h": 2},
            "targets": [{"expr": expr}], "links": [{"url": "${runbooks}/Gone.md"}],
        })
    };
    let broken = json!({"title": "D", "panels": [panel(1, 0, "forebay_gone_total"), panel(1, 13, "forebay_a"), panel(2, 0, "up")]});
    let found = unsaid(&broken).join("\n");
    for what in [
        "id 1 is another's",
        "title",
        "description",
        "unit",
        "thresholds",
        "data source",
        "no page ${runbooks}/Gone.md",
    ] {
        assert!(found.contains(what), "{what}: {found}");
    }
    assert_eq!(
        misplaced(&broken),
        ["\"\" is wider than the grid", "\"\" lies over \"\""]
    );
    let documented = documented("| `forebay_a` | gauge | – | A. |\n| `forebay_h` | histogram | – | H. |\n| x | y |");
    assert_eq!(
        documented,
        "forebay_a\nforebay_h_bucket\nforebay_h_sum\nforebay_h_count\n"
    );
    assert_eq!(undocumented(&broken, &documented), ["forebay_gone_total"]);
}

/// Something that the dashboard asks of Prometheus.
struct Query {
    of: String,
    expr: String,
    /// Asked for a moment, not for a time.
    is_instant: bool,
}

/// The queries of panels and annotations.
fn queries(dashboard: &Value) -> Vec<Query> {
    let query = |of: &str, asked: &Value| Query {
        of: of.to_owned(),
        expr: text(asked, "expr").to_owned(),
        is_instant: asked["instant"] == true,
    };
    let of_panels = panels(dashboard)
        .flat_map(|panel| each(panel, "targets").map(move |target| query(text(panel, "title"), target)));
    let of_annotations = each(&dashboard["annotations"], "list").map(|one| query(text(one, "name"), one));
    of_panels.chain(of_annotations).collect()
}

/// The queries of the variables: selectors and labels.
fn selectors(dashboard: &Value) -> impl Iterator<Item = (&str, &str)> {
    let variables = each(&dashboard["templating"], "list").filter(|variable| variable["type"] == "query");
    variables.map(|variable| {
        let inner = text(variable, "definition").strip_prefix("label_values(");
        let inner = inner
            .and_then(|query| query.strip_suffix(')'))
            .expect("label_values(selector, label)");
        inner.rsplit_once(", ").expect("a selector and a label")
    })
}

/// A query as Grafana sends it, with everything selected by its own names.
fn filled_in(query: &str, values: &BTreeMap<String, Vec<String>>) -> String {
    let mut query = query.replace("$__rate_interval", "10s").replace("$__range", "5m");
    for (name, values) in values {
        query = query.replace(&format!("\"${name}\""), &format!("\"{}\"", values.join("|")));
    }
    assert!(!query.contains('$'), "a variable that nobody fills in: {query}");
    query
}

/// The values of the variables, as Prometheus has them.
fn values(dashboard: &Value, prometheus: &Prometheus) -> BTreeMap<String, Vec<String>> {
    let mut values = BTreeMap::new();
    for (selector, label) in selectors(dashboard) {
        let found = prometheus.label_values(&filled_in(selector, &values), label);
        values.insert(label.to_owned(), found);
    }
    values
}

/// The queries that have no answer, or none that is a number.
fn unanswered<'a>(
    queries: &'a [Query],
    values: &BTreeMap<String, Vec<String>>,
    prometheus: &Prometheus,
    since: SystemTime,
) -> Vec<&'a Query> {
    let is_number = |point: &Value| point[1].as_str().is_some_and(|value| value != "NaN");
    let is_empty = |query: &&Query| {
        let expr = filled_in(&query.expr, values);
        let series = match query.is_instant {
            true => prometheus.query(&expr),
            false => prometheus.query_since(&expr, since),
        };
        !series
            .iter()
            .any(|one| is_number(&one["value"]) || each(one, "values").any(is_number))
    };
    queries.iter().filter(is_empty).collect()
}

/// A Forebay with routes to both brokers, and what the tests make happen to it.
struct Scene {
    setup: Setup,
    vhost: Vhost,
}

impl Scene {
    async fn prepare() -> Self {
        let brokers = kafka::shared();
        let events = create_topic(&brokers, "millicast.events", 4, &[("max.message.bytes", "400000")]).await;
        let thumbnails = create_topic(&brokers, "millicast.thumbnails", 4, &[]).await;
        let vhost = tokio::task::spawn_blocking(|| rabbitmq::shared().vhost("dashboard"))
            .await
            .unwrap();
        vhost.topology(EXCHANGE, PARTITIONS, CLASSIC);
        let setup = Setup::publishing("");
        let dir = setup.dir.path();
        tls::self_signed(dir, "client", 40);
        tls::self_signed(dir, "ca", 9);
        // Where it finds them by names without a path, which would be another in each picture.
        let at = format!("--chdir={}", dir.display());
        let limits = [
            "FOREBAY__SPOOL__BYTES_MAX=64MiB",
            "FOREBAY__SERVER__BODY_BYTES_MAX=1MiB",
        ];
        let setup = setup.environment(&[&at, limits[0], limits[1]]);
        let routes = format!(
            r#"
            [sinks.kafka]
            type = "kafka"
            brokers = ["{brokers}"]
            properties = {{ "statistics.interval.ms" = "1000", "ssl.certificate.location" = "client.pem", "ssl.ca.location" = "ca.pem" }}
            [sinks.rabbit]
            type = "rabbitmq"
            uri = {uris:?}
            exchange = "{EXCHANGE}"
            partitions = {PARTITIONS}
            [routes.events]
            sink = "kafka"
            match = {{ not_kinds = ["thumbnail"] }}
            topic = "{events}"
            reorder_window = "100ms"
            [routes.thumbnails]
            sink = "kafka"
            match = {{ kinds = ["thumbnail"] }}
            topic = "{thumbnails}"
            [routes.live]
            sink = "rabbit"
            match = {{ kinds = ["feeds"] }}
            "#,
            uris = vhost.uris(),
        );
        Self {
            setup: setup.with(&routes),
            vhost,
        }
    }

    /// Webhooks of every kind, some of them out of order, for so long.
    fn send(&self, rate: u64, time: Duration) -> Child {
        let count = (rate * time.as_secs()).to_string();
        let mut command = send_command(&self.setup.url(), &[]);
        command.args([
            "--count",
            &count,
            "--rate",
            &rate.to_string(),
            "--streams",
            "40",
            "--shuffle",
            "6",
        ]);
        command.spawn()
    }

    /// What is refused: a wrong secret, no signature, an unknown path, too large a body.
    fn send_what_is_refused(&self, count: u64) {
        let mut wrong = program::forebay();
        let count_text = count.to_string();
        wrong.args([
            "send",
            "--url",
            &self.setup.url(),
            "--secret",
            "d3Jvbmc=",
            "--kind",
            "feeds",
        ]);
        let status = wrong.args(["--rate", "20", "--count", &count_text]).status().unwrap();
        assert_eq!(status.code(), Some(1), "all are refused");
        for (path, body) in [
            (PATH, "{}".to_owned()),
            ("/gone", "{}".to_owned()),
            (PATH, "x".repeat(2 << 20)),
        ] {
            // The peer may be cut off before it reads its answer.
            let _ = http::request(self.setup.public, "POST", path, "", &body);
        }
        send_too_large(&self.setup, 500_000);
    }

    /// RabbitMQ without its exchange: the route is blocked until it is there again.
    fn block_a_route(&self, forebay: &Forebay, time: Duration) {
        self.vhost.delete_exchange(EXCHANGE);
        let blocked = "forebay_route_blocked{reason=\"rabbitmq_unknown_exchange\",route=\"live\"}";
        wait_until("the route is blocked", DEADLINE, || forebay.metric(blocked) == 1.0);
        std::thread::sleep(time);
        self.vhost.declare_exchange(EXCHANGE);
        self.vhost.bind_partitions(EXCHANGE, PARTITIONS);
        wait_until("the route goes on", DEADLINE, || forebay.metric(blocked) == 0.0);
    }
}

/// Also draws the picture of the documentation, which is kept where `FOREBAY_DASHBOARD_PICTURE` says; then everything
/// goes on for longer.
#[tokio::test(flavor = "multi_thread")]
async fn every_query_of_the_dashboard_has_an_answer() {
    let kept = std::env::var_os("FOREBAY_DASHBOARD_PICTURE").map(PathBuf::from);
    let scene = Scene::prepare().await;
    tokio::task::spawn_blocking(move || play(&scene, kept.as_deref()))
        .await
        .unwrap();
}

fn play(scene: &Scene, kept: Option<&Path>) {
    let step = Duration::from_secs(if kept.is_some() { 40 } else { 4 });
    let since = SystemTime::now();
    let forebay = scene.setup.start();
    let jobs = [(JOB, vec![scene.setup.admin])];
    let prometheus = Prometheus::start(&read("deploy/prometheus/rules.yml"), &jobs);
    // What happens before the first scrape is no increase.
    wait_until("a scrape", DEADLINE, || {
        !prometheus.query("forebay_build_info").is_empty()
    });
    let mut sending = vec![scene.send(60, 6 * step)];
    std::thread::sleep(step);
    scene.send_what_is_refused(10 * step.as_secs());
    sending.push(scene.send(150, 2 * step));
    scene.block_a_route(&forebay, step);

    let dashboard = dashboard();
    let queries = queries(&dashboard);
    let start = Instant::now();
    let values = loop {
        let values = values(&dashboard, &prometheus);
        let nothing = values.iter().filter(|(_, values)| values.is_empty());
        let mut empty: Vec<String> = nothing.map(|(name, _)| format!("variable {name}")).collect();
        if empty.is_empty() {
            let unanswered = unanswered(&queries, &values, &prometheus, since);
            empty.extend(unanswered.iter().map(|query| format!("{}: {}", query.of, query.expr)));
        }
        if empty.is_empty() {
            break values;
        }
        assert!(start.elapsed() < DEADLINE, "no answer:\n{}", empty.join("\n"));
        std::thread::sleep(Duration::from_millis(500));
    };
    let expected = [
        ("job", vec![JOB]),
        ("namespace", vec![NAMESPACE]),
        ("route", vec!["events", "live", "thumbnails"]),
        ("sink", vec!["kafka", "rabbit"]),
    ];
    for (name, expected) in expected {
        assert_eq!(values[name], expected, "{name}");
    }
    let gone = [Query {
        of: "gone".into(),
        expr: "forebay_gone_total{job=~\"$job\"}".into(),
        is_instant: true,
    }];
    assert_eq!(unanswered(&gone, &values, &prometheus, since).len(), 1);
    exposed_is_documented(&forebay);

    for mut child in sending {
        assert!(child.wait().unwrap().success());
    }
    draw(scene, &prometheus, since, kept);
}

/// What is exposed, with both brokers, and what is documented are the same.
fn exposed_is_documented(forebay: &Forebay) {
    let (_, page) = forebay.get("/metrics").unwrap();
    let exposed: BTreeSet<&str> = page
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();
    let documented = documented(&read("docs/metrics.md"));
    let mut documented: BTreeSet<&str> = documented.lines().collect();
    // Only with an identity provider, and with a collector.
    assert!(documented.remove("forebay_kafka_token_not_after_timestamp_seconds"));
    assert!(documented.remove("forebay_spans_total"));
    let undocumented: Vec<_> = exposed.difference(&documented).collect();
    let unexposed: Vec<_> = documented.difference(&exposed).collect();
    assert!(
        undocumented.is_empty() && unexposed.is_empty(),
        "not in docs/metrics.md: {undocumented:?}; not exposed: {unexposed:?}"
    );
}

/// Draws what a person would see.
fn draw(scene: &Scene, prometheus: &Prometheus, since: SystemTime, kept: Option<&Path>) {
    let picture = scene.setup.dir.path().join("dashboard.png");
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).unwrap().as_secs().to_string();
    let mut command = Command::new(python());
    command.arg(Path::new(ROOT).join("tests/dashboard/draw.py"));
    command.arg(Path::new(ROOT).join(DASHBOARD));
    command.arg(format!("http://{}", prometheus.address));
    command.args([seconds(since), seconds(SystemTime::now())]).arg(&picture);
    let output = command.env("MPLCONFIGDIR", scene.setup.dir.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let bytes = fs::metadata(&picture).unwrap().len();
    assert!((50_000..PICTURE_BYTES_MAX).contains(&bytes), "{bytes} bytes");
    if let Some(kept) = kept {
        fs::copy(&picture, kept).unwrap();
    }
}
