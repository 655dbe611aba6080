//! The words of the domain, shared by every crate of the node half.
//!
//! Owns: identifiers, digests, image references, pod and container configurations as value types, states, errors.
//! Must not: do I/O, read the clock, draw random numbers, know a wire format.
#![forbid(unsafe_code)]

pub mod account;
mod capability;
mod container;
mod digest;
mod error;
mod ids;
mod image;
mod mount;
mod observe;
mod phase;
mod pod;
mod quantity;
mod reference;
mod resources;
mod security;
mod time;

pub use capability::{CAPABILITIES, capability_bit, capability_names};
pub use container::{ContainerConfig, ContainerMetadata, ContainerState, Device, ExitReason, ExitStatus, StopSignal};
pub use digest::Digest;
pub use error::{Error, ErrorKind, Result, ResultExt};
pub use ids::{ContainerId, ExecId, PodId};
pub use image::{ImageConfig, ImageId, ImageUser, PullProgress, PullStage};
pub use mount::{ImageMount, MOUNTABLE_IN_PROC, Mount, MountOptions, Propagation};
pub use observe::{ByteSource, Leak, NetworkOperation, Observation, Observe, Observer, PullPhase};
pub use phase::{Phase, PhaseLog, Phases, Timeline, micros};
pub use pod::{DnsConfig, PodConfig, PodKey, PodMetadata, PodState, PortMapping, Protocol};
pub use quantity::{Problem as QuantityProblem, Quantity};
pub use reference::{Reference, Tag};
pub use resources::{HugepageLimit, Resources};
pub use security::{
    IdMapping, NamespaceMode, NamespaceOptions, Profile, RunAs, SecurityContext, SelinuxOptions,
    SupplementalGroupsPolicy,
};
pub use time::parse_rfc3339;

/// Labels and annotations: returned byte for byte as they came in, in a stable order.
pub type Labels = std::collections::BTreeMap<String, String>;

/// Unix time in nanoseconds, as the CRI counts it. Zero means "not yet".
pub type UnixNanos = i64;
