//! The built-in bridge network with both families, on a real kernel. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{Netns, Node, config, dual, ip, new_id, port, tcp};
use berth_model::Protocol;
use berth_network::BridgeConfig;
use std::sync::Arc;
use std::time::Duration;

#[test]
fn pods_have_an_address_of_each_family_and_reach_everything_by_both() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(1));
    assert_eq!(node.ready(&bridge), Ok(()));
    let (a, b) = (node.pod(&bridge, &[]), node.pod(&bridge, &[]));
    let texts = a.attachment.addresses.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(texts, ["10.64.1.2/24", "fdbe:0:1::2/64"]);
    assert_eq!((a.attachment.gateway, a.attachment.second_gateway), (ip("10.64.1.1"), Some(ip("fdbe:0:1::1"))));
    let shown = a.netns.sh("ip -6 addr show dev eth0");
    assert!(shown.contains("inet6 fdbe:0:1::2/64") && !shown.contains("tentative"), "usable at once: {shown}");
    assert!(a.netns.sh("ip -6 route").contains("default via fdbe:0:1::1 dev eth0"));

    let _b = b.netns.serve("[::]:80");
    let _node = node.netns.serve("[::]:81");
    let _world = node.world.serve("[::]:82");
    assert_eq!(a.netns.dial("[fdbe:0:1::3]:80").unwrap(), ip("fdbe:0:1::2"), "pod to pod keeps its address");
    assert_eq!(a.netns.dial("[fdbe:0:1::1]:81").unwrap(), ip("fdbe:0:1::2"));
    assert_eq!(node.netns.dial("[fdbe:0:1::3]:80").unwrap(), ip("fdbe:0:1::1"));
    assert_eq!(a.netns.dial("[2001:db8::1]:82").unwrap(), ip("2001:db8::2"), "the world sees the node's address");
    assert_eq!(a.netns.dial("192.0.2.1:82").unwrap(), ip("192.0.2.2"), "IPv4 goes on as ever");
    assert_eq!(a.netns.dial_udp("[2001:db8::1]:82", 0, Duration::from_secs(5)).unwrap(), ip("2001:db8::2"));
}

#[test]
fn the_first_packet_of_a_new_pod_gets_through_at_once() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(2));
    let _node = node.netns.serve("[::]:81");
    for _ in 0..6 {
        let pod = node.pod(&bridge, &[]);
        // A lost SYN, or neighbour solicitation, is sent again after a second.
        let answer = pod.netns.dial_within("[fdbe:0:2::1]:81", Duration::from_millis(900));
        answer.expect("lost the first packet");
    }
}

#[test]
fn a_pod_believes_no_advertisement_and_asks_nobody_about_its_addresses() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(3));
    assert_eq!(node.netns.sysctl("net/ipv6/conf/bt3/accept_ra"), "0", "a pod could become the node's router");
    let pod = node.pod(&bridge, &[]);
    for name in ["accept_ra", "accept_dad"] {
        assert_eq!(pod.netns.sysctl(&format!("net/ipv6/conf/eth0/{name}")), "0", "{name}");
    }
    // What the pod's own settings say stays.
    let (id, netns) = (new_id(), Netns::new());
    netns.set_sysctl("net/ipv6/conf/default/accept_ra", "2");
    node.try_attach(&bridge, &id, netns.path(), &[]).unwrap();
    assert_eq!(netns.sysctl("net/ipv6/conf/eth0/accept_ra"), "2");
}

