//! The sum that a walk over a body adds to.

use serde_json::value::RawValue;

use super::encoding::count_text;
use super::estimate::Basis;
use super::raw;
use crate::model::{Encoding, ImageRule, Model};
use crate::units::Tokens;

/// Adds up a prompt. The model's rules are fixed; the sum and what it rests on grow.
#[derive(Debug)]
pub(super) struct Count {
    pub(super) encoding: Encoding,
    pub(super) images: ImageRule,
    total: Tokens,
    basis: Basis,
    whole: bool,
}

impl Count {
    pub(super) fn new(model: &Model) -> Self {
        Self {
            encoding: model.encoding,
            images: model.images,
            total: Tokens::ZERO,
            basis: Basis::Counted,
            whole: true,
        }
    }

    /// Adds what the API puts around a text.
    pub(super) fn fixed(&mut self, tokens: u64) {
        self.total = self.total.saturating_add(Tokens::new(tokens));
    }

    /// Adds what is known only as a most, or not even that.
    pub(super) fn assumed(&mut self, tokens: Tokens, basis: Basis) {
        self.total = self.total.saturating_add(tokens);
        self.basis = self.basis.max(basis);
    }

    /// Adds a text.
    pub(super) fn text(&mut self, text: &str) {
        self.total = self.total.saturating_add(count_text(self.encoding, text));
    }

    /// Adds a string's text, and any other value as it is written; nothing for null.
    pub(super) fn value(&mut self, value: &RawValue) {
        match raw::text(value) {
            Some(text) => self.text(&text),
            None if value.get() == "null" => {}
            None => self.text(value.get()),
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
