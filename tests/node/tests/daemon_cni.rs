//! Pods on the networks of real CNI plugins: those of Debian's package (1.1.1, specification 1.0) and those that are built
//! (1.9.1, specification 1.1). What a plugin did is read from the kernel and from its files; at the end nothing is left.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::cni::{CniNode, DEBIAN, addresses, built};
use crate::daemon;
use crate::daemon::node::Setup;
use crate::daemon::{Node, container, crictl, eventually, pod, shell};
use berth_proto::cri::{NetworkConfig, RuntimeConfig};
use berth_proto::cri::{PodSandboxConfig, PodSandboxState, PortMapping, Protocol, UpdateRuntimeConfigRequest};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

fn with_port(node: &CniNode, name: &str, host_port: i32) -> PodSandboxConfig {
    let mut config = pod(&node.node, name);
    config.port_mappings.push(PortMapping {
        protocol: Protocol::Tcp as i32,
        container_port: 80,
        host_port,
        ..Default::default()
    });
    config
}

/// Everything that a usual network add-on configures, and that a kubelet asks for.
async fn a_whole_network(plugins: &Path, version: &str, rest: &[Value]) {
    let mut node = CniNode::new(plugins).await;
    let mut list = vec![node.bridge()];
    list.extend_from_slice(rest);
    node.network(version, &list);
    node.becomes_ready().await;
    let (mut first, mut second) = (with_port(&node, "first", 8080), pod(&node.node, "other"));
    // Both: the bandwidth plugin of Debian crashes in CHECK of a pod without a rate.
    for config in [&mut first, &mut second] {
        config.annotations.insert("kubernetes.io/ingress-bandwidth".into(), "10M".into());
        config.annotations.insert("kubernetes.io/egress-bandwidth".into(), "20M".into());
    }
    let id = node.cri().run(&first).await;
    let other = node.cri().run(&second).await;

    let status = node.cri().pod_status(&id).await.unwrap();
    let both = addresses(&status);
    assert_eq!(both[0], "10.70.0.50", "{both:?}");
    assert!(both.len() == 2 && both[1].starts_with("fd70::"), "{both:?}");
    assert_eq!(node.leases().len(), 4, "{:?}", node.leases());
    let shown = crictl::json(&node.node, &["inspectp", "-o", "json", &id]);
    assert_eq!(shown["status"]["network"]["ip"], both[0].as_str());
    assert_eq!(shown["status"]["network"]["additionalIps"][0]["ip"], both[1].as_str());

    let inside = node.pod_netns(&id);
    assert!(inside.links().contains(&"eth0".to_owned()) && inside.sh("ip -o link show lo").contains("UP"));
    assert_eq!(inside.sysctl("net/ipv4/conf/eth0/arp_filter"), "1", "tuning");
    {
        let _server = inside.serve("0.0.0.0:80");
        assert!(node.netns.dial("10.70.0.50:80").is_ok(), "from the node");
        assert!(node.pod_netns(&other).dial("10.70.0.50:80").is_ok(), "from another pod");
        assert!(node.netns.dial("10.70.0.1:8080").is_ok(), "host port, by the node's address");
        assert!(node.netns.dial("127.0.0.1:8080").is_ok(), "host port, by loopback");
        assert!(node.pod_netns(&other).dial("10.70.0.1:8080").is_ok(), "host port, from another pod");
    }
    let queues = node.netns.sh("tc qdisc show");
    assert!(queues.contains("rate 10Mbit") && queues.contains("rate 20Mbit"), "{queues}");

    // A pod's network outlives the daemon, and CHECK finds it whole.
    node.node.kill_and_start().await;
    assert_eq!(addresses(&node.cri().pod_status(&id).await.unwrap()), both);
    {
        let _server = node.pod_netns(&id).serve("0.0.0.0:80");
        assert!(node.netns.dial("127.0.0.1:8080").is_ok());
    }
    node.cri().try_stop_pod(&id).await.unwrap();
    assert_eq!(node.leases().len(), 2, "the other pod keeps its addresses: {:?}", node.leases());
    assert!(node.netns.dial_within("127.0.0.1:8080", Duration::from_millis(300)).is_err());
    node.cri().try_stop_pod(&id).await.unwrap();
    let series = "berth_events_total{event=\"cni_check_failed\"}";
    let figures = node.netns.run(|| node.node.figures());
    // CHECK of Debian's portmap looks for the rules of both families in one; it is told, and takes no pod down.
    if plugins == built() {
        assert_eq!(figures.get(series), None, "CHECK found something wrong: {}", node.node.log_tail());
    }
    node.finish().await;
}

