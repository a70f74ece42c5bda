//! The signature header: the right one verifies, and no other does.
//!
//! The input has secrets, a body, and what is done to the header. Then:
//!
//! - the header that the sender makes is HMAC-SHA1 as OpenSSL makes it, and verifies while its secret is one of the
//!   active ones, whichever;
//! - a header that was changed verifies where it says the same in other letters, and nowhere else; none does with
//!   another digit;
//! - what is refused is told apart as the sender documents its form, also before the body has come;
//! - the right header verifies neither another body nor with another secret, nor without one.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use forebay_senders::{EndpointReceiver, Secret, Sender, SignatureError, usual};
use openssl::{hash::MessageDigest, pkey::PKey, sign::Signer};

use crate::{InputReader, request::GivenHeaders};

const SECRETS_MAX: usize = 3;
/// A longer one is hashed first.
const SECRET_BYTES_MAX: usize = 100;
const EDITS_MAX: usize = 4;
const SCHEME: &[u8] = b"sha1=";
const DIGITS: usize = 40;

/// See the module.
pub fn signature(input: &[u8]) {
    let mut input = InputReader::new(input);
    let sender = usual();
    let secrets: Vec<Vec<u8>> = (0..=input.below(SECRETS_MAX))
        .map(|at| secret_bytes(at, &mut input))
        .collect();
    let signing = input.below(secrets.len());
    let edits = input.piece();
    let body = Bytes::copy_from_slice(input.rest());

    let right = sign(sender, &secrets[signing], &body);
    let active = |secrets: &[Vec<u8>]| {
        let secrets = secrets.iter().map(|bytes| secret(bytes)).collect();
        EndpointReceiver::new(sender, "acme", None, secrets)
    };
    let receiver = active(&secrets);
    assert_eq!(verify(&receiver, &right, &body), Ok(()));
    let mut matched = receiver.last_matches();
    assert!(
        matched.remove(signing).is_some() && matched.iter().all(Option::is_none),
        "the secret that made it"
    );

    let given = edited(&right, edits);
    let is_same = given.eq_ignore_ascii_case(&right) && given.starts_with(SCHEME);
    let digits = given.strip_prefix(SCHEME).filter(|digits| digits.len() == DIGITS);
    let has_form = digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit));
    let expected = match (is_same, has_form) {
        (true, _) => Ok(()),
        (false, true) => Err(SignatureError::Wrong),
        (false, false) => Err(SignatureError::Malformed),
    };
    assert_eq!(verify(&receiver, &given, &body), expected, "{}", given.escape_ascii());
    let form = receiver.check_form(&headers(sender, &given)).is_ok();
    assert_eq!(form, has_form, "{}", given.escape_ascii());

    for at in SCHEME.len()..right.len() {
        let mut given = right.clone();
        given[at] = if given[at] == b'0' { b'1' } else { b'0' };
        assert_eq!(
            verify(&receiver, &given, &body),
            Err(SignatureError::Wrong),
            "digit {at}"
        );
    }
    let others: Vec<_> = secrets
        .iter()
        .filter(|other| *other != &secrets[signing])
        .cloned()
        .collect();
    assert_eq!(verify(&active(&others), &right, &body), Err(SignatureError::Wrong));
    let mut other = body.to_vec();
    match other.get_mut(edits.len()) {
        Some(byte) => *byte ^= 1,
        None => other.push(0),
    }
    assert_eq!(verify(&receiver, &right, &other.into()), Err(SignatureError::Wrong));
}

/// A secret, one that no other is for HMAC, which appends zeros to it.
fn secret_bytes(number: usize, input: &mut InputReader<'_>) -> Vec<u8> {
    let mut bytes = vec![number as u8];
    let given = input.piece();
    bytes.extend_from_slice(&given[..given.len().min(SECRET_BYTES_MAX)]);
    bytes.push(1);
    bytes
}

fn secret(bytes: &[u8]) -> Secret {
    Secret::from_base64(&STANDARD.encode(bytes)).expect("it is base64, and not empty")
}

/// The signature that the sender makes, which is the one that OpenSSL makes.
fn sign(sender: &dyn Sender, key: &[u8], body: &[u8]) -> Vec<u8> {
    let [(name, header)] = &sender.sign(&secret(key), body)[..] else {
        panic!("one header");
    };
    assert_eq!(sender.signature_headers(), [*name]);
    let key = PKey::hmac(key).expect("HMAC takes a key of any length");
    let signed = Signer::new(MessageDigest::sha1(), &key).and_then(|mut signer| signer.sign_oneshot_to_vec(body));
    let digits: String = (signed.expect("OpenSSL signs").iter())
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(header.as_bytes(), [SCHEME, digits.as_bytes()].concat());
    header.clone().into_bytes()
}

fn headers(sender: &dyn Sender, signature: &[u8]) -> GivenHeaders {
    GivenHeaders(vec![(sender.signature_headers()[0], signature.to_vec())])
}

fn verify(receiver: &EndpointReceiver, signature: &[u8], body: &Bytes) -> Result<(), SignatureError> {
    let headers = headers(receiver.sender(), signature);
    receiver.verify(headers.request(body)).map(drop)
}

/// The header as somebody else may send it.
fn edited(right: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut header = right.to_vec();
    let mut edits = InputReader::new(edits);
    for _ in 0..EDITS_MAX {
        if edits.is_empty() {
            break;
        }
        let kind = edits.below(7);
        let at = edits.below(header.len() + 1);
        match kind {
            0 => header
                .get_mut(at)
                .into_iter()
                .for_each(|byte| *byte ^= 1 << edits.below(8)),
            1 => header.get_mut(at).into_iter().for_each(|byte| *byte = edits.byte()),
            2 => header.truncate(at),
            3 => header.insert(at, edits.byte()),
            4 => header[at..].make_ascii_uppercase(),
            5 => drop(header.drain(..at)),
            _ => header = edits.piece().to_vec(),
        }
    }
    header
}
