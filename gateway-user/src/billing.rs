//! The bill of a call: one pure function from how the call ended, what was seen of its answer and what was held for it, to what
//! it pays. the table in docs/budgets.md is its test, row by row.

use std::time::Duration;

use crate::ledger::{Assumed, Booked};
use crate::meter::Usage;
use crate::units::{Prices, Tokens};

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Upstream got no whole request, or answered with an error that Azure does not bill (Azure, "Plan to manage costs",
    /// "HTTP Error response code and billing status").
    Unbilled,
    /// Upstream read the prompt and wrote nothing: its content filter refused the prompt, or it was too long.
    PromptRead,
    /// Upstream's answer came to its end.
    Complete,
    /// Upstream's answer came to its end, and says there that it failed.
    Failed,
    /// Upstream was still at work, or may have been: the caller hung up or was stopped, or upstream broke off or was silent.
    Unfinished,
}

/// What was seen of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Metered {
    /// Upstream's own count.
    pub(crate) usage: Option<Usage>,
    /// Output tokens in the text that passed. Beside a count of upstream's that fits the text it need not be known.
    pub(crate) seen: Tokens,
    /// Whether some of the answer that passed could not be counted.
    pub(crate) unread: bool,
    /// Whether upstream has answered at all.
    pub(crate) answered: bool,
}

/// What was held for a call, and what upstream could do meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    /// The prompt's tokens, as they were estimated.
    pub(crate) prompt: Tokens,
    /// The most output tokens that upstream may have written: what is held, or under a soft ceiling what answers usually need.
    pub(crate) output: Tokens,
    /// Whether all that may have been written is paid: under a strict ceiling.
    pub(crate) strict: bool,
    /// Whether the model writes output that is not on the wire.
    pub(crate) reasons: bool,
    /// The most tokens that upstream writes in a second, over all answers of the call.
    pub(crate) tokens_per_second: u64,
    /// Since the request went upstream.
    pub(crate) since_sent: Duration,
    /// Since upstream's last byte, or since the request where there was none.
    pub(crate) since_last: Duration,
    /// The most input and output tokens that the model takes and writes, where that is known.
    pub(crate) most: (Tokens, Tokens),
    pub(crate) prices: Prices,
}

/// What the figures of a bill rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// Upstream's own count.
    Upstream,
    /// The estimate of the prompt, and the text that passed.
    Counted,
    /// Partly on nothing that anybody saw.
    Assumed,
}

/// What a call pays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bill {
    pub(crate) booked: Booked,
    pub(crate) source: Source,
    /// Whether upstream's count was not believed: it was below the text that passed, or beyond the model's bounds.
    pub(crate) corrected: bool,
}

impl Source {
    /// The word for it in the log.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Upstream => "upstream",
            Self::Counted => "counted",
            Self::Assumed => "assumed",
        }
    }
}

/// What a call pays; nothing where upstream bills nothing.
pub(crate) fn bill(end: End, metered: &Metered, held: &Held) -> Option<Bill> {
    if let Some(usage) = metered.usage {
        let believed = believable(usage, metered.seen, held);
        let bill = billed(believed, Usage::default(), Source::Upstream, held);
        return Some(Bill { corrected: believed != usage, ..bill });
    }
    let output = match end {
        End::Unbilled => return None,
        // Before it wrote anything, the failure is an error like any other.
        End::Failed if metered.seen == Tokens::ZERO && !metered.unread => return None,
        End::PromptRead => Tokens::ZERO,
        End::Complete if !held.reasons && !metered.unread => metered.seen,
        End::Complete | End::Failed | End::Unfinished => written(metered, held),
    };
    let usage = Usage { input: held.prompt, output, ..Usage::default() };
    let unseen = Usage {
        input: if metered.answered || end == End::PromptRead { Tokens::ZERO } else { held.prompt },
        output: output.saturating_sub(metered.seen),
        ..Usage::default()
    };
    let source = if unseen.total() > Tokens::ZERO { Source::Assumed } else { Source::Counted };
    Some(billed(usage, unseen, source, held))
}

/// Upstream's count, within bounds: at least the text that passed, as far as tokenisers agree, and at most what the model takes
/// and writes. A count beyond that would lock a tenant out of its budget for a whole period.
fn believable(usage: Usage, seen: Tokens, held: &Held) -> Usage {
    let (most_input, most_output) = held.most;
    let input = usage.input.min(most_input.max(held.prompt));
    let tolerated = match usage.output.get() {
        // A count that was not made, where there is more than a word or two.
        0 => MOST_WITHOUT_COUNT,
        output => output.saturating_add(output / 8).saturating_add(TOLERANCE),
    };
    let output = if tolerated < seen.get() { seen } else { usage.output.min(most_output.max(seen)) };
    Usage {
        input,
        cached_input: usage.cached_input.min(input),
        output,
        reasoning: usage.reasoning.min(output),
    }
}

