//! The conversation with nf_tables: the tables of the bridge network are written, read and checked as wholes.
//!
//! Must not: know what the rules are for ([`super::table`]), or decide when.
use super::firewall::{self, ForwardDrop};
use super::object;
use super::table::{self, Element, HostPort, SETS, TableSpec};
use super::{Family, TableName};
use crate::netlink::{NetlinkError, Request, Socket};
use nix::errno::Errno;
use std::collections::BTreeSet;

/// An nfnetlink socket.
#[derive(Debug)]
pub(crate) struct NftSocket(Socket);

impl NftSocket {
    /// Opens one in the calling thread's network namespace.
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        Socket::open(netlink_sys::protocols::NETLINK_NETFILTER).map(Self)
    }

    /// Writes the whole tables anew, in one step: packets meet the old ones or the new ones.
    pub(crate) fn replace(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        let mut requests = Vec::new();
        for name in spec.names() {
            // To delete a table that may be missing, create it first.
            requests.extend([object::new_table(name), object::delete_table(name)]);
        }
        requests.extend(table::whole(spec));
        requests.extend(Element::of(ports).iter().map(|e| table::add(spec, e)));
        self.transact(requests)
    }

    /// Adds the elements of ports. Adding what is there is no error.
    pub(crate) fn add(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        self.transact(Element::of(ports).iter().map(|e| table::add(spec, e)).collect())
    }

    /// Deletes the elements of ports; `ENOENT`, and nothing deleted, if one is missing.
    pub(crate) fn remove(&mut self, spec: &TableSpec, ports: &[HostPort]) -> Result<(), NetlinkError> {
        let delete = |e: &Element| object::delete_element(spec.name(e.family), e.set, &e.key, &e.to_string());
        self.transact(Element::of(ports).iter().map(delete).collect())
    }

    /// Is the table there?
    pub(crate) fn exists(&mut self, table: TableName<'_>) -> Result<bool, NetlinkError> {
        match self.0.ask(object::get_table(table)) {
            Ok(answers) => Ok(!answers.is_empty()),
            Err(e) if e.is(Errno::ENOENT) => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Have the tables all of their rules? Somebody may have flushed them and left the table.
    pub(crate) fn has_rules(&mut self, spec: &TableSpec) -> Result<bool, NetlinkError> {
        for net in &spec.subnets {
            let request = object::list_rules(Family::of(net.addr()) as u8, &spec.table);
            if self.0.ask(request)?.len() != table::rule_count(spec, *net) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Deletes a table; no error if it is not there, or if the kernel lacks its family.
    pub(crate) fn delete(&mut self, table: TableName<'_>) -> Result<(), NetlinkError> {
        let absent = [Errno::ENOENT, Errno::EAFNOSUPPORT, Errno::EOPNOTSUPP];
        match self.transact(vec![object::delete_table(table)]) {
            Err(e) if absent.iter().any(|errno| e.is(*errno)) => Ok(()),
            result => result,
        }
    }

    /// All elements of the tables' sets, as the kernel has them.
    pub(crate) fn elements(&mut self, spec: &TableSpec) -> Result<BTreeSet<Element>, NetlinkError> {
        let mut all = BTreeSet::new();
        for name in spec.names() {
            for set in SETS {
                for answer in self.0.ask(object::list_elements(name, set))? {
                    all.extend(table::parse_elements(name.family, set, &answer.payload));
                }
            }
        }
        Ok(all)
    }

    /// The chains of other tables that drop what the bridge forwards.
    pub(crate) fn forward_drops(&mut self, spec: &TableSpec) -> Result<Vec<ForwardDrop>, NetlinkError> {
        let mut found = Vec::new();
        for chain in firewall::forward_chains(&self.0.ask(object::list_chains())?, spec) {
            let rules = match self.0.ask(object::list_rules(chain.family, &chain.table)) {
                Ok(rules) => rules,
                // It went away meanwhile.
                Err(e) if e.is(Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            };
            found.extend(firewall::judge(chain, &rules, spec));
        }
        Ok(found)
    }

    /// Lets iptables' chain accept what the bridge forwards; see [`firewall`].
    pub(crate) fn open_forward(&mut self, spec: &TableSpec, family: Family) -> Result<(), NetlinkError> {
        self.transact(firewall::accept(spec, family))
    }

    /// Is there anything of [`Self::open_forward`]?
    pub(crate) fn forward_is_open(&mut self, spec: &TableSpec) -> Result<bool, NetlinkError> {
        Ok(!self.forward_rules(spec)?.is_empty())
    }

    /// Takes back what [`Self::open_forward`] did.
    pub(crate) fn close_forward(&mut self, spec: &TableSpec) -> Result<(), NetlinkError> {
        let requests = self.forward_rules(spec)?;
        self.transact(requests)
    }

    /// The requests that delete our rules in iptables' chains.
    fn forward_rules(&mut self, spec: &TableSpec) -> Result<Vec<Request>, NetlinkError> {
        let mut requests = Vec::new();
        for family in [Family::V4, Family::V6] {
            match self.0.ask(object::list_rules(family as u8, firewall::TABLE)) {
                Ok(rules) => requests.extend(firewall::take_back(spec, family, &rules)),
                Err(e) if e.is(Errno::ENOENT) || e.is(Errno::EAFNOSUPPORT) || e.is(Errno::EOPNOTSUPP) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(requests)
    }

    fn transact(&mut self, requests: Vec<Request>) -> Result<(), NetlinkError> {
        self.0.transact(object::begin(), requests, object::end())
    }
}
