//! Whom the proof trusts: the system's authorities, those that the caller names, and the very certificates that it names.
//!
//! `openssl req -x509` makes a certificate that is an authority's (`CA:TRUE`). webpki takes such a one as an authority only,
//! while OpenSSL, and so curl and Python, also take it as the server's own where the caller names it. Here it is taken where
//! its bytes, its name and its time are right.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::certificate::X509Certificate;

use crate::tls::{self, TlsError};

/// Whose certificates are taken.
#[derive(Debug, Clone)]
pub enum Trust {
    /// Those of the system's authorities and, where a PEM file is named, of the authorities in it and its certificates
    /// themselves.
    Verified(Option<PathBuf>),
    /// Everybody's.
    Anyone,
}

impl Trust {
    /// How to connect.
    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Anyone => Arc::new(Unverified { provider: Arc::clone(&provider) }),
            Self::Verified(file) => {
                let named = file.as_deref().map(tls::certificates).transpose()?.unwrap_or_default();
                Arc::new(Verified::new(named, &provider)?)
            }
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Takes the certificates that were named, and those of authorities.
#[derive(Debug)]
struct Verified {
    named: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Verified {
    fn new(named: Vec<CertificateDer<'static>>, provider: &Arc<CryptoProvider>) -> Result<Self, TlsError> {
        let mut roots = tls::system_roots();
        roots.add_parsable_certificates(named.iter().cloned());
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        // Without revocation lists there is nothing that it could refuse.
        let authorities = builder.build().map_err(|error| Error::General(error.to_string()))?;
        Ok(Self { named, authorities })
    }
}

impl ServerCertVerifier for Verified {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.named.iter().any(|named| named == end_entity) {
            verify_named(end_entity, server_name, now)?;
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Checks name and time of a certificate that is trusted by itself.
fn verify_named(der: &CertificateDer<'_>, name: &ServerName<'_>, now: UnixTime) -> Result<(), Error> {
    let unreadable = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_syntax| unreadable())?;
    let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
    if now > certificate.validity().not_after.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    if now < certificate.validity().not_before.timestamp() {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if is_for_common_name(&certificate, name) {
        return Ok(());
    }
    rustls::client::verify_server_name(&ParsedCertificate::try_from(der)?, name)
}

/// Whether a certificate without a subjectAltName has the host as its common name. RFC 6125, 6.4.4 allows that as a last
/// resort, and curl and Python do it; `openssl req -x509 -subj /CN=host` makes such certificates.
fn is_for_common_name(certificate: &X509Certificate<'_>, name: &ServerName<'_>) -> bool {
    let ServerName::DnsName(host) = name else { return false };
    let has_names = !matches!(certificate.subject_alternative_name(), Ok(None));
    let mut common_names = certificate.subject().iter_common_name();
    !has_names
        && common_names
            .any(|common| common.as_str().is_ok_and(|common| common.eq_ignore_ascii_case(host.as_ref())))
}

/// Takes every certificate.
#[derive(Debug)]
struct Unverified {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Unverified {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

    use super::*;

    /// A certificate as `openssl req -x509` makes it, for 2030.
    fn authority(names: &[&str], common_name: &str) -> CertificateDer<'static> {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        (params.not_before, params.not_after) = (date_time_ymd(2030, 1, 1), date_time_ymd(2031, 1, 1));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verify(
        named: &[&CertificateDer<'static>],
        shown: &CertificateDer<'_>,
        host: &str,
        day: u64,
    ) -> Result<(), Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let named = named.iter().map(|named| (*named).clone()).collect();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(Duration::from_secs(day * 86_400));
        Verified::new(named, &provider)
            .unwrap()
            .verify_server_cert(shown, &[], &name, &[], now)
            .map(|_verified| ())
    }

    /// 2030-06-01, in days.
    const IN_TIME: u64 = 22_066;

    #[test]
    fn the_named_certificate_is_taken_for_its_name_and_in_its_time() {
        let (ours, other) =
            (authority(&["gateway.example", "10.0.0.1"], "x"), authority(&["gateway.example"], "x"));
        for host in ["gateway.example", "10.0.0.1"] {
            assert_eq!(verify(&[&other, &ours], &ours, host, IN_TIME), Ok(()), "{host}");
        }
        assert!(matches!(
            verify(&[&ours], &ours, "other.example", IN_TIME),
            Err(Error::InvalidCertificate(CertificateError::NotValidForNameContext { .. }))
        ));
        let wrong_time =
            [(IN_TIME + 365, CertificateError::Expired), (IN_TIME - 365, CertificateError::NotValidYet)];
        for (day, error) in wrong_time {
            assert_eq!(
                verify(&[&ours], &ours, "gateway.example", day),
                Err(Error::InvalidCertificate(error))
            );
        }
        assert!(verify(&[&other], &ours, "gateway.example", IN_TIME).is_err(), "same name, other bytes");
    }

    #[test]
    fn a_common_name_counts_only_where_there_is_no_other() {
        let bare = authority(&[], "gateway.example");
        assert_eq!(verify(&[&bare], &bare, "GATEWAY.example", IN_TIME), Ok(()));
        assert!(verify(&[&bare], &bare, "other.example", IN_TIME).is_err());
        assert!(verify(&[&authority(&[], "10.0.0.1")], &bare, "10.0.0.1", IN_TIME).is_err());
        let named = authority(&["other.example"], "gateway.example");
        assert!(verify(&[&named], &named, "gateway.example", IN_TIME).is_err());
    }
}
