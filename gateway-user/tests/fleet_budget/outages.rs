//! Nodes whose server stands still, dies, or is out of reach of one of them.

use std::num::NonZeroU32;

use gateway_user::limits::{Limits, Occasion, Period, Quota};
use gateway_user::units::{NanoDollars, Tokens};
use proptest::prelude::*;

use super::model::Fleet;
use super::server::Server;

const NODES: usize = 3;

/// What the server knows when it is back.
#[derive(Debug, Clone, Copy)]
enum Back {
    Whole,
    Empty,
    Copy,
}

#[derive(Debug, Clone)]
enum Step {
    Admit {
        node: usize,
        prompt: u64,
        named: Option<u64>,
    },
    Settle {
        node: usize,
        call: usize,
        part: u64,
    },
    Sync {
        node: usize,
        lost: bool,
    },
    Kill {
        node: usize,
    },
    Tick {
        ms: u64,
    },
    Copy,
    /// The server stands still, or goes on.
    Freeze {
        back: Back,
    },
    /// One node is cut off, or finds back.
    Cut {
        node: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..NODES;
    let back = prop_oneof![Just(Back::Whole), Just(Back::Empty), Just(Back::Copy)];
    prop_oneof![
        24 => (node.clone(), 1_u64..1_500, prop::option::of(1_u64..2_000))
            .prop_map(|(node, prompt, named)| Step::Admit { node, prompt, named }),
        18 => (node.clone(), any::<usize>(), 0_u64..=100)
            .prop_map(|(node, call, part)| Step::Settle { node, call, part }),
        14 => (node.clone(), prop::bool::weighted(0.3)).prop_map(|(node, lost)| Step::Sync { node, lost }),
        1 => node.clone().prop_map(|node| Step::Kill { node }),
        12 => (1_u64..4_000).prop_map(|ms| Step::Tick { ms }),
        3 => (4_000_u64..90_000).prop_map(|ms| Step::Tick { ms }),
        2 => Just(Step::Copy),
        4 => back.prop_map(|back| Step::Freeze { back }),
        3 => node.prop_map(|node| Step::Cut { node }),
    ]
}

/// What is the matter.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Frozen { since_ms: u64 },
    Cut { node: usize, since_ms: u64 },
}

/// A fleet to which all of it happens.
struct Story<'a> {
    fleet: Fleet<'a>,
    trouble: Trouble,
    /// What waits for a server that stands still: it reads it when it goes on, and nobody hears the answers.
    waiting: Vec<String>,
    copy: Option<[Vec<u8>; 2]>,
    killed: bool,
}

/// How long it takes until a lease is over.
const LEASE_MS: u64 = 5_000;
const KEYS: [&str; 2] = ["tenant", "memory"];

