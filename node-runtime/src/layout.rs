//! Where a daemon keeps things, and the names that it takes on the node. Both derive from the root alone, so several daemons
//! run side by side, and the command line finds the one it is meant to talk to.
use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Paths and names of one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// The root, `/` for the system's own.
    pub root: PathBuf,
    /// Documents.
    pub etc: PathBuf,
    /// Images, records.
    pub lib: PathBuf,
    /// Sockets, pods' directories.
    pub run: PathBuf,
    /// Short hash of the root.
    pub hash: u32,
}

impl Layout {
    /// The system's own places, or those below `root`, which is made if missing.
    pub fn new(root: Option<&Path>) -> Result<Self> {
        let Some(root) = root else {
            let at = PathBuf::from;
            let (etc, lib, run) = (at("/etc/berth"), at("/var/lib/berth"), at("/run/berth"));
            return Ok(Self { root: at("/"), etc, lib, run, hash: fnv1a(b"/") });
        };
        std::fs::create_dir_all(root).with_context(|| format!("root directory {}", root.display()))?;
        let root = root.canonicalize().with_context(|| format!("root directory {}", root.display()))?;
        let hash = fnv1a(root.as_os_str().as_encoded_bytes());
        Ok(Self { etc: root.join("etc"), lib: root.join("lib"), run: root.join("run"), root, hash })
    }

    /// As [`Self::new`], for a root that a daemon has made: one that is not there is an error.
    pub fn existing(root: Option<&Path>) -> Result<Self> {
        if let Some(root) = root {
            std::fs::metadata(root).with_context(|| format!("root directory {}", root.display()))?;
        }
        Self::new(root)
    }

    /// Whether this is the system's own root.
    pub fn is_system(&self) -> bool {
        self.root == Path::new("/")
    }

    /// Where CNI configurations lie if no document says otherwise. A root of its own shares no pod network with the system's.
    pub fn cni_configurations(&self) -> PathBuf {
        if self.is_system() { PathBuf::from("/etc/cni/net.d") } else { self.etc.join("cni/net.d") }
    }

    /// What the CNI client keeps (docs/formats/cni-attachment.md).
    pub fn cni(&self) -> PathBuf {
        self.lib.join("cni")
    }

    /// CRI socket.
    pub fn cri_socket(&self) -> PathBuf {
        self.run.join("berth.sock")
    }

    /// Node API socket.
    pub fn node_socket(&self) -> PathBuf {
        self.run.join("node.sock")
    }

    /// Name for what the node has only once: cgroup parent, nftables table. The system's own root has the plain one.
    pub fn name(&self) -> String {
        if self.is_system() { "berth".to_owned() } else { format!("berth-{:08x}", self.hash) }
    }

    /// Name of the bridge, at most 15 characters.
    pub fn bridge(&self) -> String {
        if self.is_system() { "berth0".to_owned() } else { format!("berth{:08x}", self.hash) }
    }
}

/// FNV-1a, 32 bits: short, and the same for ever.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, b| (hash ^ u32::from(*b)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_do_not_share_names() {
        let dir = std::env::temp_dir();
        let one = Layout::new(Some(&dir)).unwrap();
        let system = Layout::new(None).unwrap();
        assert_ne!(one.name(), system.name());
        assert_ne!(one.bridge(), system.bridge());
        assert!(one.bridge().len() <= 15);
        assert_eq!(one.cri_socket(), dir.canonicalize().unwrap().join("run/berth.sock"));
    }
}
