//! `X-Millicast-Signature: sha1=<40 hexadecimal digits>`: HMAC-SHA1 of the raw body, keyed with the decoded secret.

use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::{Choice, ConstantTimeEq};

use crate::{HeaderLookup, Secret, SignatureError, SigningKey};

/// The header's name.
pub const HEADER: &str = "X-Millicast-Signature";

/// A secret with the key's part of the hash already done.
pub struct HmacKey(Hmac<Sha1>);

impl HmacKey {
    pub fn new(secret: &Secret) -> Self {
        Self(Hmac::new_from_slice(secret.bytes()).expect("HMAC takes a key of any length"))
    }

    fn digest(&self, body: &[u8]) -> [u8; 20] {
        self.0.clone().chain_update(body).finalize().into_bytes().into()
    }
}

impl SigningKey for HmacKey {
    fn has_made(&self, headers: &dyn HeaderLookup, body: &[u8]) -> Choice {
        match headers.value(HEADER).and_then(parse) {
            Some(expected) => self.digest(body).ct_eq(&expected),
            None => Choice::from(0),
        }
    }
}

/// Checks that there is a signature header that could be right, as is known before the body has come.
pub fn check_form(header: Option<&[u8]>) -> Result<(), SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?;
    parse(header).map(drop).ok_or(SignatureError::Malformed)
}

/// The signature header's value for `body`.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut header = String::with_capacity(45);
    header.push_str("sha1=");
    for byte in HmacKey::new(secret).digest(body) {
        write!(header, "{byte:02x}").expect("a String takes any text");
    }
    header
}

fn parse(header: &[u8]) -> Option<[u8; 20]> {
    let digits: &[u8; 40] = header.strip_prefix(b"sha1=")?.try_into().ok()?;
    let (pairs, _) = digits.as_chunks::<2>();
    let mut digest = [0; 20];
    for (byte, [high, low]) in digest.iter_mut().zip(pairs) {
        *byte = hex_digit(*high)? << 4 | hex_digit(*low)?;
    }
    Some(digest)
}

fn hex_digit(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const FEEDS: &[u8] = br#"{"type":"feeds","event":"started","timestamp":1638463486489,"data":{"feedId":"369e4a86-f937-4254-bd9f-99dc484d2bd6","accountId":"ZG6NWV","name":"sample_stream","streamId":"ZG6NWV/sample_stream","started":1638463486359,"active":true}}"#;
    const FEEDS_SIGNATURE: &str = "sha1=dfde8e23a8c06e6c522a67d50fe7412283f653f9";

    struct Given<'a>(Option<&'a str>);

    impl HeaderLookup for Given<'_> {
        fn value(&self, name: &str) -> Option<&[u8]> {
            self.0.filter(|_| name == HEADER).map(str::as_bytes)
        }
    }

    fn has_made(header: Option<&str>, body: &[u8]) -> bool {
        let key = HmacKey::new(&Secret::from_base64(SECRET).unwrap());
        key.has_made(&Given(header), body).into()
    }

    #[test]
    fn the_known_bodies_have_the_known_signatures() {
        for (body, signature) in [
            (&b""[..], "sha1=8a22708cf0dde70b0e75ead9575e659dce6a85b2"),
            (
                b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\xff\xd9",
                "sha1=0024c94d27e67b31ef72bab615355199febdc4b2",
            ),
            (FEEDS, FEEDS_SIGNATURE),
        ] {
            assert!(has_made(Some(signature), body));
            assert_eq!(sign(&Secret::from_base64(SECRET).unwrap(), body), signature);
        }
    }

    #[test]
    fn a_signature_made_with_the_secret_left_undecoded_is_refused() {
        assert!(!has_made(Some("sha1=c46ca674c65f3217a7c88d056f1b89fd01efe10f"), FEEDS));
    }

    #[test]
    fn only_the_exact_form_of_the_header_is_read() {
        use SignatureError::{Malformed, Missing, Wrong};

        let upper = format!("sha1={}", FEEDS_SIGNATURE[5..].to_ascii_uppercase());
        let wrong = FEEDS_SIGNATURE.replace("dfde", "dfdf");
        let longer = format!("{FEEDS_SIGNATURE}0");
        let spaced = format!("{FEEDS_SIGNATURE} ");
        let not_hex = FEEDS_SIGNATURE.replace("dfde", "dfdg");
        for (header, expected) in [
            (Some(FEEDS_SIGNATURE), Ok(())),
            (Some(upper.as_str()), Ok(())),
            (Some(&wrong), Err(Wrong)),
            (Some(&longer), Err(Malformed)),
            (Some(&spaced), Err(Malformed)),
            (Some(&not_hex), Err(Malformed)),
            (Some(&FEEDS_SIGNATURE[..44]), Err(Malformed)),
            (Some(&FEEDS_SIGNATURE[5..]), Err(Malformed)),
            (Some("SHA1=dfde8e23a8c06e6c522a67d50fe7412283f653f9"), Err(Malformed)),
            (Some(""), Err(Malformed)),
            (None, Err(Missing)),
        ] {
            let form = check_form(header.map(str::as_bytes));
            assert_eq!(
                form,
                if expected == Err(Wrong) { Ok(()) } else { expected },
                "{header:?}"
            );
            assert_eq!(has_made(header, FEEDS), expected.is_ok(), "{header:?}");
        }
    }
}
