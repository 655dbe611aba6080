//! The built-in bridge network on a real kernel: addresses, routes, life cycle. Needs root, `ip` and `nft`.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "a test says what went wrong by panicking")]

use crate::network::{MemoryLeases, Netns, Node, Pod, config, ip, new_id, tcp};
use berth_model::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

#[test]
fn pods_reach_each_other_and_the_node() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(1));
    assert_eq!(node.ready(&bridge), Ok(()));
    let (a, b) = (node.pod(&bridge, &[]), node.pod(&bridge, &[]));
    assert_eq!((a.ip.as_str(), b.ip.as_str()), ("10.64.1.2", "10.64.1.3"));

    let link = a.netns.sh("ip -d link show eth0");
    assert!(link.contains(&a.attachment.mac) && link.contains("UP") && link.contains("mtu 1500"), "{link}");
    assert!(a.netns.sh("ip addr show eth0").contains("inet 10.64.1.2/24 brd 10.64.1.255 scope global eth0"));
    assert!(a.netns.sh("ip addr show lo").contains("inet 127.0.0.1/8"), "loopback is up");
    assert!(a.netns.sh("ip route").contains("default via 10.64.1.1 dev eth0"));
    let port = node.netns.sh(&format!("ip -d link show {}", a.attachment.host_interface));
    assert!(port.contains("master bt1") && port.contains("state forwarding"), "{port}");

    let _b = b.netns.serve("0.0.0.0:80");
    let _node = node.netns.serve("0.0.0.0:81");
    assert_eq!(a.netns.dial("10.64.1.3:80").unwrap(), ip("10.64.1.2"), "pod to pod keeps its address");
    assert_eq!(a.netns.dial("10.64.1.1:81").unwrap(), ip("10.64.1.2"), "pod to node keeps its address");
    assert_eq!(a.netns.dial("192.0.2.2:81").unwrap(), ip("10.64.1.2"));
    assert_eq!(node.netns.dial("10.64.1.3:80").unwrap(), ip("10.64.1.1"));
    assert_eq!(b.netns.dial("127.0.0.1:80").unwrap(), ip("127.0.0.1"));
}

#[test]
fn the_world_sees_pods_by_the_address_of_the_node() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(2));
    let pod = node.pod(&bridge, &[]);
    let _world = node.world.serve("0.0.0.0:80");
    assert_eq!(pod.netns.dial("192.0.2.1:80").unwrap(), ip("192.0.2.2"));
    assert_eq!(pod.netns.dial_udp("192.0.2.1:80", 0, Duration::from_secs(5)).unwrap(), ip("192.0.2.2"));
}

#[test]
fn the_first_packet_of_a_new_pod_gets_through_at_once() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(3));
    let _node = node.netns.serve("0.0.0.0:81");
    for n in 0..10 {
        let pod = node.pod(&bridge, &[]);
        // The last pod takes the bridge's carrier with it.
        let last = n % 2 == 0;
        // A lost SYN is sent again after a second.
        pod.netns.dial_within("10.64.3.1:81", Duration::from_millis(900)).expect("lost the first packet");
        if last {
            node.netns.sh(&format!("ip link del {}", pod.attachment.host_interface));
        }
    }
}

#[test]
fn destroy_leaves_nothing() {
    let node = Node::new();
    let before = (node.netns.links(), node.netns.sh("ip route"), node.netns.sysctl("net/ipv4/ip_forward"));
    assert_eq!(before.2, "0");
    let (bridge, leases) = node.bridge(config(4));
    assert_eq!(node.netns.sysctl("net/ipv4/ip_forward"), "1");
    let _held: Vec<Pod> = (0..3).map(|n| node.pod(&bridge, &[tcp(8000 + n, 80)])).collect();
    assert_eq!(leases.map.lock().unwrap().len(), 3);
    node.destroy(&bridge);
    assert_eq!(before, (node.netns.links(), node.netns.sh("ip route"), node.netns.sysctl("net/ipv4/ip_forward")));
    assert_eq!(node.netns.ruleset(), "");
    assert!(leases.map.lock().unwrap().is_empty());
    node.destroy(&bridge);
    assert!(node.ready(&bridge).unwrap_err().contains("\"bt4\" does not exist"));

    node.ensure(&bridge);
    assert_eq!(node.pod(&bridge, &[tcp(8000, 80)]).ip, "10.64.4.2", "it can be used again");
}