impl Story<'_> {
    fn take(&mut self, step: Step) {
        match step {
            Step::Admit { node, prompt, named } => drop(self.fleet.admit(node, prompt, named)),
            Step::Settle { node, call, part } => self.fleet.settle(node, call, part),
            Step::Sync { node, lost } if self.fleet.is_up(node) => {
                self.fleet.sync(node, Occasion::Renewal, lost);
            }
            // Nodes try again and again.
            Step::Sync { node, .. } => {
                let request = self.fleet.request(node, Occasion::Joining);
                if matches!(self.trouble, Trouble::Frozen { .. }) {
                    self.waiting.extend(request.map(|(_, arguments)| arguments));
                }
            }
            Step::Kill { node } => self.kill(node),
            Step::Tick { ms } => self.pass(ms),
            Step::Copy => self.copy_state(),
            Step::Freeze { back } => match self.trouble {
                Trouble::None => {
                    self.fleet.all_alone();
                    self.trouble = Trouble::Frozen { since_ms: self.fleet.ms };
                }
                Trouble::Frozen { since_ms } => self.thaw(back, since_ms),
                Trouble::Cut { .. } => {}
            },
            Step::Cut { node } => match self.trouble {
                Trouble::None => {
                    self.fleet.nodes[node].standing.set_up(false);
                    self.trouble = Trouble::Cut { node, since_ms: self.fleet.ms };
                }
                Trouble::Cut { node, .. } => {
                    self.fleet.join(node);
                    self.trouble = Trouble::None;
                }
                Trouble::Frozen { .. } => {}
            },
        }
    }

    fn pass(&mut self, ms: u64) {
        if let Trouble::Cut { node, since_ms } = self.trouble {
            let over_ms = (since_ms + LEASE_MS).saturating_sub(self.fleet.ms);
            self.fleet.pass(ms.min(over_ms));
            if ms >= over_ms {
                // A lease counts on calls ending soon after it is over.
                while !self.fleet.nodes[node].open.is_empty() {
                    self.fleet.settle(node, 0, 100);
                }
            }
            self.fleet.pass(ms.saturating_sub(over_ms));
        } else {
            self.fleet.pass(ms);
        }
    }

    fn kill(&mut self, node: usize) {
        // What the calls of a dead node use later nobody reports.
        let ends_late = match self.trouble {
            Trouble::None => false,
            Trouble::Frozen { since_ms } | Trouble::Cut { since_ms, .. } => {
                self.fleet.ms > since_ms && !self.fleet.nodes[node].open.is_empty()
            }
        };
        if ends_late {
            return;
        }
        self.killed = true;
        let up = self.fleet.is_up(node);
        self.fleet.kill(node);
        self.fleet.nodes[node].standing.set_up(up);
        if up {
            self.fleet.beat(node);
        }
    }

    fn copy_state(&mut self) {
        if !matches!(self.trouble, Trouble::Frozen { .. }) {
            let [tenant, memory]: [Option<Vec<u8>>; 2] =
                KEYS.map(|key| redis::cmd("GET").arg(key).query(self.fleet.server).unwrap());
            self.copy = tenant.zip(memory).map(|(tenant, memory)| [tenant, memory]);
        }
    }

    /// The server goes on, and the nodes find it one after the other.
    fn thaw(&mut self, back: Back, since_ms: u64) {
        // What a dead node had reported is lost with the memory, and to start anew takes a server a moment.
        let can_forget = !self.killed && self.fleet.ms > since_ms + 2_000;
        match (back, &self.copy) {
            (Back::Empty, _) if can_forget => redis::cmd("FLUSHALL").exec(self.fleet.server).unwrap(),
            (Back::Copy, Some(copy)) if can_forget => {
                for (key, value) in KEYS.iter().zip(copy) {
                    redis::cmd("SET").arg(key).arg(value).exec(self.fleet.server).unwrap();
                }
            }
            (Back::Whole | Back::Empty | Back::Copy, _) => {
                for arguments in std::mem::take(&mut self.waiting) {
                    drop(self.fleet.ask(&arguments));
                }
            }
        }
        self.waiting.clear();
        for node in 0..NODES {
            self.fleet.ms += 300;
            self.fleet.join(node);
            // Whoever is there already takes what it can get.
            while self.fleet.admit(node, 100, Some(900)).is_ok() {}
        }
        self.trouble = Trouble::None;
    }
}

#[test]
fn whatever_happens_to_the_server_no_limit_is_passed() {
    let server = Server::start();
    let mut connection = server.connect();
    let schedules = (prop::collection::vec(step(), 1..200), 2_000_u32..20_000, 10_000_u64..100_000);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        failure_persistence: None,
        cases: 96,
        ..ProptestConfig::default()
    });
    let connection = std::cell::RefCell::new(&mut connection);
    let result = runner.run(&schedules, |(steps, minute, period)| {
        let spend = NanoDollars::new(period * 400);
        let (calls, open) = (minute / 200, 1 + minute / 1_000);
        let limits = Limits {
            calls_per_minute: NonZeroU32::new(calls),
            concurrent_calls: NonZeroU32::new(open),
            tokens_per_minute: NonZeroU32::new(minute),
            quotas: Box::new([
                Quota::Tokens { limit: Tokens::new(period), period: Period::Monthly },
                Quota::Spend { limit: spend, period: Period::Yearly },
            ]),
            ..Limits::default()
        };
        let mut connection = connection.borrow_mut();
        let fleet = Fleet::new(&mut connection, NODES, limits);
        let mut story =
            Story { fleet, trouble: Trouble::None, waiting: Vec::new(), copy: None, killed: false };
        for node in 0..NODES {
            story.fleet.beat(node);
        }
        for step in steps {
            let said = format!("{step:?}");
            story.take(step);
            let fleet = &story.fleet;
            prop_assert!(
                fleet.minute() <= u64::from(minute),
                "{said}: {} of {minute} tokens",
                fleet.minute()
            );
            prop_assert!(fleet.calls_in_minute() <= u64::from(calls), "{said}: {calls} calls");
            prop_assert!(fleet.open() <= open, "{said}: {} of {open} are open", fleet.open());
            let used = fleet.held() + fleet.total_since(0);
            prop_assert!(used <= period, "{said}: {used} of {period} tokens of the period");
            // Held and settled amounts are rounded up each for itself.
            prop_assert!(fleet.spent() <= spend.get() + 300, "{said}: {} of {spend}", fleet.spent());
        }
        Ok(())
    });
    result.unwrap();
}
