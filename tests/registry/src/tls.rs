//! The certificate of a TLS registry: a CA made for it, and a leaf for the names of loopback.
//!
//! Owns: keys that live as long as the test. Must not: write them anywhere.
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::io;
use std::sync::Arc;
use tokio_rustls::TlsAcceptor;

pub(crate) struct Identity {
    pub ca_pem: String,
    /// Certificate and key of the server.
    pub server: (String, String),
    /// Certificate and key of a client.
    pub client: (String, String),
    pub acceptor: TlsAcceptor,
}

impl Identity {
    pub fn generate(client_certificate: bool, further: &[String]) -> io::Result<Self> {
        let ca_key = KeyPair::generate().map_err(io::Error::other)?;
        let mut ca = CertificateParams::new(Vec::<String>::new()).map_err(io::Error::other)?;
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        ca.distinguished_name.push(DnType::CommonName, "berth test registry CA");
        let ca_cert = ca.self_signed(&ca_key).map_err(io::Error::other)?;
        let issuer = Issuer::new(ca, ca_key);

        let key = KeyPair::generate().map_err(io::Error::other)?;
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).into_iter().chain(further.iter().cloned());
        let mut leaf = CertificateParams::new(names.collect::<Vec<_>>()).map_err(io::Error::other)?;
        leaf.distinguished_name.push(DnType::CommonName, "berth test registry");
        let cert = leaf.signed_by(&key, &issuer).map_err(io::Error::other)?;

        let client_key = KeyPair::generate().map_err(io::Error::other)?;
        let mut client = CertificateParams::new(Vec::<String>::new()).map_err(io::Error::other)?;
        client.distinguished_name.push(DnType::CommonName, "berth test client");
        let client = client.signed_by(&client_key, &issuer).map_err(io::Error::other)?;
        let client = (client.pem(), client_key.serialize_pem());

        let server = (cert.pem(), key.serialize_pem());
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let builder = if client_certificate {
            let mut roots = rustls::RootCertStore::empty();
            roots.add(ca_cert.der().clone()).map_err(io::Error::other)?;
            let verifier = rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
        } else {
            builder.with_no_client_auth()
        };
        let mut config = builder.with_single_cert(vec![cert.der().clone()], key).map_err(io::Error::other)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { ca_pem: ca_cert.pem(), server, client, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }
}
