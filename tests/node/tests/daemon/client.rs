//! A CRI client. Calls whose success is taken for granted panic with the daemon's words; the others return them.
use super::eventually;
use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use berth_proto::cri::*;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// What a call gives.
pub type Answer<T> = Result<T, Status>;

/// The longest message taken in: an ExecSync may bring 16 MiB twice.
const MAX_MESSAGE: usize = 64 << 20;

/// Both services of one daemon. Cheap to clone.
#[derive(Clone)]
pub struct Cri {
    runtime: RuntimeServiceClient<Channel>,
    image: ImageServiceClient<Channel>,
}

impl Cri {
    /// Connects. Errors: nobody listens.
    pub async fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("unix://{}", socket.display()))?.connect().await?;
        Ok(Self {
            runtime: RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
            image: ImageServiceClient::new(channel),
        })
    }

    /// The runtime service, for calls that have no wrapper here.
    pub fn runtime(&self) -> RuntimeServiceClient<Channel> {
        self.runtime.clone()
    }

    /// The image service.
    pub fn images(&self) -> ImageServiceClient<Channel> {
        self.image.clone()
    }

    pub async fn version(&self) -> Answer<VersionResponse> {
        self.runtime().version(VersionRequest::default()).await.map(tonic::Response::into_inner)
    }

    pub async fn try_pull(&self, reference: &str, namespace: &str) -> Answer<String> {
        let metadata = PodSandboxMetadata { namespace: namespace.into(), ..Default::default() };
        let request = PullImageRequest {
            image: Some(ImageSpec { image: reference.into(), ..Default::default() }),
            sandbox_config: Some(PodSandboxConfig { metadata: Some(metadata), ..Default::default() }),
            ..Default::default()
        };
        self.images().pull_image(request).await.map(|r| r.into_inner().image_ref)
    }

    pub async fn pull(&self, reference: &str) -> String {
        self.try_pull(reference, "default").await.unwrap()
    }

    pub async fn image(&self, reference: &str) -> Option<Image> {
        let image = Some(ImageSpec { image: reference.into(), ..Default::default() });
        let request = ImageStatusRequest { image, verbose: false };
        self.images().image_status(request).await.unwrap().into_inner().image
    }

    pub async fn try_run(&self, config: &PodSandboxConfig) -> Answer<String> {
        let request = RunPodSandboxRequest { config: Some(config.clone()), ..Default::default() };
        self.runtime().run_pod_sandbox(request).await.map(|r| r.into_inner().pod_sandbox_id)
    }

    pub async fn run(&self, config: &PodSandboxConfig) -> String {
        self.try_run(config).await.unwrap()
    }

    pub async fn try_create(&self, pod: &str, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> Answer<String> {
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.into(),
            config: Some(config.clone()),
            sandbox_config: Some(sandbox.clone()),
        };
        self.runtime().create_container(request).await.map(|r| r.into_inner().container_id)
    }

    pub async fn create(&self, pod: &str, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> String {
        self.try_create(pod, config, sandbox).await.unwrap()
    }

    /// Starts; a monitor that has not yet answered a new daemon is asked again, as a kubelet does.
    pub async fn try_start(&self, container: &str) -> Answer<()> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let request = StartContainerRequest { container_id: container.into() };
            match self.runtime().start_container(request).await {
                Err(e)
                    if e.code() == Code::Unavailable && Instant::now() < end && e.message().contains("try again") =>
                {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                other => return other.map(drop),
            }
        }
    }

    /// Creates and starts.
    pub async fn launch(&self, pod: &str, config: &ContainerConfig, sandbox: &PodSandboxConfig) -> String {
        let id = self.create(pod, config, sandbox).await;
        self.try_start(&id).await.unwrap();
        id
    }

    pub async fn try_stop(&self, container: &str, timeout: i64) -> Answer<()> {
        let request = StopContainerRequest { container_id: container.into(), timeout };
        self.runtime().stop_container(request).await.map(drop)
    }

    pub async fn try_remove(&self, container: &str) -> Answer<()> {
        self.runtime().remove_container(RemoveContainerRequest { container_id: container.into() }).await.map(drop)
    }

    pub async fn try_stop_pod(&self, pod: &str) -> Answer<()> {
        self.runtime().stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.into() }).await.map(drop)
    }

    pub async fn try_remove_pod(&self, pod: &str) -> Answer<()> {
        self.runtime().remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod.into() }).await.map(drop)
    }

    pub async fn pods(&self) -> Vec<PodSandbox> {
        self.runtime().list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().into_inner().items
    }

    pub async fn containers(&self) -> Vec<Container> {
        self.runtime().list_containers(ListContainersRequest::default()).await.unwrap().into_inner().containers
    }

    pub async fn pod_status(&self, pod: &str) -> Answer<PodSandboxStatus> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: false };
        self.runtime().pod_sandbox_status(request).await.map(|r| r.into_inner().status.unwrap())
    }

    pub async fn status(&self, container: &str) -> Answer<ContainerStatus> {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: false };
        self.runtime().container_status(request).await.map(|r| r.into_inner().status.unwrap())
    }

    /// What `crictl inspect` shows beside the status.
    pub async fn inspect(&self, container: &str) -> Value {
        let request = ContainerStatusRequest { container_id: container.into(), verbose: true };
        let info = self.runtime().container_status(request).await.unwrap().into_inner().info;
        serde_json::from_str(&info["info"]).unwrap()
    }

    /// The container's process id on the host.
    pub async fn pid(&self, container: &str) -> i32 {
        let info = self.inspect(container).await;
        i32::try_from(info["pid"].as_i64().unwrap_or_else(|| panic!("{container} has no pid: {info}"))).unwrap()
    }

    /// The monitor's process id, from the pod's verbose status.
    pub async fn monitor_pid(&self, pod: &str) -> i32 {
        let request = PodSandboxStatusRequest { pod_sandbox_id: pod.into(), verbose: true };
        let info = self.runtime().pod_sandbox_status(request).await.unwrap().into_inner().info;
        let info: Value = serde_json::from_str(&info["info"]).unwrap();
        let pid = info["record"]["monitor"]["pid"].as_i64();
        i32::try_from(pid.unwrap_or_else(|| panic!("{pod} has no monitor: {info}"))).unwrap()
    }

    /// Waits until the container is EXITED.
    pub async fn exited(&self, container: &str) -> ContainerStatus {
        eventually(&format!("{container} exits"), async || {
            let status = self.status(container).await.unwrap();
            (status.state() == ContainerState::ContainerExited).then_some(status)
        })
        .await
    }

    pub async fn try_exec(&self, container: &str, command: &[&str], timeout: i64) -> Answer<ExecSyncResponse> {
        let cmd = command.iter().map(|c| (*c).to_owned()).collect();
        let request = ExecSyncRequest { container_id: container.into(), cmd, timeout };
        self.runtime().exec_sync(request).await.map(tonic::Response::into_inner)
    }

    /// Runs a script with the container's shell; it must end with 0. Its stdout, trimmed.
    pub async fn sh(&self, container: &str, script: &str) -> String {
        let ended = self.try_exec(container, &["sh", "-c", script], 30).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        assert_eq!(ended.exit_code, 0, "{script}: {out}{err}");
        out.trim_end().to_owned()
    }

    /// The exit code of a script, with everything that it wrote.
    pub async fn code(&self, container: &str, script: &str) -> (i32, String) {
        let ended = self.try_exec(container, &["sh", "-c", script], 30).await.unwrap();
        let (out, err) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
        (ended.exit_code, format!("{out}{err}"))
    }

    /// Runs a pod with one container to the container's end: its status and the content of its log.
    pub async fn to_the_end(&self, node: &super::Node, config: ContainerConfig) -> (ContainerStatus, String) {
        let name = config.metadata.as_ref().unwrap().name.clone();
        let sandbox = super::pod(node, &name);
        self.to_the_end_in(&sandbox, config).await
    }

    /// The same with a sandbox of the caller's.
    pub async fn to_the_end_in(
        &self,
        sandbox: &PodSandboxConfig,
        config: ContainerConfig,
    ) -> (ContainerStatus, String) {
        let pod = self.run(sandbox).await;
        let id = self.launch(&pod, &config, sandbox).await;
        let status = self.exited(&id).await;
        let log = log_text(&status.log_path);
        self.try_remove_pod(&pod).await.unwrap();
        (status, log)
    }
}

/// The text of a CRI log without its stamps.
pub fn log_text(path: &str) -> String {
    let raw = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let mut text = String::new();
    for line in raw.lines() {
        let parts: Vec<&str> = line.splitn(4, ' ').collect();
        assert!(parts.len() == 4 && (parts[2] == "F" || parts[2] == "P"), "not a CRI log line: {line:?}");
        text.push_str(parts[3]);
        if parts[2] == "F" {
            text.push('\n');
        }
    }
    text
}

/// That a call was refused with this code, by a message with all of these words.
#[track_caller]
pub fn refused<T: std::fmt::Debug>(answer: Answer<T>, code: Code, words: &[&str]) {
    let status = answer.expect_err("the call was to be refused");
    assert_eq!(status.code(), code, "{}", status.message());
    for word in words {
        assert!(status.message().contains(word), "{word:?} is not in {:?}", status.message());
    }
}

/// A call that must not take longer than this.
pub async fn within<T>(limit: Duration, what: &str, call: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, call).await.unwrap_or_else(|_| panic!("{what} took longer than {limit:?}"))
}
