//! What upstream's own counts have shown about the estimates of one tenant on one deployment.
//!
//! A correction belongs to one tenant and one deployment, so that nobody's calls change what another's are held at. It is
//! learned from calls that upstream reported the usage of, for each kind of request by itself, and never takes an estimate
//! beyond fixed bounds. No clock, no IO: the caller keeps it, under a lock of its own.

use crate::api::Api;
use crate::limits::Ceiling;
use crate::units::Tokens;

/// Requests whose prompts are estimated by the same rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Texts to complete.
    Completions,
    /// Texts to embed.
    Embeddings,
    /// A chat of text alone.
    Chat,
    /// A chat with tools.
    ChatTools,
    /// A response to text alone.
    Responses,
    /// A response with tools.
    ResponsesTools,
    /// Either with images, and nothing of the kinds that follow.
    Images,
    /// Either with a recording.
    Audio,
    /// Either with files.
    Files,
    /// Either with input that upstream holds: no two of them are alike, and nothing is learned from them.
    Stored,
}

/// What was learned: for each kind of request, how far estimates were from upstream's counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Correction {
    learned: [Learned; Kind::ALL.len()],
}

/// Decaying sums over the calls of one kind, so that a large call says more than a small one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Learned {
    /// How many calls, up to [`MOST_CALLS`].
    calls: u64,
    actual: u64,
    estimated: u64,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Completions,
        Self::Embeddings,
        Self::Chat,
        Self::ChatTools,
        Self::Responses,
        Self::ResponsesTools,
        Self::Images,
        Self::Audio,
        Self::Files,
        Self::Stored,
    ];

    /// A request to that API with nothing but text.
    #[must_use]
    pub const fn of(api: Api) -> Self {
        match api {
            Api::Completions => Self::Completions,
            Api::Embeddings => Self::Embeddings,
            Api::ChatCompletions => Self::Chat,
            Api::Responses => Self::Responses,
        }
    }

    /// The same with tools.
    pub(super) const fn with_tools(self) -> Self {
        match self {
            Self::Chat => Self::ChatTools,
            Self::Responses => Self::ResponsesTools,
            Self::Completions
            | Self::Embeddings
            | Self::ChatTools
            | Self::ResponsesTools
            | Self::Images
            | Self::Audio
            | Self::Files
            | Self::Stored => self,
        }
    }

    /// Its name in `/status`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completions => "completions",
            Self::Embeddings => "embeddings",
            Self::Chat => "chat",
            Self::ChatTools => "chat_tools",
            Self::Responses => "responses",
            Self::ResponsesTools => "responses_tools",
            Self::Images => "images",
            Self::Audio => "audio",
            Self::Files => "files",
            Self::Stored => "stored",
        }
    }

    /// Its number where a correction is kept; never another kind's.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Completions => 1,
            Self::Embeddings => 2,
            Self::Chat => 3,
            Self::ChatTools => 4,
            Self::Responses => 5,
            Self::ResponsesTools => 6,
            Self::Images => 7,
            Self::Audio => 8,
            Self::Files => 9,
            Self::Stored => 10,
        }
    }
}

impl Correction {
    /// Takes note of a settled call: what it was estimated at, without correction, and what upstream counted. Both are input
    /// tokens. What upstream did not report must not be learned from.
    pub fn learn(&mut self, kind: Kind, estimated: Tokens, actual: Tokens) {
        if kind != Kind::Stored && estimated > Tokens::ZERO {
            self.learned[kind as usize].add(estimated.get(), actual.get());
        }
    }

    /// What a prompt is held at, given its estimate: under a strict ceiling no less than the estimate, otherwise no less than
    /// half of it, and never more than 1.25 times as much. Below [`LEAST_CALLS`] calls of its kind it is the estimate.
    #[must_use]
    pub fn apply(&self, kind: Kind, estimate: Tokens, ceiling: Ceiling) -> Tokens {
        let least = match ceiling {
            Ceiling::Strict => NO_CORRECTION,
            Ceiling::Soft => LEAST,
        };
        let Some(ratio) = self.learned[kind as usize].ratio() else { return estimate };
        let tokens = u128::from(estimate.get()) * u128::from(ratio.clamp(least, MOST));
        Tokens::new(u64::try_from(tokens.div_ceil(u128::from(NO_CORRECTION))).unwrap_or(u64::MAX))
    }

