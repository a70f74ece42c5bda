//! Reads single values that only the node's own sections have.

use std::net::SocketAddr;

use config::Value;

use forebay_section::values::base_url;
pub(super) use forebay_section::values::{duration, flag, list, share, size, text, whole, word};

use super::{IpNetwork, Shown, host_of};

pub(super) fn listen(value: &Value) -> Result<SocketAddr, String> {
    let text = text(value)?;
    text.parse().map_err(|_| {
        let found = Shown(&text);
        format!(r#"expected an IP address and a port such as "0.0.0.0:8080" or "[::]:8080", found {found:?}"#)
    })
}

/// A list of `10.0.0.0/8`, `2001:db8::/32`, or single addresses.
pub(super) fn networks(value: &Value) -> Result<Vec<IpNetwork>, String> {
    list(value)?.iter().map(|network| network.parse()).collect()
}

/// An endpoint's path: compared byte by byte with a request's, so it holds nothing that a client would escape.
pub(super) fn path(value: &Value) -> Result<String, String> {
    let path = text(value)?;
    if !path.starts_with('/') {
        return Err(format!("{:?} must start with /", Shown(&path)));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-._~!$&'()*+,;=:@%".contains(c);
    if let Some(wrong) = path.chars().find(|c| !plain(*c)) {
        return Err(format!(
            "{:?} has {wrong:?}, which a URL's path cannot have as it is",
            Shown(&path)
        ));
    }
    if path.len() > 1024 {
        return Err("longer than 1024 characters".to_owned());
    }
    Ok(path)
}

/// Where an OpenTelemetry collector takes OTLP over HTTP.
pub(super) fn collector(value: &Value) -> Result<String, String> {
    let url = base_url(
        &text(value)?,
        "http://collector.example:4318",
        "has a user: put it into the environment, OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20…",
    )?;
    match url.strip_suffix("/v1/traces") {
        None => Ok(url),
        Some(base) => Err(format!(
            "has the path of the traces, which is added: leave {}",
            host_of(base)
        )),
    }
}
