//! Our flags are the kubelet's own. `BERTH_KUBELET_FLAGS` names the list of them that `tools/kubernetes/kubelet-flags` makes with the kubelet's
//! code; the test tiers set it, and without it these tests fail rather than being skipped.
use super::super::{Configuration, FLAGS, tests::Memory};
use super::*;
use berth_crds::settable_kubelet_fields;
use serde_json::json;
use std::collections::BTreeSet;

type Pairs = BTreeSet<(String, String)>;

/// Not bound to the configuration, and yet this field's: either of them switches it on (Kubernetes 1.37, cmd/kubelet/app/server.go,
/// `kubeServer.KubeletFlags.SeccompDefault || …`).
const BESIDE: (&str, &str) = ("seccomp-default", "seccompDefault");

/// The kubelet's flags, each with the field that it sets, or the path of a field's part, or `-`.
fn theirs() -> Pairs {
    let file = std::env::var_os("BERTH_KUBELET_FLAGS").unwrap_or_else(|| {
        panic!("set BERTH_KUBELET_FLAGS to what tools/kubernetes/kubelet-flags prints (`cargo xtask test unit` does)")
    });
    let text = std::fs::read_to_string(file).unwrap();
    let all: Pairs = text.lines().map(|line| line.split_once(' ').unwrap()).map(pair).collect();
    assert!(all.len() > 100, "{all:?}");
    for known in [("max-pods", "maxPods"), ("v", "logging.verbosity"), ("root-dir", "-"), (BESIDE.0, "-")] {
        assert!(all.contains(&pair(known)), "{known:?} is missing in {all:?}");
    }
    all
}

fn pair((flag, field): (&str, &str)) -> (String, String) {
    (flag.to_owned(), field.to_owned())
}

/// Our flags of parts, with the paths that the list has.
fn parts() -> Pairs {
    PARTS
        .iter()
        .map(|(field, part, flag)| pair((flag, format!("{field}{}", part.replace('/', ".")).as_str())))
        .collect()
}

#[test]
fn every_field_that_may_be_set_has_the_flag_that_the_kubelet_has_for_it() {
    let theirs = theirs();
    let in_parts = |field: &str| PARTS.iter().any(|(of, ..)| *of == field);
    let whole = settable_kubelet_fields().filter(|field| !in_parts(field));
    let mut ours: Pairs = whole.map(|field| pair((name_for(field).as_str(), field))).collect();
    // A field without a flag has a name that no flag of the kubelet has.
    ours.retain(|(flag, _)| theirs.iter().any(|(known, _)| known == flag));
    ours.extend(parts());
    let settable = |path: &str| settable_kubelet_fields().any(|field| path.split('.').next() == Some(field));
    let mut expected: Pairs = theirs.iter().filter(|(_, path)| settable(path)).cloned().collect();
    expected.insert(pair(BESIDE));
    assert_eq!(ours, expected, "left: ours, right: theirs");
}

#[test]
fn the_tables_have_no_row_too_many() {
    let theirs = theirs();
    for (field, flag) in OTHER_NAMES {
        assert!(theirs.contains(&pair((flag, field))), "the kubelet has no --{flag} for {field}");
        assert!(settable_kubelet_fields().any(|name| name == field), "nobody asks for {field}");
        assert_ne!(by_rule(field), flag, "the rule says it");
    }
    for (flag, field) in FLAGS {
        assert!(theirs.contains(&pair((flag, field))), "the kubelet has no --{flag} for {field}");
    }
    assert_eq!(parts().len(), PARTS.len(), "a part stands twice");
}

#[test]
fn a_flag_is_found_in_each_form_that_the_kubelet_takes() {
    let read = |line: &str, field: &str, value: Value| {
        let arguments = line.split(' ').map(str::to_owned).collect();
        Configuration::read(arguments, &Memory::default()).flag_for(field, &value)
    };
    let pods = |line: &str| read(line, "maxPods", json!(80));
    for line in ["kubelet --max-pods=1", "kubelet --max-pods 1", "kubelet --a=b --max_pods=1"] {
        assert_eq!(pods(line).as_deref(), Some("max-pods"), "{line}");
    }
    for line in ["kubelet --max-pods-x=1 -- --max-pods=1", "kubelet -max-pods=1", "--max-pods=1"] {
        assert_eq!(pods(line), None, "{line}");
    }
    let verbosity = |line: &str| read(line, "logging", json!({"verbosity": 4}));
    for line in ["kubelet --v=2", "kubelet --v 2", "kubelet -v=2", "kubelet -v 2", "kubelet -v2"] {
        assert_eq!(verbosity(line).as_deref(), Some("v"), "{line}");
    }
    assert_eq!(verbosity("kubelet --logging-format=json --vmodule=a=1"), None, "flags of parts that are not to be set");
    let stream = json!({"format": "json", "options": {"json": {"splitStream": true}}});
    assert_eq!(
        read("kubelet --v=2 --log-json-split-stream", "logging", stream).as_deref(),
        Some("log-json-split-stream")
    );
}
