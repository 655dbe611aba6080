//! What is on the node at one moment: pods with their containers, from the CRI's lists and statuses.
use super::connect::{Runtime, said};
use super::time::rfc3339;
use anyhow::Result;
use berth_proto::cri as wire;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A pod with its containers. Field names are those of `-o json`.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PodView {
    pub id: String,
    pub name: String,
    pub namespace: String,
    pub uid: String,
    pub attempt: u32,
    /// `Ready` or `NotReady`.
    pub state: String,
    pub created_at: String,
    #[serde(skip)]
    pub created_nanos: i64,
    pub ips: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Ports of the node that lead to it, as `ADDRESS:PORT->PORT/PROTOCOL`.
    pub ports: Vec<String>,
    /// Steps of its start; empty unless asked for.
    pub phases: Vec<PhaseView>,
    pub containers: Vec<ContainerView>,
}

/// A container.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerView {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    /// As the user wrote it.
    pub image: String,
    pub image_id: String,
    /// `Created`, `Running`, `Exited` or `Unknown`.
    pub state: String,
    /// Only of one that has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    pub reason: String,
    pub message: String,
    pub created_at: String,
    pub started_at: String,
    pub finished_at: String,
    #[serde(skip)]
    pub created_nanos: i64,
    #[serde(skip)]
    pub started_nanos: i64,
    pub log_path: String,
    /// Of its first process, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// Program and arguments; empty unless asked for.
    pub command: Vec<String>,
    /// Paths inside it that are mounts; empty unless asked for.
    pub mounts: Vec<String>,
    pub labels: BTreeMap<String, String>,
    /// Steps of its start; empty unless asked for.
    pub phases: Vec<PhaseView>,
    #[serde(skip)]
    pub annotations: BTreeMap<String, String>,
    #[serde(skip)]
    pub finished_nanos: i64,
    /// Whether it has a terminal, and whether its input is kept open; known from a verbose status.
    #[serde(skip)]
    pub tty: bool,
    #[serde(skip)]
    pub stdin: bool,
}

/// A step and the time that it took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PhaseView {
    pub name: String,
    pub micros: u64,
}

impl PodView {
    /// `namespace/name`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl ContainerView {
    /// Whether its process runs.
    pub fn running(&self) -> bool {
        self.state == "Running"
    }

    /// State, with the exit code of one that has ended.
    pub fn shown_state(&self) -> String {
        match self.exit_code {
            Some(code) => format!("{} ({code})", self.state),
            None => self.state.clone(),
        }
    }
}

/// Pods and containers by the two lists alone: names, states, ids.
pub async fn list(runtime: &mut Runtime) -> Result<Vec<PodView>> {
    let pods = runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default()).await.map_err(said)?.into_inner();
    let containers = runtime.list_containers(wire::ListContainersRequest::default()).await.map_err(said)?.into_inner();
    Ok(join(pods.items, containers.containers))
}

/// The same with addresses, exits and logs; with commands, mounts and the start's phases if `verbose`.
pub async fn list_whole(runtime: &mut Runtime, verbose: bool) -> Result<Vec<PodView>> {
    let mut pods = list(runtime).await?;
    for pod in &mut pods {
        fill_pod(runtime, pod, verbose).await?;
        for container in &mut pod.containers {
            fill_container(runtime, container, verbose).await?;
        }
    }
    Ok(pods)
}

/// What has gone since the list was made is no error.
fn unless_gone<T>(answer: Result<tonic::Response<T>, tonic::Status>) -> Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == tonic::Code::NotFound => Ok(None),
        Err(status) => Err(said(status)),
    }
}

async fn fill_pod(runtime: &mut Runtime, pod: &mut PodView, verbose: bool) -> Result<()> {
    let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose };
    let Some(answer) = unless_gone(runtime.pod_sandbox_status(request).await)? else { return Ok(()) };
    if let Some(network) = answer.status.and_then(|s| s.network) {
        let all = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        pod.ips = all.filter(|ip| !ip.is_empty()).collect();
    }
    let record = record(answer.info.get("info"));
    pod.phases = phases(&record);
    pod.ports = ports(&record);
    Ok(())
}

