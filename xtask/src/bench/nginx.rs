//! nginx as a plain TLS reverse proxy: one worker, connections to the upstream kept open, nothing counted or logged.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::process::Pinned;
use super::proxy::Proxy;
use super::{Site, free_address};
use crate::apt;

/// Installs nginx from the distribution where it is missing and this user may.
pub(super) fn ensure_installed() -> Result<()> {
    if version().is_some() {
        return Ok(());
    }
    let hint = "nginx is missing; install it (apt-get install nginx) or use --only gateway";
    ensure!(rustix::process::geteuid().is_root(), hint);
    apt::install(&["nginx"]).context(hint)?;
    ensure!(version().is_some(), hint);
    Ok(())
}

/// What nginx says of itself; `None` when it is not installed.
pub(super) fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("-v").output().ok()?;
    Some(String::from_utf8_lossy(&output.stderr).trim().trim_start_matches("nginx version: ").to_owned())
}

/// Starts nginx in front of the upstream.
pub(super) fn start(site: &Site) -> Result<Proxy> {
    let address = free_address()?;
    let config = site.directory.join("nginx.conf");
    fs::write(&config, configuration(&site.directory, address, site.upstream))
        .context("writing nginx.conf")?;
    let mut command = Command::new(PROGRAM);
    command.arg("-c").arg(&config);
    let mut process = Pinned::spawn(&command, site.cores.proxy, &site.directory.join("nginx.log"))?;
    process.wait_for(address)?;
    Ok(Proxy { address, key: "none".to_owned(), process })
}

/// Buffering is off, as streams need it, which small answers do not mind. Limits on calls per connection are lifted on
/// both sides, or nginx would spend its time on new connections. Everything else is as the distribution has it.
fn configuration(directory: &Path, address: SocketAddr, upstream: SocketAddr) -> String {
    let directory = directory.display();
    // As root the worker would become nobody, who cannot read this directory.
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "daemon off;
{user}
worker_processes 1;
worker_rlimit_nofile 16384;
pid {directory}/nginx.pid;
error_log stderr error;
events {{ worker_connections 8192; }}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    keepalive_requests 100000000;
    keepalive_timeout 1h;
    upstream azure {{
        server {upstream};
        keepalive 4096;
        keepalive_requests 100000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen {address} ssl backlog=4096;
        ssl_certificate {directory}/tls.crt;
        ssl_certificate_key {directory}/tls.key;
        ssl_protocols TLSv1.3;
        client_max_body_size 16m;
        client_body_buffer_size 1m;
        location / {{
            proxy_pass http://azure;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
        }}
    }}
}}
"
    )
}

const PROGRAM: &str = "nginx";
