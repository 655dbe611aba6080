//! Which subnets the network has: those of the settings, or those that follow from the root and are free on this node. Pure.
//!
//! Must not: read routes itself, or record what was chosen.
use super::config::{BridgeConfig, SUBNETS, subnet_for, subnet6_for};
use crate::netlink::{LinkInfo, route::RouteInfo};
use berth_model::{Error, ErrorKind, Result};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};

/// Key of the record among the leases; no pod's id is like it.
pub(super) const KEY: &str = "subnet";
/// How many IPv6 subnets are tried.
const SUBNETS6: u16 = 256;

/// The subnets that a network with derived ones has taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// IPv4.
    pub(super) subnet: Ipv4Net,
    /// IPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) subnet6: Option<Ipv6Net>,
}

impl Taken {
    /// Those of a configuration.
    pub(super) fn of(config: &BridgeConfig) -> Self {
        Self { subnet: config.subnet, subnet6: config.subnet6 }
    }

    /// Reads a record; one that cannot be read is none: the subnets are then chosen anew.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    /// As a record.
    pub(super) fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|e| Error::internal(format!("encode the subnet's record: {e}")))
    }
}

/// The routes of the node, and the index of our own bridge.
#[derive(Debug, Clone, Copy)]
pub(super) struct Routes<'a> {
    /// Interfaces, for their names.
    pub(super) links: &'a [LinkInfo],
    /// Routes.
    pub(super) all: &'a [RouteInfo],
    /// Our bridge, if it is there.
    pub(super) own: Option<u32>,
}

impl Routes<'_> {
    /// The first route that leads to a part of a subnet, past our bridge.
    fn overlap(&self, subnet: IpNet) -> Option<&RouteInfo> {
        self.all.iter().find(|route| {
            let net = route.destination;
            let overlaps = net.prefix_len() > 0 && (net.contains(&subnet) || subnet.contains(&net));
            overlaps && (self.own.is_none() || route.interface != self.own)
        })
    }

    /// Refuses a subnet that another route of the node leads to, in whole or in part.
    /// Errors: `FailedPrecondition` naming the route and its interface.
    pub(super) fn refuse_overlap(&self, subnet: IpNet) -> Result<()> {
        let Some(route) = self.overlap(subnet) else { return Ok(()) };
        let name = self.links.iter().find(|l| Some(l.index) == route.interface).map(|l| l.name.as_str());
        let place = name.map_or_else(|| "without interface".to_owned(), |n| format!("on interface {n:?}"));
        Err(Error::new(
            ErrorKind::FailedPrecondition,
            format!(
                "subnet {subnet} of the built-in network overlaps with the node's route {} {place}: give the network \
                 another subnet",
                route.destination
            ),
        ))
    }

    /// The subnets of a network that has derived ones: what it had before, if that is still free, else the next free ones.
    /// `hold`: pods have addresses of the recorded subnets, so others are no choice.
    pub(super) fn choose(
        &self,
        config: &BridgeConfig,
        hash: u32,
        recorded: Option<Taken>,
        hold: bool,
    ) -> Result<Taken> {
        let free = |net: IpNet| self.overlap(net).is_none();
        let (four, six) = recorded.map_or((None, None), |taken| (Some(taken.subnet), taken.subnet6));
        let subnet = match four {
            Some(net) if hold || free(net.into()) => Some(net),
            _ => (0..SUBNETS).map(|turn| subnet_for(hash, turn)).find(|net| free((*net).into())),
        };
        let subnet = subnet.ok_or_else(|| {
            let problem = "all default subnets of the built-in network (10.64.0.0 to 10.87.255.255) overlap with routes of \
                           the node: set spec.network.subnet";
            Error::new(ErrorKind::FailedPrecondition, problem)
        })?;
        let subnet6 = config.subnet6.map(|wish| match six {
            Some(net) if hold || free(net.into()) => net,
            _ => (0..SUBNETS6).map(|turn| subnet6_for(hash, turn)).find(|net| free((*net).into())).unwrap_or(wish),
        });
        Ok(Taken { subnet, subnet6 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(net: &str) -> RouteInfo {
        RouteInfo { destination: net.parse().unwrap(), interface: Some(2), advertised: false }
    }

    fn config() -> BridgeConfig {
        let mut config = BridgeConfig::new("b0", "t", subnet_for(77, 0));
        config.subnet6 = Some(subnet6_for(77, 0));
        config
    }

    #[test]
    fn a_taken_subnet_is_passed_over_and_the_choice_is_kept() {
        let (first, second) = (subnet_for(77, 0), subnet_for(77, 1));
        let all = [route("0.0.0.0/0"), route(&first.to_string()), route("::/0")];
        let routes = Routes { links: &[], all: &all, own: None };
        let taken = routes.choose(&config(), 77, None, false).unwrap();
        assert_eq!(taken, Taken { subnet: second, subnet6: Some(subnet6_for(77, 0)) });
        // The other root is gone by the next start.
        let alone = Routes { all: &all[..1], ..routes };
        assert_eq!(alone.choose(&config(), 77, Some(taken.clone()), false).unwrap(), taken);
        assert_eq!(Taken::decode(&taken.encode().unwrap()), Some(taken));
        assert_eq!(Taken::decode(b"{"), None);
        let own = Routes { own: Some(2), ..routes };
        assert_eq!(own.choose(&config(), 77, None, false).unwrap().subnet, first, "our own route is none of others");
    }

    #[test]
    fn with_pods_the_subnet_stays_and_the_overlap_is_refused_by_name() {
        let taken = Taken { subnet: subnet_for(77, 0), subnet6: None };
        let all = [route("10.0.0.0/8")];
        let routes = Routes { links: &[], all: &all, own: None };
        let four = BridgeConfig { subnet6: None, ..config() };
        assert_eq!(routes.choose(&four, 77, Some(taken.clone()), true).unwrap(), taken);
        let e = routes.refuse_overlap(taken.subnet.into()).unwrap_err();
        assert!(e.message().contains("10.0.0.0/8"), "{e}");
        let e = routes.choose(&four, 77, Some(taken), false).unwrap_err();
        assert!(e.message().contains("spec.network.subnet"), "{e}");
    }
}
