//! From what the CRI asks for to what init is told: `SandboxSpec`, `ContainerSpec`, `Process`, and all that is refused on the way.
//!
//! Owns: defaults and precedence (image, pod, container, node), the rules of the CRI that a request can break. Pure: no I/O,
//! no clock; what the node is like comes in as [`NodeFacts`], what lies on its disk as paths. Must not: know CRI wire types.
mod args;
mod capabilities;
mod confine;
mod container;
mod facts;
mod mounts;
mod paths;
mod pod;
mod process;
mod selinux;
mod sysctl;
mod validate;

pub use capabilities::{DEFAULT_CAPABILITIES, capabilities};
pub use confine::{DEFAULT_APPARMOR, apparmor, seccomp_filter};
pub use container::{ContainerInputs, container_spec};
pub use facts::{NodeFacts, PodPaths, VolumeSource};
pub use mounts::image_volumes;
pub use pod::{SandboxInputs, sandbox_spec, validate_pod};
pub use process::{exec_process, user};
pub use selinux::{ContainerContexts, Context, SelinuxLabels, free_level, selinux_labels};
pub use validate::validate_container;

#[cfg(test)]
mod tests;
