//! The certificate that every proxy of the benchmark presents.

use std::fs;
use std::path::Path;

use crate::load::LoadError;

/// Writes a self-signed ECDSA P-256 certificate for loopback to `tls.crt` and its key to `tls.key` in `directory`.
///
/// # Errors
///
/// [`LoadError::Certificate`] or [`LoadError::Io`].
pub fn write(directory: &Path) -> Result<(), LoadError> {
    let pair = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
    fs::write(directory.join("tls.crt"), pair.cert.pem())?;
    fs::write(directory.join("tls.key"), pair.signing_key.serialize_pem())?;
    Ok(())
}
