//! The built-in network by way of a whole daemon: both families, bandwidth, pod CIDR, host ports that are taken, and upkeep.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::daemon::client::refused;
use crate::daemon::requests::container;
use crate::daemon::{Node, eventually, host, page, pod, shell};
use berth_proto::cri::*;
use tonic::Code;

/// Gives the daemon another network, from its next start on.
async fn with_network(node: &mut Node, network: &str) {
    let text = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: node}}\nspec:\n  network: {network}\n"
    );
    assert!(node.terminate().await.success());
    node.document("50-node.yaml", &text);
    node.start().await;
}

fn with_port(config: &mut PodSandboxConfig, host_port: i32) {
    let mapping = PortMapping { container_port: 80, host_port, ..PortMapping::default() };
    config.port_mappings.push(mapping);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_has_both_families_and_its_status_tells_them() {
    let mut node = Node::with_tools().await;
    with_network(&mut node, "{mode: Builtin, ipFamilies: [IPv4, IPv6]}").await;
    let subnets = node.info().await.subnet;
    let (four, six) = subnets.split_once(", ").expect("both subnets");
    assert!(four.starts_with("10.") && six.starts_with("fdbe:"), "{subnets}");
    let cri = node.cri();
    let mut sandbox = pod(&node, "both");
    let port = i32::from(free_port());
    with_port(&mut sandbox, port);
    let id = cri.run(&sandbox).await;
    let network = cri.pod_status(&id).await.unwrap().network.unwrap();
    assert_eq!(network.additional_ips.len(), 1);
    let second = network.additional_ips[0].ip.clone();
    assert!(network.ip.starts_with("10.") && second.starts_with("fdbe:"), "{network:?}");
    let server = cri.launch(&id, &container(&node, "web", &["/web"]), &sandbox).await;
    assert!(cri.sh(&server, "ip -6 addr show dev eth0").await.contains(&second));
    eventually("the server answers by IPv4", async || page(&format!("{}:80", network.ip), "/").await).await;
    assert!(page(&format!("[{second}]:80"), "/").await.is_some(), "and by IPv6");
    assert!(page(&format!("127.0.0.1:{port}"), "/").await.is_some(), "by the host port");

    // Killed within the attachment: nothing of it stays, and the pod that runs keeps both of its addresses.
    node.kill();
    node.hold_at("run/network/leave");
    node.start().await;
    node.arm();
    let (cri, cut) = (node.cri(), pod(&node, "cut"));
    let run = tokio::spawn(async move { cri.try_run(&cut).await });
    node.held().await;
    node.kill();
    assert!(run.await.unwrap().is_err());
    node.release();
    node.start().await;
    let cri = node.cri();
    node.nothing_but(&[&id], &[&server]);
    let after = cri.pod_status(&id).await.unwrap().network.unwrap();
    assert_eq!((after.ip, after.additional_ips.len()), (network.ip.clone(), 1));
    assert!(page(&format!("{}:80", network.ip), "/").await.is_some());
    node.remove_pods().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bandwidth_is_read_from_the_annotations_and_a_bad_one_is_refused_by_name() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    for (name, value) in [("ingress", "fast"), ("egress", "10"), ("egress", "-1M"), ("ingress", "2P")] {
        let mut sandbox = pod(&node, "bad");
        let annotation = format!("kubernetes.io/{name}-bandwidth");
        sandbox.annotations.insert(annotation.clone(), value.into());
        refused(cri.try_run(&sandbox).await, Code::InvalidArgument, &[&annotation, value]);
    }
    assert!(cri.pods().await.is_empty(), "a refused pod is not there");
    let mut sandbox = pod(&node, "slow");
    for name in ["ingress", "egress"] {
        sandbox.annotations.insert(format!("kubernetes.io/{name}-bandwidth"), "8M".into());
    }
    let id = cri.run(&sandbox).await;
    let tc = host("tc", &["qdisc", "show"]);
    let of =
        |interface: String| tc.lines().any(|l| l.contains(&interface) && l.contains("tbf") && l.contains("rate 8Mbit"));
    assert!(of(format!("bv{}", &id[..12])) && of(format!("bi{}", &id[..12])), "{tc}");
    node.remove_pods().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_chooses_a_hardware_address_that_no_other_has() {
    const MAC: &str = "cni.berth.dev/mac";
    let node = Node::with_tools().await;
    let cri = node.cri();
    let asking = |name: &str, mac: &str| {
        let mut sandbox = pod(&node, name);
        sandbox.annotations.insert(MAC.into(), mac.into());
        sandbox
    };
    for mac in ["00:11:22:33:44:55", "02:be:0a:40:00:02", "02:00"] {
        refused(cri.try_run(&asking("bad", mac)).await, Code::InvalidArgument, &[MAC, mac]);
    }
    assert!(cri.pods().await.is_empty(), "a refused pod is not there");
    let sandbox = asking("first", "0A:00:00:00:00:01");
    let id = cri.run(&sandbox).await;
    let server = cri.launch(&id, &shell(&node, "web", "exec /web"), &sandbox).await;
    let ip = cri.pod_status(&id).await.unwrap().network.unwrap().ip;
    eventually("it is reached", async || page(&format!("{ip}:80"), "/").await).await;
    assert!(host("ip", &["neigh", "show", &ip]).contains("0a:00:00:00:00:01"));
    let second = asking("second", "0a:00:00:00:00:01");
    refused(cri.try_run(&second).await, Code::AlreadyExists, &["default/first", &id, "0a:00:00:00:00:01"]);
    node.nothing_but(&[&id], &[&server]);
    cri.try_stop_pod(&id).await.unwrap();
    cri.run(&second).await;
    node.remove_pods().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_taken_host_port_is_refused_at_once_by_the_other_pods_name() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let port = i32::from(free_port());
    let mut first = pod(&node, "first");
    with_port(&mut first, port);
    let id = cri.run(&first).await;
    let mut second = pod(&node, "second");
    with_port(&mut second, port);
    refused(cri.try_run(&second).await, Code::AlreadyExists, &["default/first", &id, &port.to_string()]);
    cri.try_stop_pod(&id).await.unwrap();
    cri.run(&second).await;
    node.remove_pods().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_cidr_of_the_kubelet_is_read_and_followed() {
    let mut node = Node::with_tools().await;
    with_network(&mut node, "{mode: Builtin, ipFamilies: [IPv4, IPv6]}").await;
    let told = async |node: &Node, pod_cidr: &str| {
        let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.into() });
        let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
        node.cri().runtime().update_runtime_config(request).await.map(drop)
    };
    refused(told(&node, "10.244.0.0").await, Code::InvalidArgument, &["pod_cidr", "10.244.0.0"]);
    refused(told(&node, "10.244.0.0/24,10.245.0.0/24").await, Code::InvalidArgument, &["pod_cidr", "one family"]);
    // Not 0, which an IPv6 address is written without.
    let number = 1 + std::process::id() % 249;
    let (four, six) = (format!("10.245.{number}.0/24"), format!("fd00:10:245:{number:x}::/64"));
    told(&node, &format!("{four},{six}")).await.unwrap();
    assert_eq!(node.info().await.subnet, format!("{four}, {six}"));
    let id = node.cri().run(&pod(&node, "followed")).await;
    let network = node.cri().pod_status(&id).await.unwrap().network.unwrap();
    assert_eq!(network.ip, format!("10.245.{number}.2"));
    assert_eq!(network.additional_ips[0].ip, format!("fd00:10:245:{number:x}::2"));
    node.kill_and_start().await;
    assert_eq!(node.info().await.subnet, format!("{four}, {six}"), "recorded");
    node.remove_pods().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flushed_table_is_repaired_while_pods_run() {
    let node = Node::with_tools().await;
    let cri = node.cri();
    let port = i32::from(free_port());
    let mut sandbox = pod(&node, "served");
    with_port(&mut sandbox, port);
    let id = cri.run(&sandbox).await;
    cri.launch(&id, &shell(&node, "web", "exec /web"), &sandbox).await;
    let address = format!("127.0.0.1:{port}");
    eventually("the host port answers", async || page(&address, "/").await).await;
    let repaired = "berth_events_total{event=\"network_repaired\"}";
    assert_eq!(node.figure(repaired), 0.0);
    // Only ours: other daemons of this machine have theirs. The test can fail: it is seen to be gone, unless it was repaired that moment.
    let mut flushed = 0u32;
    while flushed == 0 || page(&address, "/").await.is_some() {
        assert!(flushed < 10, "the host port answers without it");
        host("nft", &["delete", "table", "ip", node.name()]);
        flushed += 1;
    }
    eventually("the host port answers again", async || page(&address, "/").await).await;
    eventually("each repair is counted", async || (node.figure(repaired) == f64::from(flushed)).then_some(())).await;
    assert!(node.log_tail().contains("does not exist"), "{}", node.log_tail());
    node.remove_pods().await;
    node.finish().await;
}

/// A port that nobody listens at now.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
