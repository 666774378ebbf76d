//! Core dumps: there are none, for they would hold keys, tokens, prompts and answers.

use std::io;

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Keeps the process's memory from core dumps, and from other processes of the same user (prctl(2), `PR_SET_DUMPABLE`). The
/// limit alone would not do: a program that takes dumps from a pipe is started whatever it is (core(5)).
///
/// # Errors
/// When the system refuses.
pub(crate) fn forbid() -> io::Result<()> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use rustix::process::{dumpable_behavior, getrlimit};

    use super::*;

    #[test]
    fn a_process_that_forbids_them_has_none() {
        forbid().unwrap();
        assert_eq!(dumpable_behavior().unwrap(), DumpableBehavior::NotDumpable);
        let Rlimit { current, maximum } = getrlimit(Resource::Core);
        assert_eq!((current, maximum), (Some(0), Some(0)));
    }
}
