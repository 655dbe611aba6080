//! Berth: one document, a root of its own below the node's directory.
use super::POD_NETWORK;
use crate::programs;
use crate::service::Recipe;
use crate::space::NodeSpace;
use std::path::PathBuf;

/// How it is started, and its socket.
pub(super) fn prepare(space: &NodeSpace) -> (Recipe, PathBuf) {
    let root = space.base().join("berth");
    std::fs::create_dir_all(root.join("etc")).unwrap();
    let document = format!(
        "apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata:\n  name: node\nspec:\n  network:\n    mode: Builtin\n    \
         subnet: {POD_NETWORK}\n"
    );
    std::fs::write(root.join("etc/50-node.yaml"), document).unwrap();
    let mut recipe = Recipe::new("runtime", programs::berth("berth")).arg("serve").arg("--root").arg(&root);
    recipe.env.push(("BERTH_LOG".into(), "debug".into()));
    (recipe, root.join("run/berth.sock"))
}

/// The control group at the top that the daemon keeps its monitors in, as `berth info` names it.
pub(super) fn own_group(space: &NodeSpace) -> String {
    let mut command = space.command("tools", programs::berth("berth"));
    let output = command.arg("--root").arg(space.base().join("berth")).arg("info").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let bridge = text.split([' ', ',', '\n']).find(|word| word.starts_with("berth") && word.len() == "berth".len() + 8);
    let bridge = bridge.unwrap_or_else(|| panic!("berth info does not name the bridge: {text}"));
    bridge.replacen("berth", "berth-", 1)
}
