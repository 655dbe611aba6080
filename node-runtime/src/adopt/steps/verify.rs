//! The proof that a kubelet is on a runtime: it is well, its files say so, the kernel sees the connection, and the node's own pods run there.
use super::{Node, found};
use crate::adopt::runtime::Peer;
use crate::adopt::{connected, now_seconds};
use crate::kubelets;
use anyhow::{Context, Result, anyhow, bail};
use berth_adopt::Direction;
use berth_adopt::kubelet::STATS_GATE;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PAUSE: Duration = Duration::from_millis(100);
/// How long the kubelet's server may think.
const HTTP_LIMIT: Duration = Duration::from_secs(5);
/// Most that is read of its answer.
const MAX_ANSWER: u64 = 64 << 10;
/// How long the node's own pods may take to run again; the kubelet first ends what it was told of them before. As long may a network take whose
/// plugins ask a daemon that is a pod of the node itself.
const PODS_LIMIT: Duration = Duration::from_secs(180);
/// Pause between two test sandboxes.
const CANARY_PAUSE: Duration = Duration::from_secs(1);
/// Time of the operation's that a test sandbox leaves, so that what was wrong with it is told, and not the deadline.
const TOLD: Duration = Duration::from_secs(5);
/// How long a kubelet may take to be well.
const LIMIT: Duration = Duration::from_secs(60);
/// How long one and the same kubelet has to be well: one that dies again and again is so for moments, and so is one that is about to end.
const STEADY: Duration = Duration::from_secs(3);

/// All of it.
pub(super) async fn verify(node: &Node<'_>) -> Result<()> {
    let plan = node.plan;
    for change in &plan.files {
        let now = found(&change.path)?;
        if now.as_ref().map(|state| &state.sha256) != change.after.as_ref().map(|state| &state.sha256) {
            bail!("{} is not as it was written: somebody else changes it", change.path.display());
        }
    }
    match plan.direction {
        Direction::Configure => lives_on(node).await?,
        Direction::Adopt | Direction::Return => is_on(node, &plan.to.socket, LIMIT).await?,
    }
    read_back(node)?;
    let mut peer = Peer::connect(&plan.to.socket).await?;
    if plan.direction != Direction::Configure || plan.restart {
        let left = Duration::from_secs(plan.deadline.saturating_sub(now_seconds())).saturating_sub(TOLD);
        let runs = until(PODS_LIMIT.min(left), CANARY_PAUSE, async || peer.canary(&plan.id, &plan.to).await);
        runs.await.with_context(|| format!("{} cannot run a sandbox", plan.to.name))?;
    }
    pods_run(node, &mut peer).await?;
    still_on(node, &plan.to.socket, LIMIT).await
}

/// Tries it until it succeeds: the daemon of a network add-on is often a pod of this node, which has ended with the others and comes again with
/// the kubelet, and until then every plugin fails. Errors: that of the last attempt that ended.
async fn until(limit: Duration, pause: Duration, mut attempt: impl AsyncFnMut() -> Result<()>) -> Result<()> {
    let mut last = None;
    let attempts = async {
        while let Err(e) = attempt().await {
            last = Some(e);
            tokio::time::sleep(pause).await;
        }
    };
    if tokio::time::timeout(limit, attempts).await.is_ok() {
        return Ok(());
    }
    let last = last.unwrap_or_else(|| anyhow!("no attempt has ended"));
    Err(last.context(format!("after {} s", limit.as_secs())))
}

/// As [`is_on`], for the kubelet that runs now: one that does not take its settings ends at once, and no other is waited for.
async fn lives_on(node: &Node<'_>) -> Result<()> {
    let first = kubelets::of_this_node().first().copied();
    let begun = Instant::now();
    let ends = async {
        while first.is_some_and(|pid| kubelets::of_this_node().contains(&pid)) {
            tokio::time::sleep(PAUSE).await;
        }
    };
    tokio::select! {
        on = is_on(node, &node.plan.to.socket, LIMIT) => on,
        () = ends => bail!(
            "the kubelet ended {} ms after its start: it does not take its settings, or ends by itself; its log says why",
            begun.elapsed().as_millis()
        ),
    }
}

