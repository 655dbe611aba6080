//! nf_tables objects as netlink messages: tables, chains, rules, sets and their elements.
//!
//! Must not: know what the rules are for.
use super::expression::Expression;
use super::{Family, TableName};
use crate::netlink::socket::{F_APPEND, F_CREATE, F_DUMP};
use crate::netlink::{Message, Request};

/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
/// `NFNL_MSG_BATCH_BEGIN` and `NFNL_MSG_BATCH_END` (`NLMSG_MIN_TYPE` and the next).
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

// enum nf_tables_msg_types
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;

const TABLE_NAME: u16 = 1;
pub(super) const CHAIN_TABLE: u16 = 1;
pub(super) const CHAIN_NAME: u16 = 3;
pub(super) const CHAIN_HOOK: u16 = 4;
pub(super) const CHAIN_POLICY: u16 = 5;
pub(super) const CHAIN_TYPE: u16 = 7;
pub(super) const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
pub(super) const RULE_TABLE: u16 = 1;
pub(super) const RULE_CHAIN: u16 = 2;
pub(super) const RULE_HANDLE: u16 = 3;
pub(super) const RULE_EXPRESSIONS: u16 = 4;
pub(super) const RULE_USERDATA: u16 = 7;
const SET_TABLE: u16 = 1;
const SET_NAME: u16 = 2;
const SET_FLAGS: u16 = 3;
const SET_KEY_TYPE: u16 = 4;
const SET_KEY_LEN: u16 = 5;
const SET_DATA_TYPE: u16 = 6;
const SET_DATA_LEN: u16 = 7;
const SET_ID: u16 = 10;
/// `NFT_SET_MAP`.
const FLAG_MAP: u32 = 0x8;
pub(super) const ELEMENTS_TABLE: u16 = 1;
pub(super) const ELEMENTS_SET: u16 = 2;
pub(super) const ELEMENTS_LIST: u16 = 3;
/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ITEM: u16 = 1;
pub(super) const ELEMENT_KEY: u16 = 1;
pub(super) const ELEMENT_DATA: u16 = 2;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;
/// `NF_ACCEPT`.
const ACCEPT: u32 = 1;

/// Where a chain hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hook {
    /// `filter` or `nat`.
    pub(super) kind: &'static str,
    /// `enum nf_inet_hooks`.
    pub(super) number: u32,
    /// Order among chains of the hook (`enum nf_ip_hook_priorities`).
    pub(super) priority: i32,
}

/// `NF_INET_PRE_ROUTING`, `NF_INET_FORWARD`, `NF_INET_LOCAL_OUT`, `NF_INET_POST_ROUTING`.
pub(super) const PREROUTING: u32 = 0;
pub(super) const FORWARD: u32 = 2;
pub(super) const OUTPUT: u32 = 3;
pub(super) const POSTROUTING: u32 = 4;
/// `NF_IP_PRI_RAW`, `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_FILTER`, `NF_IP_PRI_NAT_SRC`.
pub(super) const PRIORITY_RAW: i32 = -300;
pub(super) const PRIORITY_FILTER: i32 = 0;
pub(super) const PRIORITY_DNAT: i32 = -100;
pub(super) const PRIORITY_SNAT: i32 = 100;

/// Types of the parts of set keys. The kernel keeps them for `nft list` only (nftables' `enum datatypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// `ipv4_addr`.
    Address4 = 7,
    /// `ipv6_addr`.
    Address6 = 8,
    /// `inet_proto`.
    Protocol = 12,
    /// `inet_service`.
    Port = 13,
}

impl Part {
    /// Bytes of whole registers.
    pub(super) fn width(self) -> usize {
        if self == Self::Address6 { 16 } else { 4 }
    }
}

/// A concatenation's type is its parts' types of six bits each (nftables' `TYPE_BITS`).
fn concatenated(parts: &[Part]) -> u32 {
    parts.iter().fold(0, |sum, part| (sum << 6) | *part as u32)
}

/// Each part of a concatenation takes whole registers of four bytes.
fn width(parts: &[Part]) -> u32 {
    u32::try_from(parts.iter().map(|p| p.width()).sum::<usize>()).unwrap_or(u32::MAX)
}

/// `struct nfgenmsg` of a family; `resource` is in network byte order.
fn header(family: u8, resource: u16) -> [u8; 4] {
    let r = resource.to_be_bytes();
    [family, 0, r[0], r[1]]
}

fn message(family: Family, kind: u16, flags: u16) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &header(family as u8, 0))
}

