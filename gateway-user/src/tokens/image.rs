//! What an image costs, by the rules of OpenAI's guide "Images and vision", sections "Model sizing behavior" and
//! "Calculating costs" (<https://developers.openai.com/api/docs/guides/images-vision>).

use serde_json::value::RawValue;

use super::basis::Basis;
use super::image_size::Size;
use super::raw;
use crate::model::{ImageRule, Limit};
use crate::units::Tokens;

/// How closely the model looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Detail {
    Low,
    High,
    Original,
    /// Left to the model, also by saying nothing.
    Auto,
}

impl Detail {
    pub(super) fn of(value: &RawValue) -> Self {
        match raw::text(value).as_deref() {
            Some("low") => Self::Low,
            Some("high") => Self::High,
            Some("original") => Self::Original,
            _ => Self::Auto,
        }
    }
}

/// What one image costs. An image of unknown size costs the most that one can at its detail; where there is no most, an
/// allowance.
pub(super) fn tokens(rule: ImageRule, size: Option<Size>, detail: Detail) -> (Tokens, Basis) {
    match (rule, size) {
        (ImageRule::Tiles { base, .. }, _) if detail == Detail::Low => (Tokens::new(base), Basis::Counted),
        (ImageRule::Tiles { base, tile }, Some(size)) => {
            (Tokens::new(base + tile * tiles(size)), Basis::Counted)
        }
        (ImageRule::Tiles { base, tile }, None) => (Tokens::new(base + tile * MOST_TILES), Basis::Bound),
        (ImageRule::Patches { cost, .. }, Some(size)) => {
            (patch_tokens(cost, patches(size, limit(rule, detail))), Basis::Counted)
        }
        (ImageRule::Patches { cost, .. }, None) => {
            let limit = limit(rule, detail);
            if limit == Limit::NONE {
                (patch_tokens(cost, Limit::ORIGINAL.patches), Basis::Allowance)
            } else {
                (patch_tokens(cost, limit.patches), Basis::Bound)
            }
        }
    }
}

const fn limit(rule: ImageRule, detail: Detail) -> Limit {
    match (rule, detail) {
        (ImageRule::Patches { original, .. }, Detail::Original)
        | (ImageRule::Patches { original, auto_is_original: true, .. }, Detail::Auto) => original,
        (ImageRule::Patches { high, .. }, Detail::High | Detail::Auto) => high,
        (ImageRule::Patches { .. }, Detail::Low) | (ImageRule::Tiles { .. }, _) => Limit::LOW,
    }
}

/// 768 × 2048 pixels.
const MOST_TILES: u64 = 8;
const TILES_SIDE: u32 = 2048;
const TILES_SHORT_SIDE: u32 = 768;
const TILE: u64 = 512;
const PATCH: u32 = 32;

fn tiles(size: Size) -> u64 {
    let Size { width, height } = size;
    let fitted = size.scaled(ratio(TILES_SIDE, width.max(height)));
    let fitted = fitted.scaled(ratio(TILES_SHORT_SIDE, fitted.width.min(fitted.height)));
    u64::from(fitted.width).div_ceil(TILE) * u64::from(fitted.height).div_ceil(TILE)
}

fn patches(size: Size, limit: Limit) -> u64 {
    let fitted = size.scaled(ratio(limit.side, size.width.max(size.height)));
    let count = cover(fitted);
    if count <= limit.patches {
        return count;
    }
    // The guide's shrink factor, then adjusted so that the sides are whole patches.
    let (width, height) = (f64::from(fitted.width), f64::from(fitted.height));
    #[expect(clippy::cast_precision_loss, reason = "a budget is a few thousand patches")]
    let shrink = (f64::from(PATCH * PATCH) * limit.patches as f64 / (width * height)).sqrt();
    let whole = |side: f64| {
        let patches = side * shrink / f64::from(PATCH);
        patches.floor().max(1.0) / patches
    };
    cover(fitted.scaled(shrink * whole(width).min(whole(height)))).min(limit.patches)
}

fn cover(size: Size) -> u64 {
    u64::from(size.width.div_ceil(PATCH)) * u64::from(size.height.div_ceil(PATCH))
}

fn patch_tokens(cost: u64, patches: u64) -> Tokens {
    Tokens::new(patches.saturating_mul(cost).div_ceil(100))
}

