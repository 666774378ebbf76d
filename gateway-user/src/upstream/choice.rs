//! Which backends a call tries, in which order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::backend::Backend;

/// Backends by priority, and those of one priority by weight.
#[derive(Debug)]
pub struct Choice<B = Arc<Backend>> {
    groups: Vec<Group<B>>,
}

/// Backends of equal priority.
#[derive(Debug)]
struct Group<B> {
    /// Each with the sum of the weights up to and including its own.
    members: Vec<(B, u64)>,
    turn: AtomicU32,
}

impl Choice {
    /// A choice among all of these.
    #[must_use]
    pub fn among(backends: impl IntoIterator<Item = Arc<Backend>>) -> Self {
        Self::of(backends.into_iter().map(|backend| (backend.priority, backend.weight.get(), backend)))
    }
}

impl<B> Choice<B> {
    /// Of priorities, weights and what has them.
    fn of(backends: impl IntoIterator<Item = (u32, u32, B)>) -> Self {
        let mut by_priority = std::collections::BTreeMap::<u32, Group<B>>::new();
        for (priority, weight, backend) in backends {
            let group = by_priority
                .entry(priority)
                .or_insert_with(|| Group { members: Vec::new(), turn: AtomicU32::new(0) });
            let sum = group.total() + u64::from(weight);
            group.members.push((backend, sum));
        }
        Self { groups: by_priority.into_values().collect() }
    }

    /// All of them for one call: lower priorities first; among equals one by its weight, then the others after it.
    pub(crate) fn order(&self) -> impl Iterator<Item = &B> {
        self.groups.iter().flat_map(|group| {
            let (before, from) = group.members.split_at(group.first());
            from.iter().chain(before).map(|(backend, _sum)| backend)
        })
    }
}

impl<B> Group<B> {
    fn total(&self) -> u64 {
        self.members.last().map_or(0, |(_, sum)| *sum)
    }

    /// Whose turn it is. Turns are spread evenly: a heavy one does not get all of its calls in a row.
    fn first(&self) -> usize {
        if self.members.len() < 2 {
            return 0;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        // Multiples of the golden ratio, modulo one, fill any interval in proportion to its length.
        let fraction = u64::from(turn.wrapping_mul(0x9E37_79B9));
        let at = u64::try_from((u128::from(fraction) * u128::from(self.total())) >> 32).unwrap_or(0);
        self.members.partition_point(|(_, sum)| *sum <= at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lower_priorities_come_first_and_nobody_is_left_out() {
        let choice = Choice::of([(2, 1, "spare"), (1, 1, "east"), (1, 1, "west")]);
        for _ in 0..4 {
            let order: Vec<_> = choice.order().copied().collect();
            assert!(order == ["east", "west", "spare"] || order == ["west", "east", "spare"], "{order:?}");
        }
    }

    #[test]
    fn equals_share_by_weight_at_all_times() {
        let choice = Choice::of([(1, 300, "large"), (1, 100, "small")]);
        let first: Vec<_> = (0..4000).map(|_| *choice.order().next().unwrap()).collect();
        for calls in first.chunks(40) {
            let small = calls.iter().filter(|name| **name == "small").count();
            assert!((8..=12).contains(&small), "{small} of 40");
        }
    }
}
