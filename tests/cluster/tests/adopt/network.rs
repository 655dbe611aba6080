//! A pod network that is not there whenever it is asked for, and one that is Berth's alone. Each case leaves the node as it found it.
use crate::node::{Node, told};
use berth_cluster_tests::programs;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::standalone::LIMIT;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Pods' addresses on the network of Berth's document: containerd's bridge has another one.
const OWN: &str = "10.86.0.";
/// The daemon looks at its directories every five seconds.
const LOOKS: Duration = Duration::from_secs(20);

/// The plugin asks a daemon that is a pod of the node: it answers no ADD from the end of the pods until somebody starts it again, and that is
/// only after the kubelet has started and the first test sandboxes have failed.
pub fn comes_late(node: &Node) {
    let before = node.files();
    let base = node.base();
    let (down, asked) = (base.join("cni-down"), base.join("cni-asked"));
    let plugin = format!(
        "#!/bin/sh\nif [ \"$CNI_COMMAND\" = ADD ] && [ -e {down} ]; then\n  echo \"$CNI_ARGS\" >> {asked}\n  \
         echo '{{\"cniVersion\": \"1.0.0\", \"code\": 11, \"msg\": \"dial unix /run/agent.sock: connection refused\"}}'\n  exit 1\nfi\n\
         exec {bridge} \"$@\"\n",
        down = down.display(),
        asked = asked.display(),
        bridge = programs::peer("bridge").display(),
    );
    fs::create_dir(base.join("plugins")).unwrap();
    node.place("plugins/bridge", &plugin);
    let document = node.root().join("etc/50-node.yaml");
    let original = fs::read(&document).unwrap();
    let mut changed: Value = serde_json::from_slice(&original).unwrap();
    let dirs = changed["spec"]["network"]["cni"]["binDirs"].as_array_mut().unwrap();
    dirs.insert(0, base.join("plugins").to_str().unwrap().into());
    fs::write(&document, changed.to_string()).unwrap();

    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mut child, hold) = node.held_at(&words, "adopt/clear-pods/leave");
    fs::write(&down, "").unwrap();
    fs::remove_file(hold).unwrap();
    node.wait("two test sandboxes have failed", LIMIT, || {
        let lines = fs::read_to_string(&asked).unwrap_or_default();
        let failed = lines.lines().filter(|line| line.contains("K8S_POD_NAME=berth-adopt-canary")).count();
        if failed >= 2 { Ok(()) } else { Err(format!("{}: {lines}", node.status())) }
    });
    fs::remove_file(&down).unwrap();
    let ended = child.wait().unwrap();
    let log = fs::read_to_string(base.join("logs/adopt.log")).unwrap();
    assert!(ended.success(), "{ended}: {log}");
    node.is_on(Kind::Berth);
    let left = node.berth(&["ps"]).output().unwrap();
    assert!(left.status.success() && !told(&left).contains("berth-adopt-canary"), "{}", told(&left));

    node.give_back();
    fs::write(&document, original).unwrap();
    fs::remove_dir_all(base.join("plugins")).unwrap();
    fs::remove_file(asked).unwrap();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}

/// A document has Berth's daemon write a configuration into the directory that containerd watches, where it would be the first one. containerd
/// never sees it: neither before the node is taken over nor after it is given back, on whichever way.
pub fn of_a_document(node: &Node) {
    let before = node.files();
    let document = node.root().join("etc/50-node.yaml");
    let original = fs::read(&document).unwrap();
    let mut changed: Value = serde_json::from_slice(&original).unwrap();
    changed["spec"]["network"]["cni"]["confList"] = conf_list(node).into();
    fs::write(&document, changed.to_string()).unwrap();

    let (file, beside) = (written(node), node.root().join("lib/cni/beside"));
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (mut child, hold) = node.held_at(&words, "adopt/canary/leave");
    assert!(!file.exists() && beside.join("10-berth.conflist").exists(), "Berth has it, and containerd does not");
    fs::remove_file(hold).unwrap();
    assert!(child.wait().unwrap().success(), "{}", node.status());
    is_berths(node);

    node.killed_at(&["return", "--without-grant"], "return/start-kubelet/leave");
    assert_eq!(node.settled(), "adopted");
    is_berths(node);
    node.give_back();
    is_containerds(node);
    node.is_untouched(&before);

    node.killed_at(&words, "adopt/start-kubelet/leave");
    assert_eq!(node.settled(), "not-adopted");
    is_containerds(node);
    fs::write(&document, original).unwrap();
    node.is_untouched(&before);
}

/// Where containerd's configuration is too.
fn written(node: &Node) -> PathBuf {
    node.base().join("containerd/cni/10-berth.conflist")
}

fn conf_list(node: &Node) -> String {
    let list = json!({
        "cniVersion": "1.0.0", "name": "of-a-document",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni1", "isGateway": true, "hairpinMode": true,
                "ipMasq": true, "ipMasqBackend": "nftables",
                "ipam": {"type": "host-local", "ranges": [[{"subnet": format!("{OWN}0/24")}]], "routes": [{"dst": "0.0.0.0/0"}],
                    "dataDir": node.base().join("addresses")},
            },
        ],
    });
    list.to_string()
}

fn is_berths(node: &Node) {
    node.is_on(Kind::Berth);
    node.wait("the configuration stands where add-ons have theirs", LOOKS, || {
        if written(node).exists() { Ok(()) } else { Err("not yet".to_owned()) }
    });
    assert!(node.addresses().iter().all(|ip| ip.starts_with(OWN)), "{:?}", node.addresses());
}

fn is_containerds(node: &Node) {
    node.is_on(Kind::Containerd);
    assert!(node.addresses().iter().all(|ip| !ip.starts_with(OWN)), "{:?}", node.addresses());
    let left =
        ["beside", "beside.before", "written-configuration.json"].map(|name| node.root().join("lib/cni").join(name));
    assert!(!written(node).exists() && !left.iter().any(|path| path.exists()), "something of Berth's network is left");
}
