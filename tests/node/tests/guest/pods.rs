//! Static pods as tests need them, and what to read from their status.
use super::Machine;
use serde_json::{Value, json};

/// A pod of one container of the image `tools:v1`, with this command.
pub fn pod(machine: &Machine, name: &str, command: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "terminationGracePeriodSeconds": 2,
            "containers": [{
                "name": "main",
                "image": machine.registry().reference("tools:v1"),
                "imagePullPolicy": "IfNotPresent",
                "command": command,
            }],
        },
    })
}

/// Its container, to add to.
pub fn main(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

/// The container's status.
pub fn status(pod: &Value) -> &Value {
    &pod["status"]["containerStatuses"][0]
}

/// The id of its container, without the runtime's name.
pub fn container_id(pod: &Value) -> String {
    let id = status(pod)["containerID"].as_str().unwrap();
    id.strip_prefix("berth://").unwrap_or_else(|| panic!("{id} is not one of this runtime")).to_owned()
}

/// The kubelet says that it is ready.
pub fn is_ready(pod: &Value) -> bool {
    status(pod)["ready"] == true
}

/// How its container ended: exit code and reason.
pub fn ended(pod: &Value) -> Option<(i64, &str)> {
    let end = &status(pod)["state"]["terminated"];
    Some((end["exitCode"].as_i64()?, end["reason"].as_str()?))
}

pub fn uid(pod: &Value) -> &str {
    pod["metadata"]["uid"].as_str().unwrap()
}

pub fn restarts(pod: &Value) -> i64 {
    status(pod)["restartCount"].as_i64().unwrap()
}

pub fn ip(pod: &Value) -> &str {
    pod["status"]["podIP"].as_str().unwrap()
}
