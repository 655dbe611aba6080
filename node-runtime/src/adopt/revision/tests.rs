//! What is read, and what speaks against it.
use super::*;
use serde_json::{Value, json};

/// As the agent hands it over: name and spec, and nothing else that counts.
fn object(name: &str, spec: &Value) -> String {
    json!({"kind": "RuntimeRevision", "metadata": {"name": name, "uid": "u"}, "spec": spec, "status": {}}).to_string()
}

/// A spec with the name that follows from it.
fn named(spec: &Value) -> (String, String) {
    let told = parse(&object("x", spec)).unwrap_err();
    let is_name = |word: &&str| word.starts_with("config-") || word.starts_with("policy-");
    let name = told.split_whitespace().find_map(|word| word.strip_suffix(';').filter(is_name)).unwrap();
    (name.to_owned(), object(name, spec))
}

fn configuration(config: &Value) -> Value {
    json!({"runtime": {"version": "0.1.0", "config": config}})
}

fn layout() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(Some(dir.path())).unwrap();
    std::fs::create_dir_all(&layout.lib).unwrap();
    (dir, layout)
}

#[test]
fn a_file_is_a_configuration_that_is_what_its_name_says() {
    let spec = configuration(&json!({"runtime": {"pidsLimit": 70}}));
    let (name, text) = named(&spec);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revision.json");
    std::fs::write(&path, &text).unwrap();
    let file = |path: &Path| read(&[path.to_owned()]).unwrap();
    let revision = file(&path).unwrap().configuration;
    assert_eq!((&revision.name, revision.settings().unwrap().pids_limit), (&name, Some(70)));
    assert_eq!(recorded(&planned(&revision).unwrap()).unwrap(), revision, "through the journal");
    for (text, words) in [
        (text.replace("70", "71"), "was changed"),
        (text[..text.len() / 2].to_owned(), "no RuntimeRevision"),
        (text.replace("RuntimeRevision", "RuntimeConfig"), "must be RuntimeRevision"),
        (json!({"kind": "List", "items": {}}).to_string(), "items: must be a list"),
    ] {
        std::fs::write(&path, text).unwrap();
        let refusal = file(&path).unwrap_err();
        assert!(refusal.found.contains(words) && refusal.field.contains("revision.json"), "{refusal}");
    }
    assert!(file(&dir.path().join("gone")).unwrap_err().found.contains("cannot be read"));
    assert_eq!(read(&[]), None);
}

