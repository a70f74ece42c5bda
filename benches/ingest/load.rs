//! What sends: `wrk` for throughput (so many connections, each waits for its answer), `vegeta` for latency (a fixed
//! rate).

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde_json::json;
use sha1::Sha1;
use tempfile::TempDir;

pub const PATH: &str = "/millicast/bench";
pub const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Bodies that differ, each for a stream of its own.
const STREAMS: usize = 512;

pub struct Load {
    dir: TempDir,
    bodies: Vec<(String, String)>,
}

/// What `wrk` tells.
#[derive(Debug, Deserialize)]
pub struct Wrk {
    pub requests: u64,
    pub seconds: f64,
    pub p99_ms: f64,
    /// Answers that were not 2xx, and requests without an answer.
    pub failed: u64,
}

/// What `vegeta` tells, in milliseconds.
#[derive(Debug)]
pub struct Vegeta {
    pub requests: u64,
    pub rate: f64,
    pub success: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// The signature of `body`, as in the header.
pub fn sign(body: &[u8]) -> String {
    let secret = STANDARD.decode(SECRET).expect("the secret is base64");
    let mut mac = Hmac::<Sha1>::new_from_slice(&secret).expect("HMAC takes a key of any length");
    mac.update(body);
    let mut text = "sha1=".to_owned();
    for byte in mac.finalize().into_bytes() {
        write!(text, "{byte:02x}").expect("a String takes all");
    }
    text
}

pub fn check_tools(vegeta: bool) -> Result<()> {
    let there = |tool: &str, argument: &str| Command::new(tool).arg(argument).output().is_ok();
    ensure!(there("wrk", "-v"), "wrk is missing: apt-get install wrk");
    ensure!(
        !vegeta || there("vegeta", "-version"),
        "vegeta is missing: go install github.com/tsenart/vegeta/v12@latest, and its directory in PATH (or --rate 0)"
    );
    Ok(())
}

impl Load {
    pub fn new() -> Result<Self> {
        let bodies: Vec<(String, String)> = (0..STREAMS)
            .map(|stream| {
                let name = format!("stream-{stream:04}");
                let body = json!({
                    "type": "feeds", "event": "started", "timestamp": 1_638_463_486_489_u64,
                    "data": {
                        "feedId": uuid::Uuid::from_u128(0x369e_4a86_f937_4254_bd9f_99dc_484d_0000 + stream as u128),
                        "accountId": "ZG6NWV", "name": name, "streamId": format!("ZG6NWV/{name}"),
                        "started": 1_638_463_486_359_u64, "active": true
                    }
                })
                .to_string();
                let signature = sign(body.as_bytes());
                (body, signature)
            })
            .collect();
        let load = Self {
            dir: tempfile::Builder::new().prefix("forebay-load-").tempdir()?,
            bodies,
        };
        fs::write(load.script(), load.lua())?;
        Ok(load)
    }

    /// So many connections for so long.
    pub fn wrk(&self, url: &str, connections: usize, seconds: u64) -> Result<Wrk> {
        let mut command = Command::new("wrk");
        command.args([
            "--threads",
            "2",
            "--timeout",
            "10s",
            "--connections",
            &connections.to_string(),
        ]);
        command
            .args(["--duration", &format!("{seconds}s")])
            .arg("--script")
            .arg(self.script())
            .arg(url);
        let text = run(command)?;
        let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
        let line = line.with_context(|| format!("wrk printed no result: {text}"))?;
        serde_json::from_str(line).with_context(|| format!("wrk's result: {line}"))
    }

    /// So many requests a second for so long, whatever the answers take.
    pub fn vegeta(&self, url: &str, rate: u64, seconds: u64) -> Result<Vegeta> {
        let targets = self.dir.path().join("targets");
        let results = self.dir.path().join("results");
        fs::write(&targets, self.targets(url))?;
        let mut attack = Command::new("vegeta");
        attack.args(["attack", "-format=json", "-connections=1000", "-timeout=10s"]);
        attack.args([format!("-rate={rate}"), format!("-duration={seconds}s")]);
        attack.arg(format!("-targets={}", targets.display()));
        attack.arg(format!("-output={}", results.display()));
        run(attack)?;
        let mut report = Command::new("vegeta");
        report.args(["report", "-type=json"]).arg(&results);
        let report: serde_json::Value = serde_json::from_str(&run(report)?)?;
        let number = |pointer: &str| {
            let value = report.pointer(pointer).and_then(serde_json::Value::as_f64);
            value.with_context(|| format!("vegeta's report has no {pointer}"))
        };
        Ok(Vegeta {
            requests: number("/requests")? as u64,
            rate: number("/rate")?,
            success: number("/success")?,
            p50_ms: number("/latencies/50th")? / 1e6,
            p99_ms: number("/latencies/99th")? / 1e6,
            max_ms: number("/latencies/max")? / 1e6,
        })
    }

    fn script(&self) -> PathBuf {
        self.dir.path().join("load.lua")
    }

    /// The requests are made once, so that sending them costs `wrk` little.
    fn lua(&self) -> String {
        let mut lua = "local bodies = {\n".to_owned();
        for (body, signature) in &self.bodies {
            writeln!(lua, "  {{ [[{body}]], \"{signature}\" }},").expect("a String takes all");
        }
        lua.push_str(
            r#"}
local requests, at = {}, 0

function init(args)
    for i, body in ipairs(bodies) do
        local headers = { ["Content-Type"] = "application/json", ["X-Millicast-Signature"] = body[2] }
        requests[i] = wrk.format("POST", nil, headers, body[1])
    end
end

function request()
    at = at % #requests + 1
    return requests[at]
end

function done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    io.write(string.format('RESULT {"requests":%d,"seconds":%f,"p99_ms":%f,"failed":%d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(99) / 1e3, failed))
end
"#,
        );
        lua
    }

    fn targets(&self, url: &str) -> String {
        let targets = self.bodies.iter().map(|(body, signature)| {
            let target = json!({
                "method": "POST", "url": url, "body": STANDARD.encode(body),
                "header": { "Content-Type": ["application/json"], "X-Millicast-Signature": [signature] }
            });
            format!("{target}\n")
        });
        targets.collect()
    }
}

fn run(mut command: Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("failed to start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}