#[test]
fn two_roots_work_side_by_side_and_the_last_one_restores_forwarding() {
    let node = Node::new();
    let (one, _) = node.bridge(config(5));
    let (two, _) = node.bridge(config(6));
    let (a, b) = (node.pod(&one, &[tcp(8005, 80)]), node.pod(&two, &[tcp(8006, 80)]));
    let (_a, _b) = (a.netns.serve("0.0.0.0:80"), b.netns.serve("0.0.0.0:80"));
    let _world = node.world.serve("0.0.0.0:80");
    for pod in [&a, &b] {
        assert_eq!(pod.netns.dial("192.0.2.1:80").unwrap(), ip("192.0.2.2"));
    }
    assert!(a.netns.dial("192.0.2.2:8006").is_ok(), "to a host port of the other root");
    node.destroy(&one);
    assert_eq!(node.netns.sysctl("net/ipv4/ip_forward"), "1", "the other one still forwards");
    assert!(node.world.dial("192.0.2.2:8006").is_ok());
    assert!(b.netns.dial("192.0.2.1:80").is_ok());
    node.destroy(&two);
    assert_eq!(node.netns.sysctl("net/ipv4/ip_forward"), "0");
    assert_eq!(node.netns.ruleset(), "");
}

#[test]
fn a_subnet_that_the_node_uses_is_refused_by_name() {
    let node = Node::new();
    node.netns.sh("ip link add cni0 type bridge");
    node.netns.sh("ip addr add 10.64.0.1/16 dev cni0");
    node.netns.sh("ip link set cni0 up");
    let e = node.open(config(7), Arc::default()).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::FailedPrecondition);
    for part in ["10.64.7.0/24", "10.64.0.0/16", "\"cni0\"", "another subnet"] {
        assert!(e.message().contains(part), "{part} is not in: {e}");
    }
    node.netns.sh("ip link del cni0");
    node.netns.sh("ip route add unreachable 10.64.7.128/25");
    let e = node.open(config(7), Arc::default()).unwrap_err();
    assert!(e.message().contains("10.64.7.128/25"), "{e}");
    node.netns.sh("ip route del unreachable 10.64.7.128/25");
    node.netns.sh("ip link add bt7 type veth peer name other");
    let bridge = node.open(config(7), Arc::default()).unwrap();
    let refused = bridge.clone();
    let e = node.block_on(async move { refused.ensure().await }).unwrap_err();
    assert!(e.message().contains("\"bt7\" is no bridge but a veth"), "{e}");
    assert_eq!(node.netns.ruleset(), "", "a refused set-up changes nothing");
}

#[test]
fn ensure_repairs_and_ready_says_what_is_broken() {
    let node = Node::new();
    let (bridge, _) = node.bridge(config(8));
    let pod = node.pod(&bridge, &[tcp(8008, 80)]);
    let _pod = pod.netns.serve("0.0.0.0:80");
    let broken = |line: &str, sentence: &str| {
        node.netns.sh(line);
        let said = node.ready(&bridge).unwrap_err();
        assert!(said.contains(sentence), "{said}");
        node.ensure(&bridge);
        assert_eq!(node.ready(&bridge), Ok(()));
        assert!(node.world.dial("192.0.2.2:8008").is_ok(), "after {line}");
    };
    broken("ip link set bt8 down", "is down");
    broken("ip addr flush dev bt8", "10.64.8.1/24");
    broken("nft flush ruleset", "berth_8");
    node.netns.set_sysctl("net/ipv4/ip_forward", "0");
    assert!(node.ready(&bridge).unwrap_err().contains("ip_forward"));
    node.ensure(&bridge);
    let list = node.netns.ruleset();
    node.ensure(&bridge);
    assert_eq!(list, node.netns.ruleset(), "doing it again changes nothing");
    node.netns.sh("nft flush ruleset");
    let second = node.pod(&bridge, &[tcp(8009, 80)]);
    let _second = second.netns.serve("0.0.0.0:80");
    for port in [8008, 8009] {
        assert!(node.world.dial(&format!("192.0.2.2:{port}")).is_ok(), "a flushed ruleset heals with the next pod");
    }
}

#[test]
fn a_restarted_daemon_knows_addresses_and_ports() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(9));
    let (a, b) = (node.pod(&bridge, &[tcp(8010, 80)]), node.pod(&bridge, &[]));
    let _a = a.netns.serve("0.0.0.0:80");
    node.detach(&bridge, &b);
    drop(bridge);
    let bridge = node.open(config(9), Arc::clone(&leases)).unwrap();
    assert!(node.world.dial("192.0.2.2:8010").is_ok(), "nothing stopped working meanwhile");
    node.ensure(&bridge);
    assert!(node.world.dial("192.0.2.2:8010").is_ok());
    let e = node.try_attach(&bridge, &new_id(), Netns::new().path(), &[tcp(8010, 80)]).unwrap_err();
    assert!(e.kind() == ErrorKind::AlreadyExists && e.message().contains(a.id.as_str()), "{e}");
    assert_ne!(node.pod(&bridge, &[]).ip, a.ip);
}

