//! Host ports: which mappings can work, where on the node they are, and what they lead to. Pure.
//!
//! Must not: know who has which port (the pool does).
use super::lease::Lease;
use crate::nft::HostPort;
use berth_model::{Error, ErrorKind, PortMapping, Protocol, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Most host ports of one pod. A transaction of that many fits a socket's default send buffer.
const PORTS_MAX: usize = 256;
/// All IPv4 addresses of the node, and all IPv6 addresses.
const ALL: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ALL6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// Where a mapping is on the node; an unspecified address is all of its family. Without IPv6 `::` is everything that there is.
pub(super) fn places(host_ip: Option<IpAddr>, dual: bool) -> Vec<IpAddr> {
    match host_ip.map(|ip| ip.to_canonical()) {
        None if dual => vec![ALL, ALL6],
        None => vec![ALL],
        Some(ALL6) if !dual => vec![ALL],
        Some(ip) => vec![ip],
    }
}

/// Can two places not have the same port?
pub(super) fn clash(one: IpAddr, other: IpAddr) -> bool {
    one.is_ipv4() == other.is_ipv4() && (one == other || one.is_unspecified() || other.is_unspecified())
}

/// Checks a pod's mappings; `owner` names the other pod that has a port at a place.
/// Errors: `InvalidArgument` naming the field; `AlreadyExists` naming the port and the other pod.
pub(super) fn check(
    ports: &[PortMapping],
    dual: bool,
    owner: impl Fn((Protocol, u16), IpAddr) -> Option<String>,
) -> Result<()> {
    if ports.len() > PORTS_MAX {
        return Err(Error::invalid("ports", format!("{} are too many; the limit is {PORTS_MAX}", ports.len())));
    }
    let mut own: Vec<((Protocol, u16), IpAddr)> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let field = |name: &str| format!("ports[{i}].{name}");
        if port.host_port == 0 || port.container_port == 0 {
            let name = if port.host_port == 0 { "hostPort" } else { "containerPort" };
            return Err(Error::invalid(field(name), "must be 1 to 65535"));
        }
        check_address(port.host_ip, dual).map_err(|problem| Error::invalid(field("hostIP"), problem))?;
        let key = (port.protocol, port.host_port);
        for place in places(port.host_ip, dual) {
            if own.iter().any(|(k, at)| *k == key && clash(*at, place)) {
                return Err(Error::invalid(field("hostPort"), format!("{} is mapped twice", words(port))));
            }
            own.push((key, place));
            if let Some(owner) = owner(key, place) {
                let message = format!("{}: host port {} is taken by pod {owner}", field("hostPort"), words(port));
                return Err(Error::new(ErrorKind::AlreadyExists, message));
            }
        }
    }
    Ok(())
}

fn check_address(host_ip: Option<IpAddr>, dual: bool) -> std::result::Result<(), String> {
    match host_ip.map(|ip| ip.to_canonical()) {
        Some(IpAddr::V6(ip)) if ip.is_loopback() => {
            Err(format!("{ip}: the kernel translates nothing that comes from IPv6 loopback; use 127.0.0.1"))
        }
        Some(IpAddr::V6(ip)) if !dual && !ip.is_unspecified() => {
            Err(format!("{ip}: the built-in network has only IPv4; add IPv6 to spec.network.ipFamilies"))
        }
        _ => Ok(()),
    }
}

/// The host ports of a lease, as nftables has them.
pub(super) fn host_ports(lease: &Lease, dual: bool) -> Vec<HostPort> {
    let map = |port: &PortMapping| {
        let to = |place: IpAddr| {
            let pod = if place.is_ipv4() { Some(IpAddr::V4(lease.address)) } else { lease.address6.map(IpAddr::V6) };
            Some(HostPort {
                protocol: port.protocol,
                address: Some(place).filter(|place| !place.is_unspecified()),
                port: port.host_port,
                target: SocketAddr::new(pod?, port.container_port),
            })
        };
        let places = places(port.host_ip, dual).into_iter().filter(|place| dual || place.is_ipv4());
        places.filter_map(to).collect::<Vec<_>>()
    };
    lease.ports.iter().flat_map(map).collect()
}

fn words(port: &PortMapping) -> String {
    let protocol = match port.protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
        Protocol::Sctp => "SCTP",
    };
    match port.host_ip.filter(|ip| !ip.is_unspecified()) {
        Some(ip) => format!("{protocol} {}", SocketAddr::new(ip, port.host_port)),
        None => format!("{protocol} {}", port.host_port),
    }
}
