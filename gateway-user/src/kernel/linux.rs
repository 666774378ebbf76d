//! The kernel part on Linux: the only place that knows aya.

mod attach;
mod cgroup;
mod interface;
mod privileges;
mod programs;

pub(super) use attach::{Kernel, Reading};
pub use privileges::drop_privileges;
pub use programs::Programs;
