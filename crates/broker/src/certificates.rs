//! The certificates that a sink's section names.

use std::path::{Path, PathBuf};

/// A file of a sink's configuration that holds certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFile {
    pub path: PathBuf,
    pub holds: CertificateUse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CertificateUse {
    /// The client's own certificate and its chain, in PEM. It is good for as long as all of them are.
    Own,
    /// The same, with the key, in PKCS#12 under this password.
    OwnWithKey { password: String },
    /// Authorities to trust, in PEM. While one of them is replaced, the old one may run out beside the new one:
    /// something is trusted for as long as any of them is good.
    Authorities,
}

impl CertificateFile {
    pub fn new(path: impl AsRef<Path>, holds: CertificateUse) -> Self {
        Self {
            path: path.as_ref().into(),
            holds,
        }
    }
}
