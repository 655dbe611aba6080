//! One operation a node, whatever roots of Berth there are on it: all of them would change the same kubelet.
//!
//! Owns: that lock, a name among the abstract unix sockets (unix(7)), which the kernel takes back when its owner ends. Must not: know journals.
use anyhow::{Context, Result, bail};
use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixListener};

/// Held until it is dropped.
pub(super) struct NodeLock(#[allow(dead_code, reason = "it is held by being open")] UnixListener);

impl NodeLock {
    /// Takes it for the node whose mount namespace this process is in. Errors: somebody else has it.
    pub(super) fn take() -> Result<Self> {
        let namespace = std::fs::metadata("/proc/self/ns/mnt").context("own mount namespace")?.ino();
        let name = SocketAddr::from_abstract_name(format!("berth-adopt-{namespace}"))?;
        match UnixListener::bind_addr(&name) {
            Ok(listener) => Ok(Self(listener)),
            Err(e) if e.kind() == ErrorKind::AddrInUse => {
                bail!("an operation of another root of Berth is under way on this node")
            }
            Err(e) => Err(e).context("the lock of this node's kubelet"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_has_it() {
        let lock = NodeLock::take().unwrap();
        assert!(NodeLock::take().is_err());
        drop(lock);
        NodeLock::take().unwrap();
    }
}
