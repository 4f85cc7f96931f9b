//! Certificate authorities for tests and the certificates that they sign. They last for one run.

use hostel::ClientOptions;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    date_time_ymd,
};
use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

/// A certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The certificate of the authority, in PEM.
    pub pem: String,
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Signed {
    pub cert: String,
    pub key: String,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    /// Signs the certificate of a node with these names and addresses.
    pub fn node(&self, names: &[&str]) -> Signed {
        self.sign(names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// Signs the certificate of a client with this name.
    pub fn client(&self, name: &str) -> Signed {
        self.sign(&[name], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Returns the authority's own certificate and key, which a node must not use.
    pub fn own(&self) -> Signed {
        Signed {
            cert: self.pem.clone(),
            key: self.issuer.key().serialize_pem(),
        }
    }

    /// Signs the certificate of a node that expires in `days` days; a negative number makes an expired
    /// one.
    pub fn node_for_days(&self, names: &[&str], days: i64) -> Signed {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a time");
        let day = Duration::from_secs(24 * 3600);
        let end = match u32::try_from(days) {
            Ok(days) => now + day * days,
            Err(_) => now - day,
        };
        self.sign_until(names, ExtendedKeyUsagePurpose::ServerAuth, Some(end))
    }

    fn sign(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> Signed {
        self.sign_until(names, purpose, None)
    }

    /// Signs a certificate that expires at `end`, the time since 1970.
    fn sign_until(
        &self,
        names: &[&str],
        purpose: ExtendedKeyUsagePurpose,
        end: Option<Duration>,
    ) -> Signed {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params.extended_key_usages = vec![purpose];
        if let Some(end) = end {
            params.not_after = date_time_ymd(1970, 1, 1) + end;
        }
        let key = KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("a certificate");
        Signed {
            cert: cert.pem(),
            key: key.serialize_pem(),
        }
    }

    /// Writes the files of a server on this machine: `server.pem`, `server.key` and `ca.pem`.
    pub fn write_server(&self, dir: &Path) {
        self.node(&["127.0.0.1"]).write(dir, "server");
        fs::write(dir.join("ca.pem"), &self.pem).expect("a file");
    }

    /// Writes the files of a client: `node.pem`, `node.key`, `ca.pem`, and the certificate of an
    /// unrelated authority in `other.pem`.
    pub fn write_client(&self) -> TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        self.client("a node").write(dir.path(), "node");
        for (name, pem) in [("ca", &self.pem), ("other", &Self::new("another").pem)] {
            fs::write(dir.path().join(format!("{name}.pem")), pem).expect("a file");
        }
        dir
    }

    /// Returns the options of a client that trusts only this authority.
    pub fn trusted(&self) -> ClientOptions {
        ClientOptions::new().ca_pem(&self.pem)
    }
}

impl Signed {
    /// Writes `NAME.pem` and `NAME.key` into `dir`.
    pub fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.pem")), &self.cert).expect("a file");
        fs::write(dir.join(format!("{name}.key")), &self.key).expect("a file");
    }
}