/// Whether packets that a bridge passes on meet nftables differs between nodes.
#[test]
fn a_host_port_answers_from_everywhere_by_ipv6() {
    for filtered in ["0", "1"] {
        let node = Node::new();
        node.netns.set_sysctl("net/bridge/bridge-nf-call-ip6tables", filtered);
        let (bridge, _) = node.bridge(dual(4));
        let ports = [tcp(8080, 80), port(Protocol::Udp, 5353, 80, None)];
        let (pod, other) = (node.pod(&bridge, &ports), node.pod(&bridge, &[]));
        let _pod = pod.netns.serve("[::]:80");
        assert_eq!(node.world.dial("[2001:db8::2]:8080").unwrap(), ip("2001:db8::1"), "with the client's address");
        assert!(node.world.dial("192.0.2.2:8080").is_ok(), "and by IPv4");
        assert!(node.netns.dial("[2001:db8::2]:8080").is_ok(), "from the node");
        assert!(node.netns.dial("[fdbe:0:4::1]:8080").is_ok(), "by the gateway's address");
        assert!(node.netns.dial("127.0.0.1:8080").is_ok());
        assert!(other.netns.dial("[2001:db8::2]:8080").is_ok(), "from another pod");
        assert!(pod.netns.dial("[2001:db8::2]:8080").is_ok(), "from the pod itself");
        assert!(pod.netns.dial("[fdbe:0:4::1]:8080").is_ok());
        let udp = |from: &Netns, to: &str| from.dial_udp(to, 0, Duration::from_secs(5));
        assert_eq!(udp(&node.world, "[2001:db8::2]:5353").unwrap(), ip("2001:db8::1"));
        assert!(udp(&pod.netns, "[2001:db8::2]:5353").is_ok());
        // The kernel translates nothing from ::1: refused at once, so that clients go on to 127.0.0.1.
        let e = node.netns.dial("[::1]:8080").unwrap_err();
        assert_eq!(e.kind(), std::io::ErrorKind::ConnectionRefused);
        node.detach(&bridge, &pod);
        assert!(node.world.dial_within("[2001:db8::2]:8080", Duration::from_millis(500)).is_err());
        assert!(!node.netns.ruleset().contains("elements"), "{}", node.netns.ruleset());
    }
}

#[test]
fn a_host_port_of_one_address_and_family_answers_only_there() {
    let node = Node::new();
    node.netns.sh("ip addr add 2001:db8::3/64 dev up0 nodad");
    let (bridge, _) = node.bridge(dual(5));
    let one = node.pod(&bridge, &[port(Protocol::Tcp, 8080, 80, Some("2001:db8::2"))]);
    let four = node.pod(&bridge, &[port(Protocol::Tcp, 8080, 80, Some("0.0.0.0"))]);
    let (_one, _four) = (one.netns.serve("[::]:80"), four.netns.serve("0.0.0.0:80"));
    assert!(node.world.dial("[2001:db8::2]:8080").is_ok());
    assert!(node.world.dial_within("[2001:db8::3]:8080", Duration::from_millis(500)).is_err());
    assert!(node.world.dial("192.0.2.2:8080").is_ok());
    let e = node.try_attach(&bridge, &new_id(), Netns::new().path(), &[tcp(8080, 80)]).unwrap_err();
    assert!(e.message().contains(four.id.as_str()) || e.message().contains(one.id.as_str()), "{e}");
}

#[test]
fn a_udp_client_that_never_pauses_reaches_the_pod_that_came_later() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(6));
    let ask = |patience: u64| node.world.dial_udp("[2001:db8::2]:5353", 40_000, Duration::from_millis(patience));
    assert!(ask(100).is_err(), "nobody is there yet");
    let udp = [port(Protocol::Udp, 5353, 80, None)];
    let first = node.pod(&bridge, &udp);
    let server = first.netns.serve("[::]:80");
    assert!(ask(2000).is_ok(), "the first pod is not reached");
    drop(server);
    node.detach(&bridge, &first);
    let second = node.pod(&bridge, &udp);
    let _second = second.netns.serve("[::]:80");
    assert!(ask(2000).is_ok(), "the second pod is not reached");
}

#[test]
fn destroy_leaves_nothing_and_gives_the_sysctls_back() {
    let node = Node::new();
    // As on a node that has its default route by advertisement on a hardware interface: a veth is none, so the route itself
    // must tell.
    node.netns.sh("ip -6 route replace default via 2001:db8::1 proto ra");
    let accept_ra = "net/ipv6/conf/up0/accept_ra";
    node.netns.set_sysctl(accept_ra, "1");
    let state = || {
        let n = &node.netns;
        let sysctls = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", accept_ra].map(|name| n.sysctl(name));
        (n.links(), n.sh("ip route"), n.sh("ip -6 route"), n.ruleset(), sysctls)
    };
    let before = state();
    let (one, leases) = node.bridge(dual(7));
    assert_eq!(node.netns.sysctl("net/ipv6/conf/all/forwarding"), "1");
    assert_eq!(node.netns.sysctl(accept_ra), "2", "the node would lose its route");
    let (two, _) = node.bridge(dual(8));
    let _held = node.pod(&one, &[tcp(8080, 80)]);
    node.destroy(&one);
    assert_eq!(node.netns.sysctl("net/ipv6/conf/all/forwarding"), "1", "the other root still forwards");
    assert!(leases.map.lock().unwrap().is_empty());
    node.destroy(&two);
    assert_eq!(before, state());
}

