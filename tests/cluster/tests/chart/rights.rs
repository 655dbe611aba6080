//! Who may do what once the chart is installed: the agents' account, and those whom an administrator binds to the chart's roles.
//! Must not: install anything.
use crate::Api;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::programs;
use serde_json::{Value, json};
use std::time::Duration;

/// How long the API server takes to see a new policy or binding.
const SEEN: Duration = Duration::from_secs(30);

/// Whoever is bound to `berth-config-editor` leaves a node alone and takes a revision back as docs/cluster.md says, and writes nothing that is an
/// agent's or the operator's.
pub fn config_editors(api: &Api, kubectl: &Kubectl<'_>) {
    kubectl.run(&["create", "serviceaccount", "editor"]);
    let subjects = ["--user=editor", "--serviceaccount=berth-system:editor"];
    let binding = ["create", "clusterrolebinding", "editors", "--clusterrole=berth-config-editor"];
    kubectl.run(&[&binding[..], &subjects].concat());
    let may = |words: &[&str]| {
        kubectl.try_run(&[&["auth", "can-i"][..], words, &["--as=editor"]].concat()).text().trim() == "yes"
    };
    berth_cluster_tests::wait_for(&api.space, "the binding is in force", SEEN, || {
        if may(&["create", "runtimeconfigs.berth.dev"]) { Ok(()) } else { Err("not yet".to_owned()) }
    });
    let editor = api.holder("editor", &kubectl.run(&["create", "token", "editor"]));
    holds_and_no_more(api, kubectl, &editor);
    for words in [
        &["patch", "runtimenodes.berth.dev", "--subresource=status"][..],
        &["delete", "runtimenodes.berth.dev"],
        &["create", "runtimenodes.berth.dev"],
        &["patch", "runtimerevisions.berth.dev"],
        &["patch", "imagepolicies.berth.dev"],
    ] {
        assert!(!may(words), "{words:?}");
    }
    takes_back(api, kubectl, &editor);
    kubectl.run(&["delete", "clusterrolebinding/editors", "serviceaccount/editor"]);
}

/// An editor's token holds a node. Of all else in the spec of its RuntimeNode it changes nothing, which the operator and an administrator can.
fn holds_and_no_more(api: &Api, kubectl: &Kubectl<'_>, editor: &Kubectl<'_>) {
    let patch = |who: &Kubectl<'_>, spec: &Value, more: &[&str]| {
        let patch = json!({ "spec": spec }).to_string();
        who.try_run(&[&["patch", "runtimenode", "two", "--type=merge", "--patch", &patch], more].concat())
    };
    let refused = |spec: &Value| {
        let ran = patch(editor, spec, &[]);
        if ran.code != 0 && ran.err.contains("only hold is for people") { Ok(()) } else { Err(ran.text() + &ran.err) }
    };
    // A policy is in force some moments after it was made. What changes nothing is not refused, so each attempt says something else.
    let mut attempts = 0;
    berth_cluster_tests::wait_for(&api.space, "the policy is in force", SEEN, || {
        attempts += 1;
        refused(&json!({"postponedBecause": attempts.to_string()}))
    });
    let told = json!({"desiredRevision": BAD});
    let operator = "--as=system:serviceaccount:berth-system:berth-operator";
    for (who, as_whom) in [("the operator", &[operator][..]), ("an administrator", &[])] {
        let ran = patch(kubectl, &json!({"desiredRevision": REMOVED}), as_whom);
        assert_eq!(ran.code, 0, "{who}: {}", ran.err);
        let ran = patch(kubectl, &told, as_whom);
        assert_eq!(ran.code, 0, "{who}: {}", ran.err);
    }
    let grant = json!({"revision": BAD, "disruption": "Drain", "expiresAt": "2099-01-01T00:00:00Z"});
    // Changed, taken away, added, and beside what is allowed.
    for spec in [
        json!({"desiredRevision": REMOVED}),
        json!({"desiredRevision": null}),
        json!({ "grant": grant }),
        json!({"hold": true, "policyRevision": BAD}),
    ] {
        refused(&spec).unwrap();
    }
    for hold in [true, false] {
        let ran = patch(editor, &json!({ "hold": hold }), &[]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let spec = &kubectl.get("runtimenode", "two").unwrap()["spec"];
        assert_eq!((&spec["hold"], &spec["desiredRevision"]), (&json!(hold), &json!(BAD)));
    }
    let ran = patch(kubectl, &json!({"desiredRevision": null, "postponedBecause": null}), &[]);
    assert_eq!(ran.code, 0, "{}", ran.err);
}

/// A revision that is bad, and one that is not there any more.
const BAD: &str = "config-0123456789abcdef01234567";
const REMOVED: &str = "config-89abcdef0123456789abcdef";

