//! RuntimeService, one file per call.
pub(crate) mod attach;
pub(crate) mod container_stats;
pub(crate) mod container_status;
pub(crate) mod create_container;
pub(crate) mod exec;
pub(crate) mod exec_sync;
pub(crate) mod get_container_events;
pub(crate) mod list_container_stats;
pub(crate) mod list_containers;
pub(crate) mod list_metric_descriptors;
pub(crate) mod list_pod_sandbox;
pub(crate) mod list_pod_sandbox_metrics;
pub(crate) mod list_pod_sandbox_stats;
pub(crate) mod pod_sandbox_stats;
pub(crate) mod pod_sandbox_status;
pub(crate) mod port_forward;
pub(crate) mod remove_container;
pub(crate) mod remove_pod_sandbox;
pub(crate) mod reopen_container_log;
pub(crate) mod run_pod_sandbox;
pub(crate) mod runtime_config;
pub(crate) mod start_container;
pub(crate) mod status;
pub(crate) mod stop_container;
pub(crate) mod stop_pod_sandbox;
pub(crate) mod update_container_resources;
pub(crate) mod update_pod_sandbox_resources;
pub(crate) mod update_runtime_config;
pub(crate) mod version;

/// The URL of a new session. The server is started first: a token's time begins when a client can use it.
async fn session_url(
    server: &dyn crate::StreamingUrl,
    kind: &str,
    open: impl FnOnce() -> berth_model::Result<String>,
) -> berth_model::Result<String> {
    let base = server.base().await?;
    Ok(format!("{base}/{kind}/{}", open()?))
}
