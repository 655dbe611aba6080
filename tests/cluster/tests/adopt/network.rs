//! A pod network that is not there whenever it is asked for. Each case leaves the node as it found it.
use crate::node::{Node, told};
use berth_cluster_tests::programs;
use berth_cluster_tests::runtime::Kind;
use berth_cluster_tests::standalone::LIMIT;
use serde_json::Value;
use std::fs;

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
