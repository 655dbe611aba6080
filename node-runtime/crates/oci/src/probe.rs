//! What this node can do, read once when the daemon starts.
use crate::pod_dir::node_hostname;
use crate::spec::NodeFacts;
use berth_model::{Error, Result, ResultExt};
use berth_monitor_api::spec::Rlimit;
use berth_seccomp::Arch;
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// First kernel on which overlayfs takes idmapped layers.
const IDMAPPED_LAYERS: (u32, u32) = (5, 19);
/// `RLIM_INFINITY`.
const UNLIMITED: u64 = u64::MAX;

/// Resource limits with their numbers (asm-generic/resource.h).
const RESOURCES: [(Resource, u32); 16] = [
    (Resource::Cpu, 0),
    (Resource::Fsize, 1),
    (Resource::Data, 2),
    (Resource::Stack, 3),
    (Resource::Core, 4),
    (Resource::Rss, 5),
    (Resource::Nproc, 6),
    (Resource::Nofile, 7),
    (Resource::Memlock, 8),
    (Resource::As, 9),
    (Resource::Locks, 10),
    (Resource::Sigpending, 11),
    (Resource::Msgqueue, 12),
    (Resource::Nice, 13),
    (Resource::Rtprio, 14),
    (Resource::Rttime, 15),
];

/// Probes. Call it before the daemon raises any limit of its own. Errors: `Internal` when /proc is not what it should be.
pub fn probe() -> Result<NodeFacts> {
    let kernel = kernel_version()?;
    let arch = Arch::native().ok_or_else(|| {
        Error::internal(format!("architecture {} is not supported; x86_64 and aarch64 are", std::env::consts::ARCH))
    })?;
    Ok(NodeFacts {
        bounding_capabilities: bounding_capabilities()?,
        kernel,
        arch,
        apparmor: crate::readback::apparmor_enabled(),
        selinux: crate::selinux::enabled(),
        selinux_contexts: crate::selinux::contexts(),
        cgroup_namespaces: Path::new("/proc/self/ns/cgroup").exists(),
        user_namespaces: kernel >= IDMAPPED_LAYERS && user_namespaces_allowed(),
        hostname: node_hostname(),
        rlimits: RESOURCES.iter().map(|(resource, number)| rlimit(*resource, *number)).collect(),
    })
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn user_namespaces_allowed() -> bool {
    read("/proc/sys/user/max_user_namespaces").trim().parse::<u64>().is_ok_and(|n| n > 0)
}

fn rlimit(resource: Resource, number: u32) -> Rlimit {
    let limit = getrlimit(resource);
    Rlimit { resource: number, soft: limit.current.unwrap_or(UNLIMITED), hard: limit.maximum.unwrap_or(UNLIMITED) }
}

fn kernel_version() -> Result<(u32, u32)> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(Error::internal(format!("kernel release {release:?} does not begin with two numbers"))),
    }
}

fn bounding_capabilities() -> Result<u64> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).context(|| path)?;
    let hex = status.lines().find_map(|l| l.strip_prefix("CapBnd:")).map(str::trim).unwrap_or_default();
    u64::from_str_radix(hex, 16).map_err(|_| Error::internal(format!("{path} has no CapBnd line")))
}
