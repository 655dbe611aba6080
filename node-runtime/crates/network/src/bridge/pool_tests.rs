//! Tests of the pool of addresses and ports.
use super::*;
use berth_model::PortMapping;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn config(subnet: &str) -> BridgeConfig {
    BridgeConfig::new("b0", "t", subnet.parse().unwrap())
}

fn pod(n: u8) -> PodId {
    PodId::from_random([n; 32])
}

fn tcp(host_port: u16, host_ip: Option<&str>) -> PortMapping {
    PortMapping {
        protocol: Protocol::Tcp,
        container_port: 80,
        host_port,
        host_ip: host_ip.map(|ip| ip.parse().unwrap()),
    }
}

fn wish(ports: &[PortMapping]) -> PodNetwork {
    PodNetwork { ports: ports.to_vec(), ..PodNetwork::default() }
}

fn address(pool: &mut Pool, n: u8) -> String {
    pool.reserve(&pod(n), &wish(&[])).unwrap().lease.address.to_string()
}

#[test]
fn network_gateway_and_broadcast_are_never_handed_out() {
    let mut pool = Pool::new(&config("10.64.0.0/29"), Vec::new());
    let given: Vec<_> = (0..5).map(|n| address(&mut pool, n)).collect();
    assert_eq!(given, ["10.64.0.2", "10.64.0.3", "10.64.0.4", "10.64.0.5", "10.64.0.6"]);
    let e = pool.reserve(&pod(9), &wish(&[])).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::ResourceExhausted);
    assert!(
        e.message().contains("10.64.0.0/29") && e.message().contains(" 5 ") && e.message().contains("larger subnet")
    );
}

#[test]
fn a_released_address_comes_last_and_names_the_interface_that_must_be_gone() {
    let mut pool = Pool::new(&config("10.64.0.0/29"), Vec::new());
    (0..3).for_each(|n| {
        address(&mut pool, n);
    });
    pool.release(&pod(1));
    pool.release(&pod(0));
    assert_eq!(address(&mut pool, 10), "10.64.0.5");
    assert_eq!(address(&mut pool, 11), "10.64.0.6");
    let again = pool.reserve(&pod(12), &wish(&[])).unwrap();
    assert_eq!(again.lease.address.to_string(), "10.64.0.3", "released longest ago");
    assert_eq!(again.former_interface, Some(host_interface(&pod(1))));
    assert_eq!(address(&mut pool, 13), "10.64.0.2");
    assert!(pool.reserve(&pod(14), &wish(&[])).is_err());
}

#[test]
fn after_a_restart_the_next_address_follows_the_last_one() {
    let mut pool = Pool::new(&config("10.64.0.0/29"), Vec::new());
    let leases: Vec<_> = (0..3).map(|n| (pod(n), pool.reserve(&pod(n), &wish(&[])).unwrap().lease)).collect();
    let mut pool = Pool::new(&config("10.64.0.0/29"), leases.into_iter().skip(1).collect());
    assert_eq!(address(&mut pool, 7), "10.64.0.5");
    assert_eq!(address(&mut pool, 8), "10.64.0.6");
    assert_eq!(address(&mut pool, 9), "10.64.0.2");
    assert!(pool.reserve(&pod(10), &wish(&[])).is_err());
}

#[test]
fn a_pod_that_asks_again_keeps_its_address() {
    let mut pool = Pool::new(&config("10.64.0.0/24"), Vec::new());
    let first = pool.reserve(&pod(1), &wish(&[tcp(80, None)])).unwrap();
    let second = pool.reserve(&pod(1), &wish(&[tcp(81, None)])).unwrap();
    assert_eq!(first.lease.address, second.lease.address);
    assert_eq!(second.former_interface, Some(host_interface(&pod(1))));
    assert!(pool.reserve(&pod(2), &wish(&[tcp(80, None)])).is_ok(), "the former port is free again");
}

#[test]
fn a_taken_host_port_names_its_owner() {
    let mut pool = Pool::new(&config("10.64.0.0/24"), Vec::new());
    pool.reserve(&pod(1), &wish(&[tcp(80, None), tcp(81, Some("192.0.2.1"))])).unwrap();
    for clash in [tcp(80, None), tcp(80, Some("127.0.0.1")), tcp(81, None), tcp(81, Some("192.0.2.1"))] {
        let e = pool.reserve(&pod(2), &wish(&[clash])).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        assert!(e.message().contains(pod(1).as_str()), "{e}");
    }
    assert!(pool.get(&pod(2)).is_none(), "a refused pod has no address");
    pool.reserve(&pod(3), &wish(&[tcp(81, Some("192.0.2.2"))])).unwrap();
    let udp = PortMapping { protocol: Protocol::Udp, ..tcp(80, None) };
    pool.reserve(&pod(4), &wish(&[udp])).unwrap();
    pool.release(&pod(1));
    pool.reserve(&pod(5), &wish(&[tcp(80, Some("::"))])).unwrap();
}

#[test]
fn a_mapping_that_cannot_work_names_its_field() {
    let mut pool = Pool::new(&config("10.64.0.0/24"), Vec::new());
    let mut refused = |ports: &[PortMapping]| {
        let e = pool.reserve(&pod(1), &wish(ports)).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        e.to_string()
    };
    assert!(refused(&[tcp(0, None)]).starts_with("ports[0].hostPort"));
    assert!(refused(&[tcp(80, None), tcp(80, Some("127.0.0.1"))]).starts_with("ports[1].hostPort"));
    assert!(refused(&[tcp(80, Some("fd00::1"))]).starts_with("ports[0].hostIP"));
    assert!(refused(&vec![tcp(80, None); 257]).starts_with("ports:"));
}