/// `kubectl berth rollout undo` of an editor: what is bad already is not asked for again, what was removed keeps nothing from being taken back.
fn takes_back(api: &Api, kubectl: &Kubectl<'_>, editor: &Kubectl<'_>) {
    let runtime = json!({"version": "1", "config": {}});
    kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeRevision", "metadata": {"name": BAD}, "spec": {"runtime": runtime}}));
    kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": {"name": "undone"}, "spec": {}}));
    for (object, status) in [
        (&*format!("runtimerevision/{BAD}"), json!({"verdict": "Bad"})),
        ("runtimeconfig/undone", json!({"targetRevision": REMOVED, "otherTargetRevisions": [BAD]})),
    ] {
        let patch = json!({ "status": status }).to_string();
        kubectl.run(&["patch", object, "--subresource=status", "--type=merge", "--patch", &patch]);
    }
    let undo = |more: &[&str]| {
        let mut plugin = api.space.0.command("tools", programs::berth("kubectl-berth"));
        plugin.args(["rollout", "undo", "undone"]).args(more).env("KUBECONFIG", editor.kubeconfig());
        let ran = plugin.output().unwrap();
        (ran.status.success(), String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned())
    };
    let (done, said) = undo(&[&format!("--revision={BAD}")]);
    assert!(!done && said.contains(&format!("{BAD} is taken back already")), "{said}");
    assert_eq!(undo(&[]), (true, format!("runtimeconfig.berth.dev/undone: {REMOVED} is taken back\n")));
    let asked = &kubectl.get("runtimeconfig", "undone").unwrap()["metadata"]["annotations"]["berth.dev/undo"];
    assert_eq!(asked, "all");
    kubectl.run(&["delete", "runtimeconfig/undone", &format!("runtimerevision/{BAD}")]);
}

/// A token that was stolen from the agent of one node.
pub fn only_its_own_node(api: &Api, kubectl: &Kubectl<'_>) {
    for node in ["one", "two"] {
        kubectl.apply(&json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}}));
        kubectl.apply(&json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": node}, "spec": {"nodeName": node}}));
    }
    kubectl.apply(
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "agent-one"}, "spec": {"nodeName": "one",
        "serviceAccountName": "berth-agent", "containers": [{"name": "agent", "image": "none"}]}}),
    );
    let token = ["create", "token", "berth-agent"];
    let bound =
        kubectl.run(&[&token[..], &["--bound-object-kind", "Pod", "--bound-object-name", "agent-one"]].concat());
    let agent = api.holder("agent", &bound);
    // As the agent does: a patch that reads nothing first. (`kubectl patch` gets the status beforehand, which agents may not.)
    let report = |who: &Kubectl<'_>, node: &str| {
        let object = json!({"apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeNode", "metadata": {"name": node}, "status": {"phase": "Idle"}});
        let apply = ["apply", "--server-side", "--subresource=status", "--field-manager=berth-agent", "-f", "-"];
        who.try_with(&apply, object.to_string().as_bytes())
    };
    // A policy is in force some moments after it was made: the API servers have to see it first.
    berth_cluster_tests::wait_for(&api.space, "the policy is in force", SEEN, || {
        let ran = report(&agent, "two");
        if ran.err.contains("the token is of node one") { Ok(()) } else { Err(format!("{}{}", ran.text(), ran.err)) }
    });
    let done = report(&agent, "one");
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(kubectl.get("runtimenode", "one").unwrap()["status"]["phase"], "Idle");
    agent.run(&["get", "runtimenode", "two"]);
    let anywhere = api.holder("anywhere", &kubectl.run(&token));
    let refused = report(&anywhere, "one");
    assert!(refused.code != 0 && refused.err.contains("names no node"), "{}", refused.err);
    let hold = ["patch", "runtimenode", "one", "--type=merge", "--patch", r#"{"spec":{"hold":true}}"#];
    let forbidden = agent.try_run(&hold);
    assert!(forbidden.code != 0 && forbidden.err.contains("cannot patch resource"), "{}", forbidden.err);
    for kind in ["secrets", "nodes", "pods", "runtimeconfigs"] {
        assert!(agent.try_run(&["get", kind]).err.contains("Forbidden"), "{kind}");
    }
    // Whatever somebody binds to the account later, the policy stays.
    kubectl.run(&[
        "create",
        "clusterrolebinding",
        "wide",
        "--clusterrole=cluster-admin",
        "--serviceaccount=berth-system:berth-agent",
    ]);
    for args in [
        &hold[..],
        &["delete", "runtimenode", "two"],
        &["patch", "runtimenode", "two", "--type=merge", "--patch", r#"{"metadata":{"labels":{"a":"b"}}}"#],
    ] {
        // Before the API server has seen the binding, it is that which is missing.
        berth_cluster_tests::wait_for(&api.space, &format!("{args:?}: the policy refuses it"), SEEN, || {
            let refused = agent.try_run(args);
            assert_ne!(refused.code, 0, "{args:?}: {}", refused.text());
            if refused.err.contains("status of a RuntimeNode and nothing else") { Ok(()) } else { Err(refused.err) }
        });
    }
    kubectl.run(&["delete", "clusterrolebinding", "wide"]);
}
