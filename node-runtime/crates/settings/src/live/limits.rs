//! Limits that come with a version: what a node has accepted or applied stays in force, what is new is refused.
use super::*;
use serde_json::json;

fn hosts(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("h{n}.example")).collect()
}

fn policy(denies: usize) -> String {
    let head = "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: p}\nspec:\n  mode: Enforce\n";
    format!("{head}  registries: {{deny: [{}]}}\n", hosts(denies).join(", "))
}

fn config(pids_limit: u64) -> String {
    let head = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: node}\n";
    format!("{head}spec: {{runtime: {{pidsLimit: {pids_limit}}}}}\n")
}

/// A node with an empty directory of documents.
fn node() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (etc, accepted) = (dir.path().join("etc"), dir.path().join("accepted.json"));
    std::fs::create_dir(&etc).unwrap();
    (dir, etc, accepted)
}

fn start(etc: &Path, accepted: &Path) -> Result<Live> {
    watch(etc.to_owned(), accepted.to_owned(), Arc::new(|_| Ok(())))
}

fn denies(settings: &Settings) -> usize {
    settings.policies.iter().map(|policy| policy.spec.registries.deny.len()).sum()
}

#[tokio::test]
async fn a_set_of_before_the_limits_starts_and_is_enforced() {
    let (_dir, etc, accepted) = node();
    let spec = serde_json::from_value(json!({"mode": "Enforce", "registries": {"deny": hosts(300)}})).unwrap();
    let content = berth_crds::RuntimeRevisionSpec::of_policies([("p", &spec)]);
    let set = Revisions::of(Revision { name: content.name(), content });
    std::fs::write(beside(&accepted), crate::revision::encode(&set, 1).unwrap()).unwrap();
    let live = start(&etc, &accepted).unwrap();
    assert_eq!((denies(&live.current.borrow()), live.refused.borrow().as_str()), (300, ""));
    let wanted = serde_json::from_value(json!({"runtime": {"pidsLimit": 70}})).unwrap();
    let content = berth_crds::RuntimeRevisionSpec::of_runtime("0.1.0", &wanted);
    live.apply(Revisions::of(Revision { name: content.name(), content })).unwrap();
    assert_eq!((denies(&live.current.borrow()), live.current.borrow().pids_limit), (300, Some(70)));
    live.release_configuration().unwrap();
    assert_eq!(denies(&crate::next_start(&etc, &accepted, Revisions::default()).unwrap()), 300);
    // The operator hands it over as long as its edit is refused.
    let (_dir, etc, accepted) = node();
    let live = start(&etc, &accepted).unwrap();
    live.preflight(set.clone()).unwrap();
    live.apply(set).unwrap();
    assert_eq!(denies(&live.current.borrow()), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_before_the_limits_stay_until_they_are_changed() {
    let (_dir, etc, accepted) = node();
    let (policies, configs) = (etc.join("10-policy.yaml"), etc.join("20-node.yaml"));
    std::fs::write(&policies, policy(300)).unwrap();
    std::fs::write(&configs, config(50)).unwrap();
    let message = start(&etc, &accepted).err().unwrap().to_string();
    assert!(message.contains("10-policy.yaml") && message.contains("the limit is 256"), "new: {message}");
    // As a version without the limits left it.
    Accepted::new(accepted.clone()).keep(&texts(&etc).unwrap()).unwrap();
    let live = start(&etc, &accepted).unwrap();
    assert_eq!((denies(&live.current.borrow()), live.refused.borrow().as_str()), (300, ""));
    assert_eq!(denies(&crate::load(&etc, &accepted).unwrap()), 300);
    assert_eq!(denies(&crate::next_start(&etc, &accepted, Revisions::default()).unwrap()), 300);

    std::fs::write(&configs, config(60)).unwrap();
    let mut current = live.current.clone();
    let moment = Duration::from_secs(10);
    let other = tokio::time::timeout(moment, current.wait_for(|s| s.pids_limit == Some(60))).await;
    assert_eq!(denies(&other.unwrap().unwrap()), 300, "another document changes");

    std::fs::write(&policies, policy(301)).unwrap();
    let mut refused = live.refused.clone();
    let told = tokio::time::timeout(moment, refused.wait_for(|r| r.contains("has 301 entries"))).await;
    assert!(told.is_ok_and(|told| told.is_ok()), "the changed one is new");
    assert_eq!(denies(&live.current.borrow()), 300);
    drop(live);
    let live = start(&etc, &accepted).unwrap();
    let told = live.refused.borrow().clone();
    assert!(told.contains("has 301 entries") && told.contains("are in force"), "{told}");
    assert_eq!((denies(&live.current.borrow()), live.current.borrow().pids_limit), (300, Some(60)));
}
