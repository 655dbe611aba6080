//! The certificates and kubeconfigs of a control plane. Owns: one CA for servers and clients, one for the aggregation layer, a key for
//! service accounts. Must not: outlive the node's directory.
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A CA in a directory.
pub struct Authority {
    dir: PathBuf,
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    /// Makes one: `NAME.crt` and `NAME.key` in `dir`.
    pub fn new(dir: &Path, name: &'static str) -> Self {
        fs::create_dir_all(dir).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name.push(DnType::CommonName, format!("berth test {name}"));
        let certificate = params.self_signed(&key).unwrap();
        fs::write(dir.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        Self { dir: dir.to_owned(), name, issuer: Issuer::new(params, key) }
    }

    /// Its certificate's file.
    pub fn certificate(&self) -> PathBuf {
        self.dir.join(format!("{}.crt", self.name))
    }

    /// Its key's file.
    pub fn key(&self) -> PathBuf {
        self.dir.join(format!("{}.key", self.name))
    }

    /// A certificate for both ends of TLS: user `common_name` of group `organisation`, or a server under these names and addresses.
    pub fn issue(&self, file: &str, common_name: &str, organisation: &str, names: &[&str]) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        if !organisation.is_empty() {
            params.distinguished_name.push(DnType::OrganizationName, organisation);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair =
            Pair { certificate: self.dir.join(format!("{file}.crt")), key: self.dir.join(format!("{file}.key")) };
        fs::write(&pair.certificate, certificate.pem()).unwrap();
        fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    /// A kubeconfig for this user of the API server at `url`.
    pub fn kubeconfig(&self, file: &str, url: &str, common_name: &str, organisation: &str) -> PathBuf {
        let pair = self.issue(file, common_name, organisation, &[]);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": url, "certificate-authority": self.certificate()}}],
            "users": [{"name": "test", "user": {"client-certificate": pair.certificate, "client-key": pair.key}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        });
        let path = self.dir.join(format!("{file}.kubeconfig"));
        fs::write(&path, config.to_string()).unwrap();
        path
    }
}

/// A certificate and its key, as files.
pub struct Pair {
    /// Certificate, PEM.
    pub certificate: PathBuf,
    /// Key, PEM, PKCS #8.
    pub key: PathBuf,
}

/// The key that signs service accounts' tokens, and its public half, as files. The same each time: an API server that is started again must know
/// the tokens that it gave before.
pub fn service_account_key(dir: &Path) -> Pair {
    let pair = Pair { certificate: dir.join("service-accounts.pub"), key: dir.join("service-accounts.key") };
    if pair.key.exists() {
        return pair;
    }
    let key = KeyPair::generate().unwrap();
    fs::write(&pair.certificate, key.public_key_pem()).unwrap();
    fs::write(&pair.key, key.serialize_pem()).unwrap();
    pair
}
