//! The gateway as it is shipped, in front of a canned upstream, in the server's namespace.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::load::certificate;
use gateway_tests::netns::{Namespace, SERVER_V4};
use tempfile::TempDir;

use super::super::rules::{CARD, PORT};
use super::pause;
use crate::Cores;

/// Gateway and upstream; both end with this value.
pub(super) struct Gateway {
    // In this order, so that the processes are gone when their directory goes.
    _gateway: Process,
    _upstream: Process,
    _directory: TempDir,
    key: String,
}

struct Process(Child);

/// Where a process runs, and where its output goes.
struct Place<'a> {
    namespace: &'a Namespace,
    core: usize,
    log: &'a Path,
}

const UPSTREAM: &str = "127.0.0.1:9001";
const START_TIMEOUT: Duration = Duration::from_secs(10);

impl Gateway {
    pub(super) fn start(server: &Namespace, shedding: bool, cores: Cores) -> Result<Self> {
        let directory = TempDir::with_prefix("kernel-bench-")?;
        let path = directory.path();
        certificate::write(path)?;
        let config = path.join("gateway.toml");
        fs::write(&config, configuration(path, if shedding { "required" } else { "off" }))?;
        let (load, gateway) = (beside("bench-load")?, beside("aoai-gateway")?);
        let key = add_tenant(&gateway, &config)?;
        let (upstream_log, gateway_log) = (path.join("upstream.log"), path.join("gateway.log"));
        let upstream = Process::start(
            Command::new(&load).args(["upstream", UPSTREAM]),
            &Place { namespace: server, core: cores.load, log: &upstream_log },
        )?;
        let gateway = Process::start(
            Command::new(&gateway).args(["serve", "--config"]).arg(&config),
            &Place { namespace: server, core: cores.gateway, log: &gateway_log },
        )?;
        server.run(|| {
            until_listening(UPSTREAM.parse()?, &upstream_log)?;
            until_listening(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)), &gateway_log)
        })?;
        Ok(Self { _gateway: gateway, _upstream: upstream, _directory: directory, key })
    }

    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::from((SERVER_V4, PORT))
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }
}

impl Process {
    /// Ended by the kernel when the calling thread does, if not before: to be called by one that lives as long.
    fn start(command: &Command, place: &Place<'_>) -> Result<Self> {
        let output = File::create(place.log)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "taskset", "--cpu-list", &place.core.to_string()])
            .args(["nsenter", &format!("--net={}", place.namespace.path())])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stderr(output.try_clone()?)
            .stdout(output)
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().display()))?;
        Ok(Self(child))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Either fails only where the process is gone already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn until_listening(address: SocketAddr, log: &Path) -> Result<()> {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        ensure!(
            started.elapsed() < START_TIMEOUT,
            "nothing listens on {address}: {}",
            fs::read_to_string(log).unwrap_or_default().trim()
        );
        pause(Duration::from_millis(20));
    }
    Ok(())
}

/// A program of the same build.
fn beside(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    ensure!(path.exists(), "there is no {}: run `cargo xtask bench kernel`, which builds it", path.display());
    Ok(path)
}

fn add_tenant(gateway: &Path, config: &Path) -> Result<String> {
    let output = Command::new(gateway).args(["tenant", "add", "honest", "--config"]).arg(config).output()?;
    ensure!(output.status.success(), "tenant add: {}", String::from_utf8_lossy(&output.stderr).trim());
    let answer = String::from_utf8_lossy(&output.stdout);
    let key = answer.lines().find_map(|line| line.trim().strip_prefix("primary:"));
    Ok(key.context("`tenant add` printed no key")?.trim().to_owned())
}

/// Everything on, and no limit that the honest client reaches but the packets' own, which are the defaults.
fn configuration(directory: &Path, mode: &str) -> String {
    let directory = directory.display();
    format!(
        r#"[listen]
address = "0.0.0.0:{PORT}"
certificate = "{directory}/tls.crt"
private_key = "{directory}/tls.key"
drain_timeout = "1s"

[admin]
address = "127.0.0.1:9464"

[identity]
source = "none"

[[backends]]
name = "canned"
endpoint = "http://{UPSTREAM}"

[deployments.chat]
model = "gpt-4o-mini"

[tiers.default]
calls_per_minute = 1000000000
tokens_per_minute = 2000000000
concurrent_calls = 100000
deployments = ["*"]
ceiling = "strict"

[kernel]
mode = "{mode}"
interface = "{CARD}"
attach = "native"
calls_per_second = 1000000
call_burst = 1000000

[store]
url = "file:{directory}/state"

[tenants]
file = "{directory}/tenants.toml"
"#
    )
}
