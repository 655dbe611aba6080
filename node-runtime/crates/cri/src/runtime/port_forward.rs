//! PortForward: the URL of a session with connections to a pod's ports. Most clients name the ports with each
//! connection; those of the call serve those that do not.
use super::session_url;
use crate::StreamingUrl;
use berth_engine::Engine;
use berth_model::{Error, Result};
use berth_proto::cri as wire;

pub(crate) async fn call(
    engine: &Engine,
    server: &dyn StreamingUrl,
    request: wire::PortForwardRequest,
) -> Result<wire::PortForwardResponse> {
    let ports = request.port.iter().map(|port| {
        let number = u16::try_from(*port).ok().filter(|number| *number > 0);
        number.ok_or_else(|| Error::invalid("port", format!("{port} is not 1 to 65535")))
    });
    let ports = ports.collect::<Result<Vec<u16>>>()?;
    let open = || engine.open_port_forward(&request.pod_sandbox_id, ports);
    Ok(wire::PortForwardResponse { url: session_url(server, "portforward", open).await? })
}
