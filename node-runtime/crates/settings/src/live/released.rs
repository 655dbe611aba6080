//! Policies that are forgotten alone.
use super::*;
use berth_crds::RuntimeRevisionSpec;
use serde_json::json;

fn of(content: RuntimeRevisionSpec) -> Revisions {
    Revisions::of(Revision { name: content.name(), content })
}

#[tokio::test]
async fn the_policies_alone_are_forgotten_and_the_configuration_never_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let etc = dir.path().join("etc");
    std::fs::create_dir(&etc).unwrap();
    let start = || watch(etc.clone(), dir.path().join("accepted.json"), Arc::new(|_| Ok(()))).unwrap();
    let spec = serde_json::from_value(json!({"runtime": {"pidsLimit": 70}})).unwrap();
    let configuration = of(RuntimeRevisionSpec::of_runtime("0.1.0", &spec));
    let spec = serde_json::from_value(json!({"mode": "Enforce"})).unwrap();
    let live = start();
    live.apply(of(RuntimeRevisionSpec::of_policies([("p", &spec)]))).unwrap();
    live.apply(configuration.clone()).unwrap();
    let started = || std::fs::read(dir.path().join("started-configuration.json")).unwrap();
    let before = started();

    let changes: Vec<_> = live.release_policies().unwrap().into_iter().map(|change| change.field).collect();
    assert!(changes.iter().all(|field| !field.starts_with("spec.runtime")), "{changes:?}");
    let now = live.current.borrow().clone();
    assert_eq!((now.pids_limit, now.policies.len(), live.drift()), (Some(70), 0, None));
    assert_eq!(started(), before, "the daemon did come up with it");
    drop(live);
    let live = start();
    assert_eq!((live.current.borrow().pids_limit, live.applied()), (Some(70), configuration));
    live.release_configuration().unwrap();
    live.release_policies().unwrap();
    assert_eq!(live.applied(), Revisions::default(), "there were none");
}
