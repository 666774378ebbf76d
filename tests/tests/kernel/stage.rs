//! The real gateway in front of a simulator, in the server's namespace, and its callers in theirs.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use gateway_tests::certificate::Authority;
use gateway_tests::harness::{Client, Config, Gateway, Keys, Protocol, Reply, Site, chat, user_says};
use gateway_tests::netns::{Namespace, Net, SERVER_V4, SERVER_V6};
use gateway_tests::simulator::{Options, Simulator};
use serde_json::Value;
use tokio::time::timeout;

use crate::scene::{IMPATIENCE, PATIENCE, pause, port, until};

/// How long a caller waits for an answer before it asks itself whether it is shed.
const SHED_AFTER: Duration = Duration::from_millis(1500);
/// Between two calls of the honest caller: fewer than any limit here allows.
const HONEST_PACE: Duration = Duration::from_millis(250);

pub(crate) struct Stage {
    /// First of all, so that it ends before its namespace.
    pub(crate) gateway: Option<Gateway>,
    pub(crate) net: Net,
    pub(crate) config: Config,
    pub(crate) authority: Authority,
    /// Of a tenant without limits.
    pub(crate) honest: Keys,
    /// Of another.
    pub(crate) abusive: Keys,
    /// Of a tenant that may call three times a minute.
    pub(crate) spent: Keys,
    address: SocketAddr,
    _azure: Simulator,
}

/// What came of many calls, one after the other, until there was no answer any more.
#[derive(Debug)]
pub(crate) struct Flood {
    pub(crate) replies: Vec<Reply>,
    /// When each was asked for, and when it was there.
    pub(crate) times: Vec<(Instant, Instant)>,
    /// Whether it ended in silence, and packets of the caller were dropped for a penalty.
    pub(crate) shed: bool,
}

impl Flood {
    /// When the last answer was there.
    pub(crate) fn over(&self) -> Result<Instant> {
        Ok(self.times.last().context("no answer at all")?.1)
    }

    /// How often refusals may have been so far apart that they count from the first again.
    pub(crate) fn gaps(&self) -> usize {
        gaps(&self.times)
    }
}

/// How often two of these that follow each other may have been as far apart as refusals without a time to come back
/// are while they add up.
pub(crate) fn gaps(times: &[(Instant, Instant)]) -> usize {
    times.windows(2).filter(|pair| pair[1].1 - pair[0].0 >= Duration::from_secs(1)).count()
}

impl Stage {
    /// A gateway with this `[kernel]` table, beyond that it must shed and exempts nobody.
    pub(crate) fn new(kernel: &str) -> Result<Self> {
        Self::with(kernel, "")
    }

    /// The same with another piece of configuration.
    pub(crate) fn with(kernel: &str, piece: &str) -> Result<Self> {
        Self::at(SocketAddr::new(Ipv4Addr::from(SERVER_V4).into(), port()), kernel, piece)
    }

    /// The same over IPv6: everybody calls by it.
    pub(crate) fn over_ipv6(kernel: &str) -> Result<Self> {
        Self::at(SocketAddr::new(SERVER_V6.parse()?, port()), kernel, "")
    }

    /// The gateway listens on every address of that family, or of both for IPv6, and callers use this one.
    fn at(address: SocketAddr, kernel: &str, piece: &str) -> Result<Self> {
        let net = Net::new()?;
        let any = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let listen = SocketAddr::new(any, address.port());
        let own = format!(
            "[listen]\naddress = \"{listen}\"\n[admin]\naddress = \"127.0.0.1:9464\"\n\
             [tiers.free]\nceiling = \"strict\"\n[tiers.few]\ncalls_per_minute = 3\n\
             [kernel]\nmode = \"required\"\nexempt = []\n{kernel}"
        );
        let (azure, config, gateway, keys) = net.server.run(|| {
            let azure = Simulator::start(Options::default())?;
            let config = Config::for_simulator(&azure)?.with(&own)?.with(piece)?;
            let site = Site::new(&azure, &config)?;
            let keys = [("honest", "free"), ("abusive", "free"), ("spent", "few")]
                .map(|(name, tier)| site.add_tenant(name, Some(tier)));
            Ok((azure, config, site.start()?, keys))
        })?;
        let [honest, abusive, spent] = keys;
        let authority = gateway.site().authority().clone();
        let stage = Self {
            gateway: Some(gateway),
            net,
            config,
            authority,
            honest: honest?,
            abusive: abusive?,
            spent: spent?,
            address,
            _azure: azure,
        };
        stage.until_ready()?;
        Ok(stage)
    }

    pub(crate) fn until_ready(&self) -> Result<()> {
        until("the gateway is ready", || {
            let ready = self.admin(async |gateway| Ok(gateway.admin_page("/readyz").await?.status == 200));
            Ok(ready.unwrap_or_default())
        })
    }

