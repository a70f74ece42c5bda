//! Where a node is, from its AMQP URI: `amqp(s)://user:password@host:port/vhost`.
//!
//! The address is taken apart here and handed to lapin as fields, because lapin's own parser takes an IPv6 literal for
//! `localhost`, and a path of `/` alone for a virtual host without a name.

use std::fmt;

/// A node of a cluster and the virtual host on it.
#[derive(Clone, PartialEq, Eq)]
pub struct AmqpNode {
    /// `amqps`.
    pub tls: bool,
    /// A name, or an address without brackets.
    pub host: String,
    pub port: u16,
    pub vhost: String,
    pub username: Option<String>,
    pub password: Option<String>,
}

/// Host and port, which is all that may be shown.
impl fmt::Display for AmqpNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Debug for AmqpNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}, virtual host {:?}", self.vhost)
    }
}

/// Checks an AMQP URI. `Err`: what is wrong with it and the cure; never the password.
pub fn check(uri: &str) -> Result<(), String> {
    parse(uri).map(|_| ())
}

/// Takes an AMQP URI apart. `Err`: what is wrong with it and the cure; never the password.
pub fn parse(uri: &str) -> Result<AmqpNode, String> {
    const FORM: &str = "expected amqp://user:password@host:port/vhost, or amqps://…";
    let (scheme, rest) = uri
        .trim()
        .split_once("://")
        .ok_or_else(|| format!("not an AMQP URI: {FORM}"))?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err(format!("not an AMQP URI: {FORM}")),
    };
    if rest.contains('#') {
        return Err("a '#' in an AMQP URI is written %23".into());
    }
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, query)| (rest, query));
    if !query.is_empty() {
        return Err("parameters behind '?' are not taken: remove them (a '?' in a password is written %3F)".into());
    }
    let (authority, path) = match rest.split_once('/') {
        Some((authority, path)) => (authority, Some(path)),
        None => (rest, None),
    };
    let (user, address) = match authority.rsplit_once('@') {
        Some((user, address)) => (Some(user), address),
        None => (None, authority),
    };
    let (username, password) = user_of(user)?;
    let (host, port) = address_of(address)?;
    Ok(AmqpNode {
        tls,
        host,
        port: port.unwrap_or(if tls { 5671 } else { 5672 }),
        vhost: vhost_of(path)?,
        username,
        password,
    })
}

fn user_of(user: Option<&str>) -> Result<(Option<String>, Option<String>), String> {
    let Some(user) = user else { return Ok((None, None)) };
    if user.contains('@') {
        return Err("an '@' in a user name or password is written %40".into());
    }
    let (name, password) = match user.split_once(':') {
        Some((name, password)) => (name, Some(password)),
        None => (user, None),
    };
    let name = decode(name, "the user name")?;
    let password = password.map(|password| decode(password, "the password")).transpose()?;
    Ok((Some(name).filter(|name| !name.is_empty()), password))
}

fn address_of(address: &str) -> Result<(String, Option<u16>), String> {
    let (host, port) = if let Some(literal) = address.strip_prefix('[') {
        let (host, rest) = literal
            .split_once(']')
            .ok_or("an IPv6 address stands between brackets: [::1]")?;
        host.parse::<std::net::Ipv6Addr>()
            .map_err(|_| "what stands between brackets is not an IPv6 address")?;
        let port = match rest {
            "" => None,
            rest => Some(
                rest.strip_prefix(':')
                    .ok_or("behind an address stands a port: [::1]:5672")?,
            ),
        };
        (host.to_owned(), port)
    } else {
        let (host, port) = address.split_once(':').map_or((address, None), |(h, p)| (h, Some(p)));
        if port.is_some_and(|port| port.contains(':')) {
            // Also a password with a '/' in it ends up here, so the text is not shown.
            return Err("an IPv6 address stands between brackets, as in [::1]:5672; \
                        a '/' in a password is written %2F"
                .into());
        }
        (decode(host, "the host")?, port)
    };
    if host.is_empty() {
        return Err("names no host".into());
    }
    let port = match port {
        None | Some("") => None,
        Some(port) => Some(
            port.parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or("the port is not a number from 1 to 65535; a '/' in a password is written %2F")?,
        ),
    };
    Ok((host, port))
}

