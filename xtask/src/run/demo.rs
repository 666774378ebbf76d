//! The demo: a simulated Azure, the gateway in front of it, and one tenant with a key to paste.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use super::service::{Interrupt, Output, Service, Start, pause};
use crate::workspace::Executables;

const TENANT: &str = "demo";

// Slow enough to be seen coming, quick enough to wait for: an answer takes a second and a half.
const ANSWER_TOKENS: &str = "30";
const CHUNK_DELAY_MS: &str = "50";

/// What the simulator wants to see from whoever asks it for a token.
const IDENTITY_HEADER: &str = "simulated-identity-header";

/// The folder with everything the demo keeps on disk, gone when this is dropped.
struct Stage(TempDir);

/// Where the gateway says that it listens.
#[derive(Debug, PartialEq, Eq)]
struct Addresses {
    gateway: String,
    admin: String,
}

/// Starts all parts, prints what to do with them, and stays until a signal or the end of one of them.
pub(super) fn run(built: &Executables, port: u16, admin_port: u16) -> Result<ExitCode> {
    let interrupt = Interrupt::install()?;
    let stage = Stage::set(built)?;

    // Dropped in reverse order: the gateway drains while its Azure is still there, then the files go.
    let mut command = Command::new(built.path("aoai-simulator")?);
    command.args(["--listen", "127.0.0.1:0", "--tokens", ANSWER_TOKENS, "--chunk-delay-ms", CHUNK_DELAY_MS]);
    let mut simulator = Service::start("simulator", &mut command, Output::Stdout)?;
    let azure = match simulator.listening(&interrupt, simulator_address)? {
        Start::Listening(address) => address,
        Start::Ended(status) => return Ok(ended_early(&simulator, status)),
        Start::Interrupted => return Ok(ExitCode::SUCCESS),
    };
    fs::write(stage.config(), configuration(built, &azure, port, admin_port)?)
        .context("the demo's configuration")?;
    let key = add_tenant(built, &stage)?;

    let mut command = Command::new(built.path("aoai-gateway")?);
    command
        .args(["serve", "--config"])
        .arg(stage.config())
        // The managed identity of an App Service, whose endpoint the simulator plays.
        .env("IDENTITY_ENDPOINT", format!("http://{azure}/msi/token"))
        .env("IDENTITY_HEADER", IDENTITY_HEADER);
    let mut gateway = Service::start("gateway", &mut command, Output::Stderr)?;
    let addresses = match gateway.listening(&interrupt, gateway_addresses)? {
        Start::Listening(addresses) => addresses,
        // It has said why, in one line.
        Start::Ended(status) => return Ok(ended_early(&gateway, status)),
        Start::Interrupted => return Ok(ExitCode::SUCCESS),
    };
    println!("{}", introduction(&addresses, &key, &stage.certificate()));

    loop {
        if interrupt.came() {
            println!("\nstopping");
            return Ok(ExitCode::SUCCESS);
        }
        for service in [&mut gateway, &mut simulator] {
            if let Some(status) = service.ended()? {
                bail!("the {} ended by itself with {status}", service.name());
            }
        }
        pause();
    }
}

impl Stage {
    /// Makes the folder, readable by this user only, with a certificate in it.
    fn set(built: &Executables) -> Result<Self> {
        let folder =
            tempfile::Builder::new().prefix("aoai-gateway-").tempdir().context("a temporary folder")?;
        let stage = Self(folder);
        let status = Command::new(built.path("throwaway-certificate")?).arg(stage.tls()).status()?;
        ensure!(status.success(), "throwaway-certificate ended with {status}");
        Ok(stage)
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("gateway.toml")
    }

    fn tls(&self) -> PathBuf {
        self.0.path().join("tls")
    }

    fn certificate(&self) -> PathBuf {
        self.tls().join("tls.crt")
    }
}

