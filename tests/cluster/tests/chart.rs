//! The chart on a real API server: what Helm installs is accepted without a warning, an agent's token opens its own node alone, and the
//! definitions outlive the release. No node runs: objects and rights are what is looked at.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)] // A case fails by panicking.

#[path = "chart/file.rs"]
mod file;
#[path = "chart/releases.rs"]
mod releases;
#[path = "chart/rights.rs"]
mod rights;
#[path = "chart/uninstall.rs"]
mod uninstall;

use berth_cluster_tests::control_plane::ControlPlane;
use berth_cluster_tests::kubectl::Kubectl;
use berth_cluster_tests::space::NodeSpace;
use berth_cluster_tests::suite::{self, Case};
use berth_cluster_tests::{Diagnose, helm, wait_for};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;

const NAMESPACE: &str = "berth-system";
/// How long the API server takes to serve a definition that was made or changed.
const SERVED: Duration = Duration::from_secs(60);
/// Each leaves no release behind, and is content with definitions that one before it left.
const CASES: &[Case<Api>] = &[
    Case::alone("the_file_is_applied_and_deleted", file::is_applied_and_deleted),
    Case::alone("definitions_are_upgraded_and_rolled_back", releases::upgrades_definitions),
    Case::alone("accounts_that_are_not_made_are_named", releases::names_accounts),
    Case::alone("long_names_are_all_different", releases::long_names),
    Case::alone("an_uninstall_may_be_told_not_to_ask", uninstall::may_be_told_not_to_ask),
    Case::alone("an_uninstall_asks_as_the_operator_runs", uninstall::asks_as_the_operator_runs),
    Case::alone("an_uninstall_refuses_to_leave_nodes", uninstall::refuses_to_leave_nodes),
    Case::alone("installed_used_and_uninstalled", releases::life),
];

struct Api {
    space: Logged,
    plane: ControlPlane,
}

struct Logged(NodeSpace);

impl Diagnose for Logged {
    fn diagnosis(&self) -> String {
        self.0.log_tails()
    }
}

impl Api {
    fn start() -> Self {
        let space = Logged(NodeSpace::new());
        let plane = ControlPlane::start_api(&space.0, &space);
        Self { space, plane }
    }

    fn kubectl(&self) -> Kubectl<'_> {
        Kubectl::new(&self.space.0, self.plane.admin(), NAMESPACE)
    }

    /// kubectl of whoever has that token and nothing else.
    fn holder(&self, name: &str, token: &str) -> Kubectl<'_> {
        let mut config: Value = serde_json::from_slice(&std::fs::read(self.plane.admin()).unwrap()).unwrap();
        config["users"][0]["user"] = json!({ "token": token.trim() });
        let path = self.space.0.base().join(format!("{name}.kubeconfig"));
        std::fs::write(&path, config.to_string()).unwrap();
        Kubectl::new(&self.space.0, path, NAMESPACE)
    }

    fn helm(&self, namespace: &str, args: &[&str]) -> Result<String, String> {
        helm::helm(&self.space.0, &self.plane.admin(), namespace, args)
    }

    /// Waits until this kind is served, and known to whoever asks which kinds there are: both follow its definition some moments later.
    fn serves(&self, plural: &str) {
        wait_for(&self.space, &format!("{plural} are served"), SERVED, || {
            let ran = self.kubectl().try_run(&["get", &format!("{plural}.berth.dev")]);
            if ran.code == 0 { Ok(()) } else { Err(ran.err) }
        });
    }

    /// Makes the namespaces that are not there.
    fn namespaces(&self, names: &[&str]) {
        for name in names {
            self.kubectl().apply(&json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
        }
    }

    fn finish(self) {
        self.plane.finish();
        self.space.0.finish();
    }
}

fn repository(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}

fn main() {
    berth_cluster_tests::dispatch();
    suite::main(CASES, Api::start, Api::finish);
}
