//! Tells systemd how the daemon fares (sd_notify(3)); without systemd nobody asks.
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The sockets answer.
pub fn ready() {
    tell("READY=1\nSTATUS=Serving the CRI");
}

/// The daemon ends.
pub fn stopping() {
    tell("STOPPING=1");
}

fn tell(state: &str) {
    let Ok(path) = std::env::var("NOTIFY_SOCKET") else { return };
    let address = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address));
    if let Err(e) = sent {
        tracing::warn!(error = %e, "systemd could not be told");
    }
}
