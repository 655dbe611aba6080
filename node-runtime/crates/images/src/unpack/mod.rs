//! Unpacking: a compressed layer becomes a directory that overlayfs can stack.
//!
//! Owns: decompression, verification of both digests, extraction. Must not: talk to a registry, or name snapshots.
mod archive;
mod attributes;
mod chunks;
mod extract;
mod path;
mod stream;
mod whiteout;

pub use archive::{Archive, Kind, Member, stream_error};
pub use attributes::{Attributes, inherit};
pub use chunks::ChunkReader;
pub use path::{LayerPath, io};
pub use stream::{Chunks, Failed, Job, Unpacked, unpack};
pub use whiteout::{is_opaque, is_whiteout};
#[cfg(test)]
pub use whiteout::{make_opaque, make_whiteout};

#[cfg(test)]
mod tests;
