//! What others do to the built-in network while pods run, and daemons that come back to it. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{Node, dual, tcp};
use std::sync::Arc;

/// Ways to break the network, and what is said about it.
const DAMAGES: [(&str, &str); 13] = [
    ("nft flush ruleset", "does not exist"),
    ("nft delete table ip berth_1", "table ip berth_1 does not exist"),
    ("nft delete table ip6 berth_1", "table ip6 berth_1 does not exist"),
    ("nft flush table ip berth_1", "was changed"),
    ("nft flush chain ip6 berth_1 prerouting", "was changed"),
    ("nft flush set ip berth_1 targets", "was changed"),
    ("ip link set bt1 down", "is down"),
    ("ip addr flush dev bt1", "lacks its address"),
    ("ip -6 addr del fdbe:0:1::1/64 dev bt1", "lacks its address fdbe:0:1::1/64"),
    ("ip link del bt1", "does not exist"),
    ("sysctl -qw net.ipv4.ip_forward=0", "net.ipv4.ip_forward"),
    ("sysctl -qw net.ipv6.conf.all.forwarding=0", "net.ipv6.conf.all.forwarding"),
    ("sysctl -qw net.ipv4.conf.bt1.route_localnet=0", "route_localnet"),
];

#[test]
fn upkeep_and_a_new_daemon_each_repair_every_damage_and_pods_go_on() {
    let node = Node::new();
    let (mut bridge, leases) = node.bridge(dual(1));
    let (pod, other) = (node.pod(&bridge, &[tcp(8080, 80)]), node.pod(&bridge, &[]));
    let _pod = pod.netns.serve("[::]:80");
    let whole = |after: &str| {
        for to in ["192.0.2.2:8080", "[2001:db8::2]:8080"] {
            assert!(node.world.dial(to).is_ok(), "{to} after {after}");
        }
        assert!(node.netns.dial("127.0.0.1:8080").is_ok(), "loopback after {after}");
        for to in ["10.64.1.2:80", "[fdbe:0:1::2]:80", "192.0.2.2:8080"] {
            assert!(other.netns.dial(to).is_ok(), "pod to {to} after {after}");
        }
    };
    whole("nothing");
    assert_eq!(node.maintain(&bridge), None, "nothing is broken");
    for (damage, sentence) in DAMAGES {
        node.netns.sh(damage);
        let said = node.maintain(&bridge).unwrap_or_else(|| panic!("{damage} was not seen"));
        assert!(said.contains(sentence), "{damage}: {said}");
        whole(damage);
        assert_eq!(node.maintain(&bridge), None, "{damage} is repaired once");

        drop(bridge);
        node.netns.sh(damage);
        bridge = node.open(dual(1), Arc::clone(&leases)).unwrap();
        node.ensure(&bridge);
        whole(&format!("{damage} and a restart"));
        assert!(node.reconcile(&bridge, &[&pod, &other]).is_empty());
    }
    let end = &pod.attachment.host_interface;
    for damage in [format!("ip link set {end} down"), format!("ip link set {end} nomaster")] {
        node.netns.sh(&damage);
        assert!(node.maintain(&bridge).unwrap().contains(end), "{damage}");
        whole(&damage);
    }
    node.destroy(&bridge);
    assert_eq!(node.netns.ruleset(), "");
}

/// What a daemon leaves that was killed in each step of an attachment: the kernel's part and the lease may each be there or not.
#[test]
fn an_attachment_that_was_cut_short_anywhere_is_taken_back() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(dual(2));
    let live = node.pod(&bridge, &[tcp(8080, 80)]);
    let _live = live.netns.serve("[::]:80");
    let before = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
    let dead = node.pod(&bridge, &[tcp(8081, 80)]);
    let lease = leases.map.lock().unwrap().get(dead.id.as_str()).cloned().unwrap();
    let end = dead.attachment.host_interface.clone();
    drop(bridge);
    // After the lease, before the interface; after the interface, before the ports; all of it; all but the lease.
    let stages: [(bool, bool, bool); 4] =
        [(true, false, false), (true, true, false), (true, true, true), (false, true, true)];
    for (has_lease, has_link, has_ports) in stages {
        let mut names = node.netns.links();
        if !has_link && names.contains(&end) {
            node.netns.sh(&format!("ip link del {end}"));
        }
        if has_link && !names.contains(&end) {
            node.netns.sh(&format!("ip link add {end} type veth peer name x{}", dead.id.short()));
            node.netns.sh(&format!("ip link set {end} master bt2"));
        }
        names.clear();
        for family in ["ip", "ip6"] {
            let target = if family == "ip" { "10.64.2.3" } else { "fdbe:0:2::3" };
            let list = node.netns.ruleset();
            if has_ports && !list.contains("8081") {
                node.netns.nft(&format!("add element {family} berth_2 ports {{ tcp . 8081 : {target} . 80 }}"));
            }
            if !has_ports && list.contains(&format!("8081 : {target}")) {
                node.netns.nft(&format!("delete element {family} berth_2 ports {{ tcp . 8081 }}"));
            }
        }
        let mut map = leases.map.lock().unwrap();
        if has_lease {
            map.insert(dead.id.to_string(), lease.clone());
        } else {
            map.remove(dead.id.as_str());
        }
        drop(map);
        let bridge = node.open(dual(2), Arc::clone(&leases)).unwrap();
        node.ensure(&bridge);
        node.reconcile(&bridge, &[&live]);
        let now = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
        assert_eq!(before, now, "lease {has_lease}, link {has_link}, ports {has_ports}");
        assert!(node.world.dial("[2001:db8::2]:8080").is_ok());
        assert!(node.reconcile(&bridge, &[&live]).is_empty());
    }
}
