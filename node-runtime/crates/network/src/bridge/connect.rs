//! A pod's interfaces: the veth pair, its addresses and routes, and the limits on what passes it. Blocking.
//!
//! Four conversations with the kernel, whatever the families: create the pair; set the pod's end up and look it up; its
//! addresses and routes; look whether the node's side carries packets. A limit takes one more, one on what the pod sends two.
use super::config::mac_of;
use super::host::Host;
use super::lease::Lease;
use crate::bandwidth::Bandwidth;
use crate::netlink::{LinkInfo, RouteSocket, route, traffic};
use crate::netns;
use berth_model::{Error, ErrorKind, Result, ResultExt};
use ipnet::IpNet;
use std::fs::File;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Name of the interface in the pod.
pub(super) const POD_INTERFACE: &str = "eth0";
/// How long to wait for an interface to carry packets: the link watch runs once a second.
const CARRIER: Duration = Duration::from_millis(1500);
/// How often to look, on kernels before 6.8.
const CARRIER_POLL: Duration = Duration::from_millis(1);

impl Host {
    /// Creates a pod's veth pair, and sets its end in the pod up with addresses and default routes. `inside` is a socket in
    /// the pod's network namespace.
    pub(super) fn connect(
        &mut self,
        lease: &Lease,
        bandwidth: Bandwidth,
        netns: &File,
        inside: &mut RouteSocket,
    ) -> Result<()> {
        let Some(bridge) = self.bridge else {
            return Err(Error::new(ErrorKind::Unavailable, "the built-in network is not set up yet"));
        };
        let name = lease.host_interface.as_str();
        let pair = route::VethPair {
            name,
            bridge: bridge.index,
            peer_name: POD_INTERFACE,
            peer_mac: lease.hardware_address(),
            peer_netns: netns.as_fd(),
            mtu: bridge.mtu,
        };
        // Where br_netfilter is on, a pod's packet to its own host port or service is translated within the bridge, and so
        // leaves by the port by which it came.
        self.route.execute(vec![route::create_veth(&pair), route::set_hairpin(name)])?;
        self.stays(name);
        let up = vec![netns::loopback(), route::set_up_by_name(POD_INTERFACE), route::look_up(POD_INTERFACE)];
        let pod_end = one(inside.execute_and_look(up)?, POD_INTERFACE)?;
        inside.execute(self.addressing(lease, pod_end.index))?;
        // With its first port, the bridge itself gets its carrier too.
        let mut look = vec![route::look_up(name), route::look_up(&self.config.bridge)];
        if let Some(address6) = lease.address6 {
            look.push(route::add_neighbour(bridge.index, address6.into(), lease.hardware_address()));
        }
        let [host_end, bridge_now] = <[LinkInfo; 2]>::try_from(self.route.execute_and_look(look)?)
            .map_err(|_| Error::internal(format!("interface {name:?} vanished while it was set up")))?;
        self.limit(lease, bandwidth, &host_end)?;
        for link in [&host_end, &bridge_now] {
            wait_for_carrier(link, || Ok(self.route.link(&link.name)?))?;
        }
        wait_for_carrier(&pod_end, || Ok(inside.link(&pod_end.name)?))
    }

    /// Addresses and default routes of the pod's end.
    fn addressing(&self, lease: &Lease, index: u32) -> Vec<crate::netlink::Request> {
        let nets = self.config.nets(lease.address, lease.address6);
        let gateway = |net: &IpNet| match net {
            IpNet::V4(_) => Some(IpAddr::V4(self.config.gateway())),
            IpNet::V6(_) => self.config.gateway6().map(IpAddr::V6),
        };
        let gateways = nets.iter().filter_map(gateway).map(|gateway| route::add_default_route(index, gateway));
        let six = self.config.gateway6().filter(|_| lease.address6.is_some());
        let neighbour = six.map(|gateway| route::add_neighbour(index, gateway.into(), mac_of(self.config.gateway())));
        route::add_addresses(index, &nets).into_iter().chain(gateways).chain(neighbour).collect()
    }

