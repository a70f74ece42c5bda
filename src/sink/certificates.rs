//! When the certificates run out that the sinks' configurations name. They are read again and again: files rotate.

use std::{collections::BTreeMap, fs, sync::Arc, time::Duration};

use openssl::{
    asn1::{Asn1Time, Asn1TimeRef},
    error::ErrorStack,
    pkcs12::Pkcs12,
    x509::{X509, X509Ref},
};
use parking_lot::Mutex;
use prometheus::{IntGaugeVec, Opts, Registry};

use super::{CertificateFile, CertificateUse};
use crate::settings::SinkConfig;

/// Between two reads.
const INTERVAL: Duration = Duration::from_secs(10);
const SECONDS_PER_DAY: i64 = 86_400;

/// Watches the files of all sinks. Clones share them.
#[derive(Clone)]
pub struct CertificateWatch {
    not_after: IntGaugeVec,
    watched: Arc<Mutex<Vec<WatchedCertificate>>>,
}

struct WatchedCertificate {
    sink: String,
    file: CertificateFile,
    /// What was told last of why it cannot be read.
    told: Option<String>,
}

impl CertificateWatch {
    /// Registers the metric and reads every file once.
    ///
    /// # Errors
    ///
    /// The metric is registered already.
    pub fn register(registry: &Registry, sinks: &[SinkConfig]) -> prometheus::Result<Self> {
        let not_after = IntGaugeVec::new(
            Opts::new(
                "forebay_certificate_not_after_timestamp_seconds",
                "When the certificates in a file that a sink names run out, in seconds since the Unix epoch.",
            ),
            &["sink", "file"],
        )?;
        registry.register(Box::new(not_after.clone()))?;
        let certificates = Self {
            not_after,
            watched: Arc::default(),
        };
        certificates.watch(sinks);
        Ok(certificates)
    }

    /// From here on these are the sinks whose files are watched. Reads every file once.
    pub fn watch(&self, sinks: &[SinkConfig]) {
        // Of two uses of one file the first counts, which is the stricter one: the client's own before authorities.
        let mut files = BTreeMap::new();
        for sink in sinks {
            for file in sink.settings.certificate_files() {
                files.entry((sink.name.clone(), file.path.clone())).or_insert(file);
            }
        }
        let mut watched = self.watched.lock();
        let mut before: Vec<WatchedCertificate> = std::mem::take(&mut *watched);
        let again = |(sink, file): (String, CertificateFile)| {
            let same = before.iter().position(|one| one.sink == sink && one.file == file);
            match same {
                Some(at) => before.swap_remove(at),
                None => WatchedCertificate { sink, file, told: None },
            }
        };
        *watched = files
            .into_iter()
            .map(|((sink, _), file)| (sink, file))
            .map(again)
            .collect();
        drop(watched);
        for gone in before {
            let path = gone.file.path.display().to_string();
            // An error says that there was none.
            let _ = self.not_after.remove_label_values(&[gone.sink.as_str(), &path]);
        }
        self.read();
    }

    /// Reads the files again and again. Never ends.
    pub async fn watch_files(self) {
        loop {
            tokio::time::sleep(INTERVAL).await;
            let certificates = self.clone();
            if let Err(panicked) = tokio::task::spawn_blocking(move || certificates.read()).await {
                std::panic::resume_unwind(panicked.into_panic());
            }
        }
    }

    fn read(&self) {
        for watched in self.watched.lock().iter_mut() {
            let path = watched.file.path.display().to_string();
            let labels = [watched.sink.as_str(), path.as_str()];
            match not_after(&watched.file) {
                Ok(not_after) => {
                    self.not_after.with_label_values(&labels).set(not_after);
                    watched.told = None;
                }
                Err(reason) => {
                    // Better no time than one that may be wrong. An error says that there was none.
                    let _ = self.not_after.remove_label_values(&labels);
                    if watched.told.as_ref() != Some(&reason) {
                        tracing::warn!(
                            sink = watched.sink,
                            "{path}: when its certificates run out cannot be read: {reason}"
                        );
                        watched.told = Some(reason);
                    }
                }
            }
        }
    }
}

/// When the certificates in a file run out, in seconds since the Unix epoch.
fn not_after(file: &CertificateFile) -> Result<i64, String> {
    let bytes = fs::read(&file.path).map_err(|error| error.to_string())?;
    let times = match &file.holds {
        CertificateUse::Own | CertificateUse::Authorities => {
            X509::stack_from_pem(&bytes).and_then(|found| times(&found))
        }
        CertificateUse::OwnWithKey { password } => keystore(&bytes, password).and_then(|found| times(&found)),
    };
    let times = times.map_err(|error| error.to_string())?.into_iter();
    let time = match file.holds {
        CertificateUse::Own | CertificateUse::OwnWithKey { .. } => times.min(),
        CertificateUse::Authorities => times.max(),
    };
    time.ok_or_else(|| "it holds no certificate".to_owned())
}

