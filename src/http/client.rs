//! Who sent a request.

use std::net::{IpAddr, SocketAddr};

use actix_web::http::header::HeaderMap;

use crate::config::IpNetwork;

/// The client's address: the peer's, or, if the peer is a trusted proxy, the rightmost hop of `X-Forwarded-For` that is
/// not.
///
/// What is left of that hop is whatever the client wrote.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNetwork]) -> IpAddr {
    if trusted.is_empty() {
        return peer;
    }
    let lines = headers.get_all("x-forwarded-for");
    let hops = lines.filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
    untrusted(peer, &hops, trusted)
}

fn untrusted(peer: IpAddr, hops: &[&str], trusted: &[IpNetwork]) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        if !trusted.iter().any(|network| network.contains(client)) {
            break;
        }
        match address(hop) {
            Some(address) => client = address,
            None => break,
        }
    }
    client
}

/// An address, also with a port, as some proxies write it, and of IPv6 also in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = || hop.parse().ok();
    let with_port = || hop.parse().ok().map(|address: SocketAddr| address.ip());
    let in_brackets = || hop.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    bare().or_else(with_port).or_else(in_brackets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        let trusted = ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"].map(|text| text.parse().unwrap());
        for (peer, hops, expected) in [
            ("203.0.113.5", &["1.2.3.4"][..], "203.0.113.5"),
            ("10.1.1.1", &[], "10.1.1.1"),
            ("10.1.1.1", &["1.2.3.4"], "1.2.3.4"),
            ("10.1.1.1", &["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
            ("10.1.1.1", &["6.6.6.6", "1.2.3.4", "192.0.2.7"], "1.2.3.4"),
            ("10.1.1.1", &["6.6.6.6", "192.0.2.8", "192.0.2.7"], "192.0.2.8"),
            ("10.1.1.1", &["1.2.3.4", "nonsense"], "10.1.1.1"),
            ("fd00::1", &["2001:db8::1"], "2001:db8::1"),
            ("fe00::1", &["2001:db8::1"], "fe00::1"),
            ("::ffff:10.1.1.1", &["1.2.3.4"], "1.2.3.4"),
            ("10.1.1.1", &["1.2.3.4:56789"], "1.2.3.4"),
            ("10.1.1.1", &["[2001:db8::1]:443"], "2001:db8::1"),
            ("10.1.1.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.1.1.1", &["1.2.3.4:port"], "10.1.1.1"),
        ] {
            let client = untrusted(peer.parse().unwrap(), hops, &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {hops:?}");
        }
    }
}
