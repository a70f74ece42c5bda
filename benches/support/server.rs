//! A server on loopback, seen from outside.

#![allow(dead_code, reason = "not every benchmark has a server")]

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use anyhow::Result;

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
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
