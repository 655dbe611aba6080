//! Forwarding of packets on the node: the sysctls that the network needs, and what they were before.
//!
//! What they were stands in the alias of every bridge of this product, so that it lives exactly as long as the bridges, and
//! that other roots see it: the last bridge to go puts it back. Must not: touch a sysctl of an interface that is not ours,
//! but for `accept_ra` as told below.
//!
//! With `net.ipv6.conf.all.forwarding` a node is a router, and takes no default route from router advertisements any more
//! unless `accept_ra` is 2 (kernel's Documentation/networking/ip-sysctl.rst): a node that got its own route by one would lose
//! it. So hardware interfaces, and those that such a route leads by, get 2 where they had 1.
use super::sysctl;
use crate::netlink::{LinkInfo, route::RouteInfo};
use berth_model::{Error, ErrorKind, Result};

/// How the alias begins.
const FORWARD: &str = "berth ip_forward=";
const FORWARD6: &str = "ip6_forward=";
const ACCEPT_RA: &str = "accept_ra=";
/// Longest alias (`IFALIASZ` less its NUL).
const ALIAS_MAX: usize = 255;

/// What the sysctls were before the first bridge of this product; `None` where it did not need them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Former {
    /// `net.ipv4.ip_forward`.
    forward: Option<String>,
    /// `net.ipv6.conf.all.forwarding`.
    forward6: Option<String>,
    /// Interfaces whose `accept_ra` was 1.
    accept_ra: Vec<String>,
}

impl Former {
    /// Reads an alias; anybody with the right to can change one, so only what can have been a value is believed.
    pub(super) fn parse(alias: &str) -> Self {
        let switch = |value: &str| matches!(value, "0" | "1").then(|| value.to_owned());
        let mut words = alias.split(' ').skip(1);
        let Some(forward) = alias.strip_prefix(FORWARD).and_then(|_| words.next()) else { return Self::default() };
        let value = forward.split_once('=').map(|(_, value)| value).unwrap_or_default();
        let mut former = Self { forward: switch(value), ..Self::default() };
        for word in words {
            if let Some(value) = word.strip_prefix(FORWARD6) {
                former.forward6 = switch(value);
            } else if let Some(names) = word.strip_prefix(ACCEPT_RA) {
                former.accept_ra = names.split(',').filter(|name| is_name(name)).map(str::to_owned).collect();
            }
        }
        former
    }

    /// As the alias has it. Interfaces that do not fit are left out, and told.
    fn alias(&self) -> String {
        let mut alias = format!("{FORWARD}{}", self.forward.as_deref().unwrap_or("1"));
        if let Some(value) = &self.forward6 {
            alias.push_str(&format!(" {FORWARD6}{value}"));
        }
        let mut separator = format!(" {ACCEPT_RA}");
        for name in &self.accept_ra {
            if alias.len() + separator.len() + name.len() > ALIAS_MAX {
                tracing::warn!(interface = name, "accept_ra of this interface stays at 2 when the network goes");
                continue;
            }
            alias.push_str(&separator);
            alias.push_str(name);
            separator = ",".to_owned();
        }
        alias
    }
}

/// Can it be an interface's name, and be kept in a list?
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', ',', ' '])
}

/// Whether an interface is a bridge of this product.
pub(super) fn is_ours(link: &LinkInfo) -> bool {
    link.kind == "bridge" && link.alias.starts_with(FORWARD)
}

/// What the alias of a bridge must be before forwarding is switched on: what it says already, what bridges of other roots
/// say, and for the rest what the sysctls are now.
pub(super) fn alias_for(bridge: &str, dual: bool, links: &[LinkInfo], routes: &[RouteInfo]) -> Result<String> {
    let others: Vec<Former> = links.iter().filter(|l| is_ours(l)).map(|l| Former::parse(&l.alias)).collect();
    let own = links.iter().find(|l| l.name == bridge).map(|l| Former::parse(&l.alias)).unwrap_or_default();
    let mut former = own.clone();
    if former.forward.is_none() {
        let known = others.iter().find_map(|f| f.forward.clone());
        former.forward = Some(known.map_or_else(|| sysctl::read(sysctl::IP_FORWARD), Ok)?);
    }
    if dual && former.forward6.is_none() {
        match others.iter().find(|f| f.forward6.is_some()) {
            Some(known) => {
                former.forward6.clone_from(&known.forward6);
                former.accept_ra.clone_from(&known.accept_ra);
            }
            None => {
                let value = sysctl::read(sysctl::IP6_FORWARD)?;
                if value == "0" {
                    former.accept_ra = takes_advertisements(links, routes);
                }
                former.forward6 = Some(value);
            }
        }
    }
    Ok(former.alias())
}

