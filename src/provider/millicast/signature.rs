//! `X-Millicast-Signature: sha1=<40 hexadecimal digits>`: HMAC-SHA1 of the raw body, keyed with the decoded secret.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

use crate::{event::Time, provider::SignatureError};

/// The header's name.
pub const SIGNATURE: &str = "X-Millicast-Signature";

/// A webhook's secret, decoded. Shows itself in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// Why a secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("not base64; the secret goes in as the webhook's page shows it")]
    NotBase64,
    #[error("empty")]
    Empty,
}

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

impl Secret {
    /// Decodes a secret as the provider gives it, in base64.
    ///
    /// White space around it, missing padding and the URL-safe alphabet are what files and shells make of it, and can
    /// mean nothing else: they are accepted.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        let standard = text.trim().replace('-', "+").replace('_', "/");
        match BASE64.decode(standard) {
            Ok(bytes) if bytes.is_empty() => Err(SecretError::Empty),
            Ok(bytes) => Ok(Secret(bytes)),
            Err(_) => Err(SecretError::NotBase64),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A secret with the key's part of the hash already done, and when it last was the right one.
pub struct Key {
    secret: Secret,
    mac: Hmac<Sha1>,
    /// In seconds since the Unix epoch; 0: never.
    last_match_s: AtomicI64,
}

impl Key {
    pub fn new(secret: &Secret) -> Self {
        Key {
            secret: secret.clone(),
            mac: Hmac::new_from_slice(&secret.0).expect("HMAC takes a key of any length"),
            last_match_s: AtomicI64::new(0),
        }
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// When it last made a request's signature, in seconds since the Unix epoch.
    pub fn last_match_s(&self) -> Option<i64> {
        Some(self.last_match_s.load(Ordering::Relaxed)).filter(|seconds| *seconds != 0)
    }

    /// It made the signature of a request that came then.
    pub fn matched(&self, received: Time) {
        let seconds = received.0.div_euclid(1000);
        // All requests of a second share one write: the cores would pass the cache's line around.
        if self.last_match_s.load(Ordering::Relaxed) != seconds {
            self.last_match_s.store(seconds, Ordering::Relaxed);
        }
    }

    /// The key that somebody has who leaves the secret undecoded.
    pub fn undecoded(&self) -> Self {
        Key::new(&Secret(
            base64::engine::general_purpose::STANDARD
                .encode(&self.secret.0)
                .into_bytes(),
        ))
    }

    fn digest(&self, body: &[u8]) -> [u8; 20] {
        self.mac.clone().chain_update(body).finalize().into_bytes().into()
    }
}

/// Checks that there is a signature header that could be right, as is known before the body has come.
pub fn check_form(header: Option<&[u8]>) -> Result<(), SignatureError> {
    let header = header.ok_or(SignatureError::Missing)?;
    parse(header).map(drop).ok_or(SignatureError::Malformed)
}

/// Checks the signature header over the raw body against every key, without telling by its time which one matched, and
/// returns the index of that one.
pub fn verify(keys: &[Arc<Key>], header: Option<&[u8]>, body: &[u8]) -> Result<usize, SignatureError> {
    let expected = parse(header.ok_or(SignatureError::Missing)?).ok_or(SignatureError::Malformed)?;
    let mut found = Choice::from(0);
    let mut index_found = 0_u64;
    for (index, key) in (0..).zip(keys) {
        let matched = key.digest(body).ct_eq(&expected);
        index_found.conditional_assign(&index, matched);
        found |= matched;
    }
    match bool::from(found) {
        true => Ok(usize::try_from(index_found).expect("an index of the slice")),
        false => Err(SignatureError::Wrong),
    }
}

/// Whether this key made the signature in a header.
pub fn is_made_by(key: &Key, header: &[u8], body: &[u8]) -> bool {
    parse(header).is_some_and(|expected| key.digest(body).ct_eq(&expected).into())
}

/// The signature header's value for `body`.
pub fn sign(secret: &Secret, body: &[u8]) -> String {
    use std::fmt::Write as _;

    let mut header = String::with_capacity(45);
    header.push_str("sha1=");
    for byte in Key::new(secret).digest(body) {
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

    fn keys(secrets: &[&str]) -> Vec<Arc<Key>> {
        secrets
            .iter()
            .map(|secret| Arc::new(Key::new(&Secret::from_base64(secret).unwrap())))
            .collect()
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
            assert_eq!(verify(&keys(&[SECRET]), Some(signature.as_bytes()), body), Ok(0));
            assert_eq!(sign(&Secret::from_base64(SECRET).unwrap(), body), signature);
        }
    }

    #[test]
    fn a_signature_made_with_the_secret_left_undecoded_is_refused() {
        let header = b"sha1=c46ca674c65f3217a7c88d056f1b89fd01efe10f";
        assert_eq!(
            verify(&keys(&[SECRET]), Some(header), FEEDS),
            Err(SignatureError::Wrong)
        );
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
            (Some(FEEDS_SIGNATURE), Ok(0)),
            (Some(upper.as_str()), Ok(0)),
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
            assert_eq!(
                verify(&keys(&[SECRET]), header.map(str::as_bytes), FEEDS),
                expected,
                "{header:?}"
            );
        }
    }

    #[test]
    fn any_active_secret_will_do_and_none_will_not() {
        let header = Some(FEEDS_SIGNATURE.as_bytes());
        assert_eq!(verify(&keys(&["b3RoZXI=", SECRET]), header, FEEDS), Ok(1));
        assert_eq!(verify(&keys(&[SECRET, "b3RoZXI="]), header, FEEDS), Ok(0));
        assert_eq!(verify(&keys(&["b3RoZXI="]), header, FEEDS), Err(SignatureError::Wrong));
        assert_eq!(verify(&[], header, FEEDS), Err(SignatureError::Wrong));
    }

    #[test]
    fn a_secret_is_read_as_files_and_shells_leave_it() {
        for (text, expected) in [
            ("+/+/AA==", Some(&[0xfb, 0xff, 0xbf, 0x00][..])),
            ("-_-_AA", Some(&[0xfb, 0xff, 0xbf, 0x00])),
            (" +/+/AA==\r\n", Some(&[0xfb, 0xff, 0xbf, 0x00])),
            ("+/+/A\nA==", None),
            ("not base64!", None),
            ("", None),
            (" \n", None),
        ] {
            assert_eq!(
                Secret::from_base64(text).ok().map(|secret| secret.0).as_deref(),
                expected,
                "{text:?}"
            );
        }
        assert!(matches!(Secret::from_base64(" "), Err(SecretError::Empty)));
        assert_eq!(format!("{:?}", Secret::from_base64(SECRET).unwrap()), "Secret(…)");
    }
}
