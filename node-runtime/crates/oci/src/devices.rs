//! Devices that a container asks for: looks at the nodes of the host (blocking), and makes rules of them.
//!
//! Owns: which host nodes a request means. Must not: make nodes (init does), write rules (berth-cgroups does).
use berth_cgroups::{DeviceAccess, DeviceKind, DevicePolicy, DeviceRule};
use berth_model::{Device, Error, Result, ResultExt};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Most nodes that one container gets: far above what any host has, and a bound on a hostile directory.
const MAX_DEVICES: usize = 4096;
/// Deepest directory below a device directory.
const MAX_DEPTH: usize = 8;
/// What a privileged container does not get from the host's /dev: mounts of its own, and its own terminal.
const NOT_SHARED: [&str; 6] = ["pts", "shm", "mqueue", "fd", "console", "ptmx"];

/// A device of the host, and what the container may do with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedDevice {
    /// Path in the container.
    pub container_path: PathBuf,
    /// On the host, without links.
    pub host_path: PathBuf,
    /// Character or block.
    pub kind: DeviceKind,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What is allowed.
    pub access: DeviceAccess,
}

/// The nodes behind a request; a directory means every node below it. With `all`, the host's /dev as well (privileged).
///
/// Errors: `InvalidArgument` naming the device: it does not exist, is no device, its permissions are not some of `rwm`;
/// `ResourceExhausted`-like bounds of 4096 nodes and 8 levels are `InvalidArgument` too.
pub fn resolve(wanted: &[Device], all: bool) -> Result<Vec<ResolvedDevice>> {
    let mut found = Vec::new();
    for (i, device) in wanted.iter().enumerate() {
        let field = format!("devices[{i}]");
        let access = DeviceAccess::parse(&device.permissions).context(|| format!("{field}.permissions"))?;
        let missing = |e| Error::invalid(format!("{field}.host_path"), format_args!("{}: {e}", device.host_path));
        let host = fs::canonicalize(&device.host_path).map_err(missing)?;
        let meta = fs::metadata(&host).map_err(missing)?;
        let target = Path::new(&device.container_path);
        if meta.is_dir() {
            walk(&host, target, access, MAX_DEPTH, &mut found)?;
        } else {
            let node = node(host, target.to_owned(), &meta, access);
            let problem =
                || Error::invalid(format!("{field}.host_path"), format_args!("{} is not a device", device.host_path));
            found.push(node.ok_or_else(problem)?);
        }
    }
    if all {
        let dev = Path::new("/dev");
        let mut host = Vec::new();
        walk(dev, dev, DeviceAccess::ALL, MAX_DEPTH, &mut host)?;
        host.retain(|device| !found.iter().any(|named| named.container_path == device.container_path));
        found.extend(host);
    }
    Ok(found)
}

fn walk(host: &Path, target: &Path, access: DeviceAccess, depth: usize, found: &mut Vec<ResolvedDevice>) -> Result<()> {
    for entry in fs::read_dir(host).context(|| format!("devices in {}", host.display()))? {
        let name = entry?.file_name();
        let path = host.join(&name);
        let shared = host != Path::new("/dev") || !NOT_SHARED.iter().any(|not| name == *not);
        // Hosts come and go: what vanished since it was listed is no error. Links are the host's own business.
        let Ok(meta) = fs::symlink_metadata(&path) else { continue };
        let inside = target.join(&name);
        if !shared {
            continue;
        }
        if meta.is_dir() && depth > 1 {
            walk(&path, &inside, access, depth - 1, found)?;
        } else if let Some(node) = node(path, inside, &meta, access) {
            found.push(node);
        }
        if found.len() > MAX_DEVICES {
            return Err(Error::invalid("devices", format_args!("more than {MAX_DEVICES} nodes in {}", host.display())));
        }
    }
    Ok(())
}

fn node(
    host_path: PathBuf,
    container_path: PathBuf,
    meta: &fs::Metadata,
    access: DeviceAccess,
) -> Option<ResolvedDevice> {
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => DeviceKind::Char,
        kind if kind.is_block_device() => DeviceKind::Block,
        _ => return None,
    };
    Some(ResolvedDevice {
        container_path,
        host_path,
        kind,
        major: rustix::fs::major(meta.rdev()),
        minor: rustix::fs::minor(meta.rdev()),
        mode: meta.mode() & 0o777,
        uid: meta.uid(),
        gid: meta.gid(),
        access,
    })
}

/// The rules of a container's cgroup: everything for a privileged one, else the standard ones and those of its devices.
pub fn rules(privileged: bool, devices: &[ResolvedDevice]) -> DevicePolicy {
    if privileged {
        return DevicePolicy::all();
    }
    let mut policy = DevicePolicy::standard();
    policy.rules.extend(devices.iter().map(|device| DeviceRule {
        kind: device.kind,
        major: Some(device.major),
        minor: Some(device.minor),
        access: device.access,
    }));
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, permissions: &str) -> Device {
        Device { container_path: "/dev/x".to_owned(), host_path: host.to_owned(), permissions: permissions.to_owned() }
    }

    #[test]
    fn a_node_is_found_through_links_and_gets_its_rule() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        let found = resolve(&[device(link.to_str().unwrap(), "rw")], false).unwrap();
        assert_eq!((found[0].major, found[0].minor, found[0].kind), (1, 3, DeviceKind::Char));
        assert_eq!(
            (found[0].host_path.as_path(), found[0].container_path.as_path()),
            (Path::new("/dev/null"), Path::new("/dev/x"))
        );
        let policy = rules(false, &found);
        assert!(!policy.allow_all);
        assert_eq!(policy.rules.len(), DevicePolicy::standard().rules.len() + 1);
        assert!(!policy.rules.last().unwrap().access.mknod);
        assert!(rules(true, &found).allow_all);
    }

    #[test]
    fn what_is_no_device_is_refused_by_name() {
        for (path, permissions, expected) in [
            ("/etc/passwd", "rwm", "devices[0].host_path"),
            ("/dev/there-is-no-such-device", "rwm", "devices[0].host_path"),
            ("/dev/null", "", "devices[0].permissions"),
            ("/dev/null", "rwx", "devices[0].permissions"),
        ] {
            let error = resolve(&[device(path, permissions)], false).unwrap_err();
            assert!(error.message().starts_with(expected), "{path}: {error}");
        }
    }

    #[test]
    fn privileged_gets_the_hosts_nodes_but_not_its_terminals() {
        let found = resolve(&[], true).unwrap();
        assert!(found.iter().any(|device| device.container_path == Path::new("/dev/null")));
        assert!(!found.iter().any(|device| device.container_path.starts_with("/dev/pts")));
        assert!(!found.iter().any(|device| device.container_path == Path::new("/dev/ptmx")));
    }
}
