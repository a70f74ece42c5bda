//! Who sent a request, for the logs.

use std::net::IpAddr;

use actix_web::HttpRequest;

use crate::config::Network;

/// The client's address: the peer's, or, if the peer is a trusted proxy, the rightmost hop of `X-Forwarded-For` that is not.
///
/// What is left of that hop is whatever the client wrote.
pub(super) fn client(request: &HttpRequest, trusted: &[Network]) -> Option<IpAddr> {
    let peer = request.peer_addr()?.ip();
    let hops = request
        .headers()
        .get_all("x-forwarded-for")
        .filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = hops.flat_map(|value| value.split(',')).map(str::trim).collect();
    Some(untrusted(peer, &hops, trusted))
}

fn untrusted(peer: IpAddr, hops: &[&str], trusted: &[Network]) -> IpAddr {
    let mut client = peer;
    for hop in hops.iter().rev() {
        if !trusted.iter().any(|network| contains(network, client)) {
            break;
        }
        match hop.parse() {
            Ok(address) => client = address,
            Err(_) => break,
        }
    }
    client
}

fn contains(network: &Network, address: IpAddr) -> bool {
    let (network_bits, bits, width) = match (network.address.to_canonical(), address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            (u128::from(network.to_bits()), u128::from(address.to_bits()), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => (network.to_bits(), address.to_bits(), 128),
        _ => return false,
    };
    let host_bits = width - u32::from(network.prefix_bits).min(width);
    (network_bits ^ bits).checked_shr(host_bits).unwrap_or(0) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        let (address, bits) = text.split_once('/').unwrap();
        Network {
            address: address.parse().unwrap(),
            prefix_bits: bits.parse().unwrap(),
        }
    }

    #[test]
    fn the_client_is_the_rightmost_untrusted_hop() {
        let trusted = ["10.0.0.0/8", "fd00::/8", "192.0.2.7/32"].map(network);
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
        ] {
            let client = untrusted(peer.parse().unwrap(), hops, &trusted);
            assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {hops:?}");
        }
    }

    #[test]
    fn a_network_of_no_bits_holds_every_address_of_its_family() {
        assert!(contains(&network("0.0.0.0/0"), "203.0.113.5".parse().unwrap()));
        assert!(contains(&network("::/0"), "2001:db8::1".parse().unwrap()));
        assert!(!contains(&network("0.0.0.0/0"), "2001:db8::1".parse().unwrap()));
    }
}