#[test]
fn an_exhausted_subnet_says_so_and_reuses_what_was_released_first() {
    let node = Node::new();
    let (bridge, leases) =
        node.bridge(berth_network::BridgeConfig { subnet: "10.64.10.0/29".parse().unwrap(), ..config(10) });
    let pods: Vec<Pod> = (0..5).map(|_| node.pod(&bridge, &[])).collect();
    let e = node.try_attach(&bridge, &new_id(), Netns::new().path(), &[]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ResourceExhausted);
    assert_eq!(leases.map.lock().unwrap().len(), 5);
    // Its namespace is still held, as by a leaked descriptor: the address must not be there twice.
    node.detach(&bridge, &pods[3]);
    node.detach(&bridge, &pods[1]);
    node.detach(&bridge, &pods[1]);
    let again = node.pod(&bridge, &[]);
    assert_eq!((again.ip, again.attachment.mac), (pods[3].ip.clone(), pods[3].attachment.mac.clone()));
    assert_eq!(pods[3].netns.links(), ["lo"], "the former holder has lost it");
    assert_eq!(pods[1].netns.links(), ["eth0", "lo"]);
}

#[test]
fn a_failed_attachment_leaves_nothing() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(11));
    let _first = node.pod(&bridge, &[tcp(8011, 80)]);
    let before = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
    let same = |what: &str| {
        let now = (node.netns.links(), node.netns.ruleset(), leases.map.lock().unwrap().clone());
        assert_eq!(before, now, "after {what}");
    };

    let e = node.try_attach(&bridge, &new_id(), Netns::new().path(), &[tcp(8012, 80), tcp(8011, 80)]).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    same("a port that is taken");

    let e = node.try_attach(&bridge, &new_id(), "/nonexistent/netns".into(), &[]).unwrap_err();
    assert!(e.kind() == ErrorKind::NotFound && e.message().contains("/nonexistent/netns"), "{e}");
    let e = node.try_attach(&bridge, &new_id(), "/proc/self/status".into(), &[]).unwrap_err();
    assert!(e.message().contains("/proc/self/status"), "{e}");
    same("no namespace");

    let netns = Netns::new();
    netns.sh("ip link add eth0 type veth peer name x");
    let e = node.try_attach(&bridge, &new_id(), netns.path(), &[tcp(8012, 80)]).unwrap_err();
    assert!(e.message().contains("File exists"), "{e}");
    same("an eth0 in the pod");

    leases.broken.store(true, Ordering::Relaxed);
    let e = node.try_attach(&bridge, &new_id(), Netns::new().path(), &[tcp(8012, 80)]).unwrap_err();
    assert!(e.message().contains("the disk is gone"), "{e}");
    leases.broken.store(false, Ordering::Relaxed);
    same("a broken store");

    let netns = Netns::new();
    netns.sh("ip link set lo up");
    netns.sh("ip link add d0 type veth peer name d1");
    netns.sh("ip addr add 192.0.2.9/24 dev d0");
    netns.sh("ip link set d0 up");
    netns.sh("ip route add default via 192.0.2.1");
    let e = node.try_attach(&bridge, &new_id(), netns.path(), &[tcp(8012, 80)]).unwrap_err();
    assert!(e.message().contains("default route"), "{e}");
    assert!(!netns.links().contains(&"eth0".to_owned()));
    same("a default route in the pod");
}

#[test]
fn reconcile_removes_what_was_planted_and_nothing_else() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(12));
    let (live, dead) = (node.pod(&bridge, &[tcp(8013, 80)]), node.pod(&bridge, &[tcp(8014, 80)]));
    let (_live, left) = (live.netns.serve("0.0.0.0:80"), node.pod(&bridge, &[]));
    node.detach(&bridge, &left);
    assert!(node.reconcile(&bridge, &[&live, &dead]).is_empty(), "an interface that is about to go is no leak");

    node.netns.sh("ip link add bvplanted type veth peer name planted2");
    node.netns.sh("ip link set bvplanted master bt12");
    node.netns.nft("add element ip berth_12 ports { udp . 9 : 10.64.12.99 . 9 }");
    leases.map.lock().unwrap().insert("planted".into(), b"{".to_vec());
    drop(bridge);
    let bridge = node.open(config(12), Arc::clone(&leases)).unwrap();
    let done = node.reconcile(&bridge, &[&live]);
    assert_eq!(done.leases, [dead.id.as_str(), "planted"]);
    let mut expected =
        vec!["bvplanted".to_owned(), dead.attachment.host_interface.clone(), left.attachment.host_interface.clone()];
    expected.sort();
    let mut interfaces = done.interfaces.clone();
    interfaces.sort();
    assert_eq!(interfaces, expected);
    assert_eq!(done.elements, ["ports udp . 9 : 10.64.12.99 . 9"]);
    assert_eq!(leases.map.lock().unwrap().keys().collect::<Vec<_>>(), [live.id.as_str()]);
    assert!(!node.netns.ruleset().contains("8014"));
    assert!(node.world.dial("192.0.2.2:8013").is_ok(), "the living pod is untouched");
    assert!(node.reconcile(&bridge, &[&live]).is_empty());
}

