//! Tests of what is made of other tables' chains.
use super::*;
use crate::netlink::Message;
use crate::netlink::codec::Messages;

fn spec() -> TableSpec {
    TableSpec {
        strays: Vec::new(),
        table: "berth".into(),
        bridge: "berth0".into(),
        subnets: vec!["10.64.3.0/24".parse().unwrap(), "fdbe:1:2::/64".parse().unwrap()],
        guarded: false,
    }
}

fn answer(m: Message) -> Answer {
    let bytes = m.finish(1);
    Answer { payload: Messages(&bytes).next().unwrap().payload.to_vec() }
}

/// A base chain of the hook with a policy (0 is drop).
fn chain(family: u8, table: &str, name: &str, hook: u32, policy: u32) -> Answer {
    let mut m = Message::new(0, 0, &[family, 0, 0, 0]);
    m.string(CHAIN_TABLE, table);
    m.string(CHAIN_NAME, name);
    m.nest(CHAIN_HOOK, |m| m.be32(HOOK_NUMBER, hook));
    m.be32(CHAIN_POLICY, policy);
    m.string(CHAIN_TYPE, "filter");
    answer(m)
}

fn rule(chain: &str, expressions: &[Expression<'_>]) -> Answer {
    let mut m = Message::new(0, 0, &[1, 0, 0, 0]);
    m.string(RULE_CHAIN, chain);
    m.nest(RULE_EXPRESSIONS, |m| expressions.iter().for_each(|e| e.write(m, LIST_ITEM)));
    answer(m)
}

fn only(chains: &[Answer]) -> Chain {
    let mut found = forward_chains(chains, &spec());
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn a_policy_of_drop_on_the_forward_hook_is_found_and_nothing_else() {
    let chains = [
        chain(INET, "filter", "input", 1, DROP),
        chain(10, "berth", "forward", object::FORWARD, DROP),
        chain(7, "bridge", "forward", object::FORWARD, DROP),
        chain(INET, "mine", "fwd", object::FORWARD, DROP),
    ];
    let found = judge(only(&chains), &[], &spec()).unwrap();
    assert_eq!((found.family, found.table.as_str(), found.reason), ("inet", "mine", DropReason::Policy));
    let words = found.to_string();
    assert!(words.contains("inet mine fwd") && words.contains("policy is drop"), "{words}");
    assert!(found.remedy.contains("nft insert rule inet mine fwd iifname \"berth0\" accept"), "{}", found.remedy);
    let four = TableSpec { subnets: vec!["10.64.3.0/24".parse().unwrap()], ..spec() };
    assert!(forward_chains(&[chain(10, "x", "f", object::FORWARD, DROP)], &four).is_empty(), "no packet of it is met");
}

#[test]
fn a_last_rule_that_drops_everything_counts_like_a_policy() {
    let chains = [chain(INET, "firewalld", "filter_FORWARD", object::FORWARD, 1)];
    let drop = rule("filter_FORWARD", &[Expression::Counter, Expression::Drop]);
    let other = rule("filter_INPUT", &[Expression::Drop]);
    let [name, compare] = super::super::expression::by_interface(Meta::InputName, Compare::Equal, "docker0");
    let some = rule("filter_FORWARD", &[name, compare, Expression::Drop]);
    assert_eq!(judge(only(&chains), &[other, some], &spec()), None, "what drops a part does not drop all");
    let found = judge(only(&chains), &[drop], &spec()).unwrap();
    assert_eq!(found.reason, DropReason::LastRule);
    assert!(found.remedy.starts_with("firewall-cmd") && found.remedy.contains("berth0"), "{}", found.remedy);
}

#[test]
fn a_rule_that_names_the_bridge_or_the_subnet_settles_it() {
    let chains = [chain(INET, "mine", "fwd", object::FORWARD, DROP)];
    let compare = |value: &[u8]| Expression::Compare { register: 0, how: Compare::Equal, value: value.to_vec() };
    for value in [&b"berth0\0"[..], b"berth0\0\0\0\0\0\0\0\0\0\0", &[10, 64, 3], &[10, 64, 3, 0]] {
        let accept = rule("zones", &[compare(value), Expression::Accept]);
        assert_eq!(judge(only(&chains), &[accept], &spec()), None, "{value:?}");
        let drop = rule("zones", &[compare(value), Expression::Drop]);
        assert!(judge(only(&chains), &[drop], &spec()).is_some(), "{value:?}");
    }
    for value in [&b"berth01\0"[..], b"berth\0", &[10, 64], &[10, 64, 4], &[]] {
        let accept = rule("zones", &[compare(value), Expression::Accept]);
        assert!(judge(only(&chains), &[accept], &spec()).is_some(), "{value:?}");
    }
}

#[test]
fn our_rules_are_found_by_their_comment() {
    let rules: Vec<Answer> = accept(&spec(), Family::V4)
        .into_iter()
        .map(|r| {
            let mut m = r.message;
            m.bytes(RULE_HANDLE, &7u64.to_be_bytes());
            answer(m)
        })
        .collect();
    assert_eq!(take_back(&spec(), Family::V4, &rules).len(), 2);
    let other = TableSpec { bridge: "berth01".into(), ..spec() };
    assert!(take_back(&other, Family::V4, &rules).is_empty(), "another root's");
}
