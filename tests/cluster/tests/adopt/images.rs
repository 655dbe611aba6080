//! Images of the pods that a drain leaves on the node. The case leaves the node as it found it.
use crate::node::{Node, told};
use berth_cluster_tests::images;
use berth_cluster_tests::runtime::Kind;

/// A DaemonSet's pod whose image nobody could pull any more: it is containerd's own, which no pod of Berth's ever asks a registry for. It is
/// on Berth when the node is, though it is not one of the node's own pods, which an adoption waits for.
pub fn of_other_pods(node: &Node) {
    let before = node.files();
    let image = images::PAUSE;
    // What is not known to it a kubelet ends within seconds: this one stands still until it is stopped.
    node.stop_after(&format!("kill -CONT $(cat {}/kubelet.pid)", node.base().display()));
    node.hold_kubelet();
    node.run_on_containerd("agent", image);
    let words = node.start_words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let planned = node.adopt(&[&words[..], &["--dry-run"]].concat()).output().unwrap();
    assert!(planned.status.success() && told(&planned).contains(image), "{}", told(&planned));
    let taken = node.adopt(&words).output().unwrap();
    node.stop_after("");
    assert!(taken.status.success(), "{}", told(&taken));
    node.is_on(Kind::Berth);
    // Gone afterwards, so that the next time finds none either.
    node.crictl_on_berth(&["inspecti", image]).unwrap();
    node.crictl_on_berth(&["rmi", image]).unwrap();
    node.crictl_on_berth(&["inspecti", image]).unwrap_err();
    node.give_back();
    node.is_on(Kind::Containerd);
    node.is_untouched(&before);
}
