//! `berth doctor`: what is wrong with this node, why it matters, and what to do.
//!
//! Looks first ([`gather`], which judges nothing), then judges ([`checks`], which read nothing). Works with a daemon, without one,
//! and with one that is stuck. Must not: change anything. docs/doctor.md has the table of findings.
pub mod checks;
pub mod facts;
pub mod finding;
pub mod gather;
