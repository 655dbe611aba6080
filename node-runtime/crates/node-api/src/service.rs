//! The service: each call goes to its file.
use crate::{
    attach, config, diagnose, events, exec, explain, give_credentials, info, inspect, kill, metrics, pull, restart,
    revisions, stats, wait,
};
use crate::{
    disk_usage, export_images, image_history, image_referrers, import_images, prune_images, push_image, tag_image,
    untag_image,
};
use berth_engine::Engine;
use berth_proto::node::node_server::Node;
use berth_proto::{node as wire, status};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

/// What wiring knows and the engine does not.
#[derive(Debug, Clone)]
pub struct DaemonFacts {
    /// Root directory, or `/`.
    pub root: PathBuf,
    /// CRI socket.
    pub cri_socket: PathBuf,
    /// Where the CRI answers besides.
    pub further_cri_sockets: Vec<String>,
    /// Documents directory.
    pub documents: PathBuf,
    /// Where metrics are served now.
    pub metrics_address: watch::Receiver<String>,
    /// Bridge of the built-in network; empty without.
    pub bridge: String,
    /// Where a cluster's credentials are handed over.
    pub credentials: berth_registry::credentials::Given,
    /// Makes the text of the metrics.
    pub metrics: Scrape,
}

/// Gives the daemon's series as text, as they are at that moment. Errors: they cannot be written down.
#[derive(Clone)]
pub struct Scrape(pub Arc<dyn Fn() -> berth_model::Result<Vec<u8>> + Send + Sync>);

impl std::fmt::Debug for Scrape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrape")
    }
}

/// The node API over the engine.
#[derive(Clone)]
pub struct NodeService {
    engine: Arc<Engine>,
    facts: Arc<DaemonFacts>,
}

impl NodeService {
    /// Over this engine.
    pub fn new(engine: Arc<Engine>, facts: DaemonFacts) -> Self {
        Self { engine, facts: Arc::new(facts) }
    }
}

#[tonic::async_trait]
impl Node for NodeService {
    type PullImageStream = BoxStream<wire::PullImageEvent>;
    type ExecStream = BoxStream<wire::ExecOutput>;
    type AttachStream = BoxStream<wire::ExecOutput>;
    type EventsStream = BoxStream<wire::NodeEvent>;
    type ImportImagesStream = BoxStream<wire::ImportImagesEvent>;
    type ExportImagesStream = BoxStream<wire::ExportImagesChunk>;
    type PushImageStream = BoxStream<wire::PushImageEvent>;

    async fn info(&self, _request: Request<wire::InfoRequest>) -> Result<Response<wire::InfoResponse>, Status> {
        Ok(Response::new(info::call(&self.engine, &self.facts).await))
    }

    async fn pull_image(
        &self,
        request: Request<wire::PullImageRequest>,
    ) -> Result<Response<Self::PullImageStream>, Status> {
        Ok(Response::new(pull::call(self.engine.clone(), request.into_inner())))
    }

