//! All raw system calls of the node half, as safe functions on owned descriptors, and what it says to the C library's allocator.
//!
//! Owns: every `unsafe` block that is not the monitor's or init's own. Must not: decide anything; a function here does what the
//! kernel's manual page says, with types that cannot be misused.
// The one crate where it is the rule; each block names the invariant that makes it sound.
#![allow(unsafe_code)]

pub mod bpf;
pub mod caps;
pub mod clone;
mod clone_args;
pub mod identity;
pub mod memfd;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod openat;
pub mod pidfd;
pub mod poll;
pub mod process;
pub mod procfs;
pub mod pty;
pub mod quota;
pub mod scratch;
pub mod seccomp_load;
pub mod socket;
pub mod spawn;
pub mod task;
