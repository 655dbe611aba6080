//! Registry client: references to digests, manifests and blobs, with authentication and retries.
//!
//! Owns: the distribution protocol's pull side (OCI distribution spec 1.1), tokens, redirects, one retry policy, checked digests,
//! and the parsing of manifests under limits. Must not: store anything, decide whether an image may be pulled, unpack.
//!
//! Everything a registry sends is hostile until checked: sizes are bounded before they are read, digests are compared with what
//! was asked for, and a credential goes to the registry it was given for and to the token server that this registry names,
//! nowhere else.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod endpoint;
mod error;
mod exchange;
mod manifest;
mod resolve;
mod retry;
mod tls;
mod token;
mod transport;
mod verify;

pub use auth::{Auth, Credentials};
pub use blob::BlobStream;
pub use challenge::{Challenge, parse_challenges};
pub use client::Client;
pub use config::{ClientConfig, HostConfig, Timeouts};
pub use manifest::{
    Descriptor, ImageManifest, MAX_INDEX_ENTRIES, MAX_LAYERS, ManifestKind, MediaKind, Platform, parse_manifest,
    select_platform,
};
pub use resolve::{RawManifest, Resolved};
pub use retry::RetryPolicy;
pub use verify::{Hasher, VerifyingStream, sha256};
