//! Image policy: a verdict is a pure function of evidence, policies, namespace and the reference that the user wrote.
//!
//! Owns: matching and deciding. Must not: do I/O, keep state, know the clock.
//! Invariant: monotone. All policies that match must pass, so adding one never turns a refusal into permission.
//! Signatures and attestations get their place in [`Subject`] (evidence of verified keys) and in `check.rs` (one more rule).
#![forbid(unsafe_code)]

mod check;
mod pattern;
mod policy;

pub use pattern::{Pattern, Scope};
pub use policy::{Outcome, PolicySet, Stage, Subject, Verdict};
