//! Why a signature is wrong, as far as it can be found out: what would have made it right.
//!
//! It is for the operator, who sees a webhook refused and wonders which of the usual mistakes it is. It costs some
//! dozens of hashes of the body, so the caller limits how often, and by how much, it is asked.

use std::{fmt, io::Read as _};

use flate2::read::{DeflateDecoder, GzDecoder, ZlibDecoder};

use super::{
    EndpointReceiver, SignatureHeaders,
    receiver::EndpointKey,
    reformat::{JsonStyle, reformat},
};

/// What a body may become, decompressed or written anew.
const BODY_BYTES_MAX: usize = 1 << 20;

/// What would have made a signature right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Diagnosis {
    /// The secret as the provider shows it, not decoded from base64.
    SecretUndecoded,
    /// The body, decompressed: it was signed first, and compressed then.
    BodyDecompressed,
    /// The body with other white space: something in between wrote the JSON anew.
    BodyReserialised(JsonStyle),
    /// The secret of this other endpoint.
    OtherEndpoint(String),
    /// A secret that was in use before, since this process started.
    OldSecret,
    /// None of these: a secret that is not here, or another body.
    NoneOfThese,
}

impl Diagnosis {
    /// Its name: one of a closed set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SecretUndecoded => "secret_undecoded",
            Self::BodyDecompressed => "body_decompressed",
            Self::BodyReserialised(_) => "body_reserialised",
            Self::OtherEndpoint(_) => "other_endpoint",
            Self::OldSecret => "old_secret",
            Self::NoneOfThese => "none",
        }
    }
}

/// For people.
impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SecretUndecoded => {
                f.write_str("right with the secret left undecoded: the sender must decode it from base64")
            }
            Self::BodyDecompressed => f.write_str(
                "right over the decompressed body: the sender signs before it compresses, or a proxy compresses",
            ),
            Self::BodyReserialised(style) => {
                write!(
                    f,
                    "right over the body as {style}: something in between writes the JSON anew"
                )
            }
            Self::OtherEndpoint(name) => write!(
                f,
                "right with the secret of endpoint {name}: the webhook's URL or the secret is another's"
            ),
            Self::OldSecret => {
                f.write_str("right with a secret that was in use before: the sender does not have the new one")
            }
            Self::NoneOfThese => {
                f.write_str("none of the usual mistakes: the secret is not here, or the body was changed on its way")
            }
        }
    }
}

/// Looks for what would have made the signature of a request to `receiver` right.
fn diagnose(
    receiver: &EndpointReceiver,
    others: &[(&str, &EndpointReceiver)],
    headers: &SignatureHeaders,
    body: &[u8],
) -> Diagnosis {
    let made_by = |key: &EndpointKey, body: &[u8]| key.has_made(headers, body);
    let keys = receiver.keys();
    let active = |body: &[u8]| keys.active.iter().any(|key| made_by(key, body));

    if keys
        .active
        .iter()
        .any(|key| made_by(&key.undecoded(receiver.sender()), body))
    {
        return Diagnosis::SecretUndecoded;
    }
    if decompressed(body).is_some_and(|body| active(&body)) {
        return Diagnosis::BodyDecompressed;
    }
    let is_json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
    for style in JsonStyle::ALL.into_iter().filter(|_| is_json) {
        if reformat(body, style, BODY_BYTES_MAX).is_some_and(|body| active(&body)) {
            return Diagnosis::BodyReserialised(style);
        }
    }
    for (name, other) in others {
        if other.keys().active.iter().any(|key| made_by(key, body)) {
            return Diagnosis::OtherEndpoint((*name).to_owned());
        }
    }
    if keys.retired.iter().any(|key| made_by(key, body)) {
        return Diagnosis::OldSecret;
    }
    Diagnosis::NoneOfThese
}

/// The form of a signature header, without what is in it.
pub fn header_form(header: Option<&[u8]>) -> String {
    let Some(header) = header else {
        return "missing, or there twice".to_owned();
    };
    let (prefix, rest) = match header.iter().position(|byte| *byte == b'=') {
        Some(at) if at <= 6 && header.get(at + 1).is_some_and(|next| *next != b'=') => {
            (&header[..=at], &header[at + 1..])
        }
        _ => (&b""[..], header),
    };
    const ALGORITHMS: [&str; 6] = ["sha1=", "sha256=", "sha384=", "sha512=", "md5=", "v1="];
    let prefix = match ALGORITHMS
        .iter()
        .find(|known| known.as_bytes().eq_ignore_ascii_case(prefix))
    {
        Some(known) if known.as_bytes() == prefix => (*known).to_owned(),
        Some(known) => format!("{known} in another case"),
        None if prefix.is_empty() => "no prefix".to_owned(),
        None => "an unknown prefix".to_owned(),
    };
    let count = rest.len();
    let what = match rest {
        [] => "nothing".to_owned(),
        _ if rest.iter().all(u8::is_ascii_hexdigit) => format!("{count} hexadecimal digits"),
        _ if rest
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte)) =>
        {
            format!("{count} characters of base64")
        }
        _ => format!("{count} bytes of something else"),
    };
    format!("{prefix}, {what}")
}

