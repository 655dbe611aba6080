//! Use cases of containers, one file each.
pub(crate) mod control;
pub(crate) mod create;
pub(crate) mod exec;
pub(crate) mod layers;
pub(crate) mod log;
pub(crate) mod plan;
pub(crate) mod remove;
pub(crate) mod start;
pub(crate) mod stats;
pub(crate) mod stop;
pub(crate) mod update;
mod user;
