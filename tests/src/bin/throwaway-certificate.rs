//! Writes `tls.crt` and `tls.key` for the loopback addresses and localhost into a folder: for the demo and the SDK tests.
//! The certificate is its own authority, so that a caller may trust just this one.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;

/// Writes a throw-away certificate for loopback and its key.
#[derive(Debug, Parser)]
struct Cli {
    /// Where to write tls.crt and tls.key; made where it does not exist
    folder: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let Cli { folder } = Cli::parse();
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
    fs::write(&certificate, cert.pem()).with_context(|| certificate.display().to_string())?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&key)
        .with_context(|| key.display().to_string())?;
    file.write_all(signing_key.serialize_pem().as_bytes()).with_context(|| key.display().to_string())
}