/// The factor that brings `side` down to `most`; never one that enlarges.
fn ratio(most: u32, side: u32) -> f64 {
    (f64::from(most) / f64::from(side.max(1))).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Model;
    use crate::names::ModelName;

    fn rule(model: &str) -> ImageRule {
        Model::of(&ModelName::new(model).unwrap()).images
    }

    fn tokens(model: &str, size: (u32, u32), detail: Detail) -> u64 {
        let (tokens, basis) =
            super::tokens(rule(model), Some(Size { width: size.0, height: size.1 }), detail);
        assert_eq!(basis, Basis::Counted);
        tokens.get()
    }

    fn unknown(model: &str, detail: Detail) -> (u64, Basis) {
        let (tokens, basis) = super::tokens(rule(model), None, detail);
        (tokens.get(), basis)
    }

    #[test]
    fn tiles_cost_what_the_guide_says() {
        assert_eq!(tokens("gpt-4o", (1024, 1024), Detail::High), 765);
        assert_eq!(tokens("gpt-4o", (2048, 4096), Detail::High), 1105);
        assert_eq!(tokens("gpt-4o", (4096, 8192), Detail::Low), 85);
        assert_eq!(tokens("gpt-4.1", (1024, 1024), Detail::Auto), 765);
        assert_eq!(tokens("gpt-4o-mini-2024-07-18", (1024, 1024), Detail::High), 2833 + 4 * 5667);
        assert_eq!(tokens("o3", (1024, 1024), Detail::High), 75 + 4 * 150);
        assert_eq!(tokens("gpt-5", (1024, 1024), Detail::High), 70 + 4 * 140);
        assert_eq!(tokens("gpt-5-chat-latest", (1024, 1024), Detail::Low), 70);
        assert_eq!(tokens("computer-use-preview", (1024, 768), Detail::High), 65 + 4 * 129);
    }

    #[test]
    fn tiles_are_counted_on_rounded_sides_and_small_images_stay_small() {
        // As billed (OpenAI community, "Vision pricing calculator: inaccurate resizing").
        assert_eq!(tokens("gpt-4.1", (2049, 513), Detail::High), 1445);
        assert_eq!(tokens("gpt-4.1", (2050, 513), Detail::High), 765);
        assert_eq!(tokens("gpt-4o", (128, 64), Detail::High), 255);
    }

    #[test]
    fn patches_cost_what_the_guide_says() {
        let small = Limit::SMALL;
        assert_eq!(patches(Size { width: 1024, height: 1024 }, small), 1024);
        assert_eq!(patches(Size { width: 1800, height: 2400 }, small), 1452);
        assert_eq!(tokens("gpt-4.1-mini", (1024, 1024), Detail::High), 1659);
        assert_eq!(tokens("o4-mini", (1024, 1024), Detail::High), 1762);
        assert_eq!(tokens("gpt-5-nano", (1024, 1024), Detail::Auto), 2520);
        assert_eq!(tokens("gpt-5-mini", (4096, 4096), Detail::Low), 415);
        assert_eq!(tokens("gpt-5-mini", (128, 64), Detail::Low), 13);
    }

    #[test]
    fn original_detail_has_limits_of_its_own() {
        assert_eq!(tokens("gpt-5.5", (3840, 2160), Detail::Auto), 120 * 68 * 12 / 10);
        assert_eq!(
            tokens("gpt-5.4", (3840, 2160), Detail::Auto),
            tokens("gpt-5.4", (3840, 2160), Detail::High)
        );
        assert_eq!(tokens("gpt-5.6", (4032, 3024), Detail::Auto), 14_364);
        assert_eq!(tokens("gpt-5.5", (4032, 3024), Detail::Original), 11_868);
    }

    #[test]
    fn an_image_of_unknown_size_costs_the_most_that_one_can() {
        assert_eq!(unknown("gpt-4o", Detail::Low), (85, Basis::Counted));
        assert_eq!(unknown("gpt-4o", Detail::Auto), (1445, Basis::Bound));
        assert_eq!(unknown("gpt-5-mini", Detail::High), (2489, Basis::Bound));
        assert_eq!(unknown("gpt-5.6", Detail::Auto), (12_000, Basis::Allowance));
        for model in ["gpt-4o", "o4-mini", "gpt-5.4", "gpt-5.5"] {
            for side in [1, 31, 33, 100, 512, 513, 768, 1000, 2047, 2048, 2049, 5000, 20_000, u32::MAX] {
                for other in [1, 2, 40, 700, 768, 769, 3000, 65_535, u32::MAX] {
                    for detail in [Detail::Low, Detail::High, Detail::Auto, Detail::Original] {
                        assert!(tokens(model, (side, other), detail) <= unknown(model, detail).0);
                    }
                }
            }
        }
    }
}
