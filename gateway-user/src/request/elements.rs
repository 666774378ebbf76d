//! A list read element by element, so that it takes no memory however long it is.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Calls `each` with every element of a list.
///
/// # Errors
/// When it is no list, an element is of another kind, or `each` says so.
pub(super) fn each<'a, T: Deserialize<'a>>(
    list: &'a RawValue,
    each: impl FnMut(T) -> Result<(), serde_json::Error>,
) -> Result<(), serde_json::Error> {
    serde_json::Deserializer::from_str(list.get()).deserialize_seq(Each(each, PhantomData))
}

struct Each<F, T>(F, PhantomData<T>);

impl<'a, T: Deserialize<'a>, F: FnMut(T) -> Result<(), serde_json::Error>> Visitor<'a> for Each<F, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'a>>(mut self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element()? {
            (self.0)(element).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}
