//! Host ports of the built-in bridge network on a real kernel. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{Netns, Node, config, ip, new_id, port, tcp};
use berth_model::{ErrorKind, Protocol};
use std::time::Duration;

/// Whether packets that a bridge passes on meet iptables and nftables differs between nodes: kube-proxy and many
/// distributions switch it on.
#[test]
fn a_host_port_answers_from_everywhere_with_br_netfilter() {
    let node = Node::new();
    node.netns.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    answers_from_everywhere(&node);
}

#[test]
fn a_host_port_answers_from_everywhere_without_br_netfilter() {
    let node = Node::new();
    node.netns.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    answers_from_everywhere(&node);
}

fn answers_from_everywhere(node: &Node) {
    let (bridge, _) = node.bridge(config(1));
    let ports = [tcp(8080, 80), port(Protocol::Udp, 5353, 80, None)];
    let (pod, other) = (node.pod(&bridge, &ports), node.pod(&bridge, &[]));
    let _pod = pod.netns.serve("0.0.0.0:80");

    assert_eq!(node.world.dial("192.0.2.2:8080").unwrap(), ip("192.0.2.1"), "from outside, with the client's address");
    assert!(node.netns.dial("127.0.0.1:8080").is_ok(), "from the node by loopback");
    assert!(node.netns.dial("127.8.8.8:8080").is_ok());
    assert!(node.netns.dial("192.0.2.2:8080").is_ok(), "from the node by its address");
    assert!(node.netns.dial("10.64.1.1:8080").is_ok(), "from the node by the gateway's address");
    assert!(other.netns.dial("192.0.2.2:8080").is_ok(), "from another pod");
    assert!(other.netns.dial("10.64.1.1:8080").is_ok());
    assert!(pod.netns.dial("192.0.2.2:8080").is_ok(), "from the pod itself");

    let udp = |from: &Netns, to: &str| from.dial_udp(to, 0, Duration::from_secs(5));
    assert_eq!(udp(&node.world, "192.0.2.2:5353").unwrap(), ip("192.0.2.1"));
    assert!(udp(&node.netns, "127.0.0.1:5353").is_ok());
    assert!(udp(&pod.netns, "192.0.2.2:5353").is_ok());

    let closed = |to: &str| node.world.dial_within(to, Duration::from_millis(500)).is_err();
    assert!(closed("192.0.2.2:5353"), "UDP is not TCP");
    node.detach(&bridge, &pod);
    assert!(closed("192.0.2.2:8080"), "a detached pod answers no more");
    assert!(!node.netns.ruleset().contains("elements"), "{}", node.netns.ruleset());
}

#[test]
fn a_host_port_of_one_address_answers_only_there() {
    let node = Node::new();
    node.netns.sh("ip addr add 192.0.2.3/24 dev up0");
    let (bridge, _) = node.bridge(config(2));
    let (a, b) = (
        node.pod(&bridge, &[port(Protocol::Tcp, 8080, 80, Some("192.0.2.2"))]),
        node.pod(&bridge, &[port(Protocol::Tcp, 8080, 81, Some("127.0.0.1"))]),
    );
    let (_a, _b) = (a.netns.serve("0.0.0.0:80"), b.netns.serve("0.0.0.0:81"));
    assert!(node.world.dial("192.0.2.2:8080").is_ok());
    assert!(node.netns.dial("192.0.2.2:8080").is_ok());
    assert!(node.netns.dial("127.0.0.1:8080").is_ok());
    assert!(a.netns.dial("192.0.2.2:8080").is_ok(), "from the pod itself");
    assert!(node.world.dial_within("192.0.2.3:8080", Duration::from_millis(500)).is_err());
    node.detach(&bridge, &a);
    assert!(node.netns.dial("127.0.0.1:8080").is_ok(), "the other pod's port stays");
    let c = node.pod(&bridge, &[port(Protocol::Tcp, 8080, 80, Some("192.0.2.3"))]);
    let _c = c.netns.serve("0.0.0.0:80");
    assert!(node.world.dial("192.0.2.3:8080").is_ok());
}

#[test]
fn a_taken_host_port_names_the_pod_and_is_free_after_its_end() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(3));
    let first = node.pod(&bridge, &[tcp(8080, 80)]);
    let (id, netns) = (new_id(), Netns::new());
    let e = node.try_attach(&bridge, &id, netns.path(), &[tcp(8080, 90)]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    assert!(e.message().contains(first.id.as_str()) && e.message().contains("TCP 8080"), "{e}");
    node.detach(&bridge, &first);
    node.try_attach(&bridge, &id, netns.path(), &[tcp(8080, 90)]).unwrap();
    let _server = netns.serve("0.0.0.0:90");
    assert!(node.world.dial("192.0.2.2:8080").is_ok());
}

