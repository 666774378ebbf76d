//! The sum that a walk over a body adds to.

use serde_json::value::RawValue;

use super::basis::Basis;
use super::effort::Effort;
use super::encoding::{count_piece, first_piece};
use super::prompt_kind::PromptKind;
use super::{pdf, raw};
use crate::api::Api;
use crate::model::{Encoding, Generation, ImageRule, Model};
use crate::units::Tokens;

/// Adds up a prompt. The model's rules are fixed; the sum and what it rests on grow.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) encoding: Encoding,
    pub(super) images: ImageRule,
    pub(super) generation: Generation,
    /// What kind of request it is, as far as it was read.
    pub(super) kind: PromptKind,
    /// Whether an assistant's message made several calls at once: from there on their results are shown as JSON.
    pub(super) parallel: bool,
    /// Reasoning handed back, of the turn that is being read and of those before it.
    pub(super) reasoning: Reasoning,
    /// How many bytes may still be inflated to read files.
    pub(super) inflated: usize,
    pub(super) effort: Effort,
    total: Tokens,
    basis: Basis,
    whole: bool,
}

/// Reasoning handed back with a conversation, which is in the prompt or not by where the model's turns begin.
#[derive(Debug, Default)]
pub(super) struct Reasoning {
    /// Since the caller's last message.
    pub(super) current: Tokens,
    /// Before it.
    pub(super) earlier: Tokens,
    /// Whether the request says that earlier turns' reasoning is shown; otherwise the model's generation does.
    pub(super) shows_earlier: Option<bool>,
}

impl Reasoning {
    pub(super) fn add(&mut self, tokens: Tokens) {
        self.current = self.current.saturating_add(tokens);
    }

    /// A message of the caller's begins a turn.
    pub(super) fn turn(&mut self) {
        self.earlier = self.earlier.saturating_add(std::mem::take(&mut self.current));
    }
}

impl Count {
    pub(super) fn new(model: &Model, api: Api, effort: Effort) -> Self {
        Self {
            kind: PromptKind::of(api),
            encoding: model.encoding,
            images: model.images,
            generation: model.generation,
            parallel: false,
            reasoning: Reasoning::default(),
            inflated: pdf::MOST_INFLATED,
            effort,
            total: Tokens::ZERO,
            basis: Basis::Counted,
            whole: true,
        }
    }

    /// Adds what the API puts around a text.
    pub(super) fn fixed(&mut self, tokens: u64) {
        self.total = self.total.saturating_add(Tokens::new(tokens));
    }

    /// Notes a part that makes the request one of another kind.
    pub(super) fn has(&mut self, kind: PromptKind) {
        self.kind = self.kind.max(kind);
    }

    /// Adds tokens that were counted before.
    pub(super) fn add(&mut self, tokens: Tokens) {
        self.total = self.total.saturating_add(tokens);
    }

    /// Adds what is known only as a most, or not even that.
    pub(super) fn assumed(&mut self, tokens: Tokens, basis: Basis) {
        self.total = self.total.saturating_add(tokens);
        self.basis = self.basis.max(basis);
    }

    /// Adds a text, piece by piece, as far as that is worth the effort.
    pub(super) fn text(&mut self, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let Effort::Tokens(tokenising) = &mut self.effort else {
                return self.add(Tokens::from_bytes(rest.len()));
            };
            if tokenising.is_enough(self.total, rest.len()) {
                return tokenising.leave_out(rest.len());
            }
            let (piece, after) = first_piece(rest);
            let tokens = count_piece(self.encoding, piece);
            tokenising.took(piece.len(), tokens);
            self.add(tokens);
            rest = after;
        }
    }

    /// Adds a string's text, and any other value as it is written; nothing for null.
    pub(super) fn value(&mut self, value: &RawValue) {
        if let Effort::Tokens(tokenising) = &mut self.effort {
            // No escape is longer than six bytes for one of the text.
            let least = value.get().len().saturating_sub(2) / 6;
            if tokenising.is_enough(self.total, least) {
                return tokenising.leave_out(value.get().len());
            }
        }
        match raw::text(value) {
            Some(text) => self.text(&text),
            None if value.get() == "null" => {}
            None => self.text(value.get()),
        }
    }

    /// Adds a string's text, and any other value as JSON without white space: so the API writes out what it parsed.
    pub(super) fn compact(&mut self, value: &RawValue) {
        if value.get().starts_with('"') {
            self.value(value);
        } else {
            raw::compact(value, |piece| self.text(piece));
        }
    }

    /// Adds a value as JSON in ASCII.
    pub(super) fn ascii(&mut self, value: &RawValue) {
        raw::ascii(value, |piece| self.text(piece));
    }

    /// Adds the reasoning that stays in the prompt.
    pub(super) fn finish_reasoning(&mut self) {
        let Reasoning { current, earlier, shows_earlier } = std::mem::take(&mut self.reasoning);
        let shows_earlier = shows_earlier.unwrap_or(self.generation >= Generation::Gpt56);
        let shown = if shows_earlier { current.saturating_add(earlier) } else { current };
        if shown > Tokens::ZERO {
            self.assumed(shown, Basis::Bound);
        }
    }

    /// Visits an object's entries. One that cannot be read through makes the sum [`Self::whole`] no more.
    pub(super) fn entries<'a>(
        &mut self,
        object: &'a RawValue,
        mut each: impl FnMut(&mut Self, &str, &'a RawValue),
    ) {
        let read = raw::entries(object, |key, value| each(self, key, value));
        self.whole &= read;
    }

    /// Visits an array's elements, as [`Self::entries`] does an object's.
    pub(super) fn elements<'a>(
        &mut self,
        array: &'a RawValue,
        mut each: impl FnMut(&mut Self, &'a RawValue),
    ) {
        let read = raw::elements(array, |element| each(self, element));
        self.whole &= read;
    }

    pub(super) const fn total(&self) -> Tokens {
        self.total
    }

    pub(super) const fn basis(&self) -> Basis {
        self.basis
    }

    /// Whether all that was visited could be read.
    pub(super) const fn whole(&self) -> bool {
        self.whole
    }
}
