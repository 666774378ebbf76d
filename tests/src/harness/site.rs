//! A directory with everything that a gateway needs, and the gateway's commands run in it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use rustix::process::geteuid;
use tempfile::TempDir;

use super::binary;
use super::config::Config;
use super::gateway::Gateway;
use crate::certificate::Authority;
use crate::simulator::{Deployments, IDENTITY_HEADER, Simulator};

/// A directory with configuration, certificate and state; it goes when this is dropped.
#[derive(Debug)]
pub struct Site {
    directory: TempDir,
    authority: Authority,
    environment: BTreeMap<&'static str, OsString>,
    /// The simulator's, where it is to know those of the configuration.
    deployments: Option<Deployments>,
}

/// A tenant's two keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The first key.
    pub primary: String,
    /// The second key, so that one can be changed while the other works.
    pub secondary: String,
}

impl Site {
    /// Makes a directory with that configuration and a fresh certificate; identity tokens come from the simulator.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn new(simulator: &Simulator, config: &Config) -> anyhow::Result<Self> {
        let site = Self {
            directory: TempDir::with_prefix("aoai-gateway-")?,
            authority: Authority::new()?,
            environment: BTreeMap::from([
                ("IDENTITY_ENDPOINT", simulator.identity_endpoint().into()),
                ("IDENTITY_HEADER", IDENTITY_HEADER.into()),
            ]),
            deployments: simulator.strict_models().then(|| simulator.deployments()),
        };
        fs::create_dir(site.path().join("tls"))?;
        site.write_certificate(&site.authority)?;
        site.configure(config)?;
        Ok(site)
    }

    /// Makes the gateway ask the simulator's Entra endpoint, as a pod with a workload identity does.
    ///
    /// # Errors
    /// When the simulator has no TLS listener, or the files cannot be written.
    pub fn use_workload_identity(&mut self, simulator: &Simulator) -> anyhow::Result<()> {
        let (Some(host), Some(authority)) = (simulator.authority_host(), simulator.authority()) else {
            anyhow::bail!("Entra is asked over TLS only: start the simulator with `tls: true`");
        };
        let (roots, token) = (self.path().join("entra.crt"), self.path().join("federated-token"));
        fs::write(&roots, authority.pem())?;
        fs::write(&token, "a.service.account")?;
        self.environment = BTreeMap::from([
            ("AZURE_AUTHORITY_HOST", host.into()),
            ("AZURE_CLIENT_ID", "00000000-0000-0000-0000-000000000001".into()),
            ("AZURE_FEDERATED_TOKEN_FILE", token.into()),
            ("AZURE_TENANT_ID", "00000000-0000-0000-0000-000000000002".into()),
            ("SSL_CERT_FILE", roots.into()),
        ]);
        Ok(())
    }

    /// Makes the gateway ask where a virtual machine does: at the address of instance metadata that Azure's library has
    /// built in, which is there in a namespace that a test made.
    pub fn use_instance_metadata(&mut self) {
        self.environment.clear();
    }

    /// Sets a variable of the environment that the gateway and its commands run in.
    pub fn set_environment(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.insert(name, value.into());
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The authority that clients trust the gateway with.
    #[must_use]
    pub const fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Writes the configuration, in one step, as a running gateway must see it. A simulator with `strict_models` has its
    /// deployments from then on.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(&self, config: &Config) -> anyhow::Result<()> {
        let (draft, file) = (self.path().join("gateway.toml.new"), self.path().join(CONFIG));
        fs::write(&draft, config.text())?;
        fs::rename(draft, file)?;
        if let Some(deployments) = &self.deployments {
            deployments.extend(config.deployments());
        }
        Ok(())
    }

    /// Puts another certificate in the place of the gateway's; clients that trust the first one's authority refuse it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_certificate(&self, authority: &Authority) -> anyhow::Result<()> {
        fs::write(self.path().join("tls/tls.key"), authority.private_key_pem())?;
        fs::write(self.path().join("tls/tls.crt"), authority.certificate_pem())?;
        Ok(())
    }

    /// One of the gateway's commands, ready to run in the directory and with its configuration.
    ///
    /// # Errors
    /// When the binary does not build.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(binary::gateway()?);
        command.args(arguments).current_dir(self.path()).stdin(Stdio::null());
        // What is set around the test must not reach it.
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if ["AOAI_", "AZURE_", "IDENTITY_", "IMDS_", "MSI_"]
                .iter()
                .any(|prefix| name_text.starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        command.env("AOAI_GATEWAY_CONFIG", self.path().join(CONFIG)).envs(&self.environment);
        Ok(command)
    }

    /// Runs one of the gateway's commands to its end.
    ///
    /// # Errors
    /// When it cannot be run; a command that fails is an [`Output`] like any other.
    pub fn run(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        Ok(self.command(arguments)?.output()?)
    }

    /// Adds a tenant; `None` leaves its tier to the default.
    ///
    /// # Errors
    /// When the command fails or prints no keys.
    pub fn add_tenant(&self, name: &str, tier: Option<&str>) -> anyhow::Result<Keys> {
        let mut arguments = vec!["tenant", "add", name];
        if let Some(tier) = tier {
            arguments.extend(["--tier", tier]);
        }
        let printed = self.printed(&arguments)?;
        Ok(Keys { primary: key(&printed, "primary")?, secondary: key(&printed, "secondary")? })
    }

    /// Replaces one of a tenant's keys, `primary` or `secondary`, and gives the new one.
    ///
    /// # Errors
    /// When the command fails or prints no key.
    pub fn rotate_key(&self, tenant: &str, slot: &str) -> anyhow::Result<String> {
        key(&self.printed(&["tenant", "rotate", tenant, "--slot", slot])?, slot)
    }

    /// Runs a command that must succeed, and gives what it printed.
    fn printed(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.run(arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{arguments:?}: {}: {said}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    /// One of the gateway's commands, run by another that takes it as its last arguments.
    ///
    /// # Errors
    /// When the binary does not build.
    pub fn command_under(&self, mut wrapper: Command, arguments: &[&str]) -> anyhow::Result<Command> {
        let inner = self.command(arguments)?;
        wrapper.arg(inner.get_program()).args(inner.get_args());
        wrapper.current_dir(self.path()).stdin(Stdio::null());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => wrapper.env(name, value),
                None => wrapper.env_remove(name),
            };
        }
        Ok(wrapper)
    }

    /// Starts the gateway in mounts of its own, after a command of the shell that changes them, and waits until it
    /// listens. Where this process is not root, it needs user namespaces.
    ///
    /// # Errors
    /// When it does not listen in time; its log is in the error.
    pub fn start_in(self, mounting: &str) -> anyhow::Result<Gateway> {
        let user = if geteuid().is_root() { ["-m"].as_slice() } else { ["-U", "-r", "-m"].as_slice() };
        let shell = format!("{mounting} && exec \"$@\"");
        let mut command = Command::new("unshare");
        command.args(user).args(["sh", "-c", &shell, "sh"]);
        self.start_under(command)
    }

    /// Starts the gateway on a disk that takes that long whenever it is waited for, and waits until the gateway listens.
    ///
    /// # Errors
    /// When it does not listen in time; its log is in the error.
    pub fn start_on_slow_disk(self, delay: Duration) -> anyhow::Result<Gateway> {
        let mut command = Command::new("strace");
        // -D: the tracer is a grandchild, so that the process that was started is the gateway.
        command.args(["-D", "-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync"]);
        command.args(["-e", &format!("inject=fsync,fdatasync:delay_enter={}", delay.as_micros())]);
        self.start_under(command)
    }

    /// Starts the gateway by a command that becomes the one that its last arguments are, and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen in time; its log is in the error.
    pub fn start_under(self, wrapper: Command) -> anyhow::Result<Gateway> {
        let serve = self.command_under(wrapper, &["serve"])?;
        Gateway::run(self, serve)
    }

    /// Starts the gateway and waits until it listens.
    ///
    /// # Errors
    /// When it does not listen in time; its log is in the error.
    pub fn start(self) -> anyhow::Result<Gateway> {
        Gateway::start(self)
    }
}

fn key(printed: &str, slot: &str) -> anyhow::Result<String> {
    let keys = printed.lines().rev().filter_map(|line| line.trim().strip_prefix(slot)?.strip_prefix(':'));
    keys.map(|key| key.trim().to_owned()).next().with_context(|| format!("no {slot} key was printed"))
}

const CONFIG: &str = "gateway.toml";
