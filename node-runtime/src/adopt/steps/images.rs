//! Images that the node's static pods need come to Berth before the kubelet does: out of the old runtime's store where that is containerd's, else
//! from their registries. Those of the other pods that are left come out of the store as far as they can: no registry may have them.
//!
//! Owns: that. Must not: change the old runtime's store.
use super::Node;
use super::command::run;
use crate::adopt::now_seconds;
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
use tokio::time::Instant;

/// How long the export of one image may take.
const EXPORT_LIMIT: Duration = Duration::from_secs(300);
/// Part of the operation's time, as a divisor, that copying what is only wished may take.
const WISHED_PART: u64 = 3;
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
    let limit = Duration::from_secs(node.plan.deadline.saturating_sub(now_seconds()) / WISHED_PART);
    let wished = async |image: &str| -> Result<()> {
        if !berth.has_image(image).await? {
            copy(node, image).await?;
        }
        Ok(())
    };
    for (image, why) in as_far(&node.plan.wished, limit, wished).await {
        node.talk.say(&format!("image {image} is not copied, and has to be pulled: {why}"));
    }
    // One that was cut off.
    forget(node.layout);
    Ok(())
}

/// Brings them one after the other within that time. Those that it did not, each with why.
async fn as_far<'a>(
    images: &'a [String],
    limit: Duration,
    mut bring: impl AsyncFnMut(&str) -> Result<()>,
) -> Vec<(&'a str, String)> {
    let end = Instant::now() + limit;
    let mut left = Vec::new();
    for image in images {
        match tokio::time::timeout_at(end, bring(image)).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => left.push((image.as_str(), format!("{e:#}"))),
            Err(_) => left.push((image.as_str(), format!("there was no time left of {} s", limit.as_secs()))),
        }
    }
    left
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_only_wished_stops_nothing_and_has_its_time() {
        let images = ["a", "torn", "b", "slow", "c"].map(str::to_owned);
        let mut brought = Vec::new();
        let left = as_far(&images, Duration::from_millis(50), async |image| match image {
            "torn" => Err(anyhow!("the blob is not there")),
            "slow" => std::future::pending().await,
            // One that takes a moment, as all do.
            image => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                brought.push(image.to_owned());
                Ok(())
            }
        });
        let left = left.await;
        let names: Vec<_> = left.iter().map(|(image, _)| *image).collect();
        assert_eq!((brought, names), (vec!["a".to_owned(), "b".to_owned()], vec!["torn", "slow", "c"]));
        assert!(left[0].1.contains("the blob is not there") && left[1].1.contains("no time left"), "{left:?}");
    }
}
