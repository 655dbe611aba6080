//! `kubectl berth`, as kubectl finds it: a program of that name in the search path.
use crate::api::Api;
use crate::rollouts::NODES;
use berth_cluster_tests::programs;
use serde_json::Value;

/// Runs it. Errors: it failed; all that it wrote.
pub fn run(api: &Api, args: &[&str]) -> Result<String, String> {
    let mut command = api.space().command("tools", programs::kubernetes("kubectl"));
    let dir = programs::path_from_env("BERTH_BIN_DIR");
    command.arg("berth").args(args).env("PATH", dir).env("KUBECONFIG", api.kubectl().kubeconfig());
    let output = command.output().unwrap();
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned());
    if output.status.success() { Ok(out) } else { Err(format!("{out}{err}")) }
}

/// Of a fleet that has one revision everywhere.
pub fn tells(api: &Api, target: &str) {
    let table = run(api, &["status"]).unwrap();
    let of = |word: &str| {
        table.lines().find(|line| line.starts_with(word)).unwrap_or_else(|| panic!("{word} in {table}")).to_owned()
    };
    assert!(of("RUNTIMECONFIG").contains("UPDATED"), "{table}");
    let fleet = of("fleet");
    assert!(["Complete", &format!("{NODES}/{NODES}"), target].iter().all(|word| fleet.contains(word)), "{table}");
    assert!(of("lockout").contains("WouldLockOut"), "{table}");
    let nodes: Value = serde_json::from_str(&run(api, &["nodes", "-o", "json"]).unwrap()).unwrap();
    assert_eq!(nodes.as_array().unwrap().len(), NODES);
    assert!(
        nodes.as_array().unwrap().iter().all(|n| n["currentRevision"] == target && n["state"] == "Managed"),
        "{nodes}"
    );
    assert_eq!(run(api, &["nodes"]).unwrap().lines().count(), NODES + 1);
    let explained: Value =
        serde_yaml::from_str(&run(api, &["explain", "node", "sim-07", "-o", "yaml"]).unwrap()).unwrap();
    assert_eq!((&explained["revision"], &explained["inForce"]), (&Value::from(target), &Value::Bool(true)));
    let field =
        |path: &str| explained["fields"].as_array().unwrap().iter().find(|f| f["field"] == path).unwrap().clone();
    assert_eq!(
        (&field("spec.runtime.pidsLimit")["value"], &field("spec.runtime.pidsLimit")["source"]),
        (&Value::from(300), &Value::from("fleet"))
    );
    assert_eq!(field("spec.runtime.logLevel")["source"], "default");
    let set = run(api, &["explain", "node", "sim-07", "--set"]).unwrap();
    assert!(set.contains("spec.runtime.pidsLimit   300") && !set.contains("logLevel"), "{set}");
    let missing = run(api, &["explain", "node", "nobody"]).unwrap_err();
    assert!(missing.contains("there is no RuntimeNode nobody"), "{missing}");
    let context = run(api, &["status", "--context=elsewhere"]).unwrap_err();
    assert!(context.contains("elsewhere"), "{context}");
    assert!(run(api, &["completion", "bash"]).unwrap().contains("rollout"));
}
