//! The header of the PROXY protocol, version 2, by which a load balancer without HTTP says for whom it connects.

use std::net::IpAddr;

use proxy_header::{Error, ParseConfig, ProxyHeader as Parsed};

/// A header with all that load balancers put into it; a longer one is not read.
const BYTES_MAX: usize = 4096;

/// What the bytes at the beginning of a connection are.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    /// The header, of so many bytes. `source` is the client; none: the proxy connects for itself, as for a health
    /// check.
    Complete {
        length: usize,
        source: Option<IpAddr>,
    },
    Incomplete,
    Malformed,
}

/// Reads the header at the start of `bytes`.
pub(super) fn parse(bytes: &[u8]) -> ProxyHeader {
    let config = ParseConfig {
        include_tlvs: false,
        allow_v1: false,
        allow_v2: true,
    };
    match Parsed::parse(bytes, config) {
        Ok((header, length)) => ProxyHeader::Complete {
            length,
            source: header.proxied_address().map(|address| address.source.ip()),
        },
        Err(Error::BufferTooShort) if bytes.len() < BYTES_MAX => ProxyHeader::Incomplete,
        Err(_) => ProxyHeader::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn header(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, addresses].concat()
    }

    #[test]
    fn the_source_is_the_client() {
        let addresses = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80];
        let v4 = header(0x21, 0x11, &addresses);
        let complete = |bytes: &[u8], source: Option<&str>| ProxyHeader::Complete {
            length: bytes.len(),
            source: source.map(|text| text.parse().unwrap()),
        };
        let followed = [v4.as_slice(), b"POST / HTTP/1.1\r\n"].concat();
        assert_eq!(parse(&followed), complete(&v4, Some("192.0.2.1")));

        let with_extensions = header(0x21, 0x11, &[&addresses[..], &[4, 0, 1, 42]].concat());
        assert_eq!(parse(&with_extensions), complete(&with_extensions, Some("192.0.2.1")));

        let mut addresses = [0; 36];
        addresses[..2].copy_from_slice(&[0x20, 0x01]);
        addresses[15] = 7;
        let v6 = header(0x21, 0x21, &addresses);
        assert_eq!(parse(&v6), complete(&v6, Some("2001::7")));

        let local = header(0x20, 0x00, &[]);
        assert_eq!(parse(&local), complete(&local, None));
    }

    #[test]
    fn what_is_no_header_is_told_from_a_part_of_one() {
        let v4 = header(0x21, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0, 80]);
        for length in 0..v4.len() {
            assert_eq!(parse(&v4[..length]), ProxyHeader::Incomplete, "{length} bytes");
        }
        for wrong in [
            b"POST /millicast/acme HTTP/1.1\r\n".as_slice(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 4660 80\r\n",
            &header(0x31, 0x11, &[0; 12]),
        ] {
            assert_eq!(parse(wrong), ProxyHeader::Malformed, "{wrong:?}");
        }
        let long = header(0x21, 0x11, &vec![0; 60_000]);
        assert_eq!(parse(&long[..BYTES_MAX]), ProxyHeader::Malformed);
    }
}
