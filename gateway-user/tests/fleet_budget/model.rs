//! Several nodes around a server, and the truth about what they used, on a clock that the test moves.

use std::sync::Arc;

use gateway_user::fleet::{LEASE_LIFETIME, lease_arguments, lease_reply};
use gateway_user::limits::{
    Account, Admission, Ask, Cover, Footing, LeaseRequest, Limits, Now, Occasion, Refused, Standing, Used,
};
use gateway_user::units::{Prices, TokenPrice, Tokens};
use redis::{Connection, Script, Value};

/// The script as it is shipped, on the test's clock.
const SCRIPT: &str =
    concat!("local now_us = tonumber(ARGV[2]) * 1000\n", include_str!("../../src/fleet/lease.lua"));
/// Likewise the one that nodes say with that they live.
const NODES_SCRIPT: &str =
    concat!("local now_us = tonumber(ARGV[4]) * 1000\n", include_str!("../../src/fleet/nodes.lua"));
/// 2024-02-29T13:14:15Z.
pub(crate) const START_SECONDS: u64 = 1_709_212_455;
pub(crate) const PRICES: Prices = Prices {
    input: TokenPrice::from_pico_dollars(150_000),
    cached_input: TokenPrice::from_pico_dollars(75_000),
    output: TokenPrice::from_pico_dollars(600_000),
};

pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) account: Arc<Account>,
    pub(crate) standing: Arc<Standing>,
    pub(crate) open: Vec<Open>,
    /// The name of the memory that it knows, and until when that may lack something.
    pub(crate) memory: (String, u64),
}

pub(crate) struct Open {
    pub(crate) admission: Admission,
    pub(crate) prompt: u64,
}

/// Nodes around a server, and the truth about what they used.
pub(crate) struct Fleet<'a> {
    pub(crate) server: &'a mut Connection,
    pub(crate) script: Script,
    pub(crate) nodes_script: Script,
    pub(crate) nodes: Vec<Node>,
    pub(crate) started: usize,
    pub(crate) ms: u64,
    pub(crate) limits: Limits,
    /// When how many tokens were used, and for how much.
    pub(crate) used: Vec<(u64, Used)>,
    pub(crate) calls: Vec<u64>,
}

impl<'a> Fleet<'a> {
    pub(crate) fn new(server: &'a mut Connection, nodes: usize, limits: Limits) -> Self {
        redis::cmd("FLUSHALL").exec(server).unwrap();
        let mut fleet = Self {
            server,
            script: Script::new(SCRIPT),
            nodes_script: Script::new(NODES_SCRIPT),
            nodes: Vec::new(),
            started: 0,
            ms: 0,
            limits,
            used: Vec::new(),
            calls: Vec::new(),
        };
        for _ in 0..nodes {
            let node = fleet.node();
            fleet.nodes.push(node);
        }
        fleet
    }

    pub(crate) fn node(&mut self) -> Node {
        self.started += 1;
        let standing = Arc::new(Standing::new(Footing::Alone));
        standing.set_up(true);
        Node {
            name: format!("node{}", self.started),
            account: Arc::new(Account::leased(Arc::clone(&standing))),
            standing,
            open: Vec::new(),
            memory: (String::new(), 0),
        }
    }

    pub(crate) fn now(&self) -> Now {
        Now { monotonic_ms: 1_000_000 + self.ms, utc_seconds: START_SECONDS + self.ms / 1000 }
    }

    /// One request of a node; with `lost` the server's answer does not arrive.
    pub(crate) fn sync(&mut self, node: usize, occasion: Occasion, lost: bool) {
        let Some((request, arguments)) = self.request(node, occasion) else { return };
        let reply = lease_reply(&self.ask(&arguments)).unwrap().unwrap();
        if !lost {
            self.nodes[node].account.lease_reply(&request, &reply, LEASE_LIFETIME, self.now());
        }
    }

    /// A node's request, and as the server reads it.
    pub(crate) fn request(&self, node: usize, occasion: Occasion) -> Option<(LeaseRequest, String)> {
        let node = &self.nodes[node];
        let request = node.account.lease_request(&self.limits, occasion, self.now())?;
        let lifetime = u64::try_from(LEASE_LIFETIME.as_millis()).unwrap();
        let arguments = lease_arguments(&node.name, &request, lifetime, node.memory.1);
        Some((request, arguments))
    }

    /// The server's answer to a request.
    pub(crate) fn ask(&mut self, arguments: &str) -> Value {
        let mut call = self.script.key("tenant");
        call.arg(arguments).arg(START_SECONDS * 1000 + self.ms).invoke(self.server).unwrap()
    }

