//! The use of the running periods, and what becomes of it when the clock is set.

use super::{State, Used};
use crate::limits::{Now, Period};
use crate::units::{NanoDollars, Tokens};

/// The settled use of one period.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Book {
    /// When the period ends, in seconds since 1970-01-01 UTC.
    pub ends_at: u64,
    /// Tokens used in it.
    pub tokens: Tokens,
    /// What they cost.
    pub cost: NanoDollars,
}

impl Book {
    fn write_down(&mut self, used: Used, taken_off: Used) {
        self.tokens = self.tokens.saturating_add(used.tokens).saturating_sub(taken_off.tokens);
        self.cost = self.cost.saturating_add(used.cost).saturating_sub(taken_off.cost);
    }
}

impl State {
    /// Writes use down in the running books, and in those that they took the place of.
    pub(super) fn write_down(&mut self, used: Used, taken_off: Used) {
        let left = self.left.iter_mut().flat_map(|left| left.iter_mut());
        self.books.iter_mut().chain(left).for_each(|book| book.write_down(used, taken_off));
    }

    /// Opens the books of the periods that hold this moment.
    ///
    /// A period that has begun is not given back by a clock that is set. Nobody can tell whether a clock that reads less than
    /// before was ahead then or is behind now. So the book that another takes the place of goes on beside it: where the clock
    /// comes back to its period, it goes on as the running one. An earlier period without a book takes over the use of the later
    /// one. A clock that was ahead when a book was opened so keeps it open for no longer than the period that runs once the
    /// clock is right.
    pub(super) fn roll(&mut self, now: Now) {
        // The hour's book ends first, so that one look settles the common case.
        let hour = self.books[Period::Hourly.index()].ends_at;
        if now.utc_seconds < hour && hour - now.utc_seconds <= HOUR + SET_BACK_SECONDS {
            return;
        }
        for (index, period) in Period::ALL.into_iter().enumerate() {
            let book = self.books[index];
            let (_, ends_at) = period.around(now.utc_seconds);
            let is_over = now.utc_seconds >= book.ends_at;
            if !is_over && now.utc_seconds + SET_BACK_SECONDS >= period.around(book.ends_at - 1).0 {
                continue;
            }
            let known = self.left.as_ref().map(|left| left[index]).filter(|left| left.ends_at == ends_at);
            let unknown = if is_over { Book::default() } else { book };
            self.books[index] = Book { ends_at, ..known.unwrap_or(unknown) };
            let is_empty = book == Book { ends_at: book.ends_at, ..Book::default() };
            if self.left.is_some() || !is_over || !is_empty {
                self.left.get_or_insert_default()[index] = book;
            }
        }
    }
}

const HOUR: u64 = 60 * 60;
/// A clock that is set back by less than this changes nothing: threads that read it one after the other can be let in in
/// another order, and it is put right in small steps all the time.
const SET_BACK_SECONDS: u64 = 60;

#[cfg(test)]
mod tests;
