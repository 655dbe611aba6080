//! Our table has the fields of the kubelet's configuration, each once, as Kubernetes publishes them in Go. `BERTH_KUBELET_TYPES` names that file;
//! the test tiers set it from the Go module cache, and without it this test fails rather than being skipped.
// A test may fail loudly.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]
use berth_crds::kubelet_fields;
use std::collections::BTreeSet;

#[test]
fn our_table_has_the_fields_that_the_kubelet_has() {
    let file = std::env::var_os("BERTH_KUBELET_TYPES").unwrap_or_else(|| {
        panic!(
            "set BERTH_KUBELET_TYPES to config/v1beta1/types.go of k8s.io/kubelet v0.37 (`cargo xtask test unit` does)"
        )
    });
    let text = std::fs::read_to_string(file).unwrap();
    let begun = text.lines().skip_while(|line| *line != "type KubeletConfiguration struct {");
    let tags = begun.take_while(|line| *line != "}").filter_map(|line| line.split("json:\"").nth(1));
    let theirs: BTreeSet<&str> =
        tags.filter_map(|tag| tag.split([',', '"']).next()).filter(|name| !name.is_empty()).collect();
    assert!(theirs.len() > 100, "{}", theirs.len());
    assert_eq!(kubelet_fields().collect::<BTreeSet<_>>(), theirs, "left: ours, right: theirs");
}
