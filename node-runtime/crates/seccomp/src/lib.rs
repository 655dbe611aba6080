//! Seccomp profiles: the default one, the JSON format of the OCI runtime specification and of Docker, and the compiler to BPF.
//!
//! Owns: what a profile means. Pure: bytes and values in, an instruction list out; any input gives a filter or an error, never
//! a panic. Must not: read files, load filters (that is `berth-init`'s), know CRI types.
//!
//! Meaning of a profile, where the format leaves it open, is what users of runc and libseccomp have:
//! - a rule whose action is the default action is nothing;
//! - of the rules for one system call, the first without conditions decides alone; without one, the first whose conditions
//!   all hold decides, in the order of the profile; else the default action;
//! - a rule with two conditions on the same argument counts as one rule per condition (any of them suffices);
//! - a system call newer than every one that the profile names (on that architecture) answers `ENOSYS`, so that programs fall
//!   back, unless the default action lets it pass; `ENOSYS` never lets anything run;
//! - an architecture that the profile does not list ends the process.
#![forbid(unsafe_code)]

mod action;
mod arch;
mod assembler;
mod compile;
mod condition;
mod default;
mod json;
mod profile;
mod table;
#[cfg(test)]
mod tests;

pub use action::Action;
pub use arch::Arch;
pub use compile::{CompileInput, MAX_INSTRUCTIONS, compile};
pub use condition::{Condition, Op};
pub use default::default_profile;
pub use profile::{MAX_PROFILE, Profile, Requirement, Rule};
pub use table::number;
