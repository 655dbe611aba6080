//! The real helm, inside a node. Owns: its process and its directories. Must not: know a chart.
use crate::programs;
use crate::space::NodeSpace;
use std::path::Path;
use std::process::Stdio;

/// `helm ARGS` as the user of that kubeconfig; what it says. Errors: the same, when it fails.
pub fn helm(space: &NodeSpace, kubeconfig: &Path, namespace: &str, args: &[&str]) -> Result<String, String> {
    let mut command = space.command("tools", programs::helm());
    command.arg("--kubeconfig").arg(kubeconfig).args(["--namespace", namespace]).args(args).stdin(Stdio::null());
    for (name, dir) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")] {
        command.env(name, space.base().join("helm").join(dir));
    }
    let output = command.output().map_err(|e| e.to_string())?;
    let told = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(told) } else { Err(told) }
}