/// The message that opens a transaction.
pub(super) fn begin() -> Message {
    Message::new(BATCH_BEGIN, 0, &header(0, SUBSYSTEM))
}

/// The message that commits a transaction.
pub(super) fn end() -> Message {
    Message::new(BATCH_END, 0, &header(0, SUBSYSTEM))
}

/// Creates a table, or finds it.
pub(super) fn new_table(table: TableName<'_>) -> Request {
    let mut m = message(table.family, NEWTABLE, F_CREATE);
    m.string(TABLE_NAME, table.name);
    Request::new(format!("create nftables table {table}"), m)
}

/// Deletes a table with everything in it.
pub(super) fn delete_table(table: TableName<'_>) -> Request {
    let mut m = message(table.family, DELTABLE, 0);
    m.string(TABLE_NAME, table.name);
    Request::new(format!("delete nftables table {table}"), m)
}

/// Looks a table up.
pub(super) fn get_table(table: TableName<'_>) -> Request {
    let mut m = message(table.family, GETTABLE, 0);
    m.string(TABLE_NAME, table.name);
    Request::new(format!("look up nftables table {table}"), m)
}

/// Creates a base chain whose policy is accept.
pub(super) fn new_chain(table: TableName<'_>, chain: &str, hook: Hook) -> Request {
    let mut m = message(table.family, NEWCHAIN, F_CREATE);
    m.string(CHAIN_TABLE, table.name);
    m.string(CHAIN_NAME, chain);
    m.nest(CHAIN_HOOK, |m| {
        m.be32(HOOK_NUMBER, hook.number);
        m.be32(HOOK_PRIORITY, hook.priority.cast_unsigned());
    });
    m.be32(CHAIN_POLICY, ACCEPT);
    m.string(CHAIN_TYPE, hook.kind);
    Request::new(format!("create nftables chain {table} {chain}"), m)
}

/// Lists all chains of all families.
pub(super) fn list_chains() -> Request {
    Request::new("list nftables chains", Message::new(SUBSYSTEM << 8 | GETCHAIN, F_DUMP, &header(0, 0)))
}

/// Lists the rules of a table of any family.
pub(super) fn list_rules(family: u8, table: &str) -> Request {
    let mut m = Message::new(SUBSYSTEM << 8 | GETRULE, F_DUMP, &header(family, 0));
    m.string(RULE_TABLE, table);
    Request::new(format!("list rules of nftables table {table}"), m)
}

/// Appends a rule to a chain.
pub(super) fn new_rule(table: TableName<'_>, chain: &str, expressions: &[Expression<'_>]) -> Request {
    rule(message(table.family, NEWRULE, F_CREATE | F_APPEND), table, chain, expressions, None)
}

/// Puts a rule before all others of a chain, with a comment.
pub(super) fn first_rule(table: TableName<'_>, chain: &str, expressions: &[Expression<'_>], note: &[u8]) -> Request {
    rule(message(table.family, NEWRULE, F_CREATE), table, chain, expressions, Some(note))
}

fn rule(mut m: Message, table: TableName<'_>, chain: &str, all: &[Expression<'_>], note: Option<&[u8]>) -> Request {
    m.string(RULE_TABLE, table.name);
    m.string(RULE_CHAIN, chain);
    m.nest(RULE_EXPRESSIONS, |m| all.iter().for_each(|e| e.write(m, LIST_ITEM)));
    if let Some(note) = note {
        m.bytes(RULE_USERDATA, note);
    }
    Request::new(format!("add a rule to nftables chain {table} {chain}"), m)
}

/// Deletes one rule.
pub(super) fn delete_rule(table: TableName<'_>, chain: &str, handle: u64) -> Request {
    let mut m = message(table.family, DELRULE, 0);
    m.string(RULE_TABLE, table.name);
    m.string(RULE_CHAIN, chain);
    m.bytes(RULE_HANDLE, &handle.to_be_bytes());
    Request::new(format!("delete a rule of nftables chain {table} {chain}"), m)
}

