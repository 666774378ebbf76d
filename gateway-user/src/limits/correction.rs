//! What upstream's own counts have shown about the estimates of one tenant on one deployment.
//!
//! A correction belongs to one tenant and one deployment, so that nobody's calls change what another's are held at. It is
//! learned from calls that upstream reported the usage of, for each kind of request by itself, and never takes an estimate
//! beyond fixed bounds. No clock, no IO: the caller keeps it, under a lock of its own.

use super::Ceiling;
use crate::tokens::PromptKind;
use crate::units::Tokens;

/// What was learned: for each kind of request, how far estimates were from upstream's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correction {
    learned: [Sums; PromptKind::ALL.len()],
}

/// What was learned of one kind of request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Learned {
    /// Which.
    pub kind: PromptKind,
    /// Upstream's counts in thousandths of the estimates, within the bounds of a correction.
    pub thousandths: u64,
    /// From how many calls, up to 255.
    pub calls: u64,
}

/// Decaying sums over the calls of one kind, so that a large call says more than a small one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sums {
    /// How many calls, up to [`MOST_CALLS`].
    calls: u64,
    actual: u64,
    estimated: u64,
}

impl Correction {
    /// Takes note of a settled call: what it was estimated at, without correction, and what upstream counted. Both are input
    /// tokens. What upstream did not report must not be learned from.
    pub fn learn(&mut self, kind: PromptKind, estimated: Tokens, actual: Tokens) {
        if kind != PromptKind::Stored && estimated > Tokens::ZERO {
            self.learned[kind as usize].add(estimated.get(), actual.get());
        }
    }

    /// What a prompt is held at, given its estimate: under a strict ceiling no less than the estimate, otherwise no less than
    /// half of it, and never more than 1.25 times as much. Below [`LEAST_CALLS`] calls of its kind it is the estimate.
    #[must_use]
    pub fn apply(&self, kind: PromptKind, estimate: Tokens, ceiling: Ceiling) -> Tokens {
        let least = match ceiling {
            Ceiling::Strict => NO_CORRECTION,
            Ceiling::Soft => LEAST,
        };
        let Some(ratio) = self.learned[kind as usize].ratio() else { return estimate };
        let tokens = u128::from(estimate.get()) * u128::from(ratio.clamp(least, MOST));
        Tokens::new(u64::try_from(tokens.div_ceil(u128::from(NO_CORRECTION))).unwrap_or(u64::MAX))
    }

    /// What was learned of each kind that there is enough of.
    pub fn learned(&self) -> impl Iterator<Item = Learned> + '_ {
        PromptKind::ALL.into_iter().filter_map(|kind| {
            let sums = &self.learned[kind as usize];
            Some(Learned { kind, thousandths: sums.ratio()?.clamp(LEAST, MOST), calls: sums.calls })
        })
    }

    /// All of it, to be kept: a number for each kind's [`PromptKind::id`].
    pub fn export(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        PromptKind::ALL.into_iter().filter_map(|kind| {
            let learned = &self.learned[kind as usize];
            (learned.calls > 0).then(|| (kind.id(), learned.pack()))
        })
    }

    /// What was kept. Numbers that [`Self::export`] cannot have made are passed over.
    #[must_use]
    pub fn import(kept: impl IntoIterator<Item = (u8, u64)>) -> Self {
        let mut correction = Self::default();
        for (id, value) in kept {
            if let Some(kind) =
                PromptKind::ALL.into_iter().find(|kind| kind.id() == id && *kind != PromptKind::Stored)
                && let Some(learned) = Sums::unpack(value)
            {
                correction.learned[kind as usize] = learned;
            }
        }
        correction
    }
}

