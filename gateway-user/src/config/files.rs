//! The files that a configuration names: whether they can be used, asked before anything is started.

use std::io;
use std::path::Path;

use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::{self, PemObject as _};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::document::Section;
use super::{Listen, Problem};

/// Opens the certificate, the private key and the client authorities, and notes what is wrong with them.
pub(super) fn check(listen: &Listen, root: &Section<'_>) {
    match (certificates(&listen.certificate), private_key(&listen.private_key)) {
        (Ok(chain), Ok(key)) => {
            if let Err(error) = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
                root.report_at(&["listen", "private_key"], Problem::Certificate(error));
            }
        }
        (chain, key) => {
            for (name, problem) in [("certificate", chain.err()), ("private_key", key.err())] {
                if let Some(problem) = problem {
                    root.report_at(&["listen", name], problem);
                }
            }
        }
    }
    if let Some(Err(problem)) = listen.client_ca.as_deref().map(certificates) {
        root.report_at(&["listen", "client_ca"], problem);
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let all = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Problem::Pem { path: path.to_owned(), error })?;
    if all.is_empty() { Err(Problem::NoCertificate(path.to_owned())) } else { Ok(all) }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    match PrivateKeyDer::from_pem_slice(&read(path)?) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => Err(Problem::NoPrivateKey(path.to_owned())),
        Err(error) => Err(Problem::Pem { path: path.to_owned(), error }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    std::fs::read(path).map_err(|error: io::Error| Problem::File { path: path.to_owned(), error })
}
