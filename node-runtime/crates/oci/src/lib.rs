//! Container spec assembly and the monitor's client.
//!
//! Owns: what init is asked to make, and every word that is spoken with a pod's monitor. Must not: decide when; that is the engine's.
#![forbid(unsafe_code)]

pub use berth_monitor_client::{channel, pipes, terminal};

pub mod apparmor;
pub mod devices;
pub mod exits;
pub mod logs;
pub mod monitor;
pub mod pod_dir;
pub mod probe;
pub mod process;
pub mod processes;
pub mod profiles;
pub mod readback;
pub mod selinux;
pub mod signal;
pub mod spec;
