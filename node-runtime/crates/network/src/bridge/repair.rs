//! What keeps the network from working, and what others did to it meanwhile. Blocking.
//!
//! Must not: repair anything itself but what a firewall's owner expects (`ensure` does the rest).
use super::host::Host;
use super::sysctl;
use crate::nft::{Element, HostPort, firewall};
use berth_model::Result;
use std::collections::HashSet;

impl Host {
    /// What keeps the network from working, in a sentence.
    pub(super) fn ready(&mut self) -> Result<(), String> {
        let problem = self.problem().unwrap_or_else(|e| Some(e.to_string()));
        problem.map_or(Ok(()), |p| Err(format!("built-in network: {p}")))
    }

    /// The first thing that is wrong with bridge, tables and sysctls.
    fn problem(&mut self) -> Result<Option<String>> {
        let name = &self.config.bridge;
        let Some(link) = self.route.link(name)? else {
            return Ok(Some(format!("bridge {name:?} does not exist")));
        };
        if !link.up {
            return Ok(Some(format!("bridge {name:?} is down")));
        }
        let addresses = self.route.addresses()?;
        if let Some(missing) = self.config.gateway_nets().iter().find(|net| !addresses.contains(&(link.index, **net))) {
            return Ok(Some(format!("bridge {name:?} lacks its address {missing}")));
        }
        for table in self.table.names() {
            if !self.nft.exists(table)? {
                return Ok(Some(format!("nftables table {table} does not exist")));
            }
        }
        let six = self.config.subnet6.is_some().then_some(sysctl::IP6_FORWARD);
        for name in [Some(sysctl::IP_FORWARD), six].into_iter().flatten() {
            if sysctl::read(name)? != "1" {
                return Ok(Some(format!("sysctl {} is 0", name.replace('/', "."))));
            }
        }
        Ok(None)
    }

    /// What `ensure` has to repair, also where `ready` has no complaint: flushed rules, missing elements, pods' interfaces that
    /// lost the bridge, a firewall that came meanwhile. `settled` are the host ports that are there for certain, `ports` also
    /// those that are coming.
    pub(super) fn damage(
        &mut self,
        ports: &[HostPort],
        settled: &[HostPort],
        owned: &HashSet<String>,
    ) -> Result<Option<String>> {
        let known = self.problem()?;
        if known.is_some() {
            return Ok(known);
        }
        let guarded = self.table.guarded;
        self.watch_firewalls();
        if self.table.guarded != guarded {
            return Ok(Some("a firewall's forward chain was opened".to_owned()));
        }
        let actual = self.nft.elements(&self.table)?;
        let whole = actual.is_superset(&Element::of(settled)) && actual.is_subset(&Element::of(ports));
        if !whole || !self.nft.has_rules(&self.table)? {
            return Ok(Some(format!("nftables table {} was changed", self.table.table)));
        }
        let localnet = sysctl::route_localnet(&self.config.bridge);
        if sysctl::read(&localnet)? != "1" {
            return Ok(Some(format!("sysctl {} is 0", localnet.replace('/', "."))));
        }
        let bridge = self.bridge.map(|b| b.index);
        let links = self.route.links()?;
        let lost = links.iter().find(|l| owned.contains(&l.name) && (l.master != bridge || !l.up));
        Ok(lost.map(|l| format!("interface {:?} of a pod is down or not at the bridge", l.name)))
    }

    /// Looks for chains of others that drop what pods send. Iptables' own is opened; the rest is told, once each.
    pub(super) fn watch_firewalls(&mut self) {
        match self.open_or_tell() {
            Ok(()) => {}
            Err(e) => tracing::warn!(error = %e, "the node's firewalls cannot be looked at"),
        }
    }

    fn open_or_tell(&mut self) -> Result<()> {
        let mut left = Vec::new();
        for found in self.nft.forward_drops(&self.table)? {
            let Some(family) = firewall::is_iptables(&found) else {
                left.push(found);
                continue;
            };
            match self.nft.open_forward(&self.table, family) {
                Ok(()) => tracing::info!(
                    family = found.family,
                    bridge = self.config.bridge,
                    "iptables' FORWARD chain drops by policy; it accepts what the bridge forwards from now on"
                ),
                Err(e) => {
                    tracing::warn!(error = ?e, "iptables' FORWARD chain cannot be opened");
                    left.push(found);
                }
            }
        }
        self.table.guarded = self.nft.forward_is_open(&self.table)?;
        for found in left.iter().filter(|found| !self.firewalls.contains(found)) {
            tracing::warn!(bridge = self.config.bridge, "{found}");
        }
        self.firewalls = left;
        Ok(())
    }
}
