//! The words of `berth adopt`, and what its answers mean.
use super::*;

fn of(json: &str) -> Adoption {
    adoption(serde_json::from_str(json).unwrap())
}

#[test]
fn where_a_node_is() {
    let cases = [
        (r#"{"phase": "adopted", "holder": null}"#, AdoptPhase::Adopted),
        (r#"{"phase": "not-adopted"}"#, AdoptPhase::NotAdopted),
        (r#"{"phase": "returned"}"#, AdoptPhase::Returned),
        (r#"{"phase": "adopting", "holder": 7}"#, AdoptPhase::Underway),
        (r#"{"phase": "adopting", "holder": null}"#, AdoptPhase::Left),
        (r#"{"phase": "stuck", "stuck": "stop-kubelet: it runs on"}"#, AdoptPhase::Left),
        (r#"{"phase": "configuring", "holder": 7}"#, AdoptPhase::Underway),
        (r#"{"phase": "configuring"}"#, AdoptPhase::Left),
        (r#"{"phase": "dreaming"}"#, AdoptPhase::Unknown),
    ];
    for (json, phase) in cases {
        assert_eq!(of(json).phase, phase, "{json}");
    }
    let back = of(r#"{"phase": "not-adopted", "operation": "adopt-1", "reason": "the test sandbox did not start"}"#);
    assert_eq!(back.operation.as_deref(), Some("adopt-1"));
    assert_eq!(back.message.as_deref(), Some("the test sandbox did not start"));
    assert!(!back.interrupted, "an older version does not say");
    let left = of(r#"{"phase": "not-adopted", "operation": "adopt-1", "reason": "it has died", "interrupted": true}"#);
    assert!(left.interrupted);
}

#[test]
fn settings_of_the_kubelet_are_told_and_whether_others_have_failed() {
    let has = of(r#"{"phase": "adopted", "kubelet": {"maxPods": 70}, "reason": "it ended", "failed": "kubelet"}"#);
    assert_eq!(has.kubelet.map(|config| config.fields()["maxPods"].clone()), Some(70.into()));
    assert!(has.kubelet_failed && has.message.as_deref() == Some("it ended"));
    let older = of(r#"{"phase": "adopted", "reason": "the kubelet did not start"}"#);
    assert!(older.kubelet.is_none() && !older.kubelet_failed);
}

#[test]
fn files_that_somebody_else_changed_are_drift() {
    let found = of(r#"{"phase": "adopted", "files": [{"path": "/a", "before": "1", "after": "2", "now": "2"},
        {"path": "/b", "before": "1", "after": "2", "now": "3"}, {"path": "/c", "before": null, "after": "2", "now": null}]}"#);
    let found: Vec<_> = found.drift.iter().map(|d| (d.path.as_str(), d.kind.as_str())).collect();
    assert_eq!(found, [("/b", "Changed"), ("/c", "Missing")]);
}

#[test]
fn a_file_whose_unit_has_another_command_line_is_drift_while_the_node_is_taken_over() {
    let file = r#""files": [{"path": "/a", "before": null, "after": "2", "now": "2", "outdated": true}]"#;
    let drift = of(&format!(r#"{{"phase": "adopted", {file}}}"#)).drift;
    assert_eq!(drift, [Drift { path: "/a".to_owned(), kind: OUTDATED.to_owned() }]);
    assert!(of(&format!(r#"{{"phase": "returned", {file}}}"#)).drift.is_empty());
}

#[test]
fn a_refusal_says_what_to_do() {
    let out = r#"{"phase": "refused", "refusals": [{"field": "--config", "found": "is a directory", "remedy": "name a file"}]}"#;
    let ended = Ended { code: Some(1), out: out.to_owned(), err: String::new() };
    assert_eq!(
        over(&ended, Given::default()),
        Err(Trouble::Refused("--config: is a directory; name a file".to_owned()))
    );
    let ended = |code| Ended { code: Some(code), out: "{\"phase\": \"not-adopted\"}".to_owned(), err: "x".to_owned() };
    assert_eq!(over(&ended(3), Given::default()), Ok(()), "it walked back, and the status says why");
    for code in [1, 2] {
        assert_eq!(
            over(&ended(code), Given::default()),
            Err(Trouble::Later("{\"phase\": \"not-adopted\"}".to_owned()))
        );
    }
    let full = Ended { code: Some(1), out: String::new(), err: "Error: no room for the journal\n".to_owned() };
    assert_eq!(
        over(&full, Given::default()),
        Err(Trouble::Later("Error: no room for the journal".to_owned())),
        "the revision is not to blame"
    );
}

/// A configuration is given up for what speaks against it, and never for its policies.
#[test]
fn what_speaks_against_the_policies_alone_is_no_refusal_of_the_revision() {
    let policies = Some(Policies { revision: "policy-1", json: "{}" });
    let set = r#"{"field": "--revision policy-1", "found": "does not fit: a//b", "remedy": "mend it"}"#;
    let other = r#"{"field": "--config", "found": "is a directory", "remedy": "name a file"}"#;
    let answer = |refusals: &[&str]| {
        let out = format!(r#"{{"phase": "refused", "refusals": [{}]}}"#, refusals.join(","));
        refused(&Ended { code: Some(1), out, err: String::new() }, Given { policies, grant: None }).unwrap()
    };
    assert_eq!(answer(&[set, set]), Trouble::Unfit(["--revision policy-1: does not fit: a//b; mend it"; 2].join(". ")));
    for refusals in [&[other][..], &[set, other], &[&set.replace("policy-1", "config-1")], &[]] {
        assert!(matches!(answer(refusals), Trouble::Refused(_)), "{refusals:?}");
    }
}

/// The other side of it: `a_grant_that_is_over_is_told_by_its_name` (node-runtime/crates/adopt/src/plan/tests.rs).
#[test]
fn a_grant_that_is_over_is_no_refusal_of_the_revision() {
    let policies = Some(Policies { revision: "policy-1", json: "{}" });
    let grant = r#"{"field": "grant new@2000", "found": "has expired 1 s ago", "remedy": "give a new grant"}"#;
    let set = r#"{"field": "--revision policy-1", "found": "does not fit: a//b", "remedy": "mend it"}"#;
    let other = r#"{"field": "--config", "found": "is a directory", "remedy": "name a file"}"#;
    let answer = |refusals: &[&str], given: Given<'_>| {
        let out = format!(r#"{{"phase": "refused", "refusals": [{}]}}"#, refusals.join(","));
        over(&Ended { code: Some(1), out, err: String::new() }, given).unwrap_err()
    };
    let given = Given { policies, ..Given::grant("new@2000") };
    let said = "grant new@2000: has expired 1 s ago; give a new grant";
    assert_eq!(answer(&[grant], given), Trouble::Expired(said.to_owned()));
    assert_eq!(
        answer(&[grant, set], given),
        Trouble::Unfit("--revision policy-1: does not fit: a//b; mend it".to_owned())
    );
    let refused = Trouble::Refused("--config: is a directory; name a file".to_owned());
    assert_eq!(answer(&[grant, other], given), refused, "what would be refused under any grant");
    assert!(matches!(answer(&[grant], Given::grant("old@1000")), Trouble::Refused(_)), "another grant's");
    assert!(matches!(answer(&[], given), Trouble::Refused(_)));
}

/// The other side of it: `a_part_of_the_control_plane_is_told_by_a_word` (node-runtime/crates/adopt/src/plan/tests.rs).
#[test]
fn a_node_of_the_control_plane_that_is_not_asked_for_is_no_refusal_of_the_revision() {
    let plane = r#"{"field": "static pod etcd", "found": "is it", "remedy": "ask for it", "reason": "ControlPlane"}"#;
    let other = r#"{"field": "--config", "found": "is a directory", "remedy": "name a file"}"#;
    let odd = r#"{"field": "--config", "found": "is a directory", "remedy": "name a file", "reason": "Dreaming"}"#;
    let grant = r#"{"field": "grant new@2000", "found": "has expired 1 s ago", "remedy": "give a new grant"}"#;
    let answer = |refusals: &[&str]| {
        let out = format!(r#"{{"phase": "refused", "refusals": [{}]}}"#, refusals.join(","));
        over(&Ended { code: Some(1), out, err: String::new() }, Given::grant("new@2000")).unwrap_err()
    };
    for refusals in [&[plane][..], &[plane, grant]] {
        assert_eq!(answer(refusals), Trouble::NotAskedFor("static pod etcd: is it; ask for it".to_owned()));
    }
    assert!(matches!(answer(&[other, plane]), Trouble::NotAskedFor(why) if why.contains("--config")));
    assert!(matches!(answer(&[other, odd]), Trouble::Refused(_)));
}

fn host() -> Host {
    let commands = Commands {
        stop: "ctl stop".to_owned(),
        start: "ctl start".to_owned(),
        flags_files: vec!["/etc/default/kubelet".into()],
    };
    Host {
        sock: crate::node_sock::NodeSock { path: "/run/berth/node.sock".into() },
        prefix: "/opt/berth".into(),
        state: "/var/lib/berth".into(),
        root: None,
        version: "0.1.0".to_owned(),
        kubelet: super::super::Kubelet::PidFile("/proc/self/none".into()),
        commands: Some(commands),
        stager: None,
        keep_stats: false,
        native: Native::default(),
    }
}

#[test]
fn a_node_may_be_one_of_the_control_plane_where_that_is_asked_for() {
    let permit = Permit { grant: "new@2000", expires: 2000 };
    let wanted = |control_plane| Wanted { control_plane, ..Wanted::default() };
    let words = |host: &Host| start_words(host, &wanted(false), permit);
    assert!(!words(&host()).contains(&"--control-plane".to_owned()), "it looks itself");
    assert!(start_words(&host(), &wanted(true), permit).contains(&"--control-plane".to_owned()));
    assert!(plan_words(&host(), &wanted(true)).contains(&"--control-plane".to_owned()), "when it is asked first");
    assert!(!words(&host()).contains(&"--keep-stats-gate".to_owned()));
    let kept = Host { keep_stats: true, ..host() };
    assert!(words(&kept).contains(&"--keep-stats-gate".to_owned()));
}

#[test]
fn commands_are_for_kubelets_that_are_started_by_commands() {
    let (host, permit) = (host(), Permit { grant: "new@2000", expires: 2000 });
    let cases = [
        (None, true, false),
        (None, false, true),
        (Some(AdoptProfile::Auto), true, false),
        (Some(AdoptProfile::Auto), false, true),
        (Some(AdoptProfile::Kubeadm), false, false),
        (Some(AdoptProfile::Systemd), false, false),
        (Some(AdoptProfile::Command), true, true),
    ];
    for (profile, systemd, given) in cases {
        assert_eq!(commands(&host, profile, systemd).is_some(), given, "{profile:?}, systemd: {systemd}");
    }
    for profile in [AdoptProfile::Kubeadm, AdoptProfile::Command] {
        let given = profile == AdoptProfile::Command;
        let wanted = Wanted { profile: Some(profile), ..Wanted::default() };
        let starts = start_words(&host, &wanted, permit);
        for word in ["--kubelet-stop", "--kubelet-start", "--kubelet-flags-file"] {
            assert_eq!(starts.iter().any(|w| w == word), given, "{word}");
        }
        assert_eq!(configure_words(&host, &wanted, false).iter().any(|w| w == "--kubelet-stop"), given);
    }
    let returns = return_words(&host, permit);
    assert!(returns.windows(2).any(|w| w == ["--kubelet-stop", "ctl stop"]), "as they are now: {returns:?}");
    assert!(!return_words(&Host { commands: None, ..host }, permit).iter().any(|w| w.starts_with("--kubelet")));
}

#[test]
fn a_revision_is_handed_over_as_the_api_server_has_it() {
    let config = serde_json::from_value(serde_json::json!({"runtime": {"pidsLimit": 70}})).unwrap();
    let spec = berth_crds::RuntimeRevisionSpec::of_runtime("0.1.0", &config);
    let text = object(&spec.name(), &serde_json::to_string(&spec).unwrap());
    let read: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&read["kind"], &read["metadata"]["name"]), (&"RuntimeRevision".into(), &spec.name().into()));
    let read: berth_crds::RuntimeRevisionSpec = serde_json::from_value(read["spec"].clone()).unwrap();
    assert_eq!(read.check(&spec.name()), Ok(()));

    let (wanted, set) = (Wanted { json: serde_json::to_string(&spec).unwrap(), ..Wanted::default() }, spec.name());
    assert_eq!(objects(&set, &wanted, None), text, "without policies as versions before wrote it");
    let policies = berth_crds::RuntimeRevisionSpec::of_policies([]);
    let (name, json) = (policies.name(), serde_json::to_string(&policies).unwrap());
    let both = objects(&set, &wanted, Some(Policies { revision: &name, json: &json }));
    let both: serde_json::Value = serde_json::from_str(&both).unwrap();
    assert_eq!((&both["kind"], &both["items"][0]["metadata"]["name"]), (&"List".into(), &set.into()));
    assert_eq!((&both["items"][1]["metadata"]["name"], both["items"].as_array().unwrap().len()), (&name.into(), 2));
}