/// The body of a gzip, zlib or deflate stream, if it is one and not too long.
fn decompressed(body: &[u8]) -> Option<Vec<u8>> {
    let whole = |reader: &mut dyn std::io::Read| {
        let mut plain = Vec::new();
        let limit = BODY_BYTES_MAX as u64 + 1;
        reader.take(limit).read_to_end(&mut plain).ok()?;
        (!plain.is_empty() && plain.len() <= BODY_BYTES_MAX).then_some(plain)
    };
    match body {
        [0x1f, 0x8b, ..] => whole(&mut GzDecoder::new(body)),
        // What the specification means by `deflate`, and what some mean by it.
        _ => whole(&mut ZlibDecoder::new(body)).or_else(|| whole(&mut DeflateDecoder::new(body))),
    }
}

impl EndpointReceiver {
    /// Why a signature that was refused as wrong is wrong. `others`: the other endpoints.
    pub fn diagnose(&self, others: &[(&str, &EndpointReceiver)], headers: &SignatureHeaders, body: &[u8]) -> Diagnosis {
        diagnose(self, others, headers, body)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use flate2::{Compression, write};

    use super::*;
    use crate::{Secret, Sender as _, millicast::Millicast, testing::Given};

    const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
    const OTHER: &str = "b3RoZXI=";
    const OLD: &str = "b2xk";
    const BODY: &[u8] = br#"{"type":"feeds","data":{"name":"a \"b\" \u00e9","list":[1,2.50,{}],"none":[]}}"#;

    fn secret(text: &str) -> Secret {
        Secret::from_base64(text).unwrap()
    }

    fn gzip(body: &[u8]) -> Vec<u8> {
        let mut encoder = write::GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn zlib(body: &[u8]) -> Vec<u8> {
        let mut encoder = write::ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    fn deflate(body: &[u8]) -> Vec<u8> {
        let mut encoder = write::DeflateEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(body).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_of_the_usual_mistakes_is_found() {
        let receiver = EndpointReceiver::new(&Millicast, "acme", None, vec![secret(OLD)]);
        receiver.set_secrets(vec![secret("YW5vdGhlcg=="), secret(SECRET)]);
        let other = EndpointReceiver::new(&Millicast, "beta", None, vec![secret(OTHER)]);
        let text = secret(&STANDARD.encode(SECRET));
        let spaced = reformat(BODY, JsonStyle::Spaced, 1000).unwrap();
        let pretty = reformat(BODY, JsonStyle::Indented(4), 1000).unwrap();
        for (signed_by, signed, body, expected) in [
            (&text, BODY, BODY.to_vec(), "secret_undecoded"),
            (&secret(SECRET), BODY, gzip(BODY), "body_decompressed"),
            (&secret(SECRET), BODY, zlib(BODY), "body_decompressed"),
            (&secret(SECRET), BODY, deflate(BODY), "body_decompressed"),
            (&secret(SECRET), BODY, spaced.clone(), "body_reserialised"),
            (&secret(SECRET), &pretty, BODY.to_vec(), "body_reserialised"),
            (&secret(SECRET), BODY, [BODY, b"\n"].concat(), "body_reserialised"),
            (&secret(OTHER), BODY, BODY.to_vec(), "other_endpoint"),
            (&secret(OLD), BODY, BODY.to_vec(), "old_secret"),
            (&secret("d3Jvbmc="), BODY, BODY.to_vec(), "none"),
            (&secret(SECRET), b"else", BODY.to_vec(), "none"),
        ] {
            let given = Given(Millicast.sign(signed_by, signed));
            let headers = SignatureHeaders::from_headers(&Millicast, &given);
            let found = receiver.diagnose(&[("beta", &other)], &headers, &body);
            assert_eq!(found.name(), expected, "{found}");
            assert!(!found.to_string().contains(&given.0[0].1[5..]));
        }
    }

    #[test]
    fn what_would_become_too_large_is_not_decompressed() {
        let bomb = gzip(&vec![b' '; BODY_BYTES_MAX + 1]);
        assert!(bomb.len() < 10_000);
        assert_eq!(decompressed(&bomb), None);
        assert_eq!(
            decompressed(&gzip(&vec![b' '; BODY_BYTES_MAX])).unwrap().len(),
            BODY_BYTES_MAX
        );
    }

    #[test]
    fn the_form_of_a_header_has_nothing_of_its_content() {
        for (header, expected) in [
            (None, "missing, or there twice"),
            (
                Some("sha1=dfde8e23a8c06e6c522a67d50fe7412283f653f9"),
                "sha1=, 40 hexadecimal digits",
            ),
            (Some("SHA1=dfde"), "sha1= in another case, 4 hexadecimal digits"),
            (
                Some("dfde8e23a8c06e6c522a67d50fe7412283f653f9"),
                "no prefix, 40 hexadecimal digits",
            ),
            (Some("sha256=AAAA/+=="), "sha256=, 8 characters of base64"),
            (Some("secret=abc"), "an unknown prefix, 3 hexadecimal digits"),
            (Some("3q2+7w=="), "no prefix, 8 characters of base64"),
            (Some("Bearer hunter2"), "no prefix, 14 bytes of something else"),
            (Some(""), "no prefix, nothing"),
            (Some("sha1="), "no prefix, 5 characters of base64"),
        ] {
            assert_eq!(header_form(header.map(str::as_bytes)), expected, "{header:?}");
        }
    }
}
