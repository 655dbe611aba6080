//! The CNI configuration that a document has Berth's daemon write (`spec.network.cni.confList`): the runtime that the kubelet is on never
//! sees it, unless that is Berth, since it would give pods Berth's network. As a part of the steps `daemon`, `switch`, `commit` and
//! `stop-daemon`, and of their undos.
//!
//! Owns: when it is there. How, is the network's (`berth_network::beside`). Must not: touch one that stood there before the adoption; keep a
//! node from what was proven, or from its way back: trouble with one file is told then.
use super::Node;
use anyhow::Result;
use berth_adopt::Direction;
use berth_network::beside;
use std::path::PathBuf;

/// Whether it is this operation's business.
fn concerns(node: &Node<'_>) -> bool {
    !node.plan.install.network_before && node.plan.direction != Direction::Configure
}

/// The daemon writes none where the other runtime looks, from here on.
pub(super) fn hold_back(node: &Node<'_>) -> Result<()> {
    if !concerns(node) {
        return Ok(());
    }
    left(node, beside::hold_back(&node.layout.cni())?);
    Ok(())
}

/// The node is about to be on the other runtime.
pub(super) fn switch(node: &Node<'_>) -> Result<()> {
    match node.plan.direction {
        Direction::Adopt if concerns(node) => Ok(beside::let_write(&node.layout.cni())?),
        _ => hold_back(node),
    }
}

/// The node is where it was before.
pub(super) fn switch_back(node: &Node<'_>) {
    let cni = node.layout.cni();
    let done = match node.plan.direction {
        Direction::Return if concerns(node) => {
            beside::let_write(&cni).and_then(|()| beside::settle(&cni)).map_err(Into::into)
        }
        _ => hold_back(node),
    };
    told(node, done);
}

/// Nothing has to come back.
pub(super) fn commit(node: &Node<'_>) {
    if concerns(node) {
        told(node, beside::settle(&node.layout.cni()).map_err(Into::into));
    }
}

/// The daemon has ended, and its node is another runtime's. One that goes on beside that writes none still.
pub(super) fn withdraw(node: &Node<'_>) {
    if concerns(node) && !node.plan.install.daemon_before {
        let done = beside::withdraw(&node.layout.cni()).map(|file| left(node, file));
        told(node, done.map_err(Into::into));
    }
}

/// The kubelet comes first: it is on its way to where it belongs, and starts there whatever is the matter with this file.
fn told(node: &Node<'_>, done: Result<()>) {
    if let Err(e) = done {
        node.talk.say(&format!(
            "spec.network.cni.confList: {e:#}; see that no {} of Berth's is left where CNI configurations are",
            beside::FILE
        ));
    }
}

fn left(node: &Node<'_>, file: Option<PathBuf>) {
    if let Some(file) = file {
        node.talk.say(&format!("{} was changed by somebody else; it is left as it is", file.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adopt::steps::{files, perform, undo};
    use crate::adopt::talk::Talk;
    use crate::layout::Layout;
    use berth_adopt::{Plan, Step};
    use serde_json::json;
    use std::path::Path;

    /// An operation that changes one file, from `a` to `b`, of a node whose kubelet commands start.
    fn plan(direction: &str, file: &Path) -> Plan {
        let state = |text: &str| {
            let known = json!({"text": text, "mode": 0o644, "uid": rustix::process::getuid().as_raw(),
                "gid": rustix::process::getgid().as_raw()});
            files::hashed(serde_json::from_value(known).unwrap())
        };
        let runtime = json!({"socket": "/run/x.sock", "name": "x", "version": "1", "cgroupDriver": null});
        serde_json::from_value(json!({
            "id": "op", "direction": direction, "profile": "command", "bootId": "b", "deadline": 0, "permission": "person",
            "from": runtime, "to": runtime, "commands": {"stop": [], "start": []}, "healthz": null,
            "files": [{"path": file, "before": state("a"), "after": state("b"), "directoryBefore": true}],
            "images": [], "pods": [], "steps": [], "notes": [],
            "install": {"prefix": "/x", "from": "/x", "version": "1", "currentBefore": null, "stagedBefore": true,
                "prefixBefore": true, "daemonBefore": false, "systemd": false, "unitBefore": false},
        }))
        .unwrap()
    }

    /// A configuration as the daemon writes it, and the record of it.
    fn written(layout: &Layout, dir: &Path) -> PathBuf {
        let (cni, file) = (layout.cni(), dir.join(beside::FILE));
        std::fs::create_dir_all(&cni).unwrap();
        std::fs::write(cni.join("written-configuration.json"), json!(file).to_string()).unwrap();
        std::fs::write(&file, json!({"berth.dev/written-from": "a test"}).to_string()).unwrap();
        file
    }

    #[tokio::test]
    async fn trouble_with_the_file_keeps_no_kubelet_from_its_way_back() {
        for direction in ["adopt", "return"] {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(Some(&dir.path().join("root"))).unwrap();
            written(&layout, dir.path());
            // A directory that nobody can make.
            std::fs::write(layout.cni().join("beside"), "").unwrap();
            let config = dir.path().join("config.yaml");
            std::fs::write(&config, "b").unwrap();
            let (plan, talk) = (plan(direction, &config), Talk { quiet: true });
            let node = Node { layout: &layout, plan: &plan, talk: &talk, at_start: false };
            assert!(hold_back(&node).is_err(), "before anything is proven it ends the operation");
            undo(&node, Step::Switch, true).await.unwrap();
            assert_eq!(std::fs::read_to_string(&config).unwrap(), "a", "{direction}");
            // Nor from what is proven.
            std::fs::write(layout.cni().join("beside.before"), "").unwrap();
            perform(&node, Step::Commit).await.unwrap();
            perform(&node, Step::StopDaemon).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_directory_in_the_files_place_is_left_and_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(Some(&dir.path().join("root"))).unwrap();
        let file = written(&layout, dir.path());
        std::fs::remove_file(&file).unwrap();
        std::fs::create_dir(&file).unwrap();
        let config = dir.path().join("config.yaml");
        std::fs::write(&config, "b").unwrap();
        let (plan, talk) = (plan("return", &config), Talk { quiet: true });
        let node = Node { layout: &layout, plan: &plan, talk: &talk, at_start: false };
        switch(&node).unwrap();
        undo(&node, Step::Switch, true).await.unwrap();
        assert!(file.is_dir() && std::fs::read_to_string(&config).unwrap() == "a");
    }

    /// Others live by it: neither an operation nor its way back touches it.
    #[tokio::test]
    async fn one_that_stood_there_before_stays_what_it_is() {
        for direction in ["adopt", "return"] {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(Some(&dir.path().join("root"))).unwrap();
            let file = written(&layout, dir.path());
            let (mut plan, talk) = (plan(direction, &dir.path().join("config.yaml")), Talk { quiet: true });
            plan.install.network_before = true;
            let node = Node { layout: &layout, plan: &plan, talk: &talk, at_start: false };
            hold_back(&node).unwrap();
            switch(&node).unwrap();
            switch_back(&node);
            commit(&node);
            withdraw(&node);
            assert!(file.exists() && std::fs::read_dir(layout.cni()).unwrap().count() == 1, "{direction}");
            plan.install.network_before = false;
            hold_back(&Node { layout: &layout, plan: &plan, talk: &talk, at_start: false }).unwrap();
            assert!(!file.exists(), "{direction}: this one is the operation's");
        }
    }
}
