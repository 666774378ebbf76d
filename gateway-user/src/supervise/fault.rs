//! Panics on demand, so that end-to-end tests can prove what a panic ends and what it does not.
//!
//! Only debug builds have them, which are what the tests run: a release build must have no switch that stops it.

/// The variable that names the file with what is to panic: a line for each panic, in order.
#[cfg(debug_assertions)]
const FAULTS: &str = "AOAI_GATEWAY_TEST_FAULTS";

/// Panics if this part is the next in the file, and takes it off the file first.
#[cfg(debug_assertions)]
pub(crate) fn point(part: &str) {
    use std::path::PathBuf;
    use std::sync::OnceLock;

    use parking_lot::Mutex;

    static FILE: OnceLock<Option<PathBuf>> = OnceLock::new();
    static TAKING: Mutex<()> = Mutex::new(());

    let Some(file) = FILE.get_or_init(|| std::env::var_os(FAULTS).map(PathBuf::from)) else { return };
    let taken = {
        let _one_at_a_time = TAKING.lock();
        let Ok(wanted) = std::fs::read_to_string(file) else { return };
        let rest = wanted.strip_prefix(part).and_then(|rest| rest.strip_prefix('\n'));
        rest.is_some_and(|rest| std::fs::write(file, rest).is_ok())
    };
    assert!(!taken, "a test wants {part} to panic");
}

/// Nothing.
#[cfg(not(debug_assertions))]
pub(crate) const fn point(_part: &str) {}
