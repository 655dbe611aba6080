//! A pod whose container ends while Berth's unit is between two daemons: the one is gone, and the other is not started before the container
//! has ended. Owns: its manifest, and what has systemd end it. Must not: know why the daemon is exchanged.
use super::{Node, layout, systemctl, wait};
use serde_json::{Value, json};
use std::fs;

/// Directory of the unit's drop-ins that a boot forgets.
const DROP_INS: &str = "/run/systemd/system/berth.service.d";
/// How its name begins.
const NAME: &str = "leaves-";
/// What it ends with.
const CODE: i64 = 7;

/// The pod. There is one at a time.
pub struct Leaver {
    name: String,
    id: String,
}

impl Leaver {
    /// It runs, and ends at the next start of Berth's unit. A second one needs another name: to a kubelet it would be the one that has ended.
    pub fn start(node: &Node, name: &str) -> Self {
        let name = format!("{NAME}{name}");
        let script = format!("trap 'exit {CODE}' USR1; while :; do sleep 0.1; done");
        layout::pod_for_once(&name, &node.images.tools(), &script);
        let id = wait(&format!("{name} runs"), || {
            let status = told()?.unwrap_or_default();
            let id = status["containerID"].as_str().and_then(|id| id.strip_prefix("berth://"));
            id.filter(|_| status["state"]["running"].is_object()).map(str::to_owned).ok_or_else(|| status.to_string())
        });
        let pid = node.inspected(&id)["info"]["pid"].as_i64().unwrap();
        // Again and again: the first process of a pid namespace gets no signal that it has not set a trap for yet.
        let end = format!("while kill -USR1 {pid} 2>/dev/null; do sleep 0.2; done");
        fs::create_dir_all(DROP_INS).unwrap();
        fs::write(format!("{DROP_INS}/leaver.conf"), format!("[Service]\nExecStartPre=/bin/sh -c \"{end}\"\n"))
            .unwrap();
        systemctl(&["daemon-reload"]);
        Self { name, id }
    }

    /// Asserts that the daemon which runs now, and by it the kubelet, tell how it ended; then it is taken away.
    pub fn has_left(self, node: &Node) {
        fs::remove_dir_all(DROP_INS).unwrap();
        systemctl(&["daemon-reload"]);
        let said = node.inspected(&self.id)["status"].clone();
        assert_eq!((&said["state"], &said["exitCode"]), (&json!("CONTAINER_EXITED"), &json!(CODE)), "{said}");
        wait(&format!("the kubelet tells how {} ended", self.name), || {
            let status = told()?.unwrap_or_default();
            if status["state"]["terminated"]["exitCode"] == CODE { Ok(()) } else { Err(status.to_string()) }
        });
        layout::withdraw(&self.name);
        wait(&format!("the kubelet forgets {}", self.name), || {
            told()?.map_or(Ok(()), |status| Err(status.to_string()))
        });
    }
}

/// Whether the kubelet's pod is one of these.
pub(super) fn is_one(pod: &Value) -> bool {
    pod["metadata"]["name"].as_str().is_some_and(|name| name.starts_with(NAME))
}

/// What the kubelet says of its container; `None`: it knows no such pod.
fn told() -> Result<Option<Value>, String> {
    let list = layout::pods().ok_or("the kubelet does not answer")?;
    let pod = list["items"].as_array().into_iter().flatten().find(|pod| is_one(pod));
    Ok(pod.map(|pod| pod["status"]["containerStatuses"][0].clone()))
}
