//! A pod's directory on tmpfs (`run/pods/<id>`): the files and mount points that its containers share.
//!
//! ```text
//! monitor.sock  exits/        the monitor's
//! ns/{net,ipc,uts,user}       namespaces, bound by init
//! shm/                        the pod's /dev/shm, mounted by init
//! files/{resolv.conf,hostname,hosts}
//! ```
//! The parent directory is a private mount of its own, so that nothing here is copied into other mount namespaces' peers.
use berth_model::{DnsConfig, Error, PodId, Result, ResultExt};
use rustix::fs::{AtFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_bind, mount_change, unmount};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Longest resolv.conf or hosts file taken over from the node, in bytes.
const MAX_FILE: u64 = 64 * 1024;
/// More mounts than this on one point were not made by us.
const MAX_STACKED: usize = 16;

fn errno(e: Errno) -> Error {
    Error::from(std::io::Error::from(e))
}

/// Makes the parent of all pod directories and turns it into a private mount, once.
pub fn prepare_base(base: &Path) -> Result<()> {
    make_dir(base)?;
    if !is_mount_root(base)? {
        mount_bind(base, base).map_err(errno).context(|| format!("bind mount on {}", base.display()))?;
    }
    mount_change(base, MountPropagationFlags::PRIVATE)
        .map_err(errno)
        .context(|| format!("make {} private", base.display()))
}

/// Takes the private mount away again, when no pod is left.
pub fn release_base(base: &Path) -> Result<()> {
    unmount_all(base)?;
    match fs::remove_dir(base) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).context(base.display())),
        _ => Ok(()),
    }
}

/// Removes the directories below `base` of pods that are `stray`, with what is mounted in them; what is not named like a pod
/// stays. Returns how many. Errors: that of the first one that stays; the others are removed all the same.
pub fn remove_strays(base: &Path, stray: impl Fn(&PodId) -> bool) -> Result<usize> {
    let mut removed = Ok(0);
    for pod in strays(base, stray)? {
        let done = PodDir::new(base, &pod).teardown();
        removed = removed.and_then(|count| done.map(|()| count + 1));
    }
    removed
}

/// The pods that are `stray` and have a directory below `base`. Errors: `base` cannot be read.
pub fn strays(base: &Path, stray: impl Fn(&PodId) -> bool) -> Result<Vec<PodId>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(base).context(|| base.display())? {
        let name = entry.context(|| base.display())?.file_name();
        found.extend(name.to_str().and_then(|name| PodId::parse(name).ok()).filter(&stray));
    }
    Ok(found)
}

fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).context(|| format!("directory {}", path.display()))
}

fn is_mount_root(path: &Path) -> Result<bool> {
    let stat = rustix::fs::statx(rustix::fs::CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS)
        .map_err(errno)
        .context(|| path.display())?;
    Ok(stat.stx_attributes.contains(rustix::fs::StatxAttributes::MOUNT_ROOT))
}

fn unmount_all(path: &Path) -> Result<()> {
    for _ in 0..MAX_STACKED {
        match unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Not a mount point (any more), or nothing there.
            Err(Errno::INVAL | Errno::NOENT) => return Ok(()),
            Err(e) => return Err(errno(e).context(format!("unmount {}", path.display()))),
        }
    }
    Ok(())
}

/// What a pod's shared files say.
#[derive(Debug, Clone, Default)]
pub struct PodFiles {
    /// resolv.conf; empty means the node's own.
    pub dns: DnsConfig,
    /// Host name; empty means the node's own.
    pub hostname: String,
}

/// The directory of one pod.
#[derive(Debug, Clone)]
pub struct PodDir(PathBuf);