#[test]
fn a_hardware_address_is_one_pods_until_it_goes() {
    let mut pool = Pool::new(&config("10.64.0.0/24"), Vec::new());
    let mac: Mac = serde_json::from_str("\"0a:00:00:00:00:01\"").unwrap();
    let asking = |name: &str| PodNetwork { name: name.into(), mac: Some(mac), ..PodNetwork::default() };
    let lease = pool.reserve(&pod(1), &asking("default/web")).unwrap().lease;
    assert_eq!(lease.hardware_address(), [0x0a, 0, 0, 0, 0, 1]);
    pool.reserve(&pod(1), &asking("default/web")).unwrap();
    let e = pool.reserve(&pod(2), &asking("default/db")).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::AlreadyExists);
    assert!(e.message().contains("default/web (") && e.message().contains("0a:00:00:00:00:01"), "{e}");
    assert!(pool.get(&pod(2)).is_none(), "who is refused has no address");
    pool.release(&pod(1));
    pool.reserve(&pod(2), &asking("default/db")).unwrap();
}

#[test]
fn with_both_families_a_port_is_taken_per_family_and_the_other_pod_is_named() {
    let dual = BridgeConfig { subnet6: Some("fdbe::/64".parse().unwrap()), ..config("10.64.0.0/24") };
    let mut pool = Pool::new(&dual, Vec::new());
    let named = PodNetwork { name: "default/web".into(), ..wish(&[tcp(80, None), tcp(81, Some("0.0.0.0"))]) };
    let lease = pool.reserve(&pod(1), &named).unwrap().lease;
    assert_eq!(lease.address6.unwrap().to_string(), "fdbe::2");
    assert_eq!(pool.host_ports().len(), 3, "one port on both families, one on IPv4");
    for taken in [tcp(80, Some("2001:db8::1")), tcp(80, Some("::")), tcp(81, None), tcp(81, Some("::ffff:192.0.2.1"))] {
        let e = pool.reserve(&pod(2), &wish(&[taken])).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::AlreadyExists);
        assert!(e.message().contains("default/web (") && e.message().contains(pod(1).as_str()), "{e}");
    }
    pool.reserve(&pod(2), &wish(&[tcp(81, Some("::"))])).unwrap();
    let e = pool.reserve(&pod(3), &wish(&[tcp(82, Some("::1"))])).unwrap_err();
    assert!(e.message().starts_with("ports[0].hostIP") && e.message().contains("127.0.0.1"), "{e}");
    // Without IPv6 again, its leases have IPv4 ports only.
    let leases = pool.leases().map(|(pod, lease)| (pod.clone(), lease.clone())).collect();
    let pool = Pool::new(&config("10.64.0.0/24"), leases);
    assert!(pool.host_ports().iter().all(|port| port.target.is_ipv4()));
}

#[test]
fn an_ipv6_address_of_a_former_lease_is_not_given_twice() {
    let dual = BridgeConfig { subnet6: Some("fdbe::/64".parse().unwrap()), ..config("10.64.0.0/24") };
    let mut pool = Pool::new(&dual, Vec::new());
    let former = pool.reserve(&pod(1), &wish(&[])).unwrap().lease;
    let moved = BridgeConfig { subnet: "10.65.0.0/24".parse().unwrap(), ..dual };
    let mut pool = Pool::new(&moved, vec![(pod(1), former)]);
    assert_eq!(address(&mut pool, 2), "10.65.0.3", "10.65.0.2 stands beside fdbe::2");
}

#[test]
fn a_range_within_the_subnet_is_all_that_pods_get() {
    let range = Some(("10.64.0.100".parse().unwrap(), "10.64.0.102".parse().unwrap()));
    let mut pool = Pool::new(&BridgeConfig { range, ..config("10.64.0.0/24") }, Vec::new());
    assert_eq!(pool.usage(), PoolUsage { subnet: "10.64.0.0/24".parse().unwrap(), size: 3, used: 0 });
    let given: Vec<_> = (0..3).map(|n| address(&mut pool, n)).collect();
    assert_eq!(given, ["10.64.0.100", "10.64.0.101", "10.64.0.102"]);
    assert_eq!(pool.usage().used, 3);
    let e = pool.reserve(&pod(9), &wish(&[])).unwrap_err();
    assert!(e.message().contains("10.64.0.0/24") && e.message().contains("3 of its 3"), "{e}");
    pool.release(&pod(1));
    assert_eq!(address(&mut pool, 9), "10.64.0.101");
}

proptest! {
    #[test]
    fn no_address_is_ever_held_twice(steps in proptest::collection::vec((any::<bool>(), 0u8..12), 0..200)) {
        let config = config("10.64.0.0/28");
        let mut pool = Pool::new(&config, Vec::new());
        for (add, n) in steps {
            if add {
                pool.reserve(&pod(n), &wish(&[tcp(1000 + u16::from(n), None)])).unwrap();
            } else {
                pool.release(&pod(n));
            }
            let held: Vec<_> = pool.leases().map(|(_, l)| l.address).collect();
            let distinct: BTreeSet<_> = held.iter().collect();
            prop_assert_eq!(distinct.len(), held.len());
            for address in held {
                prop_assert!(config.subnet.contains(&address) && address > config.gateway());
                prop_assert!(address != config.subnet.broadcast());
            }
            prop_assert_eq!(pool.host_ports().len(), pool.leases().count());
        }
    }
}
