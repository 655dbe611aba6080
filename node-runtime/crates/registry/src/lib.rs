//! Registry client: references to digests, manifests and blobs, with authentication and retries.
//!
//! Owns: the distribution protocol's client side (OCI distribution spec 1.1), tokens, redirects, one retry policy, checked digests,
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
mod connect;
pub mod credentials;
mod endpoint;
mod error;
mod exchange;
mod fetch;
mod health;
mod login;
mod manifest;
mod observe;
mod proxy;
mod push;
mod range;
mod referrer;
mod referrers;
mod resolve;
mod retry;
mod secret;
mod site;
mod tls;
mod token;
mod transport;
mod verify;
mod wallet;

pub use auth::{Auth, Credentials};
pub use blob::{BlobStream, Liars};
pub use challenge::{Challenge, parse_challenges};
pub use client::Client;
pub use config::{ClientConfig, ClientIdentity, HostConfig, Mirror, MirrorCredentials, Timeouts, Tls, Transfer};
pub use endpoint::registry_of;
pub use manifest::{
    Descriptor, ImageManifest, MAX_INDEX_ENTRIES, MAX_LAYERS, ManifestKind, MediaKind, Platform, parse_manifest,
    select_platform,
};
pub use observe::{CredentialSource, Observation, Observer, Outcome, Phase, Place};
pub use proxy::{NoProxy, Proxy, ProxyConfig};
pub use push::{Pushed, Upload};
pub use range::{parse_content_range, parse_next_link};
pub use referrer::{About, Referrer};
pub use referrers::{Referrers, ReferrersBy};
pub use resolve::{RawManifest, Resolved};
pub use retry::RetryPolicy;
pub use secret::Secret;
pub use site::parse_url as parse_mirror_url;
pub use verify::{Hasher, VerifyingStream, sha256};
