//! TLS settings per registry.
//!
//! Owns: trust roots and the connector's configuration. Must not: read our own configuration files.
use crate::config::{ClientIdentity, Tls};
use berth_model::{Error, Result};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::{Arc, OnceLock};

/// The configuration for one server; `who` names it in errors. Errors: `InvalidArgument` for a certificate or key that is none.
pub(crate) fn config(who: &str, settings: &Tls) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| Error::internal(format!("TLS: {e}")))?;
    let builder = if settings.insecure_skip_verify {
        builder.dangerous().with_custom_certificate_verifier(accept_any())
    } else {
        let mut roots = system_roots().clone();
        for pem in &settings.ca_pem {
            add_ca(&mut roots, pem).map_err(|problem| Error::invalid(format!("registry {who} tls.ca"), problem))?;
        }
        builder.with_root_certificates(roots)
    };
    let Some(identity) = &settings.client else { return Ok(builder.with_no_client_auth()) };
    let (chain, key) = client(who, identity)?;
    builder.with_client_auth_cert(chain, key).map_err(|e| {
        Error::invalid(format!("registry {who} tls.clientCertFile"), format!("does not go with its key: {e}"))
    })
}

/// Certificate chain and key. What is wrong with a key is not shown: the parser may quote it.
fn client(who: &str, identity: &ClientIdentity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let chain: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(identity.cert_pem.as_bytes()).collect();
    let field = |name: &str| format!("registry {who} tls.{name}");
    let chain = chain.map_err(|e| Error::invalid(field("clientCertFile"), format!("not PEM: {e}")))?;
    if chain.is_empty() {
        return Err(Error::invalid(field("clientCertFile"), "holds no certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(identity.key_pem.expose().as_bytes());
    Ok((chain, key.map_err(|_| Error::invalid(field("clientKeyFile"), "holds no private key in PEM"))?))
}

fn add_ca(roots: &mut RootCertStore, pem: &str) -> std::result::Result<(), String> {
    let mut added = 0;
    for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let cert = cert.map_err(|e| format!("not PEM: {e}"))?;
        roots.add(cert).map_err(|e| format!("certificate {}: {e}", added + 1))?;
        added += 1;
    }
    if added == 0 { Err("holds no certificate".into()) } else { Ok(()) }
}

/// Reads certificates and keys only; nothing is connected, and the system's certificates are not read. Errors: as [`config`].
pub(crate) fn check(who: &str, settings: &Tls) -> Result<()> {
    let mut roots = RootCertStore::empty();
    for pem in &settings.ca_pem {
        add_ca(&mut roots, pem).map_err(|problem| Error::invalid(format!("registry {who} tls.ca"), problem))?;
    }
    if let Some(name) = &settings.server_name {
        ServerName::try_from(name.as_str()).map_err(|_| {
            Error::invalid(format!("registry {who} tls.serverName"), format!("{name:?} is no host name"))
        })?;
    }
    settings.client.as_ref().map_or(Ok(()), |identity| client(who, identity).map(drop))
}

/// The cipher suites and signatures of aws-lc-rs, named here so that no process-wide default is needed.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::aws_lc_rs::default_provider())))
}

/// The system's certificates, read once and only when a first HTTPS registry is asked. A machine without any is no error here:
/// its registries may all have CAs of their own.
fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        roots
    })
}

/// A verifier that accepts every certificate.
pub(crate) fn accept_any() -> Arc<dyn ServerCertVerifier> {
    Arc::new(AcceptAny(provider()))
}

#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