    pub(crate) fn gateway(&self) -> Result<&Gateway> {
        self.gateway.as_ref().context("the gateway is gone")
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks the gateway's admin side, from its own namespace.
    pub(crate) fn admin<T: Send>(&self, ask: impl AsyncFnOnce(&Gateway) -> Result<T> + Send) -> Result<T> {
        let gateway = self.gateway()?;
        within(&self.net.server, async || ask(gateway).await)
    }

    /// The object `kernel` of `/status`.
    pub(crate) fn status(&self) -> Result<Value> {
        self.admin(async |gateway| Ok(gateway.admin_page("/status").await?.json()?["kernel"].take()))
    }

    /// A metric that counts things, summed over all series with this label.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
    pub(crate) fn count(&self, metric: &str, label: (&str, &str)) -> Result<u64> {
        self.admin(async |gateway| Ok(gateway.metric(metric, &[label]).await? as u64))
    }

    pub(crate) fn packets(&self, verdict: &str) -> Result<u64> {
        self.count("gateway_kernel_packets_total", ("verdict", verdict))
    }

    /// Runs one of the gateway's commands where it runs.
    pub(crate) fn command(&self, words: &[&str]) -> Result<Output> {
        let site = self.gateway()?.site();
        self.net.server.run(|| site.run(words))
    }

    pub(crate) async fn connect(&self) -> Result<Client> {
        Client::connect(self.address(), &self.authority, Protocol::Http1).await
    }

    /// A call on a connection of its own.
    pub(crate) fn call(&self, from: &Namespace, key: &str) -> Result<Reply> {
        within(from, async || self.connect().await?.send(chat("chat", key, &user_says("hi"))?).await)
    }

    /// A call that must be answered by the model.
    pub(crate) fn served(&self, from: &Namespace, key: &str) -> Result<()> {
        let reply = self.call(from, key)?;
        ensure!(reply.status == 200, "{}: {:?}", reply.status, reply.body);
        Ok(())
    }

    /// Calls on one connection, as fast as answers come.
    pub(crate) fn flood(&self, from: &Namespace, key: &str, most: usize) -> Result<Flood> {
        let dropped = self.packets("dropped_penalty")?;
        within(from, async || {
            let mut client = self.connect().await?;
            let mut flood = Flood { replies: Vec::new(), times: Vec::new(), shed: false };
            while flood.replies.len() < most {
                let asked = Instant::now();
                let sending = client.send(chat("chat", key, &user_says("hi"))?);
                let Some(reply) = self.unless_shed(dropped, sending).await? else {
                    flood.shed = true;
                    break;
                };
                flood.replies.push(reply?);
                flood.times.push((asked, Instant::now()));
            }
            Ok(flood)
        })
    }

    /// What the future gives, or nothing when it is silent and more than `dropped` packets were dropped for penalties.
    pub(crate) async fn unless_shed<T>(
        &self,
        dropped: u64,
        answer: impl Future<Output = T>,
    ) -> Result<Option<T>> {
        let mut answer = Box::pin(answer);
        let asked = Instant::now();
        loop {
            ensure!(asked.elapsed() < PATIENCE, "neither an answer nor a penalty");
            if let Ok(answer) = timeout(SHED_AFTER, &mut answer).await {
                return Ok(Some(answer));
            }
            if self.packets("dropped_penalty")? > dropped {
                // The acknowledgement of an answer that was not read yet may be what was dropped.
                return Ok(timeout(IMPATIENCE, answer).await.ok());
            }
        }
    }

    /// Does something while an honest caller calls, each time on a new connection, all of whose calls must be served.
    pub(crate) fn beside<T: Send>(
        &self,
        honest: &Namespace,
        abuse: impl FnOnce() -> Result<T> + Send,
    ) -> Result<T> {
        // At least once before the abuse begins, as who is known to be honest.
        self.served(honest, &self.honest.primary)?;
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let calling = scope.spawn(|| {
                let mut calls = 0;
                while !over.load(Ordering::Relaxed) || calls < 3 {
                    self.served(honest, &self.honest.primary)
                        .with_context(|| format!("the honest caller, after {calls} calls"))?;
                    calls += 1;
                    pause(HONEST_PACE);
                }
                Ok(())
            });
            let result = abuse();
            over.store(true, Ordering::Relaxed);
            calling.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)).and(result)
        })
    }
}

/// Runs something asynchronous in a namespace.
pub(crate) fn within<T: Send>(
    namespace: &Namespace,
    inside: impl AsyncFnOnce() -> Result<T> + Send,
) -> Result<T> {
    namespace.run(|| {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async { inside().await })
    })
}
