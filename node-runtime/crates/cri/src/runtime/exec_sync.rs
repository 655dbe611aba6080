//! ExecSync: a non-zero exit code is an answer, not an error.
use berth_engine::Engine;
use berth_model::Error;
use berth_model::Result;
use berth_proto::cri as wire;
use std::sync::Arc;
use std::time::Duration;

pub(crate) async fn call(engine: &Arc<Engine>, request: wire::ExecSyncRequest) -> Result<wire::ExecSyncResponse> {
    let seconds = u64::try_from(request.timeout).map_err(|_| Error::invalid("timeout", "must not be negative"))?;
    let output = engine.exec_sync(&request.container_id, request.cmd, Duration::from_secs(seconds)).await?;
    Ok(wire::ExecSyncResponse { stdout: output.stdout, stderr: output.stderr, exit_code: output.code })
}