/// The interfaces by which the node may get its default route by advertisement.
fn takes_advertisements(links: &[LinkInfo], routes: &[RouteInfo]) -> Vec<String> {
    let advertised = |l: &LinkInfo| routes.iter().any(|r| r.advertised && r.interface == Some(l.index));
    let candidates = links.iter().filter(|l| l.name != "lo" && (l.kind.is_empty() || advertised(l)));
    let accepts =
        |l: &&LinkInfo| is_name(&l.name) && sysctl::read(&sysctl::accept_ra(&l.name)).is_ok_and(|value| value == "1");
    candidates.filter(accepts).map(|l| l.name.clone()).collect()
}

/// Switches forwarding on, after [`alias_for`] has been recorded.
pub(super) fn enable(bridge: &str, dual: bool, alias: &str) -> Result<()> {
    sysctl::ensure(sysctl::IP_FORWARD, "1")?;
    sysctl::ensure(&sysctl::route_localnet(bridge), "1")?;
    keep_to_itself(bridge)?;
    if dual {
        for name in Former::parse(alias).accept_ra {
            sysctl::ensure_if_there(&sysctl::accept_ra(&name), "2")?;
        }
        sysctl::ensure(sysctl::IP6_FORWARD, "1")?;
    }
    Ok(())
}

/// What a bridge believes of the pods at it, and what it asks them.
pub(super) fn keep_to_itself(bridge: &str) -> Result<()> {
    // A pod could make itself the node's router by advertising itself (CVE-2020-13401).
    sysctl::ensure_if_there(&sysctl::accept_ra(bridge), "0")?;
    // While its link-local address is being asked for, a bridge asks for no pod.
    sysctl::ensure_if_there(&sysctl::accept_dad(bridge), "0")
}

/// Has the node IPv6 at all? Errors: `FailedPrecondition` with the remedy.
pub(super) fn require_ipv6() -> Result<()> {
    if std::fs::exists("/proc/sys/net/ipv6").unwrap_or(false) {
        return Ok(());
    }
    let problem = "the built-in network is to have IPv6, and this node has none (kernel parameter ipv6.disable?): take IPv6 \
                   out of spec.network.ipFamilies";
    Err(Error::new(ErrorKind::FailedPrecondition, problem))
}

/// Gives an interface IPv6 where the node's default is to have none.
pub(super) fn enable_ipv6(interface: &str) -> Result<()> {
    sysctl::ensure(&sysctl::disable_ipv6(interface), "0")
}

/// Puts back what a bridge's alias says, as far as none of the `others` needs it. `six_only`: the bridge stays, as one of
/// IPv4.
pub(super) fn restore(alias: &str, others: &[LinkInfo], six_only: bool) -> Result<()> {
    let former = Former::parse(alias);
    let others: Vec<Former> = others.iter().filter(|l| is_ours(l)).map(|l| Former::parse(&l.alias)).collect();
    if let Some(value) = &former.forward6
        && !others.iter().any(|f| f.forward6.is_some())
    {
        sysctl::ensure(sysctl::IP6_FORWARD, value)?;
        for name in &former.accept_ra {
            sysctl::ensure_if_there(&sysctl::accept_ra(name), "1")?;
        }
    }
    match former.forward {
        Some(value) if !six_only && others.is_empty() => sysctl::ensure(sysctl::IP_FORWARD, &value),
        _ => Ok(()),
    }
}

/// The alias of a bridge that has only IPv4 from now on; `None` if it has had no other.
pub(super) fn alias_without_six(alias: &str) -> Option<String> {
    let former = Former::parse(alias);
    former.forward6.as_ref()?;
    Some(Former { forward6: None, accept_ra: Vec::new(), ..former }.alias())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_reads_back() {
        let former = Former {
            forward: Some("0".into()),
            forward6: Some("0".into()),
            accept_ra: vec!["ens3".into(), "ens4".into()],
        };
        assert_eq!(former.alias(), "berth ip_forward=0 ip6_forward=0 accept_ra=ens3,ens4");
        assert_eq!(Former::parse(&former.alias()), former);
        let four = Former { forward: Some("0".into()), ..Former::default() };
        assert_eq!(four.alias(), "berth ip_forward=0", "as the version before wrote it");
        assert_eq!(Former::parse("berth ip_forward=0"), four);
        assert_eq!(alias_without_six(&former.alias()).unwrap(), four.alias());
        assert_eq!(alias_without_six(&four.alias()), None);
    }

    #[test]
    fn what_cannot_have_been_a_value_is_not_believed() {
        for alias in ["", "uplink", "berth ip_forward=2", "berth ip_forward=0/../x", "ip_forward=0"] {
            assert_eq!(Former::parse(alias).forward, None, "{alias}");
        }
        let odd = Former::parse("berth ip_forward=0 ip6_forward=9 accept_ra=../../vm,ens3,,..,a.7");
        assert_eq!((odd.forward6, odd.accept_ra), (None, vec!["ens3".to_owned(), "a.7".to_owned()]));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let accept_ra = (0..40).map(|n| format!("interface{n:05}")).collect();
        let former = Former { forward: Some("0".into()), forward6: Some("0".into()), accept_ra };
        assert!(former.alias().len() <= ALIAS_MAX);
        assert_eq!(Former::parse(&former.alias()).accept_ra.len(), 14);
    }
}