    /// Limits what passes the node's end. What the pod sends comes in there, where nothing can be queued: it is redirected to
    /// an `ifb` interface, which queues it, as the CNI bandwidth plugin does.
    fn limit(&mut self, lease: &Lease, bandwidth: Bandwidth, end: &LinkInfo) -> Result<()> {
        let modules = || "limit the pod's bandwidth (kernel modules sch_tbf, sch_ingress, cls_u32, act_mirred and ifb)";
        if let Some(bits) = bandwidth.ingress {
            self.route.execute(vec![traffic::limit(end.index, &end.name, bits)]).context(modules)?;
        }
        let (Some(bits), Some(limiter)) = (bandwidth.egress, &lease.limiter) else { return Ok(()) };
        let [create, alias] = route::create_ifb(limiter, end.mtu, &self.limiter_alias());
        let ifb =
            one(self.route.execute_and_look(vec![create, alias, route::look_up(limiter)]).context(modules)?, limiter)?;
        let [queue, filter] = traffic::redirect(end.index, &end.name, ifb.index);
        self.route.execute(vec![traffic::limit(ifb.index, limiter, bits), queue, filter]).context(modules)
    }
}

/// The one interface that was looked up.
fn one(found: Vec<LinkInfo>, name: &str) -> Result<LinkInfo> {
    found.into_iter().next().ok_or_else(|| Error::internal(format!("interface {name:?} vanished while it was set up")))
}

/// Waits until an interface carries packets. The kernel enables queue and bridge port of a veth only when its link watch
/// ran, up to a second after both ends are up (net/core/link_watch.c), and drops packets until then: a pod's first SYN or ARP
/// request would be lost, and sent again a second later. From 6.8 on, looking an interface up runs the link watch for it
/// (`rtnl_getlink`), so `seen`, the first look, is the last; before, `look` is asked again.
fn wait_for_carrier(seen: &LinkInfo, mut look: impl FnMut() -> Result<Option<LinkInfo>>) -> Result<()> {
    let (name, deadline) = (&seen.name, Instant::now() + CARRIER);
    let mut carries = seen.carries;
    while !carries {
        match look()? {
            None => return Err(Error::internal(format!("interface {name:?} vanished while it was set up"))),
            Some(link) => carries = link.carries,
        }
        if !carries && Instant::now() >= deadline {
            tracing::warn!(interface = name, "interface carries no packets yet; the pod's first ones may be lost");
            return Ok(());
        }
        if !carries {
            std::thread::sleep(CARRIER_POLL);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(carries: bool) -> LinkInfo {
        LinkInfo {
            index: 7,
            name: "veth7".into(),
            up: true,
            carries,
            mtu: 1500,
            master: None,
            kind: "veth".into(),
            alias: String::new(),
        }
    }

    /// As on kernels before 6.8, where a look does not hurry the link watch.
    #[test]
    fn an_interface_is_looked_at_until_it_carries_packets() {
        let mut looks = 0;
        let wait = |seen: bool, looks: &mut u32| {
            wait_for_carrier(&link(seen), || {
                *looks += 1;
                Ok(Some(link(*looks >= 5)))
            })
        };
        wait(false, &mut looks).unwrap();
        assert_eq!(looks, 5);
        wait(true, &mut looks).unwrap();
        assert_eq!(looks, 5, "one that carries packets is not asked again");
    }

    #[test]
    fn one_that_never_does_or_that_vanishes_holds_no_pod_for_long() {
        let begun = Instant::now();
        wait_for_carrier(&link(false), || Ok(Some(link(false)))).unwrap();
        let took = begun.elapsed();
        assert!(took >= CARRIER && took < CARRIER + Duration::from_secs(30), "{took:?}");
        let error = wait_for_carrier(&link(false), || Ok(None)).unwrap_err();
        assert!(error.message().contains("\"veth7\" vanished"), "{error}");
    }
}
