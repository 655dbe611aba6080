//! The two services: each call is counted and goes to its file.
use crate::error::{status, unimplemented};
use crate::metrics::CallMetrics;
use crate::{image, runtime};
use berth_engine::Engine;
use berth_proto::cri as wire;
use berth_proto::cri::image_service_server::ImageService;
use berth_proto::cri::runtime_service_server::RuntimeService;
use std::sync::Arc;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

/// RuntimeService and ImageService over the engine.
#[derive(Clone)]
pub struct CriService {
    engine: Arc<Engine>,
    streaming: Arc<dyn StreamingUrl>,
    metrics: CallMetrics,
}

/// The server that streaming calls send their clients to.
#[tonic::async_trait]
pub trait StreamingUrl: Send + Sync + 'static {
    /// Its URL, `http://ADDRESS:PORT` or `https://…`, once it serves; it is started if it must be.
    async fn base(&self) -> berth_model::Result<String>;
}

impl CriService {
    /// Over this engine.
    pub fn new(engine: Arc<Engine>, streaming: Arc<dyn StreamingUrl>, metrics: CallMetrics) -> Self {
        Self { engine, streaming, metrics }
    }
}

/// A call that waits, counted.
macro_rules! answer {
    ($self:ident, $method:literal, $call:expr) => {
        $self.metrics.observe($method, async { $call.await.map(Response::new).map_err(status) }).await
    };
}

/// A call that answers from memory, counted.
macro_rules! answer_now {
    ($self:ident, $method:literal, $call:expr) => {
        $self.metrics.observe($method, async { $call.map(Response::new).map_err(status) }).await
    };
}

/// A call that is not built yet, counted.
macro_rules! not_built {
    ($self:ident, $method:literal) => {
        $self.metrics.observe($method, async { Err(unimplemented($method)) }).await
    };
}

#[tonic::async_trait]
impl RuntimeService for CriService {
    type StreamPodSandboxesStream = BoxStream<wire::StreamPodSandboxesResponse>;
    type StreamContainersStream = BoxStream<wire::StreamContainersResponse>;
    type StreamContainerStatsStream = BoxStream<wire::StreamContainerStatsResponse>;
    type StreamPodSandboxStatsStream = BoxStream<wire::StreamPodSandboxStatsResponse>;
    type GetContainerEventsStream = BoxStream<wire::ContainerEventResponse>;
    type StreamPodSandboxMetricsStream = BoxStream<wire::StreamPodSandboxMetricsResponse>;

    async fn version(
        &self,
        _request: Request<wire::VersionRequest>,
    ) -> Result<Response<wire::VersionResponse>, Status> {
        answer_now!(self, "Version", Ok::<_, berth_model::Error>(runtime::version::call()))
    }

    async fn run_pod_sandbox(
        &self,
        request: Request<wire::RunPodSandboxRequest>,
    ) -> Result<Response<wire::RunPodSandboxResponse>, Status> {
        answer!(self, "RunPodSandbox", runtime::run_pod_sandbox::call(&self.engine, request.into_inner()))
    }

    async fn stop_pod_sandbox(
        &self,
        request: Request<wire::StopPodSandboxRequest>,
    ) -> Result<Response<wire::StopPodSandboxResponse>, Status> {
        answer!(self, "StopPodSandbox", runtime::stop_pod_sandbox::call(&self.engine, request.into_inner()))
    }

    async fn remove_pod_sandbox(
        &self,
        request: Request<wire::RemovePodSandboxRequest>,
    ) -> Result<Response<wire::RemovePodSandboxResponse>, Status> {
        answer!(self, "RemovePodSandbox", runtime::remove_pod_sandbox::call(&self.engine, request.into_inner()))
    }

    async fn pod_sandbox_status(
        &self,
        request: Request<wire::PodSandboxStatusRequest>,
    ) -> Result<Response<wire::PodSandboxStatusResponse>, Status> {
        answer_now!(self, "PodSandboxStatus", runtime::pod_sandbox_status::call(&self.engine, request.get_ref()))
    }

    async fn list_pod_sandbox(
        &self,
        request: Request<wire::ListPodSandboxRequest>,
    ) -> Result<Response<wire::ListPodSandboxResponse>, Status> {
        answer_now!(self, "ListPodSandbox", runtime::list_pod_sandbox::call(&self.engine, request.into_inner()))
    }

    async fn stream_pod_sandboxes(
        &self,
        request: Request<wire::StreamPodSandboxesRequest>,
    ) -> Result<Response<Self::StreamPodSandboxesStream>, Status> {
        answer_now!(self, "StreamPodSandboxes", runtime::list_pod_sandbox::stream(&self.engine, request.into_inner()))
    }

    async fn create_container(
        &self,
        request: Request<wire::CreateContainerRequest>,
    ) -> Result<Response<wire::CreateContainerResponse>, Status> {
        answer!(self, "CreateContainer", runtime::create_container::call(&self.engine, request.into_inner()))
    }