impl Sums {
    fn add(&mut self, estimated: u64, actual: u64) {
        // A larger call says no more than one of these: its share is the same.
        let estimated = estimated.min(LARGEST_CALL);
        // One call cannot say more than a correction may.
        let actual =
            actual.clamp(estimated * LEAST / NO_CORRECTION, (estimated * MOST).div_ceil(NO_CORRECTION));
        self.calls = (self.calls + 1).min(MOST_CALLS);
        self.actual = self.actual - self.actual / MEMORY + actual;
        self.estimated = self.estimated - self.estimated / MEMORY + estimated;
    }

    fn ratio(&self) -> Option<u64> {
        let is_enough = self.calls >= LEAST_CALLS && self.estimated > 0;
        is_enough.then(|| (self.actual * NO_CORRECTION + self.estimated / 2) / self.estimated)
    }

    const fn pack(&self) -> u64 {
        self.calls << (2 * SUM_BITS) | self.actual << SUM_BITS | self.estimated
    }

    fn unpack(value: u64) -> Option<Self> {
        let sum = |value: u64| value & ((1 << SUM_BITS) - 1);
        let learned =
            Self { calls: value >> (2 * SUM_BITS), actual: sum(value >> SUM_BITS), estimated: sum(value) };
        let most = LARGEST_CALL * MEMORY;
        let is_possible = (1..=MOST_CALLS).contains(&learned.calls)
            && (1..=most).contains(&learned.estimated)
            && learned.actual <= most * 2;
        is_possible.then_some(learned)
    }
}

/// Thousandths of an estimate: as it is.
const NO_CORRECTION: u64 = 1000;
/// The least that an estimate is brought down to.
const LEAST: u64 = 500;
/// The most that an estimate is brought up to.
const MOST: u64 = 1250;
/// How many calls of a kind say anything.
const LEAST_CALLS: u64 = 8;
const MOST_CALLS: u64 = 255;
/// How many calls back the sums reach: each new one takes a thirty-second of what was before.
const MEMORY: u64 = 32;
/// Input tokens of one call.
const LARGEST_CALL: u64 = 1 << 21;
/// [`LARGEST_CALL`] times [`MEMORY`], times the most that a call counts for.
const SUM_BITS: u32 = 28;