fn tuning() -> Value {
    json!({ "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" } })
}

fn bandwidth() -> Value {
    json!({ "type": "bandwidth", "capabilities": { "bandwidth": true } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_network_of_debians_plugins() {
    let portmap = json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } });
    let rest = [tuning(), portmap, json!({ "type": "firewall" }), bandwidth()];
    a_whole_network(Path::new(DEBIAN), "1.0.0", &rest).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_network_in_the_version_of_debians_own_files() {
    let portmap = json!({ "type": "portmap", "snat": true, "capabilities": { "portMappings": true } });
    a_whole_network(Path::new(DEBIAN), "0.4.0", &[tuning(), portmap, bandwidth()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_network_of_the_built_plugins_with_nftables() {
    let portmap =
        json!({ "type": "portmap", "snat": true, "backend": "nftables", "capabilities": { "portMappings": true } });
    a_whole_network(&built(), "1.1.0", &[tuning(), portmap, bandwidth()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_network_of_the_built_plugins_with_iptables() {
    let portmap =
        json!({ "type": "portmap", "snat": true, "backend": "iptables", "capabilities": { "portMappings": true } });
    a_whole_network(&built(), "1.0.0", &[tuning(), portmap, json!({ "type": "firewall" }), bandwidth()]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_node_is_ready_when_a_configuration_is_there_and_not_before() {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let (ready, message) = node.network_ready().await;
    assert!(!ready && message.contains(&*node.configurations().to_string_lossy()), "{message}");
    let refused = node.cri().try_run(&pod(&node.node, "early")).await.unwrap_err();
    assert!(refused.message().contains("no CNI configuration"), "{refused}");
    assert_eq!(node.cri().pods().await, []);

    node.configure("10-bad.conflist", r#"{"cniVersion": "1.0.0", "name": "a/b", "plugins": [{"type": "bridge"}]}"#);
    node.becomes_unready("10-bad.conflist: name: \"a/b\"").await;
    node.configure("15-worse.conf", "{");
    node.becomes_unready("15-worse.conf: file: is not JSON").await;
    let missing = json!({ "cniVersion": "1.0.0", "name": "pods", "plugins": [{ "type": "no-such-plugin" }] });
    node.configure("20-missing.conflist", &missing.to_string());
    node.becomes_unready("plugin no-such-plugin (1 of 1) is not in /usr/lib/cni").await;
    let newer = json!({ "cniVersion": "1.1.0", "name": "pods", "plugins": [{ "type": "bridge" }] });
    node.configure("20-missing.conflist", &newer.to_string());
    node.becomes_unready("supports the CNI versions").await;
    // The first valid one in name order: the two refused ones come before it.
    node.network("1.0.0", &[node.bridge()]);
    std::fs::remove_file(node.configurations().join("10-bad.conflist")).unwrap();
    node.becomes_ready().await;
    let id = node.cri().run(&pod(&node.node, "late")).await;
    assert_eq!(node.cri().pod_status(&id).await.unwrap().network.unwrap().ip, "10.70.0.50");

    // The directory itself can go and come back.
    let aside = node.node.base().join("aside");
    std::fs::rename(node.configurations(), &aside).unwrap();
    node.becomes_unready("no CNI configuration").await;
    node.cri().try_remove_pod(&id).await.unwrap();
    node.clean().await;
    std::fs::rename(&aside, node.configurations()).unwrap();
    node.becomes_ready().await;
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_their_addresses_from_the_nodes_pod_cidr_and_what_annotations_may_ask_for() {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let mut hostile = node.hostile();
    hostile["capabilities"] =
        json!({ "ipRanges": true, "mac": true, "ips": true, "dns": true, "portMappings": true, "other": true });
    node.network("1.0.0", &[hostile]);
    node.becomes_ready().await;
    let network_config = Some(NetworkConfig { pod_cidr: "10.71.0.0/24,fd71::/64".into() });
    let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
    node.cri().runtime().update_runtime_config(request).await.unwrap();
    let mut config = with_port(&node, "asks", 8081);
    config.annotations.insert("cni.berth.dev/mac".into(), "02:00:00:00:00:01".into());
    config.annotations.insert("cni.berth.dev/ips".into(), "10.71.0.9/24".into());
    config.dns_config.get_or_insert_default().servers.push("10.96.0.10".into());
    let id = node.cri().run(&config).await;
    let expected = json!({
        "ipRanges": [[{ "subnet": "10.71.0.0/24" }], [{ "subnet": "fd71::/64" }]],
        "mac": "02:00:00:00:00:01", "ips": ["10.71.0.9/24"],
        "dns": { "servers": ["10.96.0.10"], "searches": [], "options": [] },
        "portMappings": [{ "hostPort": 8081, "containerPort": 80, "protocol": "tcp", "hostIP": "" }],
    });
    assert_eq!(node.told("ADD")["runtimeConfig"], expected);
    let environment = node.environment("ADD");
    let uid = &config.metadata.as_ref().unwrap().uid;
    let args = format!(
        "CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=asks;K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}"
    );
    assert!(environment.lines().any(|l| l == args), "{environment}");
    let own = ["CNI_", "BERTH_CNI_CALL=", "PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="];
    let foreign: Vec<&str> = environment.lines().filter(|l| !own.iter().any(|o| l.starts_with(o))).collect();
    assert!(foreign.is_empty(), "a plugin sees the daemon's environment: {foreign:?}");
    config.metadata.as_mut().unwrap().name = "other".into();
    config.annotations.insert("cni.berth.dev/mac".into(), "02:00".into());
    let refused = node.cri().try_run(&config).await.unwrap_err();
    assert!(refused.message().contains("annotations[\"cni.berth.dev/mac\"]"), "{refused}");
    node.finish().await;
}

/// The machine's own network namespace: containers with an image, on a bridge that this test removes again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_see_the_addresses_that_plugins_gave() {
    let number = std::process::id() % 200;
    let bridge = format!("cbr{:x}", std::process::id());
    let document = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata:\n  name: node\nspec:\n  network:\n    cni:\n      \
         binDirs: [{DEBIAN}]\n"
    );
    let node = Node::with(Setup { document: Some(document), netns: None }).await;
    let conf_dir = node.root().join("etc/cni/net.d");
    std::fs::create_dir_all(&conf_dir).unwrap();
    let config = json!({
        "cniVersion": "0.3.1", "name": "pods", "type": "bridge", "bridge": bridge, "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": node.base().join("ipam"), "subnet": format!("10.122.{number}.0/24") },
    });
    std::fs::write(conf_dir.join("10-pods.conf"), config.to_string()).unwrap();
    node.cri().pull(&node.tools()).await;
    let sandbox = pod(&node, "seen");
    let id = eventually("a pod runs", async || node.cri().try_run(&sandbox).await.ok()).await;
    let ip = node.cri().pod_status(&id).await.unwrap().network.unwrap().ip;
    assert_eq!(ip, format!("10.122.{number}.2"));
    let script = shell(&node, "show", "ip addr show eth0; cat /etc/hosts; ping -c 1 -W 5 \"$1\"; sleep 1000");
    let mut script = script;
    script.command.extend(["sh".to_owned(), format!("10.122.{number}.1")]);
    let shown = node.cri().launch(&id, &script, &sandbox).await;
    let log = node.cri().status(&shown).await.unwrap().log_path;
    eventually("the container has its network", async || {
        let text = daemon::client::log_text(&log);
        let hosts = text.lines().any(|l| l.starts_with(&ip) && l.contains("seen"));
        (text.contains(&format!("inet {ip}/24")) && hosts && text.contains("1 packets received")).then_some(())
    })
    .await;
    let other = node.cri().launch(&id, &container(&node, "other", &["true"]), &sandbox).await;
    eventually("it ends", async || (node.cri().status(&other).await.unwrap().finished_at > 0).then_some(())).await;
    node.cri().try_remove_pod(&id).await.unwrap();
    let left: Vec<_> = std::fs::read_dir(node.base().join("ipam/pods")).unwrap().flatten().collect();
    assert!(!left.iter().any(|e| e.file_name().to_string_lossy().starts_with("10.")), "{left:?}");
    node.finish().await;
    daemon::host("ip", &["link", "delete", &bridge]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_reboot_ended_is_deleted_with_the_configuration_it_was_made_with() {
    let mut node = CniNode::new(Path::new(DEBIAN)).await;
    let hostile = node.hostile();
    node.network("1.0.0", &[node.bridge(), hostile]);
    node.becomes_ready().await;
    let id = node.cri().run(&pod(&node.node, "before")).await;
    assert_eq!(node.leases().len(), 2);
    // Another network by now; the one before is known from the record only.
    let monitor = daemon::steps::monitor_of(&node.node, &id);
    node.node.kill();
    daemon::killed(monitor).await;
    let other = json!({ "cniVersion": "1.0.0", "name": "other", "plugins": [{ "type": "no-such-plugin" }] });
    node.configure("10-pods.conflist", &other.to_string());
    daemon::steps::reboot(&node.node);
    node.netns.sh("ip link delete cbr0");
    node.node.start().await;
    let status = node.cri().pod_status(&id).await.unwrap();
    assert_eq!(status.state(), PodSandboxState::SandboxNotready);
    node.clean().await;
    let told = node.told("DEL");
    assert_eq!((&told["name"], &told["prevResult"]["ips"][0]["address"]), (&json!("pods"), &json!("10.70.0.50/24")));
    assert!(node.environment("DEL").lines().any(|l| l == "CNI_NETNS="), "the namespace is gone");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_of_1_1_says_whether_it_is_ready_and_is_told_what_is_valid() {
    let mut node = CniNode::new(&built()).await;
    let hostile = node.hostile();
    node.behave("STATUS", "busy");
    node.network("1.1.0", &[hostile]);
    node.becomes_unready("plugin hostile (1 of 1): STATUS: the agent is not up (CNI error code 50)").await;
    node.behave("STATUS", "");
    node.becomes_ready().await;
    let id = node.cri().run(&pod(&node.node, "kept")).await;
    let before = node.count("GC");
    let torn = node.node.root().join("lib/cni/attachments/torn");
    std::fs::create_dir(&torn).unwrap();
    std::fs::write(torn.join("record.json"), "{").unwrap();
    node.node.kill_and_start().await;
    eventually("GC ran", async || (node.count("GC") > before && node.count("CHECK") > 0).then_some(())).await;
    let valid = json!([{ "containerID": id, "ifname": "eth0" }, { "containerID": "torn", "ifname": "eth0" }]);
    assert_eq!(node.told("GC")["cni.dev/valid-attachments"], valid, "what cannot be read is valid too");
    std::fs::remove_dir_all(&torn).unwrap();
    assert_eq!(node.told("CHECK")["prevResult"]["ips"][0]["address"], "10.71.0.9/24");
    // One answer that fails takes no node away; a plugin that hangs does.
    node.behave("STATUS", "hang");
    node.becomes_unready("did not end in time").await;
    node.behave("STATUS", "");
    node.becomes_ready().await;
    node.finish().await;
}
