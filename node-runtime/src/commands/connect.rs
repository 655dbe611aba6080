//! Connections to a daemon's two sockets.
use crate::layout::Layout;
use anyhow::{Error, Result, anyhow, bail};
use berth_proto::cri::image_service_client::ImageServiceClient;
use berth_proto::cri::runtime_service_client::RuntimeServiceClient;
use berth_proto::node::node_client::NodeClient;
use std::io::ErrorKind;
use std::path::Path;
use tokio::net::UnixStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// Largest answer that is taken, as the kubelet has it.
const MAX_MESSAGE: usize = 16 << 20;

/// RuntimeService of the CRI.
pub type Runtime = RuntimeServiceClient<Channel>;
/// ImageService of the CRI.
pub type Images = ImageServiceClient<Channel>;
/// The node API.
pub type Node = NodeClient<Channel>;

/// The CRI's two services.
pub async fn cri(layout: &Layout) -> Result<(Runtime, Images)> {
    cri_at(&layout.cri_socket()).await
}

/// The CRI's two services of any runtime.
pub async fn cri_at(socket: &Path) -> Result<(Runtime, Images)> {
    let channel = channel(socket).await?;
    Ok((
        RuntimeServiceClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE),
        ImageServiceClient::new(channel).max_decoding_message_size(MAX_MESSAGE),
    ))
}

/// The node API.
pub async fn node(layout: &Layout) -> Result<Node> {
    Ok(NodeClient::new(channel(&layout.node_socket()).await?).max_decoding_message_size(MAX_MESSAGE))
}

async fn channel(socket: &Path) -> Result<Channel> {
    // Looked at first: the transport's own words for a socket that nobody serves help nobody.
    if let Err(e) = UnixStream::connect(socket).await {
        match e.kind() {
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                bail!("cannot reach the daemon at {}: is `berth serve` running?", socket.display())
            }
            ErrorKind::PermissionDenied => {
                bail!("cannot reach the daemon at {}: permission denied; the socket is for root only", socket.display())
            }
            _ => bail!("cannot reach the daemon at {}: {e}", socket.display()),
        }
    }
    let endpoint = Endpoint::from_shared(format!("unix:{}", socket.display()))?;
    endpoint.connect().await.map_err(|e| anyhow!("cannot reach the daemon at {}: {e}", socket.display()))
}

/// A daemon's refusal, in its own words.
pub fn said(status: Status) -> Error {
    let message = match status.message() {
        "" => format!("the daemon answered {}", status.code()),
        // By the CRI's socket a refusal of an image carries the kubelet's word for it, which says nothing to people.
        message => message.strip_prefix("SignatureValidationFailed: ").unwrap_or(message).to_owned(),
    };
    Refusal { message, exec_code: berth_proto::exec_code(&status) }.into()
}

/// A daemon's refusal.
#[derive(Debug)]
pub struct Refusal {
    /// The message that it gave.
    pub message: String,
    /// The exit code that shells give a program which could not be executed, if that is why.
    pub exec_code: Option<i32>,
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}