#[test]
fn pods_that_start_at_once_get_in_nobodys_way() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(16));
    let pods: Vec<_> = (0..24).map(|n| (new_id(), Netns::new(), tcp(9100 + n, 80))).collect();
    let ids: Vec<_> = pods.iter().map(|p| p.0.clone()).collect();
    let start = || {
        let tasks = pods.iter().map(|(id, netns, port)| {
            let (bridge, id, path, port) = (bridge.clone(), id.clone(), netns.path(), port.clone());
            let wish = berth_network::PodNetwork { ports: vec![port], ..Default::default() };
            async move { bridge.attach(&id, &path, &wish).await }
        });
        tasks.collect::<Vec<_>>()
    };
    let (tasks, other, live) = (start(), bridge.clone(), ids.clone());
    let attachments = node.block_on(async move {
        let tasks: Vec<_> = tasks.into_iter().map(tokio::spawn).collect();
        let mut done = Vec::new();
        for task in tasks {
            other.ensure().await.unwrap();
            assert!(other.reconcile(&live).await.unwrap().is_empty(), "took a pod under way for a leak");
            done.push(task.await.unwrap().unwrap());
        }
        done
    });
    let addresses: std::collections::BTreeSet<_> = attachments.iter().map(|a| a.addresses[0]).collect();
    assert_eq!(addresses.len(), 24);
    let list = node.netns.ruleset();
    assert!((9100..9124).all(|port| list.contains(&format!("tcp . {port} :"))), "{list}");
    let other = bridge.clone();
    node.block_on(async move {
        let tasks: Vec<_> = ids.into_iter().map(|id| (other.clone(), id)).collect();
        let tasks: Vec<_> =
            tasks.into_iter().map(|(b, id)| tokio::spawn(async move { b.detach(&id, None).await })).collect();
        for task in tasks {
            other.ensure().await.unwrap();
            task.await.unwrap().unwrap();
        }
    });
    assert!(leases.map.lock().unwrap().is_empty());
    assert!(!node.netns.ruleset().contains("elements"));
}

#[test]
fn the_mtu_of_the_uplink_is_that_of_pods() {
    let node = Node::new();
    node.netns.sh("ip link set up0 mtu 1400");
    let (bridge, _) = node.bridge(config(13));
    assert!(node.pod(&bridge, &[]).netns.sh("ip link show eth0").contains("mtu 1400"));
    let (bridge, _) = node.bridge(berth_network::BridgeConfig { mtu: Some(1300), ..config(14) });
    assert!(node.pod(&bridge, &[]).netns.sh("ip link show eth0").contains("mtu 1300"));
}

#[test]
fn loopback_comes_up_without_a_network() {
    let (node, netns) = (Node::new(), Netns::new());
    let path = netns.path();
    node.block_on(async move { berth_network::loopback_up(&path).await }).unwrap();
    let _server = netns.serve("127.0.0.1:80");
    assert_eq!(netns.dial("127.0.0.1:80").unwrap(), ip("127.0.0.1"));
    let e = node.block_on(async { berth_network::loopback_up("/nonexistent".as_ref()).await }).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
}

#[test]
fn dropping_the_namespace_takes_the_interface_and_attaching_is_fast() {
    let node = Node::new();
    let (bridge, leases) = node.bridge(config(15));
    let before = node.netns.links();
    let (mut attach, mut detach) = (Vec::new(), Vec::new());
    for n in 0..40 {
        let (id, netns) = (new_id(), Netns::new());
        let start = Instant::now();
        let attachment = node.try_attach(&bridge, &id, netns.path(), &[tcp(9000 + n, 80)]).unwrap();
        attach.push(start.elapsed());
        let pod = Pod { ip: String::new(), id, netns, attachment };
        let start = Instant::now();
        node.detach(&bridge, &pod);
        drop(pod);
        detach.push(start.elapsed());
    }
    attach.sort();
    detach.sort();
    eprintln!("attach p50 {:?} p95 {:?}; detach p50 {:?} p95 {:?}", attach[20], attach[38], detach[20], detach[38]);
    // Generous, for a busy machine: helper programs alone would take longer.
    assert!(attach[20] < Duration::from_millis(50), "attach took {:?}", attach[20]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while node.netns.links() != before {
        assert!(Instant::now() < deadline, "interfaces stay: {:?}", node.netns.links());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(leases.map.lock().unwrap().is_empty());
    let _: &MemoryLeases = &leases;
}
