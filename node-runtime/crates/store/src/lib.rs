//! Durable records of the node half.
//!
//! Owns: how records get onto the disk and back. [`Database`] holds the many small ones (images, references, address
//! leases) in one file; [`Records`] keeps one directory with one JSON file per object (pods).
//! Must not: know what a record means, start tasks, or wait for anything but the disk. All calls block: async callers
//! use `spawn_blocking`.
#![forbid(unsafe_code)]

mod database;
mod records;
mod room;
mod spare;

pub use database::{Database, ImageChanges, MAX_IMAGE_RECORD, MAX_KEY, MAX_LEASE};
pub use records::{Loaded, Records, Sync, Unreadable};
