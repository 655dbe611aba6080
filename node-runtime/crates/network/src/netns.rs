//! Work inside another network namespace.
//!
//! A netlink socket stays in the namespace where it was opened. So a short-lived thread enters the namespace, opens the
//! socket and ends; the socket is then used from anywhere. No thread of the runtime ever changes its namespace.
//! Must not: create or remove namespaces.
use crate::netlink::{RouteSocket, route};
use berth_model::{Error, ErrorKind, Result, ResultExt};
use nix::sched::{CloneFlags, setns};
use std::fs::File;
use std::path::Path;

/// Name of the loopback interface.
const LOOPBACK: &str = "lo";
/// The loopback interface is the first one of every network namespace (`LOOPBACK_IFINDEX` of net/flow.h).
pub(crate) const LOOPBACK_INDEX: u32 = 1;

/// Opens the file of a network namespace.
pub(crate) fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(|e| {
        let kind = if e.kind() == std::io::ErrorKind::NotFound { ErrorKind::NotFound } else { ErrorKind::Internal };
        Error::new(kind, format!("network namespace {}: {e}", path.display()))
    })
}

/// An rtnetlink socket inside the namespace. `path` is for errors only.
pub(crate) fn route_socket(netns: &File, path: &Path) -> Result<RouteSocket> {
    within(netns, path, || Ok(RouteSocket::open()?))
}

/// Works inside the namespace, on a thread that ends with it.
fn within<T: Send>(netns: &File, path: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let enter = || -> Result<T> {
            setns(netns, CloneFlags::CLONE_NEWNET)
                .map_err(std::io::Error::from)
                .context(|| format!("enter network namespace {}", path.display()))?;
            work()
        };
        let thread = std::thread::Builder::new()
            .name("berth-netns".into())
            .spawn_scoped(scope, enter)
            .context(|| "start a thread for a network namespace")?;
        thread.join().map_err(|_| Error::internal("the thread in the network namespace panicked"))?
    })
}

/// The same, for a pod whose interfaces come now: they are to believe no router advertisement, which any other pod could
/// send them (CVE-2020-10749), and their link-local addresses need not be asked for, as no neighbour has their hardware
/// addresses. Both only where nobody chose otherwise.
pub(crate) fn pod_socket(netns: &File, path: &Path) -> Result<RouteSocket> {
    within(netns, path, || {
        for name in ["accept_ra", "accept_dad"] {
            let file = format!("/proc/sys/net/ipv6/conf/default/{name}");
            // Without IPv6 there is nothing to say.
            if std::fs::read(&file).is_ok_and(|value| value == b"1\n") {
                std::fs::write(&file, "0").context(|| format!("switch {name} of the pod's interfaces off"))?;
            }
        }
        Ok(RouteSocket::open()?)
    })
}

/// Sets the loopback interface of a network namespace up (pods on a CNI network, and pods without any). Idempotent.
pub async fn loopback_up(netns: &Path) -> Result<()> {
    let path = netns.to_owned();
    let work = move || -> Result<()> {
        let mut socket = route_socket(&open(&path)?, &path)?;
        Ok(socket.execute(vec![loopback()])?)
    };
    tokio::task::spawn_blocking(work).await.map_err(|e| Error::internal(format!("set loopback up: {e}")))?
}

/// The request that sets loopback up.
pub(crate) fn loopback() -> crate::netlink::Request {
    route::set_up(LOOPBACK_INDEX, LOOPBACK)
}
