//! Unpacking: a compressed layer becomes a directory that overlayfs can stack.
//!
//! Owns: decompression, verification of both digests, extraction. Must not: talk to a registry, or name snapshots.
mod archive;
mod attributes;
mod extract;
mod path;
mod stream;
mod whiteout;

pub use attributes::{Attributes, inherit};
pub use path::{LayerPath, io};
pub use stream::{Chunks, Job, Unpacked, unpack};
pub use whiteout::{is_opaque, is_whiteout};
#[cfg(test)]
pub use whiteout::{make_opaque, make_whiteout};

#[cfg(test)]
mod tests;
