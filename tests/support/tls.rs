//! A private CA, a broker's certificate and a client's, made for one test.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

pub struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    pub fn make(dir: &Path) -> Self {
        let dir = dir.join("tls");
        std::fs::create_dir(&dir).unwrap();
        let this = Self { dir };
        this.openssl("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=forebay-test-ca -keyout ca.key -out ca.pem");
        std::fs::write(this.path("server.ext"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
        std::fs::write(this.path("client.ext"), "extendedKeyUsage=clientAuth\n").unwrap();
        for name in ["server", "client"] {
            this.issue(name);
        }
        let both = ["server.key", "server.pem"].map(|file| std::fs::read_to_string(this.path(file)).unwrap());
        std::fs::write(this.path("server-keystore.pem"), both.concat()).unwrap();
        this
    }

    /// The path of `ca.pem`, `client.pem` or `client.key`, or of a server's own file.
    pub fn path(&self, file: &str) -> PathBuf {
        self.dir.join(file)
    }

    /// Makes the client a new certificate, with a new key, in place of the old ones.
    pub fn renew_client(&self) {
        self.issue("client");
    }

    /// A certificate of this name, of the CA.
    fn issue(&self, name: &str) {
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile {name}.ext -out {name}.pem"
        ));
    }

    fn openssl(&self, arguments: &str) {
        openssl(&self.dir, arguments);
    }
}

/// A certificate of its own, good for so many days: writes `<name>.pem` and returns its path.
pub fn self_signed(dir: &Path, name: &str, days: u32) -> PathBuf {
    let path = dir.join(format!("{name}.pem"));
    let arguments =
        format!("req -x509 -newkey rsa:2048 -nodes -days {days} -subj /CN={name} -keyout {name}.key -out {name}.pem");
    openssl(dir, &arguments);
    path
}

fn openssl(dir: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split(' '))
        .current_dir(dir)
        .output()
        .expect("openssl can be run");
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
