//! What other tables do with the packets that the bridge forwards.
//!
//! Docker sets the policy of iptables' FORWARD chain to drop, firewalld ends its own forward chain with a reject, and
//! administrators write tables like them. An accept in one base chain does not override a drop in another one, so no rule of
//! our own table helps. What is done:
//! - iptables' `filter FORWARD` is where every network of a node adds its rules (the CNI firewall plugin too): there the
//!   bridge's packets are accepted, by two rules at the front that iptables can show and that carry our comment; our own table
//!   then keeps strangers from opening connections to pods ([`TableSpec::guarded`]);
//! - any other table is its owner's business: it is told, with the command that opens it.
//!
//! Must not: talk to the kernel; change any chain but that one.
use super::expression::{Compare, Expression, Meta, octets};
use super::object::{
    self, CHAIN_HOOK, CHAIN_NAME, CHAIN_POLICY, CHAIN_TABLE, CHAIN_TYPE, HOOK_NUMBER, LIST_ITEM, RULE_CHAIN,
    RULE_EXPRESSIONS, RULE_HANDLE, RULE_USERDATA,
};
use super::table::NFGENMSG;
use super::{Family, TableName, TableSpec};
use crate::netlink::socket::Answer;
use crate::netlink::{Attributes, Request};
use ipnet::IpNet;

/// The table and the chain of iptables.
pub(super) const TABLE: &str = "filter";
const CHAIN: &str = "FORWARD";
/// `NFPROTO_INET`: both families.
const INET: u8 = 1;
/// `NF_DROP`.
const DROP: u32 = 0;
/// `NFTNL_UDATA_RULE_COMMENT` of libnftnl: where `nft` keeps a rule's comment.
const COMMENT: u8 = 0;

/// Why a chain drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// Its policy is drop.
    Policy,
    /// Its last rule drops or rejects everything that came so far.
    LastRule,
}

/// A chain of another table that drops what pods send out of the node, and what comes for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardDrop {
    /// `ip`, `ip6` or `inet`.
    pub family: &'static str,
    /// Name of the table.
    pub table: String,
    /// Name of the chain.
    pub chain: String,
    /// Why.
    pub reason: DropReason,
    /// What to do, as a command line.
    pub remedy: String,
}

impl std::fmt::Display for ForwardDrop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = match self.reason {
            DropReason::Policy => "its policy is drop",
            DropReason::LastRule => "its last rule drops the rest",
        };
        let (family, table, chain) = (self.family, &self.table, &self.chain);
        write!(f, "nftables chain {family} {table} {chain} drops what pods send and get by way of the node: {why}; ")?;
        write!(f, "run: {}", self.remedy)
    }
}

/// A base chain on the forward hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) family: u8,
    pub(super) table: String,
    name: String,
    drops: bool,
}

/// The base chains on the forward hook that a packet of the network meets, but for our own.
pub(super) fn forward_chains(answers: &[Answer], spec: &TableSpec) -> Vec<Chain> {
    let parse = |payload: &[u8]| {
        let attributes = Attributes(payload.get(NFGENMSG..)?);
        let hook = attributes.find_nested(CHAIN_HOOK)?;
        let chain = Chain {
            family: *payload.first()?,
            table: attributes.find_string(CHAIN_TABLE)?,
            name: attributes.find_string(CHAIN_NAME)?,
            drops: be32(attributes.find(CHAIN_POLICY)) == Some(DROP),
        };
        let ours = chain.table == spec.table && chain.family != INET;
        let filter =
            attributes.find_string(CHAIN_TYPE)? == "filter" && be32(hook.find(HOOK_NUMBER))? == object::FORWARD;
        let met = chain.family == INET || spec.names().any(|n| n.family as u8 == chain.family);
        (filter && met && !ours).then_some(chain)
    };
    answers.iter().filter_map(|a| parse(&a.payload)).collect()
}

/// Does a chain drop the network's packets? A rule of its table that names the bridge or a subnet without dropping says that
/// its owner knows of the network: a firewall's zones cannot be followed from here, and need not be.
pub(super) fn judge(chain: Chain, rules: &[Answer], spec: &TableSpec) -> Option<ForwardDrop> {
    let rules: Vec<Rule<'_>> = rules.iter().filter_map(|a| Rule::parse(&a.payload)).collect();
    let last = rules.iter().rfind(|r| r.chain == chain.name);
    let reason = match (chain.drops, last) {
        (true, _) => DropReason::Policy,
        (false, Some(rule)) if rule.drops_everything() => DropReason::LastRule,
        _ => return None,
    };
    if rules.iter().any(|rule| !rule.drops() && rule.names(spec)) {
        return None;
    }
    let family = match chain.family {
        INET => "inet",
        n if n == Family::V4 as u8 => Family::V4.name(),
        _ => Family::V6.name(),
    };
    let remedy = remedy(family, &chain, spec);
    Some(ForwardDrop { family, table: chain.table, chain: chain.name, reason, remedy })
}

