//! Whose turn it is: tenants take turns, however much work each of them has, and none has all threads.

use std::collections::{HashMap, VecDeque};

use crate::names::TenantName;

/// The work that waits, in a lane for each tenant that has any.
#[derive(Debug)]
pub(super) struct Lanes<J> {
    lanes: HashMap<TenantName, Lane<J>>,
    /// Whose lanes have work that may be begun, the next one first.
    turns: VecDeque<TenantName>,
    /// How much work of one tenant may be under way at once.
    most_at_once: usize,
    last_number: u64,
}

#[derive(Debug)]
struct Lane<J> {
    waiting: VecDeque<(u64, J)>,
    under_way: usize,
}

impl<J> Lanes<J> {
    pub(super) fn new(most_at_once: usize) -> Self {
        Self { lanes: HashMap::new(), turns: VecDeque::new(), most_at_once, last_number: 0 }
    }

    /// Puts work at the end of its tenant's lane. The number is for [`Self::remove`].
    pub(super) fn push(&mut self, tenant: &TenantName, job: J) -> u64 {
        self.last_number += 1;
        let lane = self
            .lanes
            .entry(tenant.clone())
            .or_insert_with(|| Lane { waiting: VecDeque::new(), under_way: 0 });
        if lane.waiting.is_empty() && lane.under_way < self.most_at_once {
            self.turns.push_back(tenant.clone());
        }
        lane.waiting.push_back((self.last_number, job));
        self.last_number
    }

    /// The work that is to be begun next. [`Self::done`] has to be called after it.
    pub(super) fn next(&mut self) -> Option<(TenantName, J)> {
        let tenant = self.turns.pop_front()?;
        let lane = self.lanes.get_mut(&tenant)?;
        let (_, job) = lane.waiting.pop_front()?;
        lane.under_way += 1;
        if !lane.waiting.is_empty() && lane.under_way < self.most_at_once {
            self.turns.push_back(tenant.clone());
        }
        Some((tenant, job))
    }

    /// Work from [`Self::next`] has ended.
    pub(super) fn done(&mut self, tenant: &TenantName) {
        let Some(lane) = self.lanes.get_mut(tenant) else { return };
        let had_no_turn = lane.under_way == self.most_at_once;
        lane.under_way -= 1;
        if lane.waiting.is_empty() {
            self.forget(tenant);
        } else if had_no_turn {
            self.turns.push_back(tenant.clone());
        }
    }

    /// Takes work out again that was not begun; nothing where it was.
    pub(super) fn remove(&mut self, tenant: &TenantName, number: u64) -> Option<J> {
        let lane = self.lanes.get_mut(tenant)?;
        let place = lane.waiting.iter().position(|(other, _)| *other == number)?;
        let (_, job) = lane.waiting.remove(place)?;
        if lane.waiting.is_empty() {
            self.turns.retain(|other| other != tenant);
            self.forget(tenant);
        }
        Some(job)
    }

    /// How much work of a tenant waits.
    pub(super) fn waiting(&self, tenant: &TenantName) -> usize {
        self.lanes.get(tenant).map_or(0, |lane| lane.waiting.len())
    }

    /// A lane is kept only for a tenant that has work.
    fn forget(&mut self, tenant: &TenantName) {
        if self.lanes.get(tenant).is_some_and(|lane| lane.under_way == 0) {
            self.lanes.remove(tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> TenantName {
        TenantName::new(text).unwrap()
    }

    fn begun(lanes: &mut Lanes<u32>) -> Option<(String, u32)> {
        lanes.next().map(|(tenant, job)| (tenant.to_string(), job))
    }

    #[test]
    fn a_tenant_with_much_work_does_not_go_before_another() {
        let mut lanes = Lanes::new(1);
        for job in 0..1000 {
            lanes.push(&name("greedy"), job);
        }
        assert_eq!(begun(&mut lanes), Some(("greedy".to_owned(), 0)));
        assert_eq!(begun(&mut lanes), None, "the other threads are for others");
        lanes.push(&name("honest"), 1);
        assert_eq!(begun(&mut lanes), Some(("honest".to_owned(), 1)));
        lanes.done(&name("honest"));
        lanes.push(&name("honest"), 2);
        lanes.done(&name("greedy"));
        assert_eq!(begun(&mut lanes), Some(("honest".to_owned(), 2)));
        assert_eq!(begun(&mut lanes), Some(("greedy".to_owned(), 1)));
    }

    #[test]
    fn tenants_take_turns() {
        let mut lanes = Lanes::new(2);
        for job in 0..3 {
            for tenant in ["a", "b", "c"] {
                lanes.push(&name(tenant), job);
            }
        }
        let mut order = String::new();
        while let Some((tenant, _)) = begun(&mut lanes) {
            lanes.done(&name(&tenant));
            order.push_str(&tenant);
        }
        assert_eq!(order, "abcabcabc");
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty(), "nothing is kept of who has no work");
    }

    #[test]
    fn work_that_nobody_waits_for_is_taken_out() {
        let mut lanes = Lanes::new(1);
        let numbers: Vec<_> = (0..3).map(|job| lanes.push(&name("a"), job)).collect();
        assert_eq!(begun(&mut lanes), Some(("a".to_owned(), 0)));
        assert_eq!(lanes.remove(&name("a"), numbers[0]), None, "it has begun");
        assert_eq!(lanes.remove(&name("a"), numbers[1]), Some(1));
        assert_eq!(lanes.remove(&name("b"), numbers[2]), None);
        assert_eq!(lanes.remove(&name("a"), numbers[2]), Some(2));
        lanes.done(&name("a"));
        assert_eq!(begun(&mut lanes), None);
        assert!(lanes.lanes.is_empty() && lanes.turns.is_empty());
    }

    proptest! {
        #[test]
        fn all_work_is_done_in_its_tenants_order_and_never_too_much_at_once(
            steps in prop::collection::vec((0_u8..6, 0_usize..3), 0..300),
            most in 1_usize..3,
        ) {
            let tenants = ["a", "b", "c"].map(name);
            let mut lanes = Lanes::new(most);
            let mut under_way: Vec<TenantName> = Vec::new();
            let (mut pushed, mut ended) = (0_u32, 0_u32);
            let mut last = [None; 3];
            let mut numbers = Vec::new();
            for (step, whose) in steps {
                match step {
                    0..=2 => {
                        numbers.push((whose, lanes.push(&tenants[whose], pushed)));
                        pushed += 1;
                    }
                    3 | 4 => if let Some((tenant, job)) = lanes.next() {
                        let whose = tenants.iter().position(|other| *other == tenant).unwrap();
                        prop_assert!(last[whose] < Some(job), "in order");
                        last[whose] = Some(job);
                        under_way.push(tenant);
                        let of = |tenant: &TenantName| under_way.iter().filter(|other| *other == tenant).count();
                        prop_assert!(tenants.iter().all(|tenant| of(tenant) <= most));
                    },
                    _ if whose == 0 => if let Some((whose, number)) = numbers.pop() {
                        ended += u32::from(lanes.remove(&tenants[whose], number).is_some());
                    },
                    _ => if let Some(tenant) = under_way.pop() {
                        lanes.done(&tenant);
                        ended += 1;
                    },
                }
            }
            loop {
                for tenant in under_way.drain(..) {
                    lanes.done(&tenant);
                    ended += 1;
                }
                let Some((tenant, _)) = lanes.next() else { break };
                under_way.push(tenant);
            }
            prop_assert_eq!(pushed, ended);
            prop_assert!(lanes.lanes.is_empty() && lanes.turns.is_empty());
        }
    }
}
