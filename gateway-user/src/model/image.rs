//! Rules by which models turn images into tokens, from OpenAI's guide "Images and vision", sections "Model sizing behavior"
//! and "Calculating costs" (<https://developers.openai.com/api/docs/guides/images-vision>).

/// How a model turns images into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageRule {
    /// Squares of 512 pixels, after the image is fitted into 2048 × 2048 and its short side brought down to 768.
    Tiles {
        /// For the image at low detail, always added.
        base: u64,
        /// For each square.
        tile: u64,
    },
    /// Squares of 32 pixels, as many as a budget allows, times a factor.
    Patches {
        /// Hundredths of a token for one square.
        cost: u64,
        /// At high detail.
        high: Limit,
        /// At original detail.
        original: Limit,
        /// Whether an image without a detail is taken at its original size.
        auto_is_original: bool,
    },
}

/// The size that an image is brought down to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// The longest side in pixels.
    pub side: u32,
    /// The most squares.
    pub patches: u64,
}

impl ImageRule {
    /// GPT-4o, GPT-4.1 and models that see no images.
    pub const GPT_4O: Self = Self::Tiles { base: 85, tile: 170 };
    /// The larger models of the o series.
    pub const O1: Self = Self::Tiles { base: 75, tile: 150 };
    /// GPT-5 and GPT-5.1.
    pub const GPT_5: Self = Self::Tiles { base: 70, tile: 140 };
    /// GPT-5.4.
    pub const GPT_5_4: Self = Self::Patches {
        cost: UNLISTED_COST,
        high: Limit::HIGH,
        original: Limit::ORIGINAL,
        auto_is_original: false,
    };
    /// GPT-5.5.
    pub const GPT_5_5: Self = Self::Patches {
        cost: UNLISTED_COST,
        high: Limit::HIGH,
        original: Limit::ORIGINAL,
        auto_is_original: true,
    };
    /// GPT-5.6.
    pub const GPT_5_6: Self = Self::Patches {
        cost: UNLISTED_COST,
        high: Limit::HIGH,
        original: Limit::NONE,
        auto_is_original: true,
    };

    /// The rule of smaller models, at a cost of so many hundredths of a token a square.
    #[must_use]
    pub const fn small(cost: u64) -> Self {
        Self::Patches { cost, high: Limit::SMALL, original: Limit::SMALL, auto_is_original: false }
    }

    /// The rule of smaller models for which the guide lists no cost.
    pub const SMALL_UNLISTED: Self = Self::small(UNLISTED_COST);
}

impl Limit {
    /// Of low detail: the model sees 512 × 512 pixels.
    pub const LOW: Self = Self { side: 512, patches: 256 };
    /// Of the smaller models.
    pub const SMALL: Self = Self { side: 2048, patches: 1536 };
    /// Of high detail.
    pub const HIGH: Self = Self { side: 2048, patches: 2500 };
    /// Of original detail.
    pub const ORIGINAL: Self = Self { side: 6000, patches: 10_000 };
    /// None at all.
    pub const NONE: Self = Self { side: u32::MAX, patches: u64::MAX };
}

/// The guide lists no factor for these models; bills show 1.2 tokens a patch.
const UNLISTED_COST: u64 = 120;