fn remedy(family: &str, chain: &Chain, spec: &TableSpec) -> String {
    let bridge = &spec.bridge;
    if chain.table == "firewalld" {
        return format!("firewall-cmd --permanent --zone=trusted --add-interface={bridge} && firewall-cmd --reload");
    }
    let insert = |key: &str| format!("nft insert rule {family} {} {} {key} {bridge:?} accept", chain.table, chain.name);
    format!("{} && {}", insert("iifname"), insert("oifname"))
}

/// Is it iptables' own chain, which we open?
pub(crate) fn is_iptables(found: &ForwardDrop) -> Option<Family> {
    let family = [Family::V4, Family::V6].into_iter().find(|f| f.name() == found.family)?;
    (found.table == TABLE && found.chain == CHAIN).then_some(family)
}

/// The two rules: `iifname BRIDGE counter accept`, `oifname BRIDGE counter accept`.
pub(super) fn accept(spec: &TableSpec, family: Family) -> Vec<Request> {
    let table = TableName { family, name: TABLE };
    // iptables compares a name with its NUL and no further.
    let value = format!("{}\0", spec.bridge).into_bytes();
    let first = |key| {
        let compare = Expression::Compare { register: 0, how: Compare::Equal, value: value.clone() };
        let rule = [Expression::Meta { key, register: 0 }, compare, Expression::Counter, Expression::Accept];
        object::first_rule(table, CHAIN, &rule, &note(spec))
    };
    vec![first(Meta::OutputName), first(Meta::InputName)]
}

/// The requests that delete the rules of [`accept`] among `rules`.
pub(super) fn take_back(spec: &TableSpec, family: Family, rules: &[Answer]) -> Vec<Request> {
    let note = note(spec);
    let ours = |payload: &[u8]| {
        let attributes = Attributes(payload.get(NFGENMSG..)?);
        let mine = attributes.find(RULE_USERDATA)? == note && attributes.find_string(RULE_CHAIN)? == CHAIN;
        let handle = u64::from_be_bytes(attributes.find(RULE_HANDLE)?.try_into().ok()?);
        mine.then(|| object::delete_rule(TableName { family, name: TABLE }, CHAIN, handle))
    };
    rules.iter().filter_map(|a| ours(&a.payload)).collect()
}

/// The comment of our rules, as `nft` keeps it: kind, length, text with its NUL.
fn note(spec: &TableSpec) -> Vec<u8> {
    let text = format!("berth: pods of {}\0", spec.bridge);
    let mut note = vec![COMMENT, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    note.extend(text.bytes());
    note
}

/// Is it the subnet's prefix? `nft` compares only the bytes that the prefix has, where it ends with a byte.
fn is_prefix(value: &[u8], net: IpNet) -> bool {
    value.len() * 8 >= usize::from(net.prefix_len()) && octets(net.network()).starts_with(value)
}

fn be32(bytes: Option<&[u8]>) -> Option<u32> {
    Some(u32::from_be_bytes(bytes?.try_into().ok()?))
}

/// A rule as far as it matters here.
struct Rule<'a> {
    chain: String,
    expressions: Vec<(String, Attributes<'a>)>,
}

impl<'a> Rule<'a> {
    fn parse(payload: &'a [u8]) -> Option<Self> {
        let attributes = Attributes(payload.get(NFGENMSG..)?);
        let list = attributes.find_nested(RULE_EXPRESSIONS)?;
        let expression = |item: &'a [u8]| {
            let item = Attributes(item);
            Some((item.find_string(1)?, item.find_nested(2).unwrap_or(Attributes(&[]))))
        };
        let expressions =
            list.filter(|(kind, _)| *kind == LIST_ITEM).filter_map(|(_, item)| expression(item)).collect();
        Some(Self { chain: attributes.find_string(RULE_CHAIN)?, expressions })
    }

    /// Does it end in a drop or a reject?
    fn drops(&self) -> bool {
        self.expressions.iter().any(|(name, data)| match name.as_str() {
            "reject" => true,
            // NFTA_TARGET_NAME: what iptables writes for its extensions.
            "target" => data.find_string(1).is_some_and(|target| target == "REJECT"),
            // NFTA_IMMEDIATE_DATA, NFTA_DATA_VERDICT, NFTA_VERDICT_CODE
            "immediate" => {
                let verdict = data.find_nested(2).and_then(|d| d.find_nested(2));
                verdict.is_some_and(|v| be32(v.find(1)) == Some(DROP))
            }
            _ => false,
        })
    }

    /// And has nothing that a packet could fail to match?
    fn drops_everything(&self) -> bool {
        let unconditional = ["counter", "log", "reject", "target", "immediate"];
        self.drops() && self.expressions.iter().all(|(name, _)| unconditional.contains(&name.as_str()))
    }

    /// Does it compare something with the bridge's name or a subnet?
    fn names(&self, spec: &TableSpec) -> bool {
        let mut name = spec.bridge.clone().into_bytes();
        name.push(0);
        let compared = self.expressions.iter().filter(|(name, _)| name == "cmp");
        // NFTA_CMP_DATA, NFTA_DATA_VALUE
        compared
            .filter_map(|(_, data)| data.find_nested(3)?.find(1))
            .any(|value| value.starts_with(&name) || spec.subnets.iter().any(|net| is_prefix(value, *net)))
    }
}

#[cfg(test)]
#[path = "firewall_tests.rs"]
mod tests;
