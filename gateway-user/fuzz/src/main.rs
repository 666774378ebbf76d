//! libFuzzer on the target that the environment names. `cargo xtask fuzz` builds and runs it.
#![no_main]

use std::sync::LazyLock;

use gateway_fuzz::{TARGETS, Target};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("AOAI_FUZZ_TARGET").unwrap_or_default();
    let named = TARGETS.iter().find(|target| target.name == name);
    #[expect(clippy::expect_used, reason = "nothing runs without a target")]
    named.expect("AOAI_FUZZ_TARGET must name a target")
});

fuzz_target!(|data: &[u8]| (TARGET.run)(data));
