//! A server on loopback, seen from outside.

#![allow(dead_code, reason = "not every benchmark has a server")]

use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Result;

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A Forebay with one endpoint and one route into Kafka, and what else is as it comes.
pub struct Config<'a> {
    /// Where webhooks go to.
    pub port: u16,
    /// Where metrics are.
    pub admin: u16,
    pub path: &'a str,
    /// In base64.
    pub secret: &'a str,
    pub brokers: &'a str,
    pub topic: &'a str,
    /// Further lines of the route.
    pub route: &'a str,
}

impl Config<'_> {
    /// Writes it into `dir`, where its spool will be too, and tells the file.
    pub fn write(&self, dir: &Path) -> Result<PathBuf> {
        let file = dir.join("forebay.toml");
        let spool = dir.join("spool");
        let Self {
            port,
            admin,
            path,
            secret,
            brokers,
            topic,
            route,
        } = self;
        let text = format!(
            r#"
[server]
listen = "127.0.0.1:{port}"

[admin]
listen = "127.0.0.1:{admin}"

[spool]
dir = "{}"

[endpoints.bench]
path = "{path}"
secrets = ["base64:{secret}"]

[sinks.main]
type = "kafka"
brokers = ["{brokers}"]

[routes.events]
sink = "main"
topic = "{topic}"
{route}
"#,
            spool.display()
        );
        fs::write(&file, text)?;
        Ok(file)
    }
}

/// The answer, head and body.
pub fn get(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Whether the Forebay with its admin server on `admin` is ready.
pub fn is_ready(admin: u16) -> bool {
    get(admin, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
}

/// The sum of one of its metrics over the labels.
pub fn metric(admin: u16, name: &str) -> Result<f64> {
    let text = get(admin, "/metrics")?;
    let values = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    Ok(values.sum())
}
