//! The built-in network beside firewalls that drop what the node forwards. Needs root, `ip`, `nft` and `iptables`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{Node, Pod, config, dual, tcp};
use berth_network::{BridgeConfig, DropReason};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_millis(700);

/// Can the pod reach the world, and the world its host port 8080?
fn works(node: &Node, pod: &Pod) -> (bool, bool) {
    let _world = node.world.serve("[::]:82");
    let _pod = pod.netns.serve("[::]:80");
    let out = pod.netns.dial_within("192.0.2.1:82", PATIENCE).is_ok();
    (out, node.world.dial_within("192.0.2.2:8080", PATIENCE).is_ok())
}

#[test]
fn dockers_drop_policy_is_opened_for_the_bridge_and_only_for_it() {
    let node = Node::new();
    // What Docker does when it starts.
    node.netns.sh("iptables -P FORWARD DROP");
    node.netns.sh("ip6tables -P FORWARD DROP");
    let before = node.netns.sh("iptables-save -t filter");
    let (bridge, _) = node.bridge(dual(1));
    let pod = node.pod(&bridge, &[tcp(8080, 80)]);
    assert_eq!(works(&node, &pod), (true, true));
    {
        let _world = node.world.serve("[::]:82");
        assert!(pod.netns.dial_within("[2001:db8::1]:82", PATIENCE).is_ok(), "IPv6");
    }
    assert_eq!(bridge.firewalls(), []);
    let rules = node.netns.sh("iptables -S FORWARD");
    for rule in ["-A FORWARD -i bt1 -m comment", "-A FORWARD -o bt1 -m comment", "berth: pods of bt1"] {
        assert!(rules.contains(rule), "iptables shows them: {rules}");
    }
    // What the policy was for still holds: a stranger with a route to pods opens nothing but a host port.
    node.world.sh("ip route add 10.64.1.0/24 via 192.0.2.2");
    let _pod = pod.netns.serve("[::]:80");
    assert!(node.world.dial_within("10.64.1.2:80", PATIENCE).is_err(), "past the host port");
    assert!(node.netns.dial("10.64.1.2:80").is_ok(), "the node itself");

    node.ensure(&bridge);
    assert_eq!(rules, node.netns.sh("iptables -S FORWARD"), "doing it again adds nothing");
    node.destroy(&bridge);
    let strip = |text: &str| text.lines().filter(|l| !l.starts_with(['#', ':'])).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(strip(&before), strip(&node.netns.sh("iptables-save -t filter")), "nothing stays in iptables' chain");
}

#[test]
fn a_firewall_that_comes_later_is_met_by_the_next_upkeep() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(2));
    let pod = node.pod(&bridge, &[tcp(8080, 80)]);
    assert_eq!(node.maintain(&bridge), None);
    assert_eq!(works(&node, &pod), (true, true));
    node.netns.sh("iptables -P FORWARD DROP");
    assert_eq!(works(&node, &pod), (false, false), "the test can fail");
    let repaired = node.maintain(&bridge).unwrap();
    assert!(repaired.contains("firewall"), "{repaired}");
    assert_eq!(works(&node, &pod), (true, true));
    assert_eq!(node.maintain(&bridge), None);
    // Docker flushes the chain when it starts.
    node.netns.sh("iptables -F FORWARD");
    node.maintain(&bridge);
    assert_eq!(works(&node, &pod), (true, true));
}

#[test]
fn a_table_of_an_administrator_is_told_and_not_touched() {
    let node = Node::new();
    node.netns.nft("add table inet mine");
    node.netns.nft("add chain inet mine forwarding { type filter hook forward priority 0; policy drop; }");
    let list = node.netns.ruleset();
    let (bridge, _) = node.bridge(config(3));
    let pod = node.pod(&bridge, &[tcp(8080, 80)]);
    assert_eq!(works(&node, &pod), (false, false));
    let found = bridge.firewalls();
    assert_eq!((found.len(), found[0].reason), (1, DropReason::Policy));
    assert_eq!((found[0].family, found[0].table.as_str(), found[0].chain.as_str()), ("inet", "mine", "forwarding"));
    assert!(node.netns.ruleset().contains(list.trim()), "somebody else's table was changed");
    // The remedy is one.
    for command in found[0].remedy.split(" && ") {
        node.netns.nft(command.strip_prefix("nft ").unwrap());
    }
    assert_eq!(works(&node, &pod), (true, true), "after {}", found[0].remedy);
    node.maintain(&bridge);
    assert_eq!(bridge.firewalls(), [], "settled");
}

#[test]
fn a_chain_that_ends_in_a_reject_is_told_with_firewallds_own_remedy() {
    let node = Node::new();
    node.netns.nft("add table inet firewalld");
    node.netns.nft("add chain inet firewalld filter_FORWARD { type filter hook forward priority 10; policy accept; }");
    node.netns.nft("add rule inet firewalld filter_FORWARD ct state established,related accept");
    node.netns.nft("add rule inet firewalld filter_FORWARD reject with icmpx type admin-prohibited");
    let (bridge, _) = node.bridge(BridgeConfig { mtu: Some(1400), ..config(4) });
    let found = bridge.firewalls();
    assert_eq!((found.len(), found[0].reason), (1, DropReason::LastRule));
    assert!(found[0].remedy.contains("firewall-cmd") && found[0].remedy.contains("bt4"), "{}", found[0].remedy);
    let pod = node.pod(&bridge, &[tcp(8080, 80)]);
    assert_eq!(works(&node, &pod), (false, false));
    assert!(node.ready(&bridge).is_ok(), "pods of one node work all the same");
    // What firewalld writes for an interface of the trusted zone.
    node.netns.nft("add chain inet firewalld filter_FWD_trusted");
    node.netns.nft("add rule inet firewalld filter_FWD_trusted accept");
    node.netns.nft("insert rule inet firewalld filter_FORWARD iifname bt4 goto filter_FWD_trusted");
    node.netns.nft("insert rule inet firewalld filter_FORWARD oifname bt4 goto filter_FWD_trusted");
    node.maintain(&bridge);
    assert_eq!(bridge.firewalls(), []);
    assert_eq!(works(&node, &pod), (true, true));
}