fn keystore(bytes: &[u8], password: &str) -> Result<Vec<X509>, ErrorStack> {
    let parsed = Pkcs12::from_der(bytes)?.parse2(password)?;
    Ok(parsed.cert.into_iter().chain(parsed.ca.into_iter().flatten()).collect())
}

fn times(certificates: &[X509]) -> Result<Vec<i64>, ErrorStack> {
    certificates
        .iter()
        .map(|one| X509Ref::not_after(one))
        .map(unix_seconds)
        .collect()
}

fn unix_seconds(time: &Asn1TimeRef) -> Result<i64, ErrorStack> {
    let since = Asn1Time::from_unix(0)?.diff(time)?;
    Ok(i64::from(since.days) * SECONDS_PER_DAY + i64::from(since.secs))
}

#[cfg(test)]
mod tests {
    use openssl::{
        asn1::Asn1Integer,
        bn::BigNum,
        hash::MessageDigest,
        pkey::{PKey, Private},
        rsa::Rsa,
        x509::X509Builder,
    };

    use super::*;

    fn key() -> PKey<Private> {
        PKey::from_rsa(Rsa::generate(2048).unwrap()).unwrap()
    }

    fn certificate(key: &PKey<Private>, not_after: i64) -> X509 {
        let mut builder = X509Builder::new().unwrap();
        let serial = BigNum::from_u32(1)
            .and_then(|number| Asn1Integer::from_bn(&number))
            .unwrap();
        builder.set_serial_number(&serial).unwrap();
        builder.set_pubkey(key).unwrap();
        builder.set_not_before(&Asn1Time::from_unix(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::from_unix(not_after).unwrap()).unwrap();
        builder.sign(key, MessageDigest::sha256()).unwrap();
        builder.build()
    }

    #[test]
    fn a_chain_is_as_good_as_its_first_to_run_out_and_authorities_as_the_last() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("chain.pem");
        let key = key();
        let (early, late) = (1_900_000_001, 4_102_444_800);
        let mut pem = key.private_key_to_pem_pkcs8().unwrap();
        for not_after in [late, early] {
            pem.extend(certificate(&key, not_after).to_pem().unwrap());
        }
        fs::write(&path, pem).unwrap();
        assert_eq!(not_after(&CertificateFile::new(&path, CertificateUse::Own)), Ok(early));
        assert_eq!(
            not_after(&CertificateFile::new(&path, CertificateUse::Authorities)),
            Ok(late)
        );

        let path = dir.path().join("store.p12");
        let mut builder = Pkcs12::builder();
        let certificate = certificate(&key, early);
        let store = builder.pkey(&key).cert(&certificate).build2("s3cret").unwrap();
        fs::write(&path, store.to_der().unwrap()).unwrap();
        let holds = |password: &str| CertificateUse::OwnWithKey {
            password: password.into(),
        };
        assert_eq!(not_after(&CertificateFile::new(&path, holds("s3cret"))), Ok(early));
        assert!(not_after(&CertificateFile::new(&path, holds("wrong"))).is_err());
    }

    #[test]
    fn what_cannot_be_read_has_no_time_and_has_one_again_when_it_can() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("client.pem");
        let key = key();
        let registry = Registry::new();
        let certificates = CertificateWatch::register(&registry, &[]).unwrap();
        certificates.watched.lock().push(WatchedCertificate {
            sink: "main".into(),
            file: CertificateFile::new(&path, CertificateUse::Own),
            told: None,
        });
        let told = |certificates: &CertificateWatch| {
            certificates.read();
            let families = registry.gather();
            let values = families.iter().flat_map(|family| family.get_metric());
            values.map(|metric| metric.get_gauge().get_value()).collect::<Vec<_>>()
        };
        assert!(told(&certificates).is_empty());
        assert!(certificates.watched.lock()[0].told.is_some());
        for not_after in [1_900_000_000, 2_000_000_000] {
            fs::write(&path, certificate(&key, not_after).to_pem().unwrap()).unwrap();
            assert_eq!(told(&certificates), [not_after as f64]);
        }
        fs::write(&path, "no certificate").unwrap();
        assert!(told(&certificates).is_empty());
        assert_eq!(
            certificates.watched.lock()[0].told.as_deref(),
            Some("it holds no certificate")
        );
    }
}
