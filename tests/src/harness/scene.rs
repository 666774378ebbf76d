//! A simulator, a gateway in front of it, and two tenants: what most end-to-end tests start from.

use std::net::SocketAddr;

use serde_json::Value;

use super::client::Protocol;
use super::config::Config;
use super::gateway::Gateway;
use super::request::{chat, user_says};
use super::site::{Keys, Site};
use super::wait_until;
use crate::simulator::{Options, Simulator};

/// A running gateway with a simulator behind it.
///
/// The tenant `acme` has the tier `default`; `neighbour` has a tier without limits, to see whether it is served
/// whatever befalls `acme`.
#[derive(Debug)]
pub struct Scene {
    /// The gateway.
    pub gateway: Gateway,
    /// What it forwards to.
    pub azure: Simulator,
    /// The key of the tenant `acme`.
    pub acme: Keys,
    /// The key of the tenant `neighbour`.
    pub neighbour: Keys,
}

impl Scene {
    /// Starts both, with a piece of configuration laid over [`Config::for_simulator`], and waits until calls can be made.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(piece: &str) -> anyhow::Result<Self> {
        Self::with(Options::default(), piece).await
    }

    /// [`Scene::start`] with a simulator of one's own.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn with(options: Options, piece: &str) -> anyhow::Result<Self> {
        let azure = Simulator::start(options)?;
        let config = Config::for_simulator(&azure)?.with(piece)?;
        let scene = Self::of(azure, &config)?;
        scene.ready().await?;
        Ok(scene)
    }

    /// [`Scene::start`] with one more deployment, `odd`, which another upstream serves. `backend` are more keys of that
    /// upstream's backend.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn beside(upstream: SocketAddr, backend: &str, piece: &str) -> anyhow::Result<Self> {
        let azure = Simulator::start(Options::default())?;
        // The simulator first: no other deployment ever comes to the odd one.
        let backends = format!(
            "[deployments.odd]\nmodel = \"gpt-4o-mini\"\nmax_tokens_per_second = 1000000\nbackends = [\"odd\"]\n\
             [[backends]]\nname = \"simulator\"\nendpoint = \"{}\"\n\
             [[backends]]\nname = \"odd\"\npriority = 2\nendpoint = \"http://{upstream}\"\n{backend}",
            azure.endpoint()
        );
        let config = Config::for_simulator(&azure)?.with(&backends)?.with(piece)?;
        let scene = Self::of(azure, &config)?;
        scene.ready().await?;
        Ok(scene)
    }

    /// Starts a gateway with that configuration before a simulator that runs already. It may not be ready yet.
    ///
    /// # Errors
    /// When it does not start.
    pub fn of(azure: Simulator, config: &Config) -> anyhow::Result<Self> {
        let site = Site::new(&azure, &config.clone().with("[tiers.free]\nceiling = \"strict\"\n")?)?;
        Self::in_site(azure, site)
    }

    /// Starts a gateway in a directory whose configuration has a tier `free`. It may not be ready yet.
    ///
    /// # Errors
    /// When it does not start.
    pub fn in_site(azure: Simulator, site: Site) -> anyhow::Result<Self> {
        let (acme, neighbour) = (site.add_tenant("acme", None)?, site.add_tenant("neighbour", Some("free"))?);
        Ok(Self { gateway: site.start()?, azure, acme, neighbour })
    }

    /// Waits until the gateway says that it is ready.
    ///
    /// # Errors
    /// When it never does.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.gateway.ready().await
    }

    /// What `/status` says of a tenant.
    ///
    /// # Errors
    /// When it says nothing.
    pub async fn status_of(&self, tenant: &str) -> anyhow::Result<Value> {
        let status = self.gateway.admin_page("/status").await?.json()?;
        let tenants = status["tenants"].as_array().into_iter().flatten();
        tenants
            .into_iter()
            .find(|found| found["name"] == tenant)
            .cloned()
            .ok_or_else(|| anyhow::anyhow!("no tenant {tenant} in {status:#}"))
    }

    /// Waits until no call is open and nothing is held, for any tenant.
    ///
    /// # Errors
    /// When something stays open or held.
    pub async fn at_rest(&self) -> anyhow::Result<()> {
        let rested = wait_until("nothing is open or held", async || {
            let Ok(page) = self.gateway.admin_page("/status").await else { return false };
            let Ok(status) = page.json() else { return false };
            let tenants = status["tenants"].as_array().into_iter().flatten();
            let at_rest = tenants
                .into_iter()
                .all(|tenant| tenant["openCalls"]["now"] == 0 && tenant["tokensPerMinute"]["held"] == 0);
            at_rest && self.gateway.metric("gateway_inflight", &[]).await.is_ok_and(|open| open == 0.0)
        });
        match rested.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.gateway.admin_page("/status").await?.text()?.to_owned())),
        }
    }

    /// Proves that what happened before harmed nobody: a neighbour is served over both protocols, nothing stays held, and
    /// nothing panicked.
    ///
    /// # Errors
    /// When someone was harmed.
    pub async fn unharmed(&self) -> anyhow::Result<()> {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let mut client = self.gateway.connect(protocol).await?;
            let reply = client.send(chat("chat", &self.neighbour.primary, &user_says("hi"))?).await?;
            anyhow::ensure!(reply.status == 200, "the neighbour got {}: {:?}", reply.status, reply.body);
        }
        self.at_rest().await?;
        anyhow::ensure!(
            !self.gateway.log().contains("panicked"),
            "{}",
            self.gateway.log().lines().join("\n")
        );
        Ok(())
    }
}