    async fn start_container(
        &self,
        request: Request<wire::StartContainerRequest>,
    ) -> Result<Response<wire::StartContainerResponse>, Status> {
        answer!(self, "StartContainer", runtime::start_container::call(&self.engine, request.into_inner()))
    }

    async fn stop_container(
        &self,
        request: Request<wire::StopContainerRequest>,
    ) -> Result<Response<wire::StopContainerResponse>, Status> {
        answer!(self, "StopContainer", runtime::stop_container::call(&self.engine, request.into_inner()))
    }

    async fn remove_container(
        &self,
        request: Request<wire::RemoveContainerRequest>,
    ) -> Result<Response<wire::RemoveContainerResponse>, Status> {
        answer!(self, "RemoveContainer", runtime::remove_container::call(&self.engine, request.into_inner()))
    }

    async fn list_containers(
        &self,
        request: Request<wire::ListContainersRequest>,
    ) -> Result<Response<wire::ListContainersResponse>, Status> {
        answer_now!(self, "ListContainers", runtime::list_containers::call(&self.engine, request.into_inner()))
    }

    async fn stream_containers(
        &self,
        request: Request<wire::StreamContainersRequest>,
    ) -> Result<Response<Self::StreamContainersStream>, Status> {
        answer_now!(self, "StreamContainers", runtime::list_containers::stream(&self.engine, request.into_inner()))
    }

    async fn container_status(
        &self,
        request: Request<wire::ContainerStatusRequest>,
    ) -> Result<Response<wire::ContainerStatusResponse>, Status> {
        answer_now!(self, "ContainerStatus", runtime::container_status::call(&self.engine, request.get_ref()))
    }

    async fn update_container_resources(
        &self,
        request: Request<wire::UpdateContainerResourcesRequest>,
    ) -> Result<Response<wire::UpdateContainerResourcesResponse>, Status> {
        answer!(
            self,
            "UpdateContainerResources",
            runtime::update_container_resources::call(&self.engine, request.into_inner())
        )
    }

    async fn reopen_container_log(
        &self,
        request: Request<wire::ReopenContainerLogRequest>,
    ) -> Result<Response<wire::ReopenContainerLogResponse>, Status> {
        answer!(self, "ReopenContainerLog", runtime::reopen_container_log::call(&self.engine, request.into_inner()))
    }

    async fn exec_sync(
        &self,
        request: Request<wire::ExecSyncRequest>,
    ) -> Result<Response<wire::ExecSyncResponse>, Status> {
        answer!(self, "ExecSync", runtime::exec_sync::call(&self.engine, request.into_inner()))
    }

    async fn exec(&self, request: Request<wire::ExecRequest>) -> Result<Response<wire::ExecResponse>, Status> {
        answer!(self, "Exec", runtime::exec::call(&self.engine, &*self.streaming, request.into_inner()))
    }

    async fn attach(&self, request: Request<wire::AttachRequest>) -> Result<Response<wire::AttachResponse>, Status> {
        answer!(self, "Attach", runtime::attach::call(&self.engine, &*self.streaming, request.into_inner()))
    }

    async fn port_forward(
        &self,
        request: Request<wire::PortForwardRequest>,
    ) -> Result<Response<wire::PortForwardResponse>, Status> {
        answer!(self, "PortForward", runtime::port_forward::call(&self.engine, &*self.streaming, request.into_inner()))
    }

    async fn container_stats(
        &self,
        request: Request<wire::ContainerStatsRequest>,
    ) -> Result<Response<wire::ContainerStatsResponse>, Status> {
        answer!(self, "ContainerStats", runtime::container_stats::call(&self.engine, request.into_inner()))
    }

    async fn list_container_stats(
        &self,
        request: Request<wire::ListContainerStatsRequest>,
    ) -> Result<Response<wire::ListContainerStatsResponse>, Status> {
        answer!(self, "ListContainerStats", runtime::list_container_stats::call(&self.engine, request.into_inner()))
    }

    async fn stream_container_stats(
        &self,
        request: Request<wire::StreamContainerStatsRequest>,
    ) -> Result<Response<Self::StreamContainerStatsStream>, Status> {
        answer!(self, "StreamContainerStats", runtime::list_container_stats::stream(&self.engine, request.into_inner()))
    }

    async fn pod_sandbox_stats(
        &self,
        request: Request<wire::PodSandboxStatsRequest>,
    ) -> Result<Response<wire::PodSandboxStatsResponse>, Status> {
        answer!(self, "PodSandboxStats", runtime::pod_sandbox_stats::call(&self.engine, request.into_inner()))
    }

    async fn list_pod_sandbox_stats(
        &self,
        request: Request<wire::ListPodSandboxStatsRequest>,
    ) -> Result<Response<wire::ListPodSandboxStatsResponse>, Status> {
        answer!(self, "ListPodSandboxStats", runtime::list_pod_sandbox_stats::call(&self.engine, request.into_inner()))
    }

