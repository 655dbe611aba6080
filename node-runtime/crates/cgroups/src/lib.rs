//! Control groups: v1, hybrid and v2; cgroupfs and systemd drivers; limits, devices, readings, removal.
//!
//! Owns: the groups of containers and of the runtime's own processes, from their names to their removal. Facts about the
//! kernel's files are from Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst.
//! Must not: touch groups it did not make (the kubelet owns the pods'), but for empty ones that it is told to remove, know pods or containers,
//! start processes.
#![forbid(unsafe_code)]

mod apart;
mod check;
mod convert;
mod create;
mod devices;
mod files;
mod io;
mod join;
mod kernel_log;
mod kill;
mod made;
mod path;
mod probe;
mod program;
mod remove;
mod systemd;
mod update;
mod usage;
mod v1;
mod v2;
mod view;
mod writes;

pub use apart::Apart;
pub use convert::{shares_to_weight, weight_to_shares};
pub use devices::{DeviceAccess, DeviceKind, DevicePolicy, DeviceRule};
pub use io::{DeviceIo, IoUsage};
pub use kernel_log::oom_killed;
pub use path::CgroupPath;
pub use probe::{Cgroups, Driver, Layout};
pub use program::device_program;
pub use usage::{CpuUsage, HugepageUsage, MemoryUsage, PidsUsage, Pressure, PressureLine, SwapUsage, Usage};
