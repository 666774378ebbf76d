//! The gateway with everything on: a tenant with limits that are never reached, strict ceilings, prices, metering and
//! metrics.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::process::Pinned;
use super::proxy::Proxy;
use super::{Site, free_address};

/// Starts the gateway in front of the upstream, its budgets in the store of that URL.
pub(super) fn start(site: &Site, store: &str) -> Result<Proxy> {
    let address = free_address()?;
    let config = site.directory.join("gateway.toml");
    let tenants = site.directory.join("tenants.toml");
    if tenants.exists() {
        fs::remove_file(&tenants).context("clearing tenants.toml")?;
    }
    let mut text = configuration(&site.directory, address, free_address()?, site.upstream);
    text.push_str(&format!("\n[store]\nurl = \"{store}\"\n"));
    fs::write(&config, text).context("writing gateway.toml")?;
    let key = add_tenant(&site.gateway, &config)?;
    let mut command = Command::new(&site.gateway);
    command.arg("serve").arg("--config").arg(&config);
    let mut process = Pinned::spawn(&command, site.cores.proxy, &site.directory.join("gateway.log"))?;
    process.wait_for(address)?;
    Ok(Proxy { address, key, process })
}

fn add_tenant(gateway: &Path, config: &Path) -> Result<String> {
    let output = Command::new(gateway)
        .args(["tenant", "add", "bench", "--config"])
        .arg(config)
        .output()
        .with_context(|| format!("starting {}", gateway.display()))?;
    ensure!(output.status.success(), "tenant add: {}", String::from_utf8_lossy(&output.stderr).trim());
    let answer = String::from_utf8_lossy(&output.stdout);
    let key = answer.lines().find_map(|line| line.trim().strip_prefix("primary:"));
    Ok(key.context("`tenant add` did not print `primary: KEY`")?.trim().to_owned())
}

fn configuration(directory: &Path, address: SocketAddr, admin: SocketAddr, upstream: SocketAddr) -> String {
    let directory = directory.display();
    format!(
        r#"[listen]
address = "{address}"
certificate = "{directory}/tls.crt"
private_key = "{directory}/tls.key"
drain_timeout = "1s"
max_connections = 10000

[admin]
address = "{admin}"

[identity]
source = "none"

[[backends]]
name = "canned"
endpoint = "http://{upstream}"

[deployments.chat]
model = "gpt-4o-mini"

[prices."gpt-4o-mini"]
input = 0.15
cached_input = 0.075
output = 0.60

[tiers.default]
calls_per_minute = 1000000000
tokens_per_minute = 2000000000
concurrent_calls = 100000
token_quota = {{ tokens = 1000000000000, period = "monthly" }}
spend_quota = {{ dollars = 1000000.0, period = "daily" }}
deployments = ["*"]
ceiling = "strict"

[kernel]
mode = "off"

[tenants]
file = "{directory}/tenants.toml"
"#
    )
}