/// The exit code of a part that gave up before it listened. It has said why; only a crash needs words from here.
fn ended_early(service: &Service, status: ExitStatus) -> ExitCode {
    let Some(code) = status.code() else {
        eprintln!("xtask: the {} ended with {status}", service.name());
        return ExitCode::FAILURE;
    };
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Adds the demo's tenant and returns its primary key.
fn add_tenant(built: &Executables, stage: &Stage) -> Result<String> {
    let output = Command::new(built.path("aoai-gateway")?)
        .args(["tenant", "add", TENANT, "--config"])
        .arg(stage.config())
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start the gateway")?;
    ensure!(output.status.success(), "`aoai-gateway tenant add` ended with {}", output.status);
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let key = printed.lines().find_map(|line| line.trim().strip_prefix("primary: "));
    Ok(key.context("`aoai-gateway tenant add` printed no primary key")?.to_owned())
}

/// Finds the address in the line with which the simulator starts.
fn simulator_address(line: &str) -> Option<String> {
    line.split(|character: char| character.is_whitespace() || character == '/')
        .find(|word| word.parse::<std::net::SocketAddr>().is_ok())
        .map(str::to_owned)
}

/// Reads the gateway's "listening" line, written as JSON or as text.
fn gateway_addresses(line: &str) -> Option<Addresses> {
    let field = |name: &str| match serde_json::from_str::<serde_json::Value>(line) {
        Ok(event) => {
            let fields = event.get("fields").unwrap_or(&event);
            Some(fields.get(name)?.as_str()?.to_owned())
        }
        Err(_) => {
            let words = line.split_whitespace();
            words
                .filter_map(|word| word.split_once('='))
                .find_map(|(key, value)| (key == name).then(|| value.trim_matches('"').to_owned()))
        }
    };
    let listening = line.contains("listening");
    listening.then(|| Some(Addresses { gateway: field("address")?, admin: field("admin")? })).flatten()
}

/// The configuration that every test has too, with the demo's own ports and limits that can be reached by hand.
fn configuration(built: &Executables, azure: &str, port: u16, admin_port: u16) -> Result<Vec<u8>> {
    let own = format!(
        r#"
[listen]
address = "127.0.0.1:{port}"
drain_timeout = "2s"

[admin]
address = "127.0.0.1:{admin_port}"

[tiers.default]
calls_per_minute = 60
tokens_per_minute = 20000
concurrent_calls = 100
spend_quota = {{ dollars = 50.0, period = "daily" }}

[kernel]
mode = "auto"
interface = "lo"
"#
    );
    let endpoint = format!("http://{azure}");
    let output = Command::new(built.path("simulator-config")?)
        .args([&endpoint, "--with", &own])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start simulator-config")?;
    ensure!(output.status.success(), "simulator-config ended with {}", output.status);
    Ok(output.stdout)
}

fn introduction(addresses: &Addresses, key: &str, certificate: &Path) -> String {
    let Addresses { gateway, admin } = addresses;
    let certificate = certificate.display();
    let call = format!(
        "  curl -sS --cacert {certificate} -H 'api-key: {key}' -H 'content-type: application/json' \\\n    \
         'https://{gateway}/openai/deployments/chat/chat/completions?api-version=2024-10-21'"
    );
    let question = r#""messages":[{"role":"user","content":"Count to ten, one per line."}]"#;
    format!(
        "\n\
         gateway  https://{gateway}\n\
         tenant   {TENANT}\n\
         key      {key}\n\
         metrics  http://{admin}/metrics\n\
         status   http://{admin}/status\n\
         \n\
         an answer in one piece:\n{call} \\\n    -d '{{{question}}}'\n\
         \n\
         an answer as it is written:\n{call} \\\n    -N -d '{{\"stream\":true,{question}}}'\n\
         \n\
         Ctrl-C stops everything and removes the key and the certificate.\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulators_address_is_found_however_it_is_worded() {
        for line in
            ["listening on http://127.0.0.1:4000", "127.0.0.1:4000", "address http://127.0.0.1:4000/ ready"]
        {
            assert_eq!(simulator_address(line).as_deref(), Some("127.0.0.1:4000"), "{line}");
        }
        assert_eq!(simulator_address("starting"), None);
    }

    #[test]
    fn the_gateways_addresses_are_read_from_both_log_formats() {
        let expected = Addresses { gateway: "127.0.0.1:8443".to_owned(), admin: "127.0.0.1:9464".to_owned() };
        for line in [
            r#"{"level":"INFO","fields":{"message":"listening","address":"127.0.0.1:8443","admin":"127.0.0.1:9464"}}"#,
            r#"{"message":"listening","address":"127.0.0.1:8443","admin":"127.0.0.1:9464"}"#,
            "2026-01-01T00:00:00Z  INFO gateway: listening address=127.0.0.1:8443 admin=127.0.0.1:9464",
            r#"INFO listening address="127.0.0.1:8443" admin="127.0.0.1:9464""#,
        ] {
            assert_eq!(gateway_addresses(line).as_ref(), Some(&expected), "{line}");
        }
        assert_eq!(gateway_addresses(r#"{"fields":{"message":"tenant added"}}"#), None);
    }

    #[test]
    fn the_introduction_has_lines_that_work_as_pasted() {
        let addresses =
            Addresses { gateway: "127.0.0.1:8443".to_owned(), admin: "127.0.0.1:9464".to_owned() };
        let text = introduction(&addresses, "aoai_x", Path::new("/tmp/d/tls.crt"));
        assert!(text.contains("--cacert /tmp/d/tls.crt -H 'api-key: aoai_x'"));
        assert!(text.contains(r#"-N -d '{"stream":true,"messages":[{"role":"user""#));
        assert!(text.contains("http://127.0.0.1:9464/metrics"));
    }
}