fn vhost_of(path: Option<&str>) -> Result<String, String> {
    match path {
        None => Ok("/".into()),
        Some("") => Err(
            "ends in '/', which means a virtual host without a name: leave the '/' out, or write /%2F, \
             for the virtual host '/'"
                .into(),
        ),
        Some(path) if path.contains('/') => Err("a '/' in a virtual host is written %2F".into()),
        Some(path) => decode(path, "the virtual host"),
    }
}

fn decode(text: &str, what: &str) -> Result<String, String> {
    let wrong = || format!("{what} has a '%' that is not followed by two hexadecimal digits (a '%' is written %25)");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>().ok_or_else(wrong)?;
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let (high, low) = digit(digits[0]).zip(digit(digits[1])).ok_or_else(wrong)?;
        bytes.push((high * 16 + low) as u8);
        rest = after;
    }
    String::from_utf8(bytes).map_err(|_| format!("{what} is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_taken_apart() {
        type Row = (
            &'static str,
            &'static str,
            bool,
            &'static str,
            Option<&'static str>,
            Option<&'static str>,
        );
        let rows: &[Row] = &[
            ("amqp://h", "h:5672", false, "/", None, None),
            ("amqps://h", "h:5671", true, "/", None, None),
            ("amqp://h/%2f", "h:5672", false, "/", None, None),
            ("amqp://u:p@h:1/v", "h:1", false, "v", Some("u"), Some("p")),
            (
                "amqp://u%40x:p%3A%2F@h/a%20b",
                "h:5672",
                false,
                "a b",
                Some("u@x"),
                Some("p:/"),
            ),
            ("amqp://[::1]/%2F", "[::1]:5672", false, "/", None, None),
            (
                "AMQPS://u:p@[2001:db8::7]:9/v",
                "[2001:db8::7]:9",
                true,
                "v",
                Some("u"),
                Some("p"),
            ),
            ("amqp://u:@10.0.0.1", "10.0.0.1:5672", false, "/", Some("u"), Some("")),
        ];
        for &(uri, address, tls, vhost, username, password) in rows {
            let node = parse(uri).unwrap_or_else(|wrong| panic!("{uri}: {wrong}"));
            assert_eq!(node.to_string(), address, "{uri}");
            assert_eq!((node.tls, node.vhost.as_str()), (tls, vhost), "{uri}");
            assert_eq!(
                (node.username.as_deref(), node.password.as_deref()),
                (username, password),
                "{uri}"
            );
        }
    }

    #[test]
    fn what_is_wrong_with_a_uri_is_said_with_the_cure_and_without_the_password() {
        for (uri, told) in [
            ("amqp://u:s3cret@h/", "leave the '/' out"),
            ("h:5672", "expected amqp://"),
            ("http://u:s3cret@h", "expected amqp://"),
            ("amqp://u:s3cret@::1/v", "between brackets"),
            ("amqp://u:s3cret@[::1/v", "between brackets"),
            ("amqp://u:s3cret@[h]/v", "not an IPv6 address"),
            ("amqp://u:s3cret@h:0/v", "the port"),
            ("amqp://u:s3cret@h:x/v", "the port"),
            ("amqp://u:s3cret@/v", "no host"),
            ("amqp://u:s3@cret@h/v", "%40"),
            ("amqp://u:s3/cret@h/v", "%2F"),
            ("amqp://u:s3#cret@h/v", "%23"),
            ("amqp://u:s3cret%@h/v", "%25"),
            ("amqp://u:s3cret@h/a/b", "%2F"),
            ("amqp://u:s3cret@h/v?connection_timeout=1", "behind '?'"),
        ] {
            let wrong = check(uri).expect_err(uri);
            assert!(wrong.contains(told), "{uri}: {wrong}");
            assert!(!wrong.contains("s3") && !wrong.contains("cret"), "{uri}: {wrong}");
        }
    }

    #[test]
    fn a_node_is_shown_without_its_password() {
        let node = parse("amqp://u:s3cret@h/v").unwrap();
        assert_eq!(format!("{node:?}"), "h:5672, virtual host \"v\"");
    }
}