    /// A node says that it lives.
    pub(crate) fn beat(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        let mut call = self.nodes_script.key("nodes");
        call.key("memory").arg(&node.name).arg(u64::try_from(LEASE_LIFETIME.as_millis()).unwrap());
        call.arg(&node.memory.0).arg(START_SECONDS * 1000 + self.ms);
        let (_, name, settled_ms): (u32, String, u64) = call.invoke(self.server).unwrap();
        node.memory = (name, settled_ms);
    }

    /// A node finds the server again.
    pub(crate) fn join(&mut self, node: usize) {
        self.beat(node);
        self.sync(node, Occasion::Joining, false);
        self.nodes[node].standing.set_up(true);
    }

    pub(crate) fn admit(&mut self, node: usize, prompt: u64, named: Option<u64>) -> Result<(), Refused> {
        let ask = Ask {
            answers: 1,
            prompt: Tokens::new(prompt),
            output_named: named.map(Tokens::new),
            output_most: Tokens::new(16_384),
            prices: PRICES,
        };
        for _ in 0..3 {
            match self.nodes[node].account.cover(&self.limits, &ask, self.now()) {
                Cover::Short(_) => self.sync(node, Occasion::Asked, false),
                Cover::Enough | Cover::Low => break,
            }
        }
        let now = self.now();
        let node = &mut self.nodes[node];
        let (admission, _) = Admission::admit(&node.account, &self.limits, &ask, now)?;
        node.open.push(Open { admission, prompt });
        self.calls.push(self.ms);
        Ok(())
    }

    /// Lets time pass, in which the nodes that have the server renew their leases.
    pub(crate) fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(1_000);
            self.ms += step;
            ms -= step;
            for node in 0..self.nodes.len() {
                if self.is_up(node) {
                    self.beat(node);
                    self.sync(node, Occasion::Renewal, false);
                }
            }
        }
    }

    pub(crate) fn is_up(&self, node: usize) -> bool {
        self.nodes[node].standing.footing() == Footing::Shared
    }

    /// No node has the server.
    pub(crate) fn all_alone(&self) {
        self.nodes.iter().for_each(|node| node.standing.set_up(false));
    }

    pub(crate) fn settle(&mut self, node: usize, call: usize, part: u64) {
        let now = self.now();
        let open = &mut self.nodes[node].open;
        if open.is_empty() {
            return;
        }
        let call = open.swap_remove(call % open.len());
        let used = used(call.prompt, call.admission.output_allowed().get() * part / 100);
        call.admission.settle(used, now);
        self.used.push((self.ms, used));
    }

    /// Another node takes the place of one that dies; what its calls held upstream has generated.
    pub(crate) fn kill(&mut self, node: usize) {
        let fresh = self.node();
        let dead = std::mem::replace(&mut self.nodes[node], fresh);
        for call in &dead.open {
            self.used.push((self.ms, used(call.prompt, call.admission.output_allowed().get())));
        }
    }

    pub(crate) fn held(&self) -> u64 {
        self.nodes.iter().map(|node| node.account.counters(self.now()).tokens_held.get()).sum()
    }

    /// Tokens used within the last minute and held now.
    pub(crate) fn minute(&self) -> u64 {
        self.held() + self.total_since((self.ms + 1).saturating_sub(60_000))
    }

    pub(crate) fn total_since(&self, ms: u64) -> u64 {
        self.used.iter().filter(|(at, _)| *at >= ms).map(|(_, used)| used.tokens.get()).sum()
    }

    pub(crate) fn spent(&self) -> u64 {
        let held: u64 = self.nodes.iter().map(|node| node.account.counters(self.now()).cost_held.get()).sum();
        held + self.used.iter().map(|(_, used)| used.cost.get()).sum::<u64>()
    }

    pub(crate) fn open(&self) -> u32 {
        self.nodes.iter().map(|node| node.account.counters(self.now()).open_calls).sum()
    }

    pub(crate) fn calls_in_minute(&self) -> u64 {
        u64::try_from(self.calls.iter().filter(|at| **at + 60_000 > self.ms).count()).unwrap()
    }
}

pub(crate) fn used(prompt: u64, output: u64) -> Used {
    let (prompt, output) = (Tokens::new(prompt), Tokens::new(output));
    Used { tokens: prompt.saturating_add(output), output, cost: PRICES.cost(prompt, Tokens::ZERO, output) }
}