    async fn stream_pod_sandbox_stats(
        &self,
        request: Request<wire::StreamPodSandboxStatsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxStatsStream>, Status> {
        answer!(
            self,
            "StreamPodSandboxStats",
            runtime::list_pod_sandbox_stats::stream(&self.engine, request.into_inner())
        )
    }

    async fn update_runtime_config(
        &self,
        request: Request<wire::UpdateRuntimeConfigRequest>,
    ) -> Result<Response<wire::UpdateRuntimeConfigResponse>, Status> {
        answer!(self, "UpdateRuntimeConfig", runtime::update_runtime_config::call(&self.engine, request.into_inner()))
    }

    async fn status(&self, request: Request<wire::StatusRequest>) -> Result<Response<wire::StatusResponse>, Status> {
        answer!(self, "Status", runtime::status::call(&self.engine, request.into_inner()))
    }

    async fn checkpoint_container(
        &self,
        _request: Request<wire::CheckpointContainerRequest>,
    ) -> Result<Response<wire::CheckpointContainerResponse>, Status> {
        not_built!(self, "CheckpointContainer")
    }

    async fn checkpoint_pod(
        &self,
        _request: Request<wire::CheckpointPodRequest>,
    ) -> Result<Response<wire::CheckpointPodResponse>, Status> {
        not_built!(self, "CheckpointPod")
    }

    async fn restore_pod(
        &self,
        _request: Request<wire::RestorePodRequest>,
    ) -> Result<Response<wire::RestorePodResponse>, Status> {
        not_built!(self, "RestorePod")
    }

    async fn get_container_events(
        &self,
        _request: Request<wire::GetEventsRequest>,
    ) -> Result<Response<Self::GetContainerEventsStream>, Status> {
        answer_now!(self, "GetContainerEvents", runtime::get_container_events::call(&self.engine))
    }

    async fn list_metric_descriptors(
        &self,
        _request: Request<wire::ListMetricDescriptorsRequest>,
    ) -> Result<Response<wire::ListMetricDescriptorsResponse>, Status> {
        answer_now!(
            self,
            "ListMetricDescriptors",
            Ok::<_, berth_model::Error>(runtime::list_metric_descriptors::call())
        )
    }

    async fn list_pod_sandbox_metrics(
        &self,
        _request: Request<wire::ListPodSandboxMetricsRequest>,
    ) -> Result<Response<wire::ListPodSandboxMetricsResponse>, Status> {
        answer!(self, "ListPodSandboxMetrics", runtime::list_pod_sandbox_metrics::call(&self.engine))
    }

    async fn stream_pod_sandbox_metrics(
        &self,
        _request: Request<wire::StreamPodSandboxMetricsRequest>,
    ) -> Result<Response<Self::StreamPodSandboxMetricsStream>, Status> {
        answer!(self, "StreamPodSandboxMetrics", runtime::list_pod_sandbox_metrics::stream(&self.engine))
    }

    async fn runtime_config(
        &self,
        _request: Request<wire::RuntimeConfigRequest>,
    ) -> Result<Response<wire::RuntimeConfigResponse>, Status> {
        answer_now!(self, "RuntimeConfig", Ok::<_, berth_model::Error>(runtime::runtime_config::call(&self.engine)))
    }

    async fn update_pod_sandbox_resources(
        &self,
        request: Request<wire::UpdatePodSandboxResourcesRequest>,
    ) -> Result<Response<wire::UpdatePodSandboxResourcesResponse>, Status> {
        answer!(
            self,
            "UpdatePodSandboxResources",
            runtime::update_pod_sandbox_resources::call(&self.engine, request.into_inner())
        )
    }
}

#[tonic::async_trait]
impl ImageService for CriService {
    type StreamImagesStream = BoxStream<wire::StreamImagesResponse>;

    async fn list_images(
        &self,
        request: Request<wire::ListImagesRequest>,
    ) -> Result<Response<wire::ListImagesResponse>, Status> {
        answer_now!(self, "ListImages", image::list_images::call(&self.engine, request.into_inner()))
    }

    async fn stream_images(
        &self,
        request: Request<wire::StreamImagesRequest>,
    ) -> Result<Response<Self::StreamImagesStream>, Status> {
        answer_now!(self, "StreamImages", image::list_images::stream(&self.engine, request.into_inner()))
    }

    async fn image_status(
        &self,
        request: Request<wire::ImageStatusRequest>,
    ) -> Result<Response<wire::ImageStatusResponse>, Status> {
        answer_now!(self, "ImageStatus", image::image_status::call(&self.engine, request.into_inner()))
    }

    async fn pull_image(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Result<Response<wire::PullImageResponse>, Status> {
        answer!(self, "PullImage", image::pull_image::call(&self.engine, request.into_inner()))
    }

    async fn remove_image(
        &self,
        request: Request<wire::RemoveImageRequest>,
    ) -> Result<Response<wire::RemoveImageResponse>, Status> {
        answer!(self, "RemoveImage", image::remove_image::call(&self.engine, request.into_inner()))
    }

    async fn image_fs_info(
        &self,
        _request: Request<wire::ImageFsInfoRequest>,
    ) -> Result<Response<wire::ImageFsInfoResponse>, Status> {
        answer_now!(self, "ImageFsInfo", image::image_fs_info::call(&self.engine))
    }
}
