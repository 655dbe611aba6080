//! Which subnets the built-in network has, on a real kernel. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network;
use crate::network::{MemoryLeases, Node, config, tcp};
use berth_model::ErrorKind;
use berth_network::{Bridge, BridgeConfig, subnet_for, subnet6_for};
use std::sync::Arc;

/// Two roots whose hashes fall onto one /24.
const HASH: u32 = 77;

fn derived(n: u8) -> BridgeConfig {
    let subnet = subnet_for(HASH, 0);
    let subnet6 = Some(subnet6_for(HASH, 0));
    BridgeConfig { subnet, subnet6, derived_from: Some(HASH), ..config(n) }
}

fn start(node: &Node, config: BridgeConfig, leases: &Arc<MemoryLeases>) -> Bridge {
    let leases = Arc::clone(leases);
    node.block_on(async move { Bridge::start(config, leases).await }).unwrap()
}

#[test]
fn a_second_root_on_one_subnet_takes_the_next_free_one_and_keeps_it() {
    let node = Node::new();
    let (first, second) = (Arc::new(MemoryLeases::default()), Arc::new(MemoryLeases::default()));
    let one = start(&node, derived(1), &first);
    node.netns.sh(&format!("ip route add unreachable {}", subnet_for(HASH, 1)));
    let two = start(&node, derived(2), &second);
    assert_eq!((one.config().subnet, one.config().subnet6), (subnet_for(HASH, 0), Some(subnet6_for(HASH, 0))));
    let taken = (two.config().subnet, two.config().subnet6);
    assert_eq!(taken, (subnet_for(HASH, 2), Some(subnet6_for(HASH, 1))));
    let (a, b) = (node.pod(&one, &[tcp(8001, 80)]), node.pod(&two, &[tcp(8002, 80)]));
    let (_a, _b) = (a.netns.serve("[::]:80"), b.netns.serve("[::]:80"));
    assert!(node.world.dial("192.0.2.2:8001").is_ok() && node.world.dial("192.0.2.2:8002").is_ok());
    assert!(a.netns.dial(&format!("{}:80", b.ip)).is_ok(), "pod to pod across the roots");
    // The first root goes; the second one keeps what it has, also after it was gone itself.
    node.destroy(&one);
    node.detach(&two, &b);
    node.destroy(&two);
    drop(two);
    node.netns.sh(&format!("ip route del unreachable {}", subnet_for(HASH, 1)));
    let two = start(&node, derived(2), &second);
    assert_eq!((two.config().subnet, two.config().subnet6), taken, "recorded");
}

#[test]
fn a_subnet_that_somebody_else_took_meanwhile_is_changed_while_there_are_no_pods() {
    let node = Node::new();
    let leases = Arc::new(MemoryLeases::default());
    let bridge = start(&node, derived(3), &leases);
    node.destroy(&bridge);
    drop(bridge);
    node.netns.sh("ip link add vpn0 type bridge");
    node.netns.sh(&format!("ip addr add {}.1/24 dev vpn0", subnet_for(HASH, 0).to_string().trim_end_matches(".0/24")));
    node.netns.sh("ip link set vpn0 up");
    let bridge = start(&node, derived(3), &leases);
    assert_eq!(bridge.config().subnet, subnet_for(HASH, 1));
    let pod = node.pod(&bridge, &[]);
    drop(bridge);
    // With pods on it nothing else can be chosen: refused by name.
    node.netns.sh(&format!("ip route add unreachable {} metric 9", subnet_for(HASH, 1)));
    let e = node.open(derived(3), Arc::clone(&leases)).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
    assert!(e.message().contains(&subnet_for(HASH, 1).to_string()), "{e}");
    drop(pod);
}

#[test]
fn a_lease_of_the_version_before_holds_the_subnet() {
    let node = Node::new();
    let leases = Arc::new(MemoryLeases::default());
    let bridge = start(&node, derived(4), &leases);
    let pod = node.pod(&bridge, &[]);
    drop(bridge);
    leases.map.lock().unwrap().remove("subnet").expect("recorded");
    let bridge = start(&node, derived(4), &leases);
    assert_eq!(bridge.config().subnet, subnet_for(HASH, 0));
    assert_eq!(bridge.usage().used, 1);
    drop(pod);
}