/// Waits until a kubelet is well and connected: one that is late with an answer on a busy machine is not one that has gone.
async fn still_on(node: &Node<'_>, socket: &Path, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    while let Err(e) = looks_well(node, socket).await {
        if Instant::now() > end {
            return Err(e.context(format!("after {} s", limit.as_secs())));
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// Waits until a kubelet is well and connected to the socket, and stays so.
pub(super) async fn is_on(node: &Node<'_>, socket: &Path, limit: Duration) -> Result<()> {
    let end = Instant::now() + limit;
    let mut well: Option<(u32, Instant)> = None;
    loop {
        let looked = looks_well(node, socket).await;
        let late = Instant::now() > end;
        match looked {
            Ok(pid) => {
                let since = well.filter(|(same, _)| *same == pid).map_or_else(Instant::now, |(_, since)| since);
                if since.elapsed() >= STEADY {
                    return Ok(());
                }
                well = Some((pid, since));
                if Instant::now() > end + STEADY {
                    bail!("no kubelet lives for {} s (after {} s)", STEADY.as_secs(), limit.as_secs());
                }
            }
            Err(e) if late => return Err(e.context(format!("after {} s", limit.as_secs()))),
            Err(_) => well = None,
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The process of the kubelet, if it is well and connected now.
async fn looks_well(node: &Node<'_>, socket: &Path) -> Result<u32> {
    let kubelets = kubelets::of_this_node();
    let [pid] = kubelets[..] else { bail!("{} kubelets run on this node", kubelets.len()) };
    if let Some((address, port)) = &node.plan.healthz {
        let asked = tokio::time::timeout(HTTP_LIMIT, healthy(address, *port)).await;
        asked.map_err(|_| anyhow!("healthz of the kubelet: no answer within {} s", HTTP_LIMIT.as_secs()))??;
    }
    if !connected::to(pid, socket)? {
        bail!("the kubelet (process {pid}) has no connection to {}", socket.display());
    }
    Ok(pid)
}

/// What the running kubelet was told, read again from its command line and files.
fn read_back(node: &Node<'_>) -> Result<()> {
    let pid = kubelets::of_this_node().first().copied().ok_or_else(|| anyhow!("no kubelet runs"))?;
    let told = kubelets::configuration(pid);
    let meant = node.plan.to.endpoint();
    let endpoint = told.endpoint();
    if endpoint != meant && Path::new(endpoint.trim_start_matches("unix://")) != node.plan.to.socket {
        bail!("containerRuntimeEndpoint of the kubelet (process {pid}) is {endpoint}, not {meant}");
    }
    let mut settings = node.plan.settings.iter().flatten();
    if let Some((field, value)) = settings.find(|(field, value)| !told.says(field, value)) {
        bail!(
            "{field} of the kubelet (process {pid}) is {}, not {value}",
            told.settings.get(field).unwrap_or(&serde_json::Value::Null)
        );
    }
    let switched = node.plan.files.iter().any(|f| f.after.as_ref().is_some_and(|s| s.text.contains(STATS_GATE)));
    if node.plan.direction == Direction::Adopt && switched && told.gate(STATS_GATE) != Some(true) {
        bail!("featureGates.{STATS_GATE} of the kubelet (process {pid}) is {:?}, not true", told.gate(STATS_GATE));
    }
    Ok(())
}

async fn pods_run(node: &Node<'_>, peer: &mut Peer) -> Result<()> {
    let end = Instant::now() + PODS_LIMIT;
    loop {
        let running: BTreeSet<_> = peer.pods().await?.into_iter().map(|pod| pod.name).collect();
        let missing: Vec<_> = node.plan.pods.iter().filter(|pod| !running.contains(pod)).collect();
        let Some(first) = missing.first() else { return Ok(()) };
        if Instant::now() > end {
            bail!(
                "{} of the node's own pods do not run on {} after {} s, {first} among them",
                missing.len(),
                node.plan.to.name,
                PODS_LIMIT.as_secs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Errors: nobody answers, or it does not say 200.
async fn healthy(address: &str, port: u16) -> Result<()> {
    let place = if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") };
    let parsed: SocketAddr = place.parse().with_context(|| format!("healthz address {place}"))?;
    let mut stream = TcpStream::connect(parsed).await.with_context(|| format!("healthz of the kubelet at {place}"))?;
    stream.write_all(format!("GET /healthz HTTP/1.0\r\nHost: {place}\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer);
    if answer.split(' ').nth(1) != Some("200") {
        bail!("the kubelet is not well: {}", answer.lines().last().unwrap_or_default());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_network_that_comes_late_is_waited_for_and_one_that_does_not_come_says_why() {
        let (mut failures, pause) = (3, Duration::from_millis(1));
        let late = until(Duration::from_secs(20), pause, async || {
            failures -= 1;
            if failures == 0 { Ok(()) } else { Err(anyhow!("connection refused")) }
        });
        late.await.unwrap();
        assert_eq!(failures, 0);
        let never = until(Duration::from_millis(50), pause, async || Err(anyhow!("connection refused")));
        let told = format!("{:#}", never.await.unwrap_err());
        assert!(told.contains("connection refused"), "{told}");
        let hangs = until(Duration::from_millis(5), pause, async || std::future::pending().await);
        assert!(hangs.await.unwrap_err().to_string().contains("after"));
    }
}
