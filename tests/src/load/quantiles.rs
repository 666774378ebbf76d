//! Quantiles of what was measured, exact: every sample is kept.

use serde::Serialize;

use crate::load::LoadError;

/// The quantiles that are reported, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Quantiles {
    /// Number of samples.
    pub samples: usize,
    /// The median.
    pub p50_us: f64,
    /// The 99th percentile.
    pub p99_us: f64,
}

impl Quantiles {
    /// Of `samples` in nanoseconds (nearest rank).
    ///
    /// # Errors
    ///
    /// [`LoadError::NoSamples`] when there are none.
    pub fn of(mut samples: Vec<u32>) -> Result<Self, LoadError> {
        samples.sort_unstable();
        let rank = |percent: usize| {
            let rank = (samples.len() * percent).div_ceil(100).saturating_sub(1);
            samples.get(rank).map(|ns| f64::from(*ns) / 1e3).ok_or(LoadError::NoSamples)
        };
        Ok(Self { samples: samples.len(), p50_us: rank(50)?, p99_us: rank(99)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples_by_nearest_rank() {
        let quantiles = Quantiles::of((1..=100).rev().map(|us| us * 1000).collect()).unwrap();
        assert_eq!(quantiles, Quantiles { samples: 100, p50_us: 50.0, p99_us: 99.0 });
    }

    #[test]
    fn no_samples_is_an_error_not_a_zero() {
        assert!(matches!(Quantiles::of(Vec::new()), Err(LoadError::NoSamples)));
    }
}