/// The most output that upstream can have written. It writes no faster than it can, and no more than is held for it; text that
/// passed was written.
fn written(metered: &Metered, held: &Held) -> Tokens {
    let seen = metered.seen;
    // Output that is not on the wire can have been written at any time, as can what passed unread.
    let hidden = held.reasons || metered.unread || !metered.answered;
    let most = if hidden {
        within(held.since_sent, held)
    } else if held.strict {
        seen.saturating_add(within(held.since_last, held))
    } else {
        // A soft ceiling stands for no more than was seen.
        seen
    };
    most.min(held.output).max(seen)
}

/// The most tokens that upstream writes within a time. A millisecond that has begun counts whole.
fn within(time: Duration, held: &Held) -> Tokens {
    let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Tokens::new(held.tokens_per_second.saturating_mul(milliseconds.saturating_add(1)).div_ceil(1000))
}

fn billed(usage: Usage, unseen: Usage, source: Source, held: &Held) -> Bill {
    let cost = held.prices.cost(usage.input, usage.cached_input, usage.output);
    let seen = held.prices.cost(
        usage.input.saturating_sub(unseen.input),
        usage.cached_input,
        usage.output.saturating_sub(unseen.output),
    );
    let assumed = Assumed { tokens: unseen.total(), cost: cost.saturating_sub(seen) };
    Bill { booked: Booked { usage, cost, assumed }, source, corrected: false }
}