/// Creates a set of concatenated keys, or a map if `data` is given. `id` is unique in the transaction.
pub(super) fn new_set(table: TableName<'_>, set: &str, id: u32, key: &[Part], data: Option<&[Part]>) -> Request {
    let mut m = message(table.family, NEWSET, F_CREATE);
    m.string(SET_TABLE, table.name);
    m.string(SET_NAME, set);
    m.be32(SET_FLAGS, if data.is_some() { FLAG_MAP } else { 0 });
    m.be32(SET_KEY_TYPE, concatenated(key));
    m.be32(SET_KEY_LEN, width(key));
    if let Some(data) = data {
        m.be32(SET_DATA_TYPE, concatenated(data));
        m.be32(SET_DATA_LEN, width(data));
    }
    m.be32(SET_ID, id);
    Request::new(format!("create nftables set {table} {set}"), m)
}

/// Adds one element; no error if the same one is there. `words` is the element for people.
pub(super) fn add_element(table: TableName<'_>, set: &str, key: &[u8], data: Option<&[u8]>, words: &str) -> Request {
    let m = element(message(table.family, NEWSETELEM, F_CREATE), table.name, set, key, data);
    Request::new(format!("add {words} to nftables set {table} {set}"), m)
}

/// Deletes one element; `ENOENT` if it is not there.
pub(super) fn delete_element(table: TableName<'_>, set: &str, key: &[u8], words: &str) -> Request {
    let m = element(message(table.family, DELSETELEM, 0), table.name, set, key, None);
    Request::new(format!("delete {words} from nftables set {table} {set}"), m)
}

/// Lists the elements of a set.
pub(super) fn list_elements(table: TableName<'_>, set: &str) -> Request {
    let mut m = message(table.family, GETSETELEM, F_DUMP);
    m.string(ELEMENTS_TABLE, table.name);
    m.string(ELEMENTS_SET, set);
    Request::new(format!("list nftables set {table} {set}"), m)
}

fn element(mut m: Message, table: &str, set: &str, key: &[u8], data: Option<&[u8]>) -> Message {
    m.string(ELEMENTS_TABLE, table);
    m.string(ELEMENTS_SET, set);
    m.nest(ELEMENTS_LIST, |m| {
        m.nest(LIST_ITEM, |m| {
            m.nest(ELEMENT_KEY, |m| m.bytes(DATA_VALUE, key));
            if let Some(data) = data {
                m.nest(ELEMENT_DATA, |m| m.bytes(DATA_VALUE, data));
            }
        });
    });
    m
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn concatenated_types_are_those_that_nft_writes() {
        // `nft --debug=mnl add map ... { type inet_proto . inet_service : ipv4_addr . inet_service ; }`
        assert_eq!(concatenated(&[Part::Protocol, Part::Port]), 781);
        assert_eq!(concatenated(&[Part::Address4, Part::Port]), 461);
        assert_eq!(width(&[Part::Address4, Part::Protocol, Part::Port]), 12);
        assert_eq!(width(&[Part::Address6, Part::Protocol, Part::Port]), 24);
    }

    #[test]
    fn an_element_is_the_bytes_that_nft_sends() {
        let table = TableName { family: Family::V4, name: "bt" };
        let bytes = add_element(table, "p", &[6, 0, 0, 0, 0, 80, 0, 0], Some(&[10, 1, 2, 3, 31, 144, 0, 0]), "x")
            .message
            .finish(3);
        let mut expected: Vec<u8> = Vec::new();
        let attribute = |kind: u16, content: &[u8]| {
            let mut a = u16::try_from(content.len() + 4).unwrap().to_ne_bytes().to_vec();
            a.extend(kind.to_ne_bytes());
            a.extend(content);
            a.resize(a.len().next_multiple_of(4), 0);
            a
        };
        let nested = |kind: u16, content: &[u8]| attribute(kind | 0x8000, content);
        let key = nested(1, &attribute(1, &[6, 0, 0, 0, 0, 80, 0, 0]));
        let data = nested(2, &attribute(1, &[10, 1, 2, 3, 31, 144, 0, 0]));
        let body = [attribute(1, b"bt\0"), attribute(2, b"p\0"), nested(3, &nested(1, &[key, data].concat()))].concat();
        expected.extend(u32::try_from(20 + body.len()).unwrap().to_ne_bytes());
        expected.extend(0x0a0c_u16.to_ne_bytes());
        expected.extend(0x400_u16.to_ne_bytes());
        expected.extend(3u32.to_ne_bytes());
        expected.extend(0u32.to_ne_bytes());
        expected.extend([2, 0, 0, 0]);
        expected.extend(body);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn a_transaction_names_nftables_as_its_subsystem() {
        assert_eq!(begin().finish(1)[16..20], [0, 0, 0, 10]);
        assert_eq!(end().finish(1)[4..6], 0x11_u16.to_ne_bytes());
    }
}