impl PodDir {
    /// Names it; makes nothing.
    pub fn new(base: &Path, pod: &PodId) -> Self {
        Self(base.join(pod.as_str()))
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// File that a namespace (`net`, `ipc`, `uts`, `user`) is bound to.
    pub fn namespace(&self, name: &str) -> PathBuf {
        self.0.join("ns").join(name)
    }

    /// Opens the pod's network namespace, or the node's for a pod `on_node`. Blocks.
    pub fn open_network(&self, on_node: bool) -> Result<OwnedFd> {
        let path = if on_node { PathBuf::from("/proc/self/ns/net") } else { self.namespace("net") };
        fs::File::open(&path).map(OwnedFd::from).context(|| format!("network namespace {}", path.display()))
    }

    /// Mount point of the pod's /dev/shm.
    pub fn shm(&self) -> PathBuf {
        self.0.join("shm")
    }

    /// A shared file: `resolv.conf`, `hostname` or `hosts`.
    pub fn file(&self, name: &str) -> PathBuf {
        self.0.join("files").join(name)
    }

    /// An empty directory on which containers assemble their root, in their own mount namespaces.
    pub fn rootfs_point(&self) -> PathBuf {
        self.0.join("rootfs")
    }

    /// Makes the directory, the empty namespace files and the shared files. All blocking.
    pub fn prepare(&self, files: &PodFiles, address: Option<std::net::IpAddr>) -> Result<()> {
        for part in ["ns", "shm", "files", "exits", "rootfs"] {
            make_dir(&self.0.join(part))?;
        }
        for name in ["net", "ipc", "uts", "user"] {
            write(&self.namespace(name), b"")?;
        }
        write(&self.file("resolv.conf"), resolv_conf(&files.dns)?.as_bytes())?;
        let hostname = match files.hostname.as_str() {
            "" => node_hostname(),
            name => name.to_owned(),
        };
        write(&self.file("hostname"), format!("{hostname}\n").as_bytes())?;
        self.write_hosts(&hostname, address)
    }

    /// Writes the default hosts file; a kubelet brings its own mount over it.
    pub fn write_hosts(&self, hostname: &str, address: Option<std::net::IpAddr>) -> Result<()> {
        let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
        if let Some(address) = address {
            text.push_str(&format!("{address}\t{hostname}\n"));
        }
        write(&self.file("hosts"), text.as_bytes())
    }

    /// Gives the shared files a SELinux label.
    pub fn label(&self, context: &str) -> Result<()> {
        ["resolv.conf", "hostname", "hosts"]
            .iter()
            .try_for_each(|name| crate::selinux::label(&self.file(name), context))
    }

    /// Unmounts everything in it and removes it. Idempotent; needs no process of the pod's to answer.
    pub fn teardown(&self) -> Result<()> {
        self.unmount()?;
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::from(e).context(self.0.display())),
            _ => Ok(()),
        }
    }

    /// Unmounts namespaces and shm; the rest stays for the monitor.
    pub fn unmount(&self) -> Result<()> {
        for name in ["net", "ipc", "uts", "user"] {
            unmount_all(&self.namespace(name))?;
        }
        unmount_all(&self.shm())
    }
}

/// The node's own host name.
pub fn node_hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).context(|| format!("file {}", path.display()))?;
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(path, mode).context(|| format!("file {}", path.display()))
}

fn resolv_conf(dns: &DnsConfig) -> Result<String> {
    if *dns == DnsConfig::default() {
        return node_file("/etc/resolv.conf");
    }
    let mut text = String::new();
    if !dns.searches.is_empty() {
        text.push_str(&format!("search {}\n", dns.searches.join(" ")));
    }
    for server in &dns.servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    if !dns.options.is_empty() {
        text.push_str(&format!("options {}\n", dns.options.join(" ")));
    }
    Ok(text)
}

fn node_file(path: &str) -> Result<String> {
    match fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => {
            Err(Error::invalid(path, format!("is {} bytes long, the limit is {MAX_FILE}", meta.len())))
        }
        Ok(_) => fs::read_to_string(path).context(|| path),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(e) => Err(Error::from(e).context(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolv_conf_says_what_was_asked() {
        let dns = DnsConfig {
            servers: vec!["10.0.0.10".into(), "fd00::a".into()],
            searches: vec!["a.svc".into(), "b".into()],
            options: vec!["ndots:5".into()],
        };
        let text = resolv_conf(&dns).unwrap();
        assert_eq!(text, "search a.svc b\nnameserver 10.0.0.10\nnameserver fd00::a\noptions ndots:5\n");
    }
}
