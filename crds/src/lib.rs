//! RuntimeConfig and ImagePolicy: types, defaults, rules, merge. One file per kind.
//!
//! `fields.rs` is the table of RuntimeConfig's fields: merge, comparison and explanation follow from it.
//!
//! The same types read the documents of a node without a cluster and (with the cluster half) the API server's objects. Only
//! fields that work are here; any other is refused by name, line and column.
//! Must not: do I/O. Fuzz target: `documents`.
#![forbid(unsafe_code)]

mod credential_provider;
mod describe;
mod document;
mod fields;
mod image_policy;
mod merge;
mod metadata;
mod redact;
mod registry;
mod rules;
mod runtime_config;
mod shape;

pub use credential_provider::{CredentialProvider, MAX_PROVIDER_CONFIG, ProviderEnv, parse_provider_config};
pub use describe::{Description, descriptions};
pub use document::{Document, MAX_DOCUMENT, MAX_DOCUMENTS_IN_FILE, parse_documents};
pub use fields::{Class, Field, FieldChange, Preset, changes, fields};
pub use image_policy::{
    EnforcePoint, ImageMatch, ImagePattern, ImagePolicy, ImagePolicySpec, NamespaceSelector, PolicyMode, References,
    Registries, SelectorOperator, SelectorRequirement,
};
pub use merge::{Effective, merge};
pub use metadata::{API_VERSION, ObjectMeta};
pub use redact::{REDACTED, redact};
pub use registry::{
    Capability, Credentials, Fallback, MirrorCredentials, Proxy, RegistryHost, RegistryMirror, RegistryTls, Transfer,
};
pub use runtime_config::{
    CgroupManager, Cni, IpFamily, Limits, LogLevel, Metrics, Network, NetworkMode, Runtime, RuntimeConfig,
    RuntimeConfigSpec, State, Streaming, seconds,
};