/// A set of policies against one registry, as an object, with what else it says.
fn policies(mode: &str, more: &Value) -> String {
    let mut spec = json!({"mode": mode, "registries": {"deny": ["bad.example/*"]}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    named(&json!({"policies": [{"name": "p", "spec": spec}]})).1
}

#[test]
fn image_policies_come_with_the_configuration_in_a_list_or_a_file_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    let config = named(&configuration(&json!({"runtime": {"pidsLimit": 70}}))).1;
    let other = named(&configuration(&json!({"runtime": {"pidsLimit": 80}}))).1;
    let files = |texts: &[&str]| {
        let place = |(i, text): (usize, &&str)| {
            let path = dir.path().join(i.to_string());
            std::fs::write(&path, text).unwrap();
            path
        };
        read(&texts.iter().enumerate().map(place).collect::<Vec<_>>()).unwrap()
    };
    let (set, set_too) = (policies("Enforce", &json!({})), policies("Warn", &json!({})));
    let one = files(&[&config, &set]).unwrap();
    assert!(one.policies.is_some() && one.configuration.settings().unwrap().pids_limit == Some(70));
    let list = format!(r#"{{"apiVersion": "v1", "kind": "List", "items": [{set}, {config}]}}"#);
    assert_eq!(files(&[&list]).unwrap(), one);
    for (texts, words) in [
        (vec![set.as_str()], "and no configuration"),
        (vec![config.as_str(), other.as_str()], "two configurations"),
        (vec![list.as_str(), set_too.as_str()], "two sets of policies"),
        (vec![r#"{"kind": "List", "items": []}"#], "has no RuntimeRevision"),
    ] {
        let refusal = files(&texts).unwrap_err();
        assert!(refusal.found.contains(words) && !refusal.remedy.is_empty(), "{refusal}");
    }
}

async fn looked(layout: &Layout, config: &Value) -> Berth {
    with_policies(layout, config, None).await
}

async fn with_policies(layout: &Layout, config: &Value, policies: Option<&str>) -> Berth {
    let texts = [named(&configuration(config)).1].into_iter().chain(policies.map(str::to_owned));
    let found = given(texts.flat_map(|text| parse(&text).unwrap()).collect()).unwrap();
    berth(layout, Some(Ok(found))).await.unwrap()
}

#[tokio::test]
async fn policies_are_judged_with_the_configuration_and_what_was_applied_before_is_known() {
    let (_dir, layout) = layout();
    let config = json!({"runtime": {"pidsLimit": 70}});
    let first = with_policies(&layout, &config, Some(&policies("Enforce", &json!({})))).await.handed.change.unwrap();
    let policy = first.policies.unwrap();
    assert!(policy.former.is_none() && !first.policies_before);
    let applied = Revisions { configuration: None, policies: Some(recorded(&policy.wanted).unwrap()) };
    berth_settings::hand_over(&wire::accepted(&layout), applied).unwrap();
    let again = with_policies(&layout, &config, Some(&policies("Warn", &json!({})))).await.handed.change.unwrap();
    assert!(again.policies_before && again.former.is_none());
    assert_eq!(again.policies.unwrap().former, Some(policy.wanted), "it is there again after a walk back");

    let unknown = policies("Enforce", &json!({"turbo": true}));
    let refused = with_policies(&layout, &config, Some(&unknown)).await.handed;
    assert!(refused.change.is_none() && refused.unfit.len() == 1);
    let refusal = refused.unfit[0].to_string();
    assert!(refusal.contains("turbo") && refusal.contains("ImagePolicy"), "{refusal}");
}

#[tokio::test]
async fn a_plan_is_made_with_what_the_daemon_will_start_with() {
    let (_dir, layout) = layout();
    let documents = "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {name: a}\n\
        spec: {runtime: {cgroupManager: Cgroupfs}}\n";
    std::fs::create_dir_all(&layout.etc).unwrap();
    std::fs::write(layout.etc.join("a.yaml"), documents).unwrap();
    let without = berth(&layout, None).await.unwrap();
    assert_eq!((without.runtime.cgroup_driver.as_deref(), without.before), (Some("cgroupfs"), false));
    let with = looked(&layout, &json!({"runtime": {"cgroupManager": "Systemd"}})).await;
    assert_eq!(with.runtime.cgroup_driver.as_deref(), Some("systemd"));
    let change = with.handed.change.unwrap();
    assert!(with.handed.unfit.is_empty() && change.former.is_none() && !change.policies_before);

    // What lies there already counts without one, and is what is put back.
    let accepted = wire::accepted(&layout);
    berth_settings::hand_over(&accepted, Revisions::of(recorded(&change.wanted).unwrap())).unwrap();
    assert_eq!(berth(&layout, None).await.unwrap().runtime.cgroup_driver.as_deref(), Some("systemd"));
    let other = looked(&layout, &json!({"runtime": {"cgroupManager": "Cgroupfs"}})).await;
    assert_eq!(other.handed.change.unwrap().former, Some(change.wanted));
}

#[tokio::test]
async fn what_a_daemon_would_not_start_with_is_refused_with_the_field() {
    let (_dir, layout) = layout();
    for (config, field) in [
        (json!({"runtime": {"turbo": true}}), "turbo"),
        (json!({"network": {"mode": "Builtin", "subnet": "10.85.0.5/24"}}), "spec.network.subnet"),
        (json!({"runtime": {"pidsLimit": 0}}), "pidsLimit"),
    ] {
        let found = looked(&layout, &config).await;
        let told = found.handed.unfit.iter().map(ToString::to_string).collect::<String>();
        assert!(found.handed.change.is_none() && told.contains(field), "{field}: {told}");
        assert_eq!(found.runtime.cgroup_driver, None, "nothing is said of it");
    }
    let refused = berth(&layout, Some(Err(Refusal::new("--revision", "is torn", "mend it")))).await.unwrap();
    assert_eq!((refused.handed.unfit.len(), refused.handed.change), (1, None));
    assert!(std::fs::read_dir(&layout.lib).unwrap().next().is_none(), "looking changes nothing");
}

/// A static pod that runs, one that does not, and one that is somebody's.
fn own_pods(image: &str) -> (Vec<plan::Pod>, Vec<plan::Manifest>) {
    let pod = |is_static: bool, image: &str| plan::Pod {
        name: plan::PodName { namespace: "kube-system".to_owned(), name: format!("runs-{is_static}") },
        is_static,
        images: vec![image.to_owned()],
        ended: Vec::new(),
    };
    let file =
        plan::Manifest { namespace: "default".to_owned(), name: "file".to_owned(), images: vec![image.to_owned()] };
    (vec![pod(true, image), pod(false, "bad.example/of-a-user:1")], vec![file])
}

#[tokio::test]
async fn images_of_the_nodes_own_pods_that_the_policies_deny_are_refused_by_name() {
    let (_dir, layout) = layout();
    let told = async |set: &str, before: bool, image: &str| {
        let berth = with_policies(&layout, &json!({"runtime": {"pidsLimit": 70}}), Some(set)).await;
        let (pods, manifests) = own_pods(image);
        let set = berth.handed.change.as_ref().unwrap().policies.as_ref().unwrap().wanted.name.clone();
        let found = denied(berth.handed.change.as_ref(), before, &pods, &manifests).unwrap();
        assert!(found.iter().all(|refusal| refusal.field == format!("--revision {set}")), "{found:?}");
        found.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let enforce = policies("Enforce", &json!({}));
    let found = told(&enforce, false, "bad.example/etcd:1").await;
    let [file, runs] = &found[..] else { panic!("{found:?}") };
    for (told, pod) in [(file, "static pod default/file"), (runs, "static pod kube-system/runs-true")] {
        assert!(told.contains("bad.example/etcd:1") && told.contains(pod) && told.contains("ImagePolicy p"), "{told}");
    }
    assert!(told(&enforce, false, "good.example/etcd:1").await.is_empty());
    assert!(told(&policies("Warn", &json!({})), false, "bad.example/etcd:1").await.is_empty(), "it runs all the same");
    let of_one = json!({"match": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "default"}}}});
    let of_one = policies("Enforce", &of_one);
    assert_eq!(told(&of_one, true, "bad.example/etcd:1").await.len(), 1, "the daemon may have it");
    assert_eq!(told(&of_one, false, "bad.example/etcd:1").await.len(), 2, "it is taken in for no namespace");
    let pulls = policies("Enforce", &json!({"enforceAt": ["Pull"]}));
    let counts =
        [told(&pulls, true, "bad.example/etcd:1").await.len(), told(&pulls, false, "bad.example/etcd:1").await.len()];
    assert_eq!(counts, [0, 2]);
    let allow = policies("Enforce", &json!({"registries": {"allow": ["good.example/*"]}}));
    assert_eq!(told(&allow, false, "other.example/etcd:1").await.len(), 2);
    assert!(
        told(&allow, false, &format!("sha256:{}", "a".repeat(64))).await.is_empty(),
        "an id says nothing of a registry"
    );
    let tags = policies("Enforce", &json!({"references": {"forbidTags": ["latest"]}}));
    assert_eq!(told(&tags, false, "good.example/etcd").await.len(), 2);
    let (pods, manifests) = own_pods("bad.example/etcd:1");
    assert!(denied(None, false, &pods, &manifests).unwrap().is_empty());
}