/// Takes over a container's status.
pub async fn fill_container(runtime: &mut Runtime, container: &mut ContainerView, verbose: bool) -> Result<()> {
    let request = wire::ContainerStatusRequest { container_id: container.id.clone(), verbose };
    let Some(answer) = unless_gone(runtime.container_status(request).await)? else { return Ok(()) };
    let Some(status) = answer.status else { return Ok(()) };
    container.state = container_state(status.state);
    container.exit_code = (container.state == "Exited").then_some(status.exit_code);
    container.reason = status.reason;
    container.message = status.message;
    container.started_at = rfc3339(status.started_at);
    container.started_nanos = status.started_at;
    container.finished_at = rfc3339(status.finished_at);
    container.finished_nanos = status.finished_at;
    container.log_path = status.log_path;
    if verbose {
        let record = record(answer.info.get("info"));
        container.phases = phases(&record);
        container.command = command(&record);
        container.mounts = status.mounts.into_iter().map(|m| m.container_path).collect();
        container.pid = record["life"]["Running"]["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let config = &record["config"];
        (container.tty, container.stdin) = (config["tty"] == true, config["stdin"] == true);
    }
    Ok(())
}

/// The record in a verbose status; null where there is none.
fn record(info: Option<&String>) -> Value {
    let document: Option<Value> = info.and_then(|text| serde_json::from_str(text).ok());
    document.map(|mut document| document["record"].take()).unwrap_or_default()
}

fn phases(record: &Value) -> Vec<PhaseView> {
    let phase = |p: &Value| Some(PhaseView { name: p["name"].as_str()?.to_owned(), micros: p["micros"].as_u64()? });
    record["phases"].as_array().into_iter().flatten().filter_map(phase).collect()
}

/// The process as the container's configuration and the image's make it together.
fn command(record: &Value) -> Vec<String> {
    let list = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let (config, image) = (&record["config"], &record["image_config"]);
    let (command, args) = (list(&config["command"]), list(&config["args"]));
    let entry = if command.is_empty() { list(&image["entrypoint"]) } else { command.clone() };
    let rest = match (args.is_empty(), command.is_empty()) {
        (false, _) => args,
        (true, true) => list(&image["cmd"]),
        (true, false) => Vec::new(),
    };
    entry.into_iter().chain(rest).collect()
}

fn ports(record: &Value) -> Vec<String> {
    let port = |p: &Value| {
        let (host, inside) = (p["host_port"].as_u64()?, p["container_port"].as_u64()?);
        let address = p["host_ip"].as_str().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0");
        let protocol = p["protocol"].as_str().unwrap_or("tcp").to_lowercase();
        (host > 0).then(|| format!("{address}:{host}->{inside}/{protocol}"))
    };
    record["config"]["ports"].as_array().into_iter().flatten().filter_map(port).collect()
}

fn container_state(state: i32) -> String {
    match wire::ContainerState::try_from(state) {
        Ok(wire::ContainerState::ContainerCreated) => "Created",
        Ok(wire::ContainerState::ContainerRunning) => "Running",
        Ok(wire::ContainerState::ContainerExited) => "Exited",
        Ok(wire::ContainerState::ContainerUnknown) | Err(_) => "Unknown",
    }
    .to_owned()
}

/// Pods by namespace, name and age, each with its containers by age. Containers whose pod has just gone are left out.
fn join(pods: Vec<wire::PodSandbox>, containers: Vec<wire::Container>) -> Vec<PodView> {
    let mut views: Vec<PodView> = pods.into_iter().map(pod_view).collect();
    views.sort_by(|a, b| (&a.namespace, &a.name, a.created_nanos).cmp(&(&b.namespace, &b.name, b.created_nanos)));
    for container in containers {
        if let Some(pod) = views.iter_mut().find(|p| p.id == container.pod_sandbox_id) {
            pod.containers.push(container_view(container));
        }
    }
    for pod in &mut views {
        pod.containers.sort_by_key(|c| (c.created_nanos, c.attempt));
    }
    views
}

fn pod_view(pod: wire::PodSandbox) -> PodView {
    let metadata = pod.metadata.unwrap_or_default();
    let ready = pod.state == wire::PodSandboxState::SandboxReady as i32;
    PodView {
        id: pod.id,
        name: metadata.name,
        namespace: metadata.namespace,
        uid: metadata.uid,
        attempt: metadata.attempt,
        state: if ready { "Ready" } else { "NotReady" }.to_owned(),
        created_at: rfc3339(pod.created_at),
        created_nanos: pod.created_at,
        labels: pod.labels.into_iter().collect(),
        ..PodView::default()
    }
}

fn container_view(container: wire::Container) -> ContainerView {
    let metadata = container.metadata.unwrap_or_default();
    let image = container.image.unwrap_or_default();
    let written = Some(image.user_specified_image).filter(|i| !i.is_empty()).unwrap_or(image.image);
    ContainerView {
        id: container.id,
        name: metadata.name,
        attempt: metadata.attempt,
        image: written,
        image_id: container.image_id,
        state: container_state(container.state),
        created_at: rfc3339(container.created_at),
        created_nanos: container.created_at,
        labels: container.labels.into_iter().collect(),
        annotations: container.annotations.into_iter().collect(),
        ..ContainerView::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_go_to_their_pods_and_order_is_stable() {
        let pod = |id: &str, name: &str, state| wire::PodSandbox {
            id: id.into(),
            metadata: Some(wire::PodSandboxMetadata {
                name: name.into(),
                namespace: "ns".into(),
                ..Default::default()
            }),
            state,
            ..Default::default()
        };
        let container = |id: &str, pod: &str, created_at, image: &str| wire::Container {
            id: id.into(),
            pod_sandbox_id: pod.into(),
            created_at,
            state: 1,
            image: Some(wire::ImageSpec {
                image: "sha256:1".into(),
                user_specified_image: image.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let pods = vec![pod("2", "b", 1), pod("1", "a", 0)];
        let containers =
            vec![container("y", "1", 9, "web:1"), container("x", "1", 5, ""), container("z", "gone", 1, "")];
        let views = join(pods, containers);
        assert_eq!(
            views.iter().map(|p| (p.name.as_str(), p.state.as_str())).collect::<Vec<_>>(),
            [("a", "Ready"), ("b", "NotReady")]
        );
        let inside: Vec<_> = views[0].containers.iter().map(|c| (c.id.as_str(), c.image.as_str())).collect();
        assert_eq!(inside, [("x", "sha256:1"), ("y", "web:1")]);
        assert!(views[0].containers[0].running() && views[1].containers.is_empty());
    }

    #[test]
    fn phases_come_from_the_record() {
        let info = r#"{"pid":1,"record":{"phases":[{"name":"run/network","micros":7},{"name":1}]}}"#.to_owned();
        assert_eq!(phases(&record(Some(&info))), [PhaseView { name: "run/network".into(), micros: 7 }]);
        assert!(record(Some(&"nonsense".to_owned())).is_null() && record(None).is_null());
    }

    #[test]
    fn a_command_is_put_together_as_the_process_is() {
        let record = |command: &[&str], args: &[&str]| {
            serde_json::json!({
                "config": {"command": command, "args": args},
                "image_config": {"entrypoint": ["/e"], "cmd": ["c"]},
            })
        };
        assert_eq!(command(&record(&[], &[])), ["/e", "c"]);
        assert_eq!(command(&record(&[], &["x"])), ["/e", "x"]);
        assert_eq!(command(&record(&["/p"], &[])), ["/p"]);
        assert_eq!(command(&record(&["/p"], &["x"])), ["/p", "x"]);
    }
}
