//! Images that the node's own pods need come to Berth before the kubelet does: out of the old runtime's store where that is containerd's, else from
//! their registries.
//!
//! Owns: that. Must not: change the old runtime's store.
use super::Node;
use super::command::run;
use crate::adopt::record::directory;
use crate::adopt::runtime::Peer;
use crate::commands::images::archive::take_in;
use crate::commands::images::progress::Progress;
use crate::layout::Layout;
use anyhow::{Context, Result, anyhow};
use berth_proto::node::ImportImagesStart;
use rustix::net::sockopt::socket_peercred;
use std::fs::File;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the export of one image may take.
const EXPORT_LIMIT: Duration = Duration::from_secs(300);
/// Where containerd keeps what the CRI has.
const NAMESPACE: &str = "k8s.io";
/// Where its client lies, if not beside it.
const PLACES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/local/sbin", "/opt/bin"];

/// Where an image lies on its way.
fn archive(layout: &Layout) -> PathBuf {
    directory(layout).join("image.tar")
}

/// Takes away what a process that was killed has left on the way: it may be large.
pub(super) fn forget(layout: &Layout) {
    let _ = std::fs::remove_file(archive(layout));
}

/// Brings those that Berth does not have.
pub(super) async fn bring(node: &Node<'_>) -> Result<()> {
    let mut berth = Peer::connect(&node.plan.to.socket).await?;
    for image in &node.plan.images {
        if berth.has_image(image).await.with_context(|| image.clone())? {
            continue;
        }
        let copied = copy(node, image).await;
        if copied.is_ok() && berth.has_image(image).await? {
            continue;
        }
        let why = copied.err().map_or_else(|| "its archive has another name".to_owned(), |e| format!("{e:#}"));
        let pulled = berth.pull(image).await;
        pulled.with_context(|| {
            format!("image {image}, which the node's own pods need ({}: {why})", node.plan.from.name)
        })?;
    }
    Ok(())
}

/// Out of containerd's store, by its own client.
async fn copy(node: &Node<'_>, image: &str) -> Result<()> {
    let from = &node.plan.from;
    let client = client(&from.socket).ok_or_else(|| anyhow!("ctr is not found"))?;
    let name = Peer::connect(&from.socket).await?.image_name(image).await?;
    let archive = archive(node.layout);
    let words = [
        client.display().to_string(),
        format!("--address={}", from.socket.display()),
        format!("--namespace={NAMESPACE}"),
        "images".to_owned(),
        "export".to_owned(),
        archive.display().to_string(),
        name,
    ];
    let taken = async {
        run(node.layout, &words, EXPORT_LIMIT).await?;
        let file = File::open(&archive)?;
        let start = ImportImagesStart::default();
        take_in(node.layout, Box::new(file), start, Progress::new(image, true)).await.map(drop)
    };
    let taken: Result<()> = taken.await;
    let _ = std::fs::remove_file(&archive);
    taken
}

/// ctr beside the program that serves the socket, or where it is usual.
fn client(socket: &Path) -> Option<PathBuf> {
    let stream = UnixStream::connect(socket).ok()?;
    let pid = socket_peercred(&stream).ok()?.pid;
    let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero())).ok()?;
    if program.file_name()? != "containerd" {
        return None;
    }
    let places = PLACES.iter().map(PathBuf::from);
    let mut all = program.parent().map(Path::to_owned).into_iter().chain(places).map(|dir| dir.join("ctr"));
    all.find(|path| path.is_file())
}
