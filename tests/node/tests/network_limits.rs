//! The bandwidth of pods on a real kernel. Needs root, `ip`, `nft` and `tc` (iproute2 has it).
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network;
use crate::network::{Netns, Node, dual, tcp};
use berth_network::{Bandwidth, PodNetwork};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much is sent: the burst of 128 KiB passes unlimited.
const BYTES: usize = 1_500_000;

fn limited(ingress: Option<u64>, egress: Option<u64>) -> PodNetwork {
    PodNetwork { bandwidth: Bandwidth { ingress, egress }, ..PodNetwork::default() }
}

/// Seconds that BYTES take from one namespace to an address in another.
fn seconds(from: &Netns, to: &Netns, address: &str) -> f64 {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind(("::", address.port())).unwrap());
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(b"!").unwrap();
        assert_eq!(all.len(), BYTES);
    });
    let mut stream = from.run(|| TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap());
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let start = Instant::now();
    stream.write_all(&vec![7; BYTES]).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    stream.read_exact(&mut [0]).unwrap();
    reader.join().unwrap();
    start.elapsed().as_secs_f64()
}

#[test]
fn what_a_pod_gets_and_sends_is_limited_by_both_families_and_its_neighbour_is_not() {
    let node = Node::new();
    let (bridge, _) = node.bridge(dual(1));
    // 8 Mbit/s: the bytes beyond the burst take about 1.4 s.
    let slow = node.pod_as(&bridge, limited(Some(8_000_000), Some(8_000_000)));
    let fast = node.pod(&bridge, &[]);
    let shown = node.netns.sh(&format!("tc qdisc show dev {}", slow.attachment.host_interface));
    assert!(shown.contains("tbf") && shown.contains("rate 8Mbit"), "{shown}");
    for (from, to, address, what) in [
        (&fast.netns, &slow.netns, "10.64.1.2:5001", "to the pod"),
        (&slow.netns, &fast.netns, "10.64.1.3:5002", "from the pod"),
        (&fast.netns, &slow.netns, "[fdbe:0:1::2]:5003", "to the pod by IPv6"),
        (&slow.netns, &fast.netns, "[fdbe:0:1::3]:5004", "from the pod by IPv6"),
        (&slow.netns, &node.netns, "10.64.1.1:5005", "from the pod to the node"),
    ] {
        let took = seconds(from, to, address);
        assert!((0.9..6.0).contains(&took), "{what}: {took} s");
    }
    let other = node.pod(&bridge, &[]);
    let took = seconds(&fast.netns, &other.netns, "10.64.1.4:5006");
    assert!(took < 0.9, "a pod without a limit: {took} s");
}

#[test]
fn limits_leave_no_interface_behind() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(dual(2));
    let before = node.netns.links();
    let pod = node.pod_as(&bridge, limited(Some(1_000_000), Some(1_000_000_000_000)));
    let added: Vec<String> = node.netns.links().into_iter().filter(|l| !before.contains(l)).collect();
    assert_eq!(added.len(), 2, "the veth, and the ifb that limits what it sends: {added:?}");
    assert!(node.reconcile(&bridge, &[&pod]).is_empty(), "a limit is no leak");
    let host_end = pod.attachment.host_interface.clone();
    node.detach(&bridge, &pod);
    drop(pod);
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.netns.links() != before {
        assert!(Instant::now() < deadline, "{host_end}: {:?}", node.netns.links());
        std::thread::sleep(Duration::from_millis(50));
    }

    // A daemon that was killed after the limit was made, and whose pod is gone: the lease names it.
    let dead = node.pod_as(&bridge, limited(None, Some(1_000_000)));
    drop(bridge);
    let bridge = node.open(dual(2), Arc::clone(&leases)).unwrap();
    node.ensure(&bridge);
    node.reconcile(&bridge, &[]);
    assert_eq!(node.netns.links(), before, "of a pod that nobody knows");
    drop(dead);
    // And one whose lease is gone too: its alias says whose it is.
    let lost = node.pod_as(&bridge, limited(None, Some(1_000_000)));
    leases.map.lock().unwrap().clear();
    drop(bridge);
    let bridge = node.open(dual(2), Arc::clone(&leases)).unwrap();
    node.ensure(&bridge);
    let done = node.reconcile(&bridge, &[]);
    assert_eq!(done.interfaces.len(), 2, "{done:?}");
    assert_eq!(node.netns.links(), before);
    drop(lost);
    let _again = node.pod_as(&bridge, limited(None, Some(1_000_000)));
    node.destroy(&bridge);
    assert!(node.netns.links().iter().all(|l| !l.starts_with('b')), "{:?}", node.netns.links());
}

#[test]
fn a_limit_that_cannot_be_made_undoes_the_pod() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(dual(3));
    let _first = node.pod(&bridge, &[tcp(8080, 80)]);
    let before = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
    let (id, netns) = (network::new_id(), Netns::new());
    // Somebody else has an interface of that name.
    node.netns.sh(&format!("ip link add bi{} type ifb", id.short()));
    let e = node.try_attach_as(&bridge, &id, netns.path(), limited(None, Some(1_000_000))).unwrap_err();
    assert!(e.message().contains("bandwidth"), "{e}");
    let now = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
    assert_eq!(before, now);
}