#[test]
fn the_kubelets_pod_cidr_is_followed_while_no_pod_has_an_address() {
    let node = Node::new();
    let leases = Arc::new(MemoryLeases::default());
    let bridge = start(&node, derived(5), &leases);
    let follow = |four: &str, six: &str| {
        let bridge = bridge.clone();
        let (four, six) = (four.parse().ok(), six.parse().ok());
        node.block_on(async move { bridge.follow(four, six).await })
    };
    assert!(follow("10.244.7.0/24", "fd00:10:244:7::/64").unwrap());
    let pod = node.pod(&bridge, &[tcp(8005, 80)]);
    let texts: Vec<String> = pod.attachment.addresses.iter().map(|a| a.addr().to_string()).collect();
    assert_eq!(texts, ["10.244.7.2", "fd00:10:244:7::2"]);
    let _pod = pod.netns.serve("[::]:80");
    assert!(node.world.dial("192.0.2.2:8005").is_ok() && node.world.dial("[2001:db8::2]:8005").is_ok());
    let routes = node.netns.sh("ip route");
    assert!(!routes.contains(&subnet_for(HASH, 0).to_string()), "the former subnet stays: {routes}");
    assert!(!follow("10.244.8.0/24", "").unwrap(), "a pod has an address");
    assert!(follow("10.244.7.0/24", "").unwrap(), "as it is");
    node.detach(&bridge, &pod);
    let e = follow("192.0.2.0/24", "").unwrap_err();
    assert!(e.message().contains("192.0.2.0/24") && e.message().contains("\"up0\""), "{e}");
    assert_eq!(node.ready(&bridge), Ok(()), "a refused pod CIDR changes nothing");
    assert_eq!(bridge.config().subnet.to_string(), "10.244.7.0/24");
    let again = start(&node, derived(5), &leases);
    assert_eq!(again.config().subnet.to_string(), "10.244.7.0/24", "also by the next daemon");

    // A subnet that the settings name stays.
    let (named, _) = node.bridge(config(6));
    let other = named.clone();
    assert!(!node.block_on(async move { other.follow("10.244.9.0/24".parse().ok(), None).await }).unwrap());
    assert_eq!(named.config().subnet.to_string(), "10.64.6.0/24");
}

#[test]
fn how_full_the_network_is_can_be_told() {
    let node = Node::new();
    let range = Some(("10.64.7.10".parse().unwrap(), "10.64.7.11".parse().unwrap()));
    let (bridge, _) = node.bridge(BridgeConfig { range, ..config(7) });
    assert_eq!((bridge.usage().size, bridge.usage().used), (2, 0));
    let pods = [node.pod(&bridge, &[]), node.pod(&bridge, &[])];
    assert_eq!(pods[0].ip, "10.64.7.10");
    assert!(pods[0].netns.sh("ip route").contains("default via 10.64.7.1 "), "the gateway stays the subnet's first");
    assert_eq!(bridge.usage().used, 2);
    let (id, netns) = (network::new_id(), network::Netns::new());
    let e = node.try_attach(&bridge, &id, netns.path(), &[]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ResourceExhausted);
    for part in ["10.64.7.0/24", "2 of its 2", "spec.network.subnet"] {
        assert!(e.message().contains(part), "{e}");
    }
}

#[test]
fn pods_of_a_former_subnet_keep_their_way_out() {
    let node = Node::new();
    let leases = Arc::new(MemoryLeases::default());
    let named = |subnet: &str| BridgeConfig { subnet: subnet.parse().unwrap(), subnet6: None, ..config(6) };
    let bridge = start(&node, named("10.210.1.0/24"), &leases);
    let old = node.pod(&bridge, &[]);
    drop(bridge);
    let bridge = start(&node, named("10.210.2.0/24"), &leases);
    let new = node.pod(&bridge, &[]);
    assert!(old.ip.to_string().starts_with("10.210.1.") && new.ip.to_string().starts_with("10.210.2."));
    // Outside nobody knows a way to either subnet: an answer comes to a masqueraded address alone.
    let _served = node.world.serve("192.0.2.1:80");
    assert!(new.netns.dial("192.0.2.1:80").is_ok());
    assert!(old.netns.dial("192.0.2.1:80").is_ok(), "the pod of the former subnet");
    let _old = old.netns.serve("[::]:81");
    assert!(new.netns.dial(&format!("{}:81", old.ip)).is_ok(), "from the new subnet to the former one");
    // A table that somebody deletes comes back with it.
    node.netns.sh("nft flush ruleset");
    drop(bridge);
    let bridge = start(&node, named("10.210.2.0/24"), &leases);
    assert!(old.netns.dial("192.0.2.1:80").is_ok(), "after the next start");
    node.detach(&bridge, &old);
    node.detach(&bridge, &new);
}
