//! Prometheus from the distribution, and its promtool.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{
    http,
    process::{Process, directory, free_port, mortal},
};

const DIR_PREFIX: &str = "forebay-prometheus-";
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// Runs promtool. `Err`: what it found.
pub fn promtool(dir: &Path, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("promtool")
        .args(arguments)
        .current_dir(dir)
        .output()
        .expect("promtool, of the package prometheus, can be run");
    if output.status.success() {
        return Ok(());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Err(text(&output.stdout) + &text(&output.stderr))
}

/// A Prometheus that scrapes and evaluates each second; killed when dropped.
pub struct Prometheus {
    address: SocketAddr,
    dir: TempDir,
    _process: Process,
}

impl Prometheus {
    /// Scrapes `targets` as the job `forebay` and evaluates `rules`, the text of a rule file. A sample is good for `lookback`.
    pub fn start(rules: &str, targets: &[SocketAddr], lookback: Duration) -> Self {
        let dir = directory(DIR_PREFIX);
        let at = |name: &str| dir.path().join(name);
        let mut config = "global: { scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s }\n".to_owned();
        let targets: Vec<String> = targets.iter().map(SocketAddr::to_string).collect();
        let written = write!(
            config,
            "rule_files: [rules.yml]\nscrape_configs: [{{ job_name: forebay, honor_labels: true, static_configs: [{{ targets: {targets:?} }}] }}]\n"
        );
        written.expect("a string takes it");
        fs::write(at("prometheus.yml"), config).expect("the configuration is written");
        fs::write(at("rules.yml"), rules).expect("the rules are written");
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = mortal("prometheus");
        command.arg("--config.file").arg(at("prometheus.yml"));
        command.arg("--storage.tsdb.path").arg(at("data"));
        command.arg(format!("--web.listen-address={address}"));
        command.arg(format!("--query.lookback-delta={}ms", lookback.as_millis()));
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

    /// The names of the alerts that fire now.
    pub fn firing(&self) -> BTreeSet<String> {
        let alerts = self.alerts();
        let alerts = alerts.as_array().expect("a list of alerts").iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing
            .map(|alert| alert["labels"]["alertname"].as_str().expect("a name").to_owned())
            .collect()
    }

    fn alerts(&self) -> Value {
        let answer = http::request(self.address, "GET", "/api/v1/alerts", "", "").expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
        answer["data"]["alerts"].clone()
    }

    /// Whether a query has a result.
    pub fn holds(&self, query: &str) -> bool {
        let escaped: String = query.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let path = format!("/api/v1/query?query={escaped}");
        let answer = http::request(self.address, "GET", &path, "", "").expect("Prometheus answers");
        let answer: Value = serde_json::from_str(&answer.body).expect("the answer is JSON");
        let result = answer["data"]["result"].as_array();
        !result.unwrap_or_else(|| panic!("{query}: {answer}")).is_empty()
    }

    /// Waits until each of `alerts` fires.
    pub fn wait_until_firing(&self, alerts: &[&str], deadline: Duration) {
        self.wait_for(alerts, true, deadline);
    }

    /// Waits until none of `alerts` fires.
    pub fn wait_until_out(&self, alerts: &[&str], deadline: Duration) {
        self.wait_for(alerts, false, deadline);
    }

    fn wait_for(&self, alerts: &[&str], fires: bool, deadline: Duration) {
        let start = Instant::now();
        loop {
            let firing = self.firing();
            if alerts.iter().all(|alert| firing.contains(*alert) == fires) {
                return;
            }
            assert!(
                start.elapsed() < deadline,
                "waited for {alerts:?} = {fires}: {}",
                self.alerts()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
