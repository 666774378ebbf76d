//! Instance metadata at the one address that Azure's library knows it by: a machine whose loopback has that address.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::harness::{Config, Scene, Site, chat, user_says};
use gateway_tests::netns::Namespace;
use gateway_tests::simulator::{Options, Simulator};

use crate::stage::within;

pub(crate) fn a_virtual_machines_identity_is_asked_for_where_instance_metadata_is() -> Result<()> {
    let machine = Namespace::new()?;
    machine.ip("addr add 169.254.169.254/32 dev lo")?;
    within(&machine, async || {
        // On every address, as it plays Azure too: plain HTTP is spoken to backends on loopback alone.
        let listen = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        let azure = Simulator::start(Options { listen, ..Options::default() })?;
        let config = Config::for_azure("http://127.0.0.1:80")?.with("[tiers.free]\n")?;
        let mut site = Site::new(&azure, &config)?;
        site.use_instance_metadata();
        let scene = Scene::in_site(azure, site)?;
        scene.ready().await?;

        let reply = scene.gateway.call(chat("chat", &scene.acme.primary, &user_says("hi"))?).await?;
        ensure!(reply.status == 200, "{}: {:?}", reply.status, reply.body);

        let asked = scene.azure.identity_requests().pop().context("nobody asked for a token")?;
        ensure!(asked.target.starts_with("/metadata/identity/oauth2/token?api-version="), "{}", asked.target);
        ensure!(
            asked.target.ends_with("&resource=https%3A%2F%2Fcognitiveservices.azure.com"),
            "{}",
            asked.target
        );
        ensure!(asked.header("host") == Some("169.254.169.254"), "{:?}", asked.headers);
        ensure!(asked.header("metadata") == Some("true"), "{:?}", asked.headers);

        let call = scene.azure.requests().pop().context("no call arrived")?;
        let token = scene.azure.tokens().pop().context("no token was issued")?;
        ensure!(call.header("authorization") == Some(&format!("Bearer {token}")), "{:?}", call.headers);
        Ok(())
    })
}