const _: () = assert!(LARGEST_CALL * MEMORY * 2 < 1 << SUM_BITS && MOST_CALLS < 1 << (64 - 2 * SUM_BITS));

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HUNDRED: Tokens = Tokens::new(100);

    fn taught(kind: PromptKind, calls: u64, estimated: u64, actual: u64) -> Correction {
        let mut correction = Correction::default();
        for _ in 0..calls {
            correction.learn(kind, Tokens::new(estimated), Tokens::new(actual));
        }
        correction
    }

    fn both(correction: &Correction, kind: PromptKind) -> (u64, u64) {
        [Ceiling::Strict, Ceiling::Soft].map(|ceiling| correction.apply(kind, HUNDRED, ceiling).get()).into()
    }

    #[test]
    fn estimates_are_corrected_once_enough_calls_agree() {
        for calls in [0, 1, 7] {
            assert_eq!(
                both(&taught(PromptKind::ChatTools, calls, 1000, 1200), PromptKind::ChatTools),
                (100, 100)
            );
        }
        assert_eq!(both(&taught(PromptKind::ChatTools, 8, 1000, 1200), PromptKind::ChatTools), (120, 120));
        assert_eq!(both(&taught(PromptKind::ChatTools, 80, 1000, 800), PromptKind::ChatTools), (100, 80));
    }

    #[test]
    fn each_kind_learns_for_itself() {
        let correction = taught(PromptKind::Chat, 100, 1000, 1200);
        for kind in PromptKind::ALL.into_iter().filter(|kind| *kind != PromptKind::Chat) {
            assert_eq!(both(&correction, kind), (100, 100), "{kind:?}");
        }
        let learned = Learned { kind: PromptKind::Chat, thousandths: 1200, calls: 100 };
        assert_eq!(correction.learned().collect::<Vec<_>>(), [learned]);
        assert_eq!(both(&taught(PromptKind::Stored, 100, 1000, 9000), PromptKind::Stored), (100, 100));
    }

    #[test]
    fn what_changes_is_learned_anew() {
        let mut correction = taught(PromptKind::Chat, 500, 1000, 1200);
        for _ in 0..200 {
            correction.learn(PromptKind::Chat, Tokens::new(1000), Tokens::new(700));
        }
        assert_eq!(both(&correction, PromptKind::Chat), (100, 71));
    }

    #[test]
    fn calls_count_by_their_tokens() {
        let mut correction = taught(PromptKind::Chat, 16, 10_000, 10_000);
        for _ in 0..16 {
            correction.learn(PromptKind::Chat, Tokens::new(8), Tokens::new(9));
        }
        assert_eq!(both(&correction, PromptKind::Chat), (100, 100));
    }

    #[test]
    fn a_prompt_of_no_tokens_teaches_nothing() {
        assert_eq!(taught(PromptKind::Chat, 100, 0, 1000), Correction::default());
    }

    #[test]
    fn what_was_not_exported_is_not_imported() {
        for kept in [
            (0, 1),
            (11, u64::MAX),
            (3, 0),
            (3, u64::MAX),
            (3, 5),
            (10, taught(PromptKind::Chat, 9, 5, 5).export().next().unwrap().1),
        ] {
            assert_eq!(Correction::import([kept]), Correction::default(), "{kept:?}");
        }
        let mut ids: Vec<_> = PromptKind::ALL.map(PromptKind::id).into();
        ids.dedup();
        assert_eq!(ids.len(), PromptKind::ALL.len());
    }

    fn kind() -> impl Strategy<Value = PromptKind> {
        prop::sample::select(PromptKind::ALL.to_vec())
    }

    proptest! {
        #[test]
        fn no_calls_take_a_correction_beyond_its_bounds(
            calls in prop::collection::vec((kind(), any::<u64>(), any::<u64>()), 0..400),
            kind in kind(),
            estimate in 0..u64::MAX / 2,
        ) {
            let mut correction = Correction::default();
            for (kind, estimated, actual) in calls {
                correction.learn(kind, Tokens::new(estimated), Tokens::new(actual));
            }
            let most = u128::from(estimate) * 125 / 100 + 1;
            let estimate = Tokens::new(estimate);
            let strict = correction.apply(kind, estimate, Ceiling::Strict);
            let soft = correction.apply(kind, estimate, Ceiling::Soft);
            prop_assert!(strict >= estimate && soft.get() >= estimate.get() / 2);
            prop_assert!(u128::from(strict.get()) <= most && u128::from(soft.get()) <= most);
            prop_assert!(soft <= strict);
            prop_assert_eq!(&Correction::import(correction.export()), &correction);
        }

        #[test]
        fn any_kept_number_is_harmless(kept in prop::collection::vec((0_u8..12, any::<u64>()), 0..20), kind in kind()) {
            let mut correction = Correction::import(kept);
            for _ in 0..40 {
                correction.learn(kind, Tokens::MAX, Tokens::MAX);
                let corrected = correction.apply(kind, Tokens::new(1000), Ceiling::Soft).get();
                prop_assert!((500..=1250).contains(&corrected));
            }
        }

        #[test]
        fn learning_comes_to_the_ratio_that_calls_have(
            ratio in 500_u64..1250,
            sizes in prop::collection::vec(200_u64..100_000, 300..500),
        ) {
            let mut correction = Correction::default();
            for size in sizes {
                correction.learn(PromptKind::Responses, Tokens::new(size), Tokens::new(size * ratio / 1000));
            }
            let corrected = correction.apply(PromptKind::Responses, Tokens::new(100_000), Ceiling::Soft).get();
            prop_assert!(corrected.abs_diff(ratio * 100) <= 500, "{} for {}", corrected, ratio);
        }
    }
}
