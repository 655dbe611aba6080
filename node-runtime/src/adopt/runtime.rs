//! A container runtime by its CRI socket, Berth's or another's: who it is, which pods run, removing them, a test sandbox.
//!
//! Owns: those calls and their time limits. Must not: decide whether they are to be made.
use crate::commands::connect::{self, Images, Runtime as Client, said};
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::plan::{Pod, PodName, Runtime};
use berth_proto::cri;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::{Response, Status};

/// How long a call that answers from memory may take.
const QUICK: Duration = Duration::from_secs(20);
/// How long one that makes, ends or fetches something may take.
const SLOW: Duration = Duration::from_secs(120);
/// Shortest time in which a container's grace is not cut, in seconds, however late it is; the node waits for all of them.
const MIN_GRACE: u64 = 60;
/// How much of an operation's time is kept for what comes after the pods' ends, in seconds.
const KEPT: u64 = 240;
/// Label that kubelets give what they make.
const POD_UID: &str = "io.kubernetes.pod.uid";
/// Grace of a container, in seconds; an annotation of kubelets.
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Where a pod comes from (kubelet, `kubetypes.ConfigSourceAnnotationKey`).
const SOURCE: &str = "kubernetes.io/config.source";
/// Name and label of the test sandbox.
const CANARY: &str = "berth-adopt-canary";
/// Rounds of removing what is there: somebody may make a pod in between.
const ROUNDS: usize = 5;
/// How often a sandbox is stopped until it is, and the pause in between.
const STOPS: usize = 5;
const AGAIN: Duration = Duration::from_secs(1);

/// Whether it says that its network is the node's.
fn has_node_network(status: &cri::PodSandboxStatus) -> bool {
    let options = status.linux.as_ref().and_then(|linux| linux.namespaces.as_ref()?.options.as_ref());
    options.is_some_and(|options| options.network() == cri::NamespaceMode::Node)
}

/// A connection to one.
pub(super) struct Peer {
    client: Client,
    images: Images,
}

async fn within<T>(limit: Duration, what: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
    match tokio::time::timeout(limit, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(said(status)).with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: no answer within {} s", limit.as_secs()),
    }
}

/// What is gone already needs not be removed.
async fn gone<T>(limit: Duration, what: &str, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<()> {
    let tolerant = async {
        match call.await {
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Response::new(())),
            other => other.map(|_| Response::new(())),
        }
    };
    within(limit, what, tolerant).await
}

impl Peer {
    /// Connects. Errors: nobody serves the socket.
    pub(super) async fn connect(socket: &Path) -> Result<Self> {
        let (client, images) = tokio::time::timeout(QUICK, connect::cri_at(socket))
            .await
            .map_err(|_| anyhow!("{}: no connection within {} s", socket.display(), QUICK.as_secs()))??;
        Ok(Self { client, images })
    }

    /// Who it is.
    pub(super) async fn who(&mut self, socket: &Path) -> Result<Runtime> {
        let version = within(QUICK, "Version", self.client.version(cri::VersionRequest::default())).await?;
        // Runtimes of before the call say nothing (KEP-4033).
        let told = within(QUICK, "RuntimeConfig", self.client.runtime_config(cri::RuntimeConfigRequest {})).await.ok();
        let driver = told.and_then(|told| told.linux).map(|linux| match linux.cgroup_driver() {
            cri::CgroupDriver::Systemd => "systemd".to_owned(),
            cri::CgroupDriver::Cgroupfs => "cgroupfs".to_owned(),
        });
        Ok(Runtime {
            socket: socket.to_owned(),
            name: version.runtime_name,
            version: version.runtime_version,
            cgroup_driver: driver,
        })
    }

    /// Errors: it is not ready to run pods, in its own words.
    pub(super) async fn ready(&mut self) -> Result<()> {
        let status = within(QUICK, "Status", self.client.status(cri::StatusRequest::default())).await?;
        let conditions = status.status.unwrap_or_default().conditions;
        for kind in ["RuntimeReady", "NetworkReady"] {
            match conditions.iter().find(|c| c.r#type == kind) {
                Some(condition) if condition.status => {}
                Some(condition) => bail!("{kind} is false: {} {}", condition.reason, condition.message),
                None => bail!("{kind} is not told"),
            }
        }
        Ok(())
    }

    async fn sandboxes(&mut self) -> Result<Vec<cri::PodSandbox>> {
        let request = cri::ListPodSandboxRequest::default();
        Ok(within(QUICK, "ListPodSandbox", self.client.list_pod_sandbox(request)).await?.items)
    }

    async fn containers(&mut self) -> Result<Vec<cri::Container>> {
        let request = cri::ListContainersRequest::default();
        Ok(within(QUICK, "ListContainers", self.client.list_containers(request)).await?.containers)
    }

