//! What TLS libraries say, in words for whoever has to mend it: their own texts are names of variants for the most part.

use std::io;

use rustls::{AlertDescription, CertificateError, Error, InconsistentKeys, OtherError};
use rustls_pki_types::pem;

/// What is wrong with a file in PEM, to be read after the file's name.
#[must_use]
pub fn pem(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot be read: {error}"),
        pem::Error::NoItemsFound => {
            "holds no certificate or key in PEM, which begin with -----BEGIN …-----".to_owned()
        }
        pem::Error::MissingSectionEnd { .. } => {
            "is not well-formed PEM: it is cut off before the line -----END …-----".to_owned()
        }
        pem::Error::IllegalSectionStart { .. } => {
            "is not well-formed PEM: a line -----BEGIN …----- is mangled".to_owned()
        }
        pem::Error::Base64Decode(_) => {
            "is not well-formed PEM: what is between BEGIN and END is no base64".to_owned()
        }
        pem::Error::SectionTooLarge => {
            "is not well-formed PEM: it has a section of more than 256 MB".to_owned()
        }
        other => format!("is not well-formed PEM: {other}"),
    }
}

/// Why there is no TLS, on either side.
#[must_use]
pub fn tls(error: &Error) -> String {
    match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            "the private key belongs to another certificate; take the key that this certificate was requested with, and \
             put the server's own certificate first in its file"
                .to_owned()
        }
        Error::InconsistentKeys(_) => "whether the key belongs to the certificate cannot be told".to_owned(),
        Error::InvalidCertificate(error) => certificate(error),
        Error::InvalidMessage(_) => "the other side does not speak TLS".to_owned(),
        Error::NoCertificatesPresented => "the other side shows no certificate".to_owned(),
        Error::AlertReceived(alert) => self::alert(*alert),
        Error::PeerIncompatible(_) => {
            "the other side has no version of TLS (1.2 or 1.3) or cipher in common with this one".to_owned()
        }
        Error::PeerMisbehaved(_) | Error::InappropriateMessage { .. } | Error::InappropriateHandshakeMessage { .. } => {
            "the other side breaks the protocol of TLS".to_owned()
        }
        Error::InvalidCertRevocationList(_) => "the certificate revocation list is not usable".to_owned(),
        // These have texts of their own.
        other => other.to_string(),
    }
}

/// As [`tls`], for an error of a connection that may come from TLS.
#[must_use]
pub fn connection(error: &io::Error) -> String {
    if let Some(error) = of_tls(error) {
        return tls(error);
    }
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the other side closed the connection in the middle".to_owned(),
        _ => error.to_string(),
    }
}

/// The error of TLS in an error of a connection.
pub(crate) fn of_tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|cause| cause.downcast_ref::<Error>())
}

/// Why a certificate is not taken.
fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "no trusted authority signed the certificate".to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the certificate has expired, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the certificate is not valid yet, or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let presented = if presented.is_empty() { "none".to_owned() } else { presented.join(", ") };
            format!("the certificate is for other names than {} (it has {presented})", expected.to_str())
        }
        CertificateError::NotValidForName => "the certificate is for another name".to_owned(),
        CertificateError::Revoked => "the certificate was revoked".to_owned(),
        CertificateError::BadEncoding => {
            "the certificate cannot be read: it is damaged, or no certificate".to_owned()
        }
        CertificateError::BadSignature => "the certificate's signature is not its authority's".to_owned(),
        CertificateError::UnhandledCriticalExtension => {
            "the certificate has a critical extension that is not known here".to_owned()
        }
        CertificateError::UnsupportedSignatureAlgorithmContext { .. }
        | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. } => {
            "the certificate is signed by an algorithm that is not taken, such as SHA-1".to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the certificate's extended key usage does not allow it here".to_owned()
        }
        CertificateError::Other(other) => self::other(other),
        _ => "the certificate is not taken".to_owned(),
    }
}

fn other(error: &OtherError) -> String {
    // The name of webpki's variant is its text.
    match error.0.to_string().as_str() {
        "CaUsedAsEndEntity" => {
            "the certificate is that of an authority (CA:TRUE, as `openssl req -x509` makes it), and is no \
             server's; make one with -addext basicConstraints=critical,CA:FALSE"
                .to_owned()
        }
        "UnsupportedCertVersion" => {
            "the certificate is of X.509 version 1; make one of version 3, with a subjectAltName".to_owned()
        }
        name => format!("the certificate is not taken ({name})"),
    }
}

fn alert(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "the other side requires a client certificate".to_owned(),
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => "the other side does not take this side's certificate".to_owned(),
        AlertDescription::ProtocolVersion => "the other side wants another version of TLS".to_owned(),
        AlertDescription::UnrecognisedName => "the other side serves no host of this name".to_owned(),
        other => format!("the other side ended the handshake (alert {})", u8::from(other)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn no_text_is_the_name_of_a_variant() {
        let ca = OtherError(Arc::new(io::Error::other("CaUsedAsEndEntity")));
        let errors = [
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch),
            Error::InvalidCertificate(CertificateError::Other(ca)),
            Error::InvalidCertificate(CertificateError::UnknownIssuer),
            Error::InvalidCertificate(CertificateError::BadEncoding),
            Error::AlertReceived(AlertDescription::CertificateRequired),
            Error::AlertReceived(AlertDescription::HandshakeFailure),
        ];
        for error in errors {
            let text = tls(&error);
            for name in
                ["KeyMismatch", "CaUsedAsEndEntity", "OtherError", "UnknownIssuer", "Encoding", "HandshakeF"]
            {
                assert!(!text.contains(name), "{text}");
            }
            let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(connection(&wrapped), text);
        }
    }

    #[test]
    fn pem_is_told_without_bytes() {
        let broken = pem::Error::MissingSectionEnd { end_marker: b"CERTIFICATE".to_vec() };
        assert!(pem(&broken).contains("cut off"), "{}", pem(&broken));
        assert!(!pem(&broken).contains('['), "{}", pem(&broken));
    }
}