#[test]
fn a_pod_cannot_reach_what_listens_on_the_loopback_of_the_node() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(4));
    let pod = node.pod(&bridge, &[]);
    let _secret = node.netns.serve("127.0.0.1:6443");
    // What CVE-2020-8558 needs of an attacker: 127.0.0.1 routed to the node.
    pod.netns.sh("ip addr del 127.0.0.1/8 dev lo");
    pod.netns.sh("ip route add 127.0.0.1/32 via 10.64.4.1 dev eth0 src 10.64.4.2");
    pod.netns.set_sysctl("net/ipv4/conf/all/route_localnet", "1");
    let reach = || pod.netns.dial_within("127.0.0.1:6443", Duration::from_millis(700));
    assert!(reach().is_err(), "a pod reached the node's loopback");
    // The test can fail: without the guard it is reached.
    node.netns.nft("flush chain ip berth_4 guard");
    assert!(reach().is_ok(), "the attack of this test does not work at all");
}

#[test]
fn the_table_can_be_listed_and_loaded_again() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(5));
    let all = [tcp(8080, 80), port(Protocol::Sctp, 8081, 81, Some("192.0.2.2")), port(Protocol::Udp, 8082, 82, None)];
    let pod = node.pod(&bridge, &all);
    let list = node.netns.ruleset();
    for part in [
        "tcp . 8080 : 10.64.5.2 . 80",
        "192.0.2.2 . sctp . 8081 : 10.64.5.2 . 81",
        "10.64.5.2 . udp . 82",
        "fib daddr type local dnat ip to meta l4proto . th dport map @ports",
        "ip saddr 10.64.5.0/24 ct status dnat ip daddr . meta l4proto . th dport @targets masquerade fully-random",
        "ip saddr 127.0.0.0/8 oifname \"bt5\" masquerade",
        "ip saddr 10.64.5.0/24 ip daddr != 10.64.5.0/24 ip daddr != 224.0.0.0/4 masquerade fully-random",
        "iifname \"bt5\" ip daddr 127.0.0.0/8 drop",
    ] {
        assert!(list.contains(part), "{part:?} is not in\n{list}");
    }
    // As an administrator's `nft list ruleset > FILE` and `nft -f FILE` would.
    let file = std::env::temp_dir().join(format!("berth-network-{}.nft", std::process::id()));
    std::fs::write(&file, format!("flush ruleset\n{list}")).unwrap();
    node.netns.sh(&format!("nft -f {}", file.display()));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(list, node.netns.ruleset());
    let _server = pod.netns.serve("0.0.0.0:80");
    assert!(node.world.dial("192.0.2.2:8080").is_ok());
    node.detach(&bridge, &pod);
    assert!(!node.netns.ruleset().contains("elements"));
}

#[test]
fn a_udp_client_that_never_pauses_reaches_the_pod_that_came_later() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(6));
    // One and the same local port: to the kernel it is one flow, and stays as it was translated at first.
    let ask = |patience: u64| node.world.dial_udp("192.0.2.2:5353", 40_000, Duration::from_millis(patience));
    assert!(ask(100).is_err(), "nobody is there yet");
    let udp = [port(Protocol::Udp, 5353, 80, None)];
    let first = node.pod(&bridge, &udp);
    let server = first.netns.serve("0.0.0.0:80");
    assert!(ask(2000).is_ok(), "the first pod is not reached");
    drop(server);
    node.detach(&bridge, &first);
    let second = node.pod(&bridge, &udp);
    let _second = second.netns.serve("0.0.0.0:80");
    assert!(ask(2000).is_ok(), "the second pod is not reached");
}

#[test]
fn flows_of_others_through_the_node_survive() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(7));
    let client = node.pod(&bridge, &[]);
    // An answer that is still under way when a pod with the same port number comes.
    let world = node.world.run(|| std::net::UdpSocket::bind("0.0.0.0:53").unwrap());
    let socket = client.netns.run(|| std::net::UdpSocket::bind("0.0.0.0:0").unwrap());
    for end in [&world, &socket] {
        end.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    }
    socket.send_to(b"?", "192.0.2.1:53").unwrap();
    let (_, asker) = world.recv_from(&mut [0; 8]).unwrap();
    let _dns = node.pod(&bridge, &[port(Protocol::Udp, 53, 53, None)]);
    world.send_to(b"!", asker).unwrap();
    socket.recv_from(&mut [0; 8]).expect("the answer to another pod's query was lost");
}
