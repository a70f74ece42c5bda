//! Prometheus and its promtool, from the distribution.

use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    http,
    process::{Process, directory, free_port, mortal},
};

const DIR_PREFIX: &str = "forebay-prometheus-";
const READY_DEADLINE: Duration = Duration::from_secs(60);
/// The namespace that each target has, as in Kubernetes.
pub const NAMESPACE: &str = "webhooks";

/// Runs promtool. `Err`: what it found.
pub fn promtool(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).current_dir(dir).output();
    let output =
        output.unwrap_or_else(|error| panic!("promtool (tests/run.sh installs prometheus, which has it): {error}"));
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(text(&output.stdout) + &text(&output.stderr))
}

/// Who is scraped: a job and its targets.
pub type Job<'a> = (&'a str, Vec<SocketAddr>);

/// A Prometheus that scrapes and evaluates each second; killed when dropped.
pub struct Prometheus {
    pub address: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl Prometheus {
    /// `rules`: the text of a rule file.
    pub fn start(rules: &str, jobs: &[Job]) -> Self {
        let dir = directory(DIR_PREFIX);
        let at = |name: &str| dir.path().join(name);
        let jobs: Vec<Value> = jobs
            .iter()
            .map(|(job, targets)| {
                json!({
                    "job_name": job,
                    "honor_labels": true,
                    "static_configs": [{"targets": targets, "labels": {"namespace": NAMESPACE}}],
                })
            })
            .collect();
        let config = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yml"],
            "scrape_configs": jobs,
        });
        // JSON is YAML.
        fs::write(at("prometheus.yml"), config.to_string()).expect("the configuration is written");
        fs::write(at("rules.yml"), rules).expect("the rules are written");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = mortal("prometheus");
        command.arg("--config.file").arg(at("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(at("data"));
        command.arg(format!("--web.listen-address={address}"));
        let process = Process::run(command, &at("log"));
        let prometheus = Self {
            address,
            dir,
            _process: process,
        };
        let start = Instant::now();
        while http::request(address, "GET", "/-/ready", "", "").is_none_or(|answer| answer.code != 200) {
            assert!(start.elapsed() < READY_DEADLINE, "not ready: {}", prometheus.log());
            std::thread::sleep(Duration::from_millis(100));
        }
        prometheus
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// What the API answers; `parameters` are names and values.
    fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let escaped = |text: &str| -> String { text.bytes().map(|byte| format!("%{byte:02X}")).collect() };
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{}={}", escaped(name), escaped(value)))
            .collect();
        let path = format!("/api/v1/{path}?{}", query.join("&"));
        let answer = http::request(self.address, "GET", &path, "", "")
            .unwrap_or_else(|| panic!("Prometheus does not answer: {}", self.log()));
        let mut answer: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].take()
    }

    /// The series of a query now.
    pub fn query(&self, query: &str) -> Vec<Value> {
        let mut data = self.api("query", &[("query", query)]);
        data["result"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The series of a query from `since` to now, with a value each second.
    pub fn query_since(&self, query: &str, since: SystemTime) -> Vec<Value> {
        let seconds = |time: SystemTime| {
            time.duration_since(UNIX_EPOCH)
                .expect("after 1970")
                .as_secs()
                .to_string()
        };
        let (start, end) = (seconds(since), seconds(SystemTime::now()));
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", "1")];
        let mut data = self.api("query_range", &parameters);
        data["result"].as_array_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The values of a label of the series that a selector selects.
    pub fn label_values(&self, selector: &str, label: &str) -> Vec<String> {
        let data = self.api(&format!("label/{label}/values"), &[("match[]", selector)]);
        serde_json::from_value(data).expect("a list of texts")
    }

    /// The alerts of a job that fire now: their names, with the route where they have one.
    pub fn firing(&self, job: &str) -> BTreeSet<String> {
        let data = self.api("alerts", &[]);
        let alerts = data["alerts"].as_array().expect("a list of alerts").iter();
        alerts
            .filter(|alert| alert["state"] == "firing" && alert["labels"]["job"] == job)
            .map(|alert| {
                let labels = &alert["labels"];
                let name = labels["alertname"].as_str().expect("a name");
                labels["route"]
                    .as_str()
                    .map_or(name.to_owned(), |route| format!("{name} {route}"))
            })
            .collect()
    }

    /// The alerts of a job, for messages.
    pub fn alerts(&self, job: &str) -> Value {
        let mut data = self.api("alerts", &[]);
        let alerts = data["alerts"].as_array_mut().expect("a list of alerts");
        alerts.retain(|alert| alert["labels"]["job"] == job);
        data
    }
}
