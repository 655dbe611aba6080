//! Sysctls of the network namespace that the calling thread is in.
use berth_model::{Error, Result};

/// Does the node forward packets?
pub(super) const IP_FORWARD: &str = "net/ipv4/ip_forward";

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

/// Lets packets to and from 127.0.0.0/8 pass an interface.
pub(super) fn route_localnet(interface: &str) -> String {
    format!("net/ipv4/conf/{interface}/route_localnet")
}

fn error(verb: &str, name: &str, e: &std::io::Error) -> Error {
    Error::internal(format!("{verb} sysctl {}: {e}", name.replace('/', ".")))
}