    /// Pods of a kubelet that run: ready, with a running container.
    pub(super) async fn pods(&mut self) -> Result<Vec<Pod>> {
        let mut images: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
        for container in self.containers().await? {
            let runs = container.state() == cri::ContainerState::ContainerRunning;
            let spec = container.image.unwrap_or_default();
            let asked = [spec.user_specified_image, spec.image].into_iter().find(|name| !name.is_empty());
            let (running, ended) = images.entry(container.pod_sandbox_id).or_default();
            if runs { running } else { ended }.extend(asked);
        }
        let ready = self.sandboxes().await?.into_iter().filter(|s| s.state() == cri::PodSandboxState::SandboxReady);
        let pods = ready.filter(|s| s.labels.contains_key(POD_UID)).filter_map(|sandbox| {
            let (images, ended) = images.remove(&sandbox.id).filter(|(running, _)| !running.is_empty())?;
            let metadata = sandbox.metadata.unwrap_or_default();
            let source = sandbox.annotations.get(SOURCE).map(String::as_str);
            Some(Pod {
                name: PodName { namespace: metadata.namespace, name: metadata.name },
                is_static: matches!(source, Some("file" | "http")),
                images,
                ended,
            })
        });
        Ok(pods.collect())
    }

    /// Pods that are no kubelet's.
    pub(super) async fn others(&mut self) -> Result<Vec<PodName>> {
        let ready = self.sandboxes().await?.into_iter().filter(|s| s.state() == cri::PodSandboxState::SandboxReady);
        let others = ready.filter(|s| !s.labels.contains_key(POD_UID) && !s.labels.contains_key(CANARY));
        let metadata = others.map(|sandbox| sandbox.metadata.unwrap_or_default());
        Ok(metadata.map(|metadata| PodName { namespace: metadata.namespace, name: metadata.name }).collect())
    }

    /// Ends and removes the pods of a kubelet, each container with its grace, as far as `left`, the seconds until the operation's deadline,
    /// allows. Those with a network of their own go first: the daemon of a network add-on is a pod of the node's network, and without it their
    /// addresses cannot be given back.
    pub(super) async fn clear(&mut self, left: u64) -> Result<()> {
        let begun = Instant::now();
        for _ in 0..ROUNDS {
            let pods: Vec<_> = self.sandboxes().await?.into_iter().filter(|s| s.labels.contains_key(POD_UID)).collect();
            if pods.is_empty() {
                return Ok(());
            }
            let (mut own, mut of_the_node) = (BTreeSet::new(), BTreeSet::new());
            for pod in pods {
                let set = if self.on_node_network(&pod.id).await? { &mut of_the_node } else { &mut own };
                set.insert(pod.id);
            }
            for ids in [own, of_the_node] {
                self.end(&ids, left.saturating_sub(begun.elapsed().as_secs())).await?;
            }
        }
        bail!("pods are made again and again: does another kubelet run?")
    }

    /// Whether a sandbox has the node's network. One that is gone has none.
    async fn on_node_network(&mut self, id: &str) -> Result<bool> {
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let asked = async {
            match self.client.pod_sandbox_status(request).await {
                Err(status) if status.code() == tonic::Code::NotFound => Ok(Response::new(Default::default())),
                other => other,
            }
        };
        Ok(has_node_network(&within(QUICK, "PodSandboxStatus", asked).await?.status.unwrap_or_default()))
    }