#[test]
fn ipv6_comes_and_goes_with_the_settings_while_a_pod_runs() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(9));
    let four = node.pod(&bridge, &[tcp(8080, 80)]);
    let _four = four.netns.serve("0.0.0.0:80");
    drop(bridge);
    let start = |config: BridgeConfig| {
        let bridge = node.open(config, Arc::clone(&leases)).unwrap();
        node.ensure(&bridge);
        assert_eq!(node.ready(&bridge), Ok(()));
        assert!(node.world.dial("192.0.2.2:8080").is_ok(), "the first pod was disturbed");
        bridge
    };
    let bridge = start(dual(9));
    let both = node.pod(&bridge, &[tcp(8081, 80)]);
    let _both = both.netns.serve("[::]:80");
    assert!(node.world.dial("[2001:db8::2]:8081").is_ok());
    assert!(node.world.dial_within("[2001:db8::2]:8080", Duration::from_millis(500)).is_err(), "it has no IPv6");
    drop(bridge);
    let bridge = start(config(9));
    assert_eq!(node.netns.sysctl("net/ipv6/conf/all/forwarding"), "0");
    assert!(!node.netns.ruleset().contains("ip6"), "{}", node.netns.ruleset());
    assert!(!node.netns.sh("ip -6 addr show dev bt9").contains("fdbe:"), "the gateway's address stays");
    assert!(node.world.dial("192.0.2.2:8081").is_ok(), "IPv4 of a pod that has both");
    node.destroy(&bridge);
    assert_eq!(node.netns.sysctl("net/ipv4/ip_forward"), "0");
}

#[test]
fn ipv6_can_be_the_primary_family() {
    let node = Node::new();
    let (bridge, _) = node.bridge(BridgeConfig { prefer_ipv6: true, ..dual(10) });
    let pod = node.pod(&bridge, &[]);
    assert_eq!(pod.ip, "fdbe:0:10::2");
    assert_eq!((pod.attachment.gateway, pod.attachment.second_gateway), (ip("fdbe:0:10::1"), Some(ip("10.64.10.1"))));
}

#[test]
fn an_ipv6_subnet_that_the_node_uses_is_refused_by_name() {
    let node = Node::new();
    node.netns.sh("ip -6 route add fdbe:0:11::/48 via 2001:db8::1");
    let e = node.open(dual(11), Arc::default()).unwrap_err();
    for part in ["fdbe:0:11::/64", "fdbe:0:11::/48", "\"up0\""] {
        assert!(e.message().contains(part), "{part} is not in: {e}");
    }
}

#[test]
fn the_tables_can_be_listed_and_loaded_again() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(12));
    let all = [tcp(8080, 80), port(Protocol::Sctp, 8081, 81, Some("2001:db8::2"))];
    let _pod = node.pod(&bridge, &all);
    let list = node.netns.ruleset();
    for part in [
        "table ip6 berth_12",
        "tcp . 8080 : fdbe:0:12::2 . 80",
        "2001:db8::2 . sctp . 8081 : fdbe:0:12::2 . 81",
        "ip6 daddr != ::1 fib daddr type local dnat ip6 to meta l4proto . th dport map @ports",
        "ip6 saddr fdbe:0:12::/64 ip6 daddr != fdbe:0:12::/64 ip6 daddr != ff00::/8 masquerade fully-random",
    ] {
        assert!(list.contains(part), "{part:?} is not in\n{list}");
    }
    let file = std::env::temp_dir().join(format!("berth-network-dual-{}.nft", std::process::id()));
    std::fs::write(&file, format!("flush ruleset\n{list}")).unwrap();
    node.netns.sh(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(list, node.netns.ruleset());
}
