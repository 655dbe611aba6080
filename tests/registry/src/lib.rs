//! An OCI registry in one process, for tests and the quickstart; it can misbehave on purpose.
//!
//! Owns: a server of the distribution API (pull, push, tokens) on loopback, builders of images (hostile ones too), faults and a
//! record of what clients asked. Must not: share code with the client that it tests.
//!
//! ```no_run
//! # async fn example() -> std::io::Result<()> {
//! use berth_test_registry::{Fault, ImageBuilder, Layer, Options, Registry, When};
//! let registry = Registry::start(Options::default()).await?;
//! let image = ImageBuilder::new("app", "v1").layer(Layer::new().file("hello", 0o644, "hi")).entrypoint(["/hello"]);
//! let digest = registry.push_image(&image)?;
//! registry.inject(When::blob(&digest), Fault::Stall { after: 10 });
//! println!("{}", registry.reference("app:v1"));
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod auth;
mod entry;
mod fault;
mod image;
mod layer;
mod layout;
mod registry;
mod routes;
mod server;
mod state;
mod tarball;
mod tls;
mod uploads;

pub use entry::{Entry, Kind};
pub use fault::{Fault, When};
pub use image::{BuiltImage, DOCKER_LIST, DOCKER_MANIFEST, ImageBuilder, OCI_INDEX, OCI_MANIFEST, build_index};
pub use layer::{BuiltLayer, Compression, Layer};
pub use registry::{AuthMode, Options, Registry, TokenAuth};
pub use state::Request;

use aws_lc_rs::digest;
use berth_model::Digest;

/// The sha256 digest of these bytes.
pub fn sha256(bytes: &[u8]) -> Digest {
    digest_of(&digest::digest(&digest::SHA256, bytes))
}

pub(crate) fn digest_of(hash: &digest::Digest) -> Digest {
    let mut raw = [0; 32];
    raw.copy_from_slice(hash.as_ref());
    Digest::from_bytes(raw)
}