    /// What was learned of each kind that there is enough of: upstream's counts in thousandths of the estimates, within the
    /// bounds of a correction, and the number of calls, up to 255.
    pub fn learned(&self) -> impl Iterator<Item = (Kind, u64, u64)> + '_ {
        Kind::ALL.into_iter().filter_map(|kind| {
            let learned = &self.learned[kind as usize];
            Some((kind, learned.ratio()?.clamp(LEAST, MOST), learned.calls))
        })
    }

    /// All of it, to be kept: a number for each kind's [`Kind::id`].
    pub fn export(&self) -> impl Iterator<Item = (u8, u64)> + '_ {
        Kind::ALL.into_iter().filter_map(|kind| {
            let learned = &self.learned[kind as usize];
            (learned.calls > 0).then(|| (kind.id(), learned.pack()))
        })
    }

    /// What was kept. Numbers that [`Self::export`] cannot have made are passed over.
    #[must_use]
    pub fn import(kept: impl IntoIterator<Item = (u8, u64)>) -> Self {
        let mut correction = Self::default();
        for (id, value) in kept {
            if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.id() == id && *kind != Kind::Stored)
                && let Some(learned) = Learned::unpack(value)
            {
                correction.learned[kind as usize] = learned;
            }
        }
        correction
    }
}

impl Learned {
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

    fn taught(kind: Kind, calls: u64, estimated: u64, actual: u64) -> Correction {
        let mut correction = Correction::default();
        for _ in 0..calls {
            correction.learn(kind, Tokens::new(estimated), Tokens::new(actual));
        }
        correction
    }

    fn both(correction: &Correction, kind: Kind) -> (u64, u64) {
        [Ceiling::Strict, Ceiling::Soft].map(|ceiling| correction.apply(kind, HUNDRED, ceiling).get()).into()
    }

    #[test]
    fn estimates_are_corrected_once_enough_calls_agree() {
        for calls in [0, 1, 7] {
            assert_eq!(both(&taught(Kind::ChatTools, calls, 1000, 1200), Kind::ChatTools), (100, 100));
        }
        assert_eq!(both(&taught(Kind::ChatTools, 8, 1000, 1200), Kind::ChatTools), (120, 120));
        assert_eq!(both(&taught(Kind::ChatTools, 80, 1000, 800), Kind::ChatTools), (100, 80));
    }

    #[test]
    fn each_kind_learns_for_itself() {
        let correction = taught(Kind::Chat, 100, 1000, 1200);
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Chat) {
            assert_eq!(both(&correction, kind), (100, 100), "{kind:?}");
        }
        assert_eq!(correction.learned().collect::<Vec<_>>(), [(Kind::Chat, 1200, 100)]);
        assert_eq!(both(&taught(Kind::Stored, 100, 1000, 9000), Kind::Stored), (100, 100));
    }

    #[test]
    fn what_changes_is_learned_anew() {
        let mut correction = taught(Kind::Chat, 500, 1000, 1200);
        for _ in 0..200 {
            correction.learn(Kind::Chat, Tokens::new(1000), Tokens::new(700));
        }
        assert_eq!(both(&correction, Kind::Chat), (100, 71));
    }

    #[test]
    fn calls_count_by_their_tokens() {
        let mut correction = taught(Kind::Chat, 16, 10_000, 10_000);
        for _ in 0..16 {
            correction.learn(Kind::Chat, Tokens::new(8), Tokens::new(9));
        }
        assert_eq!(both(&correction, Kind::Chat), (100, 100));
    }

    #[test]
    fn a_prompt_of_no_tokens_teaches_nothing() {
        assert_eq!(taught(Kind::Chat, 100, 0, 1000), Correction::default());
    }

    #[test]
    fn what_was_not_exported_is_not_imported() {
        for kept in [
            (0, 1),
            (11, u64::MAX),
            (3, 0),
            (3, u64::MAX),
            (3, 5),
            (10, taught(Kind::Chat, 9, 5, 5).export().next().unwrap().1),
        ] {
            assert_eq!(Correction::import([kept]), Correction::default(), "{kept:?}");
        }
        let mut ids: Vec<_> = Kind::ALL.map(Kind::id).into();
        ids.dedup();
        assert_eq!(ids.len(), Kind::ALL.len());
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop::sample::select(Kind::ALL.to_vec())
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
                correction.learn(Kind::Responses, Tokens::new(size), Tokens::new(size * ratio / 1000));
            }
            let corrected = correction.apply(Kind::Responses, Tokens::new(100_000), Ceiling::Soft).get();
            prop_assert!(corrected.abs_diff(ratio * 100) <= 500, "{} for {}", corrected, ratio);
        }
    }
}
