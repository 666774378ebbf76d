//! Throw-away certificates for loopback.

use std::net::Ipv4Addr;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::netns::{SERVER_V4, SERVER_V6};

/// A certificate authority that nobody knows, and a certificate that it gave to `localhost`, 127.0.0.1, `::1` and the server
/// of [`crate::netns::Net`].
#[derive(Debug, Clone)]
pub struct Authority {
    authority: String,
    certificate: String,
    private_key: String,
}

impl Authority {
    /// Makes an authority and a certificate.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.distinguished_name.push(DnType::CommonName, "throw-away authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let server = Ipv4Addr::from(SERVER_V4).to_string();
        let names = ["localhost", "127.0.0.1", "::1", &server, SERVER_V6].map(str::to_owned);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names)?;
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer)?;
        Ok(Self { authority: issuer.pem(), certificate: certificate.pem(), private_key: key.serialize_pem() })
    }

    /// The authority's own certificate, which clients trust.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.authority
    }

    /// The server's certificate.
    #[must_use]
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The server's private key.
    #[must_use]
    pub fn private_key_pem(&self) -> &str {
        &self.private_key
    }

    /// What a server accepts TLS with; `protocols` are chosen from by ALPN, in order of preference.
    ///
    /// # Errors
    /// When the certificate is none, which would be a bug.
    pub fn acceptor(&self, protocols: &[&[u8]]) -> anyhow::Result<TlsAcceptor> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes())?];
        let key = PrivateKeyDer::from_pem_slice(self.private_key.as_bytes())?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// What a client trusts this authority with; `protocols` are offered by ALPN, in order of preference.
    ///
    /// # Errors
    /// When the certificate is none, which would be a bug.
    pub fn client_config(&self, protocols: &[&[u8]]) -> anyhow::Result<rustls::ClientConfig> {
        trusting(&self.authority, protocols)
    }
}

/// What a client trusts an authority with, of which it has the PEM; see [`Authority::client_config`].
///
/// # Errors
/// When that is no certificate.
pub fn trusting(authority: &str, protocols: &[&[u8]]) -> anyhow::Result<rustls::ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}
