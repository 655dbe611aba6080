//! More of CNI with real plugins: ptp with addresses of `static`, a configuration that a document has, how many pods are attached at a
//! time, and what `berth doctor`, figures and `crictl info` tell of a network that is ill.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs, reason = "tests fail by panicking")]

use crate::cni::{CniNode, DEBIAN, addresses, built};
use crate::daemon::doctor::doctor;
use crate::daemon::{Cri, cli, crictl, eventually, pod};
use berth_proto::cri::{NetworkConfig, PodSandboxConfig, RuntimeConfig, StatusRequest, UpdateRuntimeConfigRequest};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

async fn tell_pod_cidr(node: &CniNode, pod_cidr: &str) {
    let network_config = Some(NetworkConfig { pod_cidr: pod_cidr.to_owned() });
    let request = UpdateRuntimeConfigRequest { runtime_config: Some(RuntimeConfig { network_config }) };
    node.cri().runtime().update_runtime_config(request).await.unwrap();
}

/// Point to point: no bridge, a route for each pod, and an address that the configuration has for the one pod that there is.
async fn point_to_point(plugins: &Path, version: &str) {
    let mut node = CniNode::new(plugins).await;
    let ptp = json!({
        "type": "ptp", "ipMasq": true, "mtu": 1400,
        "ipam": {
            "type": "static", "addresses": [{ "address": "10.72.0.5/24", "gateway": "10.72.0.1" }],
            "routes": [{ "dst": "0.0.0.0/0" }], "dns": { "nameservers": ["10.72.0.53"] },
        },
    });
    node.network(version, &[ptp]);
    node.becomes_ready().await;
    let id = node.cri().run(&pod(&node.node, "first")).await;
    assert_eq!(addresses(&node.cri().pod_status(&id).await.unwrap()), ["10.72.0.5"]);
    let inside = node.pod_netns(&id);
    let (link, routes) = (inside.sh("ip -o link show eth0"), inside.sh("ip -4 route"));
    assert!(link.contains("mtu 1400") && routes.contains("default via 10.72.0.1"), "{link}{routes}");
    {
        let _server = inside.serve("0.0.0.0:80");
        assert!(node.netns.dial("10.72.0.5:80").is_ok(), "from the node");
    }
    drop(inside);
    node.node.kill_and_start().await;
    assert_eq!(addresses(&node.cri().pod_status(&id).await.unwrap()), ["10.72.0.5"]);
    node.cri().try_remove_pod(&id).await.unwrap();
    node.clean().await;
    // The address is free again at once.
    let second = node.cri().run(&pod(&node.node, "second")).await;
    assert_eq!(addresses(&node.cri().pod_status(&second).await.unwrap()), ["10.72.0.5"]);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_to_point_with_static_addresses_of_debians_plugins() {
    point_to_point(Path::new(DEBIAN), "1.0.0").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn point_to_point_with_static_addresses_of_the_built_plugins() {
    point_to_point(&built(), "1.1.0").await;
}

/// The plugin `static` gives what a pod asks for, by the capability `ips`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_have_the_addresses_that_they_ask_for() {
    let node = CniNode::new(&built()).await;
    let bridge = json!({
        "type": "bridge", "bridge": "cbr0", "isGateway": true, "capabilities": { "ips": true },
        "ipam": { "type": "static", "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    node.network("1.0.0", &[bridge]);
    node.becomes_ready().await;
    let asking = |name: &str, ip: &str| {
        let mut config = pod(&node.node, name);
        config.annotations.insert("cni.berth.dev/ips".into(), ip.into());
        config
    };
    let first = node.cri().run(&asking("first", "10.72.0.5/24")).await;
    let second = node.cri().run(&asking("second", "10.72.0.6/24")).await;
    assert_eq!(addresses(&node.cri().pod_status(&first).await.unwrap()), ["10.72.0.5"]);
    let server = node.pod_netns(&first).serve("0.0.0.0:80");
    assert!(node.pod_netns(&second).dial("10.72.0.5:80").is_ok(), "from the other pod");
    let refused = node.cri().try_run(&pod(&node.node, "asks-nothing")).await.unwrap_err();
    assert!(refused.message().contains("plugin bridge (1 of 1): ADD"), "{refused}");
    drop(server);
    node.finish().await;
}

fn template(node: &CniNode) -> String {
    let list = json!({
        "cniVersion": "1.0.0", "name": "pods",
        "plugins": [
            { "type": "ptp", "ipam": {
                "type": "host-local", "dataDir": node.node.base().join("ipam"),
                "ranges": "$(podCIDRRanges)", "routes": "$(podCIDRRoutes)",
            } },
            { "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" } },
        ],
    });
    format!("\n      confList: '{list}'")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_document_has_the_configuration_and_the_kubelet_the_pod_cidr() {
    let mut node = CniNode::new(Path::new(DEBIAN)).await;
    let file = node.configurations().join("10-berth.conflist");
    let more = template(&node);
    node.settings_with(Path::new(DEBIAN), "60s", &more);
    node.becomes_unready("spec.network.cni.confList waits for the pod CIDR").await;
    assert!(!file.exists());

    tell_pod_cidr(&node, "10.73.0.0/24,fd73::/64").await;
    node.becomes_ready().await;
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("berth.dev/written-from") && !text.contains("$("), "{text}");
    // All of the template, with the node's ranges in it and a default route of each family.
    let written: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&written["cniVersion"], &written["name"]), (&json!("1.0.0"), &json!("pods")));
    assert_eq!(
        written["plugins"],
        json!([
            { "type": "ptp", "ipam": {
                "type": "host-local", "dataDir": node.node.base().join("ipam"),
                "ranges": [[{ "subnet": "10.73.0.0/24" }], [{ "subnet": "fd73::/64" }]],
                "routes": [{ "dst": "0.0.0.0/0" }, { "dst": "::/0" }],
            } },
            { "type": "tuning", "sysctl": { "net.ipv4.conf.eth0.arp_filter": "1" } },
        ])
    );
    let id = node.cri().run(&pod(&node.node, "first")).await;
    let both = addresses(&node.cri().pod_status(&id).await.unwrap());
    assert!(both.len() == 2 && both[0].starts_with("10.73.0.") && both[1].starts_with("fd73::"), "{both:?}");

    // Somebody's change is undone, and so is a removal.
    fs::write(&file, text.replace("10.73.", "10.74.")).unwrap();
    let again = async || (fs::read_to_string(&file).ok()? == text).then_some(());
    eventually("the file is mended", again).await;
    fs::remove_file(&file).unwrap();
    eventually("the file is back", again).await;
    // Another daemon needs no word of the kubelet's.
    node.node.kill();
    fs::remove_file(&file).unwrap();
    node.node.start().await;
    node.becomes_ready().await;
    assert_eq!(fs::read_to_string(&file).unwrap(), text);

    // It moves with the directory, and goes with the field.
    let elsewhere = node.node.base().join("net.d");
    node.settings_with(Path::new(DEBIAN), "60s", &format!("{more}\n      confDir: {}", elsewhere.display()));
    let moved = async || (elsewhere.join("10-berth.conflist").exists() && !file.exists()).then_some(());
    eventually("the file has moved", moved).await;
    node.becomes_ready().await;
    node.settings(Path::new(DEBIAN), "60s");
    eventually("the file is gone", async || (fs::read_dir(&elsewhere).unwrap().count() == 0).then_some(())).await;
    node.becomes_unready("no CNI configuration").await;

    // What is somebody else's stays.
    node.configure("10-berth.conflist", "{}");
    node.settings_with(Path::new(DEBIAN), "60s", &more);
    node.becomes_unready("10-berth.conflist is somebody else's; remove it, or unset the field").await;
    let told = async |node: &CniNode| {
        eventually("`berth info` says so", async || {
            node.node.info().await.settings_problems.join(" ").contains("confList").then_some(())
        })
        .await;
    };
    told(&node).await;
    assert_eq!(fs::read_to_string(&file).unwrap(), "{}");
    // Another daemon says so too; and once the file is out of the way, the document's is written and nothing is told any more.
    node.node.kill_and_start().await;
    told(&node).await;
    fs::remove_file(&file).unwrap();
    node.becomes_ready().await;
    eventually("nothing is told any more", async || node.node.info().await.settings_problems.is_empty().then_some(()))
        .await;
    assert_eq!(fs::read_to_string(&file).unwrap(), text);
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_template_is_refused_before_it_is_in_force() {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let document = |list: &str| {
        let path = node.node.base().join("checked.yaml");
        let text = format!(
            "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: cni}}\nspec: {{network: {{cni: {{confList: '{list}'}}}}}}\n"
        );
        fs::write(&path, text).unwrap();
        path
    };
    let told = |path: PathBuf| cli::refused(&node.node, &["config", "check", "-f", path.to_str().unwrap()]).0;
    let unknown =
        told(document(r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "ptp", "a": ["$(nodeIP)"]}]}"#));
    assert!(unknown.contains("spec.network.cni.confList.plugins[0].a[0]: $(nodeIP) is not known"), "{unknown}");
    let path = told(document(r#"{"cniVersion": "1.0.0", "name": "n", "plugins": [{"type": "../sh"}]}"#));
    assert!(path.contains("spec.network.cni.confList: plugins[0].type"), "{path}");
    assert!(told(document("{")).contains("spec.network.cni.confList: is not JSON"));
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn so_many_pods_are_attached_at_a_time() {
    let node = CniNode::new(Path::new(DEBIAN)).await;
    let hostile = node.hostile();
    node.network("1.0.0", &[hostile]);
    node.becomes_ready().await;
    node.behave("ADD", "slow");
    let wave = async |number: usize| -> usize {
        let _ = fs::remove_file(node.node.base().join("control/together"));
        let runs = (0..5).map(|i| {
            let (cri, config): (Cri, PodSandboxConfig) = (node.cri(), pod(&node.node, &format!("wave-{number}-{i}")));
            tokio::spawn(async move { cri.try_run(&config).await.unwrap() })
        });
        for run in runs.collect::<Vec<_>>() {
            run.await.unwrap();
        }
        let text = fs::read_to_string(node.node.base().join("control/together")).unwrap();
        assert_eq!(text.lines().count(), 5, "{text}");
        text.lines().map(|l| l.trim().parse().unwrap()).max().unwrap()
    };
    let limited = async |limit: u32| {
        node.settings_with(Path::new(DEBIAN), "60s", &format!("\n      maxParallelAdds: {limit}"));
        let shown = || cli::run(&node.node, &["config", "explain", "network.cni.maxParallelAdds"]);
        eventually("the number is in force", async || {
            shown().contains(&format!("Value:       {limit}\n")).then_some(())
        })
        .await;
        // It is shown when it is accepted; the network takes it up some moments later.
        tokio::time::sleep(Duration::from_secs(2)).await;
    };
    limited(2).await;
    assert_eq!(wave(1).await, 2);
    limited(1).await;
    assert_eq!(wave(2).await, 1);
    limited(5).await;
    assert!(wave(3).await > 2, "the number is live both ways");
    node.behave("ADD", "");
    node.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_ill_is_told_by_doctor_figures_and_status() {
    let mut node = CniNode::new(Path::new(DEBIAN)).await;
    let hostile = node.hostile();
    node.network("1.0.0", &[hostile]);
    node.becomes_ready().await;
    assert!(!doctor(&node.node, &["network"]).ids().iter().any(|id| id.starts_with("cni-")));
    let kept = node.cri().run(&pod(&node.node, "kept")).await;
    let lost = node.cri().run(&pod(&node.node, "lost")).await;
    node.configure("05-bad.conflist", "{");
    node.behave("CHECK", "error");
    node.behave("DEL", "error");
    node.cri().try_remove_pod(&lost).await.unwrap();
    node.node.kill_and_start().await;
    eventually("all of it is found", async || {
        let report = doctor(&node.node, &["network"]);
        ["cni-config-refused", "cni-delete-failed", "cni-check-failed"]
            .iter()
            .all(|id| report.ids().contains(id))
            .then_some(())
    })
    .await;
    let report = doctor(&node.node, &["network"]);
    report.finding("cni-config-refused", &["05-bad.conflist", "is not JSON"]);
    report.finding("cni-delete-failed", &[&lost[..12], "vlan 12 does not exist"]);
    report.finding("cni-check-failed", &[&kept[..12], "vlan 12 does not exist"]);
    let figures = node.netns.run(|| node.node.figures());
    assert_eq!((figures["berth_cni_pending_deletes"], figures["berth_cni_broken_pods"]), (1.0, 1.0));

    let status = node.cri().runtime().status(StatusRequest { verbose: true }).await.unwrap().into_inner();
    let told: Value = serde_json::from_str(&status.info["info"]).unwrap();
    assert_eq!(told["cni"]["network"], "pods");
    assert_eq!(told["cni"]["pendingDeletes"][0]["pod"], lost.as_str());
    let shown = crictl::json(&node.node, &["info"]);
    assert!(shown.to_string().contains("pendingDeletes"), "{shown}");

    for verb in ["CHECK", "DEL"] {
        node.behave(verb, "");
    }
    fs::remove_file(node.configurations().join("05-bad.conflist")).unwrap();
    node.cri().try_remove_pod(&kept).await.unwrap();
    eventually("nothing is found any more", async || {
        (!doctor(&node.node, &["network"]).ids().iter().any(|id| id.starts_with("cni-"))).then_some(())
    })
    .await;
    let figures = node.netns.run(|| node.node.figures());
    assert_eq!((figures["berth_cni_pending_deletes"], figures["berth_cni_broken_pods"]), (0.0, 0.0));
    node.finish().await;
}