    /// Ends and removes these sandboxes with what runs in them.
    async fn end(&mut self, ids: &BTreeSet<String>, left: u64) -> Result<()> {
        let longest = i64::try_from(left.saturating_sub(KEPT).max(MIN_GRACE)).unwrap_or(i64::MAX);
        let running = self
            .containers()
            .await?
            .into_iter()
            .filter(|c| c.state() == cri::ContainerState::ContainerRunning && ids.contains(&c.pod_sandbox_id));
        let mut ends = tokio::task::JoinSet::new();
        for container in running {
            let mut client = self.client.clone();
            let grace = container.annotations.get(GRACE).and_then(|g| g.parse().ok()).unwrap_or(30);
            let grace = i64::clamp(grace, 0, longest);
            let limit = SLOW + Duration::from_secs(grace.unsigned_abs());
            ends.spawn(async move {
                let request = cri::StopContainerRequest { container_id: container.id, timeout: grace };
                gone(limit, "StopContainer", client.stop_container(request)).await
            });
        }
        while let Some(ended) = ends.join_next().await {
            ended.context("a stop was cut off")??;
        }
        for id in ids {
            self.remove(id).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, id: &str) -> Result<()> {
        self.stop(id).await?;
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        gone(SLOW, "RemovePodSandbox", self.client.remove_pod_sandbox(request)).await
    }

    /// A stop that failed is asked for again, as kubelets do: two at a time meet each other in a CNI plugin.
    async fn stop(&mut self, id: &str) -> Result<()> {
        let mut left = STOPS;
        loop {
            left -= 1;
            let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
            match gone(SLOW, "StopPodSandbox", self.client.stop_pod_sandbox(request)).await {
                Err(_) if left > 0 => tokio::time::sleep(AGAIN).await,
                other => return other,
            }
        }
    }

    /// Runs a sandbox with a network of its own, looks whether it is ready, and removes it.
    pub(super) async fn canary(&mut self, operation: &str, runtime: &Runtime) -> Result<()> {
        // Where systemd makes groups, containerd needs a slice, as kubelets name one for each pod. Berth has one of its own for who names none.
        let systemd = runtime.name != "berth" && runtime.cgroup_driver.as_deref() == Some("systemd");
        let parent = if systemd { "system.slice" } else { "" };
        self.remove_canaries().await?;
        let metadata = cri::PodSandboxMetadata {
            name: CANARY.into(),
            uid: operation.into(),
            namespace: "default".into(),
            attempt: 0,
        };
        let config = cri::PodSandboxConfig {
            metadata: Some(metadata),
            hostname: CANARY.into(),
            labels: [(CANARY.to_owned(), operation.to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: parent.to_owned(),
                ..cri::LinuxPodSandboxConfig::default()
            }),
            ..cri::PodSandboxConfig::default()
        };
        let request = cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let id = within(SLOW, "RunPodSandbox", self.client.run_pod_sandbox(request)).await?.pod_sandbox_id;
        let request = cri::PodSandboxStatusRequest { pod_sandbox_id: id.clone(), verbose: false };
        let status = within(QUICK, "PodSandboxStatus", self.client.pod_sandbox_status(request)).await;
        self.remove(&id).await?;
        let status = status?.status.unwrap_or_default();
        let address = status.network.clone().unwrap_or_default().ip;
        if status.state() != cri::PodSandboxState::SandboxReady || address.is_empty() {
            bail!("the test sandbox is {:?} with address {address:?}", status.state());
        }
        Ok(())
    }

    /// Removes test sandboxes that are left.
    pub(super) async fn remove_canaries(&mut self) -> Result<()> {
        let left: Vec<_> = self.sandboxes().await?.into_iter().filter(|s| s.labels.contains_key(CANARY)).collect();
        for sandbox in left {
            self.remove(&sandbox.id).await?;
        }
        Ok(())
    }

    /// Whether it has the image.
    pub(super) async fn has_image(&mut self, reference: &str) -> Result<bool> {
        let image = Some(cri::ImageSpec { image: reference.to_owned(), ..cri::ImageSpec::default() });
        let request = cri::ImageStatusRequest { image, verbose: false };
        Ok(within(QUICK, "ImageStatus", self.images.image_status(request)).await?.image.is_some())
    }

    /// The whole name of an image that it has. Errors: it has none.
    pub(super) async fn image_name(&mut self, reference: &str) -> Result<String> {
        let image = Some(cri::ImageSpec { image: reference.to_owned(), ..cri::ImageSpec::default() });
        let request = cri::ImageStatusRequest { image, verbose: false };
        let found = within(QUICK, "ImageStatus", self.images.image_status(request)).await?.image.unwrap_or_default();
        let mut names = found.repo_tags.into_iter().chain(found.repo_digests);
        names.next().ok_or_else(|| anyhow!("no name of {reference} is known"))
    }

    /// Pulls the image from its registry.
    pub(super) async fn pull(&mut self, reference: &str) -> Result<()> {
        let image = Some(cri::ImageSpec { image: reference.to_owned(), ..cri::ImageSpec::default() });
        let request = cri::PullImageRequest { image, auth: None, sandbox_config: None };
        within(SLOW * 5, "PullImage", self.images.pull_image(request)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_on_the_nodes_network_is_told_from_a_pod_with_its_own() {
        let with = |network: cri::NamespaceMode| {
            let options = cri::NamespaceOption { network: network.into(), ..cri::NamespaceOption::default() };
            let namespaces = Some(cri::Namespace { options: Some(options) });
            let linux = Some(cri::LinuxPodSandboxStatus { namespaces });
            cri::PodSandboxStatus { linux, ..cri::PodSandboxStatus::default() }
        };
        assert!(has_node_network(&with(cri::NamespaceMode::Node)));
        assert!(!has_node_network(&with(cri::NamespaceMode::Pod)));
        assert!(!has_node_network(&cri::PodSandboxStatus::default()), "not told");
    }
}
