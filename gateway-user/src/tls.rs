//! TLS on both sides, by rustls with one crypto provider.

pub mod explain;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Listen;

/// Sessions of TLS 1.2 that are kept for resumption; TLS 1.3 resumes by tickets, which take no memory here.
const KEPT_SESSIONS: usize = 4096;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing, unreadable or not PEM.
    #[error("{} {}", path.display(), explain::pem(source))]
    File {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls_pki_types::pem::Error,
    },
    /// A file has no certificate in it.
    #[error("{} holds no certificate in PEM", .0.display())]
    NoCertificate(PathBuf),
    /// Certificate and key do not fit each other, or are of a kind that is not supported.
    #[error("{} and {}: {}", certificate.display(), private_key.display(), explain::tls(source))]
    Pair {
        /// The chain.
        certificate: PathBuf,
        /// Its key.
        private_key: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The authorities of client certificates are not usable.
    #[error("{}: {source}", path.display())]
    ClientCa {
        /// Their file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::server::VerifierBuilderError,
    },
    /// The library does not start.
    #[error("TLS cannot start: {}", explain::tls(.0))]
    Library(#[from] rustls::Error),
    /// The system trusts nobody, so that no backend could be verified.
    #[error("this system has no root certificates; install ca-certificates or set SSL_CERT_FILE")]
    NoRoots,
}

/// How callers are served: TLS 1.3 and 1.2, HTTP/2 and HTTP/1.1, sessions resumed.
///
/// # Errors
/// When a file is missing or does not hold what it should.
pub fn server(listen: &Listen) -> Result<ServerConfig, TlsError> {
    let chain = certificates(&listen.certificate)?;
    let key = PrivateKeyDer::from_pem_file(&listen.private_key)
        .map_err(|source| TlsError::File { path: listen.private_key.clone(), source })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &listen.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|source| TlsError::ClientCa { path: path.clone(), source })?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_single_cert(chain, key).map_err(|source| TlsError::Pair {
        certificate: listen.certificate.clone(),
        private_key: listen.private_key.clone(),
        source,
    })?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = rustls::server::ServerSessionMemoryCache::new(KEPT_SESSIONS);
    config.ticketer = aws_lc_rs::Ticketer::new()?;
    config.send_tls13_tickets = 1;
    Ok(config)
}

/// How backends are reached: verified by the system's root certificates, HTTP/1.1.
///
/// # Errors
/// When the system trusts nobody.
pub fn client() -> Result<ClientConfig, TlsError> {
    let roots = system_roots();
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// The authorities that this system trusts.
pub(crate) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// When the certificate that callers are shown expires, in seconds since 1970-01-01 UTC; `None` where its file cannot be
/// read.
#[must_use]
pub fn certificate_expires_at(listen: &Listen) -> Option<u64> {
    expires_at(&certificates(&listen.certificate).ok()?)
}

/// When the first certificate of a chain, the server's own, expires: its `notAfter` (RFC 5280, 4.1.2.5) in seconds since
/// 1970-01-01 UTC. `None` where there is none, or it cannot be read.
#[must_use]
pub fn expires_at(chain: &[CertificateDer<'_>]) -> Option<u64> {
    let (_, certificate) = x509_parser::parse_x509_certificate(chain.first()?).ok()?;
    // One that ended before 1970 has ended.
    Some(u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default())
}

/// The certificates in a PEM file; at least one.
///
/// # Errors
/// When the file is missing, not PEM or without a certificate.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = |source| TlsError::File { path: path.to_owned(), source };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(file)?.collect::<Result<_, _>>().map_err(file)?;
    if certificates.is_empty() {
        return Err(TlsError::NoCertificate(path.to_owned()));
    }
    Ok(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_expires_when_it_says() {
        let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2031, 2, 3);
        let certificate = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        assert_eq!(expires_at(&[certificate.der().clone()]), Some(1_927_843_200));
        assert_eq!(expires_at(&[CertificateDer::from_slice(b"no certificate")]), None);
        assert_eq!(expires_at(&[]), None);
    }
}
