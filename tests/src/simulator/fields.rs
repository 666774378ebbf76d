//! A body's fields, read one by one: what each may be, and what Azure says to what it may not.

use serde_json::Value;

use super::refusal::Refusal;

/// A body's fields; null is as good as absent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a>(pub(crate) &'a Value);

impl<'a> Fields<'a> {
    pub(crate) fn present(self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn required(
        self,
        key: &'static str,
        fits: impl Fn(&Value) -> bool,
    ) -> Result<&'a Value, Refusal> {
        let value = self.present(key).ok_or_else(|| {
            Refusal::invalid(
                key,
                Some("missing_required_parameter"),
                format!("Missing required parameter: '{key}'."),
            )
        })?;
        if fits(value) { Ok(value) } else { Err(wrong_type(key)) }
    }

    pub(crate) fn flag(self, key: &'static str) -> Result<bool, Refusal> {
        self.present(key).map_or(Ok(false), |value| value.as_bool().ok_or_else(|| wrong_type(key)))
    }

    pub(crate) fn number(self, key: &'static str, least: u64) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.present(key) else { return Ok(None) };
        match value.as_u64() {
            Some(number) if number >= least => Ok(Some(number)),
            Some(number) => Err(Refusal::invalid(
                key,
                Some("integer_below_min_value"),
                format!(
                    "Invalid '{key}': integer below minimum value. Expected a value >= {least}, but got {number} instead."
                ),
            )),
            None => Err(wrong_type(key)),
        }
    }

    /// A number from 1 to 128.
    pub(crate) fn count(self, key: &'static str) -> Result<Option<u64>, Refusal> {
        match self.number(key, 1)? {
            Some(number) if number > MAX_CHOICES => Err(Refusal::above(key, MAX_CHOICES, number)),
            number => Ok(number),
        }
    }
}

fn wrong_type(key: &'static str) -> Refusal {
    Refusal::invalid(key, Some("invalid_type"), format!("Invalid type for '{key}'."))
}

/// The largest `n`.
const MAX_CHOICES: u64 = 128;