    async fn exec(&self, request: Request<Streaming<wire::ExecInput>>) -> Result<Response<Self::ExecStream>, Status> {
        exec::call(self.engine.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn inspect(&self, request: Request<wire::InspectRequest>) -> Result<Response<wire::InspectResponse>, Status> {
        inspect::call(&self.engine, &request.get_ref().name).map(Response::new).map_err(status)
    }

    async fn check_image(
        &self,
        request: Request<wire::CheckImageRequest>,
    ) -> Result<Response<wire::CheckImageResponse>, Status> {
        let request = request.into_inner();
        let verdict = self.engine.check_image(&request.namespace, &request.reference).map_err(status)?;
        Ok(Response::new(wire::CheckImageResponse { allowed: verdict.permits(), reasons: verdict.reasons }))
    }

    async fn attach(
        &self,
        request: Request<Streaming<wire::AttachInput>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        attach::call(self.engine.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn kill(&self, request: Request<wire::KillRequest>) -> Result<Response<wire::KillResponse>, Status> {
        kill::call(&self.engine, request.get_ref()).await.map(Response::new).map_err(status)
    }

    async fn wait(&self, request: Request<wire::WaitRequest>) -> Result<Response<wire::WaitResponse>, Status> {
        wait::call(&self.engine, request.get_ref()).await.map(Response::new).map_err(status)
    }

    async fn restart(&self, request: Request<wire::RestartRequest>) -> Result<Response<wire::RestartResponse>, Status> {
        restart::call(&self.engine, request.get_ref()).await.map(Response::new).map_err(status)
    }

    async fn stats(&self, _request: Request<wire::StatsRequest>) -> Result<Response<wire::StatsResponse>, Status> {
        stats::call(&self.engine).await.map(Response::new).map_err(status)
    }

    async fn events(&self, request: Request<wire::EventsRequest>) -> Result<Response<Self::EventsStream>, Status> {
        events::call(&self.engine, request.get_ref()).map(Response::new).map_err(status)
    }

    async fn config(&self, _request: Request<wire::ConfigRequest>) -> Result<Response<wire::ConfigResponse>, Status> {
        Ok(Response::new(config::call(&self.engine)))
    }

    async fn diff_config(
        &self,
        request: Request<wire::DiffConfigRequest>,
    ) -> Result<Response<wire::DiffConfigResponse>, Status> {
        config::diff(&self.engine, request.into_inner()).map(Response::new).map_err(status)
    }

    async fn explain_start(
        &self,
        request: Request<wire::ExplainStartRequest>,
    ) -> Result<Response<wire::ExplainStartResponse>, Status> {
        explain::call(&self.engine, &request.get_ref().name).map(Response::new).map_err(status)
    }

    async fn diagnose(
        &self,
        _request: Request<wire::DiagnoseRequest>,
    ) -> Result<Response<wire::DiagnoseResponse>, Status> {
        Ok(Response::new(diagnose::call(&self.engine).await))
    }

    async fn tag_image(
        &self,
        request: Request<wire::TagImageRequest>,
    ) -> Result<Response<wire::TagImageResponse>, Status> {
        tag_image::call(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn untag_image(
        &self,
        request: Request<wire::UntagImageRequest>,
    ) -> Result<Response<wire::UntagImageResponse>, Status> {
        untag_image::call(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn prune_images(
        &self,
        request: Request<wire::PruneImagesRequest>,
    ) -> Result<Response<wire::PruneImagesResponse>, Status> {
        prune_images::call(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn image_history(
        &self,
        request: Request<wire::ImageHistoryRequest>,
    ) -> Result<Response<wire::ImageHistoryResponse>, Status> {
        image_history::call(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn image_referrers(
        &self,
        request: Request<wire::ImageReferrersRequest>,
    ) -> Result<Response<wire::ImageReferrersResponse>, Status> {
        image_referrers::call(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn disk_usage(
        &self,
        _request: Request<wire::DiskUsageRequest>,
    ) -> Result<Response<wire::DiskUsageResponse>, Status> {
        disk_usage::call(&self.engine).await.map(Response::new).map_err(status)
    }

    async fn import_images(
        &self,
        request: Request<Streaming<wire::ImportImagesInput>>,
    ) -> Result<Response<Self::ImportImagesStream>, Status> {
        import_images::call(self.engine.clone(), request.into_inner()).await.map(Response::new)
    }

    async fn export_images(
        &self,
        request: Request<wire::ExportImagesRequest>,
    ) -> Result<Response<Self::ExportImagesStream>, Status> {
        export_images::call(&self.engine, request.into_inner()).await.map(Response::new)
    }

    async fn push_image(
        &self,
        request: Request<wire::PushImageRequest>,
    ) -> Result<Response<Self::PushImageStream>, Status> {
        Ok(Response::new(push_image::call(self.engine.clone(), request.into_inner())))
    }

    async fn preflight_revision(
        &self,
        request: Request<wire::PreflightRevisionRequest>,
    ) -> Result<Response<wire::PreflightRevisionResponse>, Status> {
        revisions::preflight(&self.engine, &request.into_inner()).map(Response::new).map_err(status)
    }

    async fn apply_revision(
        &self,
        request: Request<wire::ApplyRevisionRequest>,
    ) -> Result<Response<wire::ApplyRevisionResponse>, Status> {
        revisions::apply(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }

    async fn revisions(
        &self,
        _request: Request<wire::RevisionsRequest>,
    ) -> Result<Response<wire::RevisionsResponse>, Status> {
        Ok(Response::new(revisions::applied(&self.engine, &self.facts)))
    }

    async fn release_revisions(
        &self,
        request: Request<wire::ReleaseRevisionsRequest>,
    ) -> Result<Response<wire::ReleaseRevisionsResponse>, Status> {
        revisions::release(&self.engine, request.into_inner()).await.map(Response::new).map_err(status)
    }
    async fn metrics(
        &self,
        _request: Request<wire::MetricsRequest>,
    ) -> Result<Response<wire::MetricsResponse>, Status> {
        metrics::call(&self.facts).map(Response::new).map_err(status)
    }
    async fn give_credentials(
        &self,
        request: Request<wire::GiveCredentialsRequest>,
    ) -> Result<Response<wire::GiveCredentialsResponse>, Status> {
        give_credentials::call(&self.engine, &self.facts, request.into_inner()).map(Response::new).map_err(status)
    }
}
