//! Exec: the URL of a session that runs a command.
use super::session_url;
use crate::StreamingUrl;
use berth_engine::{Engine, SessionStreams};
use berth_model::Result;
use berth_proto::cri as wire;

pub(crate) async fn call(
    engine: &Engine,
    server: &dyn StreamingUrl,
    request: wire::ExecRequest,
) -> Result<wire::ExecResponse> {
    let wire::ExecRequest { container_id, cmd, tty, stdin, stdout, stderr } = request;
    let open = || engine.open_exec(&container_id, cmd, SessionStreams { stdin, stdout, stderr, tty });
    Ok(wire::ExecResponse { url: session_url(server, "exec", open).await? })
}