/// Tokens by which upstream's count may be below the gateway's, beside an eighth of it: models have tokenisers of their own.
const TOLERANCE: u64 = 256;
/// Tokens that may have passed where upstream counts none.
const MOST_WITHOUT_COUNT: u64 = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::units::{NanoDollars, TokenPrice};

    const PROMPT: u64 = 30;
    const HELD: u64 = 5000;

    /// A call for which 5,000 output tokens are held, two seconds after it was sent and half a second after the last byte.
    const fn held() -> Held {
        Held {
            prompt: Tokens::new(PROMPT),
            output: Tokens::new(HELD),
            strict: true,
            reasons: false,
            tokens_per_second: 400,
            since_sent: Duration::from_secs(2),
            since_last: Duration::from_millis(500),
            most: (Tokens::new(100_000), Tokens::new(16_000)),
            prices: Prices {
                input: TokenPrice::from_pico_dollars(1_000_000),
                cached_input: TokenPrice::from_pico_dollars(500_000),
                output: TokenPrice::from_pico_dollars(4_000_000),
            },
        }
    }

    const fn seen(tokens: u64) -> Metered {
        Metered { usage: None, seen: Tokens::new(tokens), unread: false, answered: true }
    }

    const NO_ANSWER: Metered = Metered { usage: None, seen: Tokens::ZERO, unread: false, answered: false };

    /// Prompt, output and assumed tokens of a bill; nothing for no bill.
    fn paid(end: End, metered: Metered, held: Held) -> Option<(u64, u64, u64)> {
        bill(end, &metered, &held).map(|Bill { booked, .. }| {
            (booked.usage.input.get(), booked.usage.output.get(), booked.assumed.tokens.get())
        })
    }

    #[test]
    fn upstreams_own_count_goes_before_everything() {
        let usage = Usage { input: Tokens::new(7), output: Tokens::new(9), ..Usage::default() };
        for end in [End::Unbilled, End::PromptRead, End::Complete, End::Failed, End::Unfinished] {
            let metered = Metered { usage: Some(usage), ..seen(0) };
            assert_eq!(paid(end, metered, held()), Some((7, 9, 0)), "{end:?}");
        }
    }

    #[test]
    fn upstreams_count_is_believed_within_bounds() {
        let count = |input: u64, output: u64| Usage {
            input: Tokens::new(input),
            output: Tokens::new(output),
            ..Usage::default()
        };
        for (reported, passed, input, output) in [
            // As far apart as two tokenisers may be.
            (count(7, 900), 1000, 7, 900),
            (count(7, 0), 16, 7, 0),
            (count(7, 1), 257, 7, 1),
            // Less than what passed.
            (count(7, 0), 17, 7, 17),
            (count(7, 0), 110_706, 7, 110_706),
            (count(7, 600), 1000, 7, 1000),
            // More than the model takes or writes.
            (count(7, u64::from(u32::MAX)), 1000, 7, 16_000),
            (count(u64::from(u32::MAX), 9), 0, 100_000, 9),
        ] {
            let bill =
                bill(End::Complete, &Metered { usage: Some(reported), ..seen(passed) }, &held()).unwrap();
            let booked = bill.booked.usage;
            assert_eq!((booked.input.get(), booked.output.get()), (input, output), "{reported:?} {passed}");
            assert_eq!(bill.corrected, booked != reported, "{reported:?}");
            assert_eq!(bill.source, Source::Upstream);
        }
    }

    #[test]
    fn errors_pay_what_azure_bills() {
        assert_eq!(paid(End::Unbilled, NO_ANSWER, held()), None);
        assert_eq!(paid(End::PromptRead, NO_ANSWER, held()), Some((PROMPT, 0, 0)));
    }

    #[test]
    fn an_answer_without_usage_pays_what_passed() {
        assert_eq!(paid(End::Complete, seen(120), held()), Some((PROMPT, 120, 0)));
        // Four hundred tokens a second, for two seconds.
        let unread = Metered { unread: true, ..seen(120) };
        assert_eq!(paid(End::Complete, unread, held()), Some((PROMPT, 801, 681)));
        assert_eq!(
            paid(End::Complete, seen(120), Held { reasons: true, ..held() }),
            Some((PROMPT, 801, 681))
        );
    }

    #[test]
    fn an_answer_that_failed_before_its_first_word_is_free() {
        assert_eq!(paid(End::Failed, seen(0), held()), None);
        // Two hundred tokens can have been written since the last that passed.
        assert_eq!(paid(End::Failed, seen(50), held()), Some((PROMPT, 251, 201)));
        let unread = Metered { unread: true, ..seen(0) };
        assert_eq!(paid(End::Failed, unread, held()), Some((PROMPT, 801, 801)));
    }

    #[test]
    fn a_call_that_ends_early_pays_what_can_have_been_written_since() {
        assert_eq!(paid(End::Unfinished, seen(50), held()), Some((PROMPT, 251, 201)));
        let soft = Held { strict: false, ..held() };
        assert_eq!(paid(End::Unfinished, seen(50), soft), Some((PROMPT, 50, 0)));
        let reasons = Held { reasons: true, ..held() };
        assert_eq!(paid(End::Unfinished, seen(50), reasons), Some((PROMPT, 801, 751)));
    }

    #[test]
    fn before_the_answer_the_prompt_is_assumed_too() {
        assert_eq!(paid(End::Unfinished, NO_ANSWER, held()), Some((PROMPT, 801, 831)));
        let soft = Held { strict: false, output: Tokens::new(256), ..held() };
        assert_eq!(paid(End::Unfinished, NO_ANSWER, soft), Some((PROMPT, 256, 286)));
    }

    #[test]
    fn nothing_is_assumed_beyond_what_was_held() {
        let long = Duration::from_hours(1);
        let held = Held { since_sent: long, since_last: long, ..held() };
        assert_eq!(paid(End::Unfinished, seen(50), held), Some((PROMPT, HELD, HELD - 50)));
        assert_eq!(paid(End::Unfinished, NO_ANSWER, held), Some((PROMPT, HELD, HELD + PROMPT)));
    }

    #[test]
    fn the_assumed_part_of_the_cost_is_told() {
        let Bill { booked, source, corrected } = bill(End::Unfinished, &seen(50), &held()).unwrap();
        assert!(!corrected);
        assert_eq!(source, Source::Assumed);
        assert_eq!(booked.cost, NanoDollars::new(PROMPT * 1000 + 251 * 4000));
        assert_eq!(booked.assumed.cost, NanoDollars::new(201 * 4000));
        assert_eq!(bill(End::Complete, &seen(50), &held()).unwrap().source, Source::Counted);
    }

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![Just(End::PromptRead), Just(End::Complete), Just(End::Failed), Just(End::Unfinished)]
    }

    proptest! {
        #[test]
        fn what_was_seen_is_paid_and_no_more_than_was_held_is_assumed(
            end in ends(), seen in 0_u64..10_000, unread: bool, strict: bool, reasons: bool,
            sent in 0_u64..100_000, last in 0_u64..100_000,
        ) {
            let metered = Metered { unread, ..self::seen(seen) };
            let held = Held {
                strict, reasons,
                since_sent: Duration::from_millis(sent.max(last)), since_last: Duration::from_millis(last),
                ..held()
            };
            if let Some(Bill { booked, .. }) = bill(end, &metered, &held) {
                let output = booked.usage.output.get();
                prop_assert!(end == End::PromptRead || output >= seen);
                prop_assert!(output <= seen.max(HELD));
                prop_assert_eq!(booked.assumed.tokens.get(), output.saturating_sub(seen));
                prop_assert!(booked.assumed.cost <= booked.cost);
            } else {
                prop_assert!(end == End::Failed && seen == 0 && !unread);
            }
        }
    }
}
