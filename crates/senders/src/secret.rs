//! A webhook's secret.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};

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
    ///
    /// # Errors
    ///
    /// It is not base64, or empty.
    pub fn from_base64(text: &str) -> Result<Self, SecretError> {
        let standard = text.trim().replace('-', "+").replace('_', "/");
        match BASE64.decode(standard) {
            Ok(bytes) if bytes.is_empty() => Err(SecretError::Empty),
            Ok(bytes) => Ok(Secret(bytes)),
            Err(_) => Err(SecretError::NotBase64),
        }
    }

    /// What a signature is made with.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The secret that somebody has who leaves it undecoded.
    pub(crate) fn undecoded(&self) -> Self {
        Self(STANDARD.encode(&self.0).into_bytes())
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let secret = Secret::from_base64(text).ok();
            assert_eq!(secret.as_ref().map(Secret::bytes), expected, "{text:?}");
        }
        assert!(matches!(Secret::from_base64(" "), Err(SecretError::Empty)));
        assert_eq!(format!("{:?}", Secret::from_base64("c2VjcmV0").unwrap()), "Secret(…)");
    }
}
