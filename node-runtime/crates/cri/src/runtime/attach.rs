//! Attach: the URL of a session with the streams of a container's main process.
use super::session_url;
use crate::StreamingUrl;
use berth_engine::{Engine, SessionStreams};
use berth_model::Result;
use berth_proto::cri as wire;

pub(crate) async fn call(
    engine: &Engine,
    server: &dyn StreamingUrl,
    request: wire::AttachRequest,
) -> Result<wire::AttachResponse> {
    let wire::AttachRequest { container_id, stdin, tty, stdout, stderr } = request;
    let open = || engine.open_attach(&container_id, SessionStreams { stdin, stdout, stderr, tty });
    Ok(wire::AttachResponse { url: session_url(server, "attach", open).await? })
}
