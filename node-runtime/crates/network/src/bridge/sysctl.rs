//! Sysctls of the network namespace that the calling thread is in.
use berth_model::{Error, Result};

/// Does the node forward IPv4 packets?
pub(super) const IP_FORWARD: &str = "net/ipv4/ip_forward";
/// Does it forward IPv6 packets?
pub(super) const IP6_FORWARD: &str = "net/ipv6/conf/all/forwarding";

/// Reads one, e.g. `net/ipv4/ip_forward`.
pub(super) fn read(name: &str) -> Result<String> {
    let text = std::fs::read_to_string(format!("/proc/sys/{name}")).map_err(|e| error("read", name, &e))?;
    Ok(text.trim_end().to_owned())
}

/// Writes one, unless it has the value: /proc/sys may be read-only where all is set already.
pub(super) fn ensure(name: &str, value: &str) -> Result<()> {
    if read(name)? == value {
        return Ok(());
    }
    std::fs::write(format!("/proc/sys/{name}"), value).map_err(|e| error("write", name, &e))
}

/// The same; one that does not exist (no IPv6, no such interface) is left so.
pub(super) fn ensure_if_there(name: &str, value: &str) -> Result<()> {
    match std::fs::exists(format!("/proc/sys/{name}")) {
        Ok(true) => ensure(name, value),
        _ => Ok(()),
    }
}

/// Lets packets to and from 127.0.0.0/8 pass an interface.
pub(super) fn route_localnet(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/route_localnet")
}

/// Whether router advertisements are followed: 0 never, 1 unless the node forwards, 2 always.
pub(super) fn accept_ra(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/accept_ra")
}

/// Whether neighbours are asked before an address is used.
pub(super) fn accept_dad(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/accept_dad")
}

/// Whether an interface has no IPv6.
pub(super) fn disable_ipv6(interface: &str) -> String {
    format!("net/ipv6/conf/{interface}/disable_ipv6")
}

fn error(verb: &str, name: &str, e: &std::io::Error) -> Error {
    Error::internal(format!("{verb} sysctl {}: {e}", name.replace('/', ".")))
}
