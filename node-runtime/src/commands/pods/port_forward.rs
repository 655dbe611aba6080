//! `berth port-forward`: ports of this node to ports of a pod, made by ourselves in the pod's network namespace: neither the
//! daemon nor its streaming process has to live.
use crate::commands::connect::{self, said};
use crate::commands::listing;
use crate::commands::names::{self, Target};
use crate::commands::output;
use crate::layout::Layout;
use anyhow::{Context, Result, anyhow, bail};
use berth_model::PodId;
use berth_oci::pod_dir::PodDir;
use berth_proto::cri as wire;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

/// Connections at once.
const MAX_CONNECTIONS: usize = 1024;

/// What to forward.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth port-forward web 8080:80             127.0.0.1:8080 and [::1]:8080 to port 80 of pod web
  berth port-forward web 80 443              the same numbers here and there
  berth port-forward web :80                 a free port here, which is printed
  berth port-forward web 0.0.0.0:8080:80     from everywhere
  berth port-forward --address 10.0.0.1 web [fd00::1]:8443:443

Ends with Ctrl-C. The program in the pod has to listen on localhost or on all addresses.")]
pub struct Options {
    /// Where to listen, for ports without an address of their own
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    address: Vec<IpAddr>,
    /// Pod (name, namespace/name or id), or a container of it
    #[arg(value_name = "POD")]
    name: String,
    /// [[ADDRESS:]LOCAL:]REMOTE
    #[arg(required = true, value_name = "PORT")]
    ports: Vec<String>,
}

/// A port here and a port there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Forward {
    address: Option<IpAddr>,
    local: u16,
    remote: u16,
}

/// Forwards until a signal comes, or the pod is gone.
pub async fn run(layout: &Layout, options: &Options) -> Result<()> {
    let forwards = options.ports.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let (mut runtime, _) = connect::cri(layout).await?;
    let pods = listing::list(&mut runtime).await?;
    let pod = match names::find(&pods, &options.name)? {
        Target::Pod(pod) | Target::Container(pod, _) => pod,
    };
    if pod.state != "Ready" {
        bail!("pod {} is not ready", pod.full_name());
    }
    let request = wire::PodSandboxStatusRequest { pod_sandbox_id: pod.id.clone(), verbose: false };
    let status = runtime.pod_sandbox_status(request).await.map_err(said)?.into_inner().status;
    let network = status.and_then(|s| s.linux?.namespaces?.options).map(|options| options.network);
    let on_node = network == Some(wire::NamespaceMode::Node as i32);
    let directory = PodDir::new(&layout.run.join("pods"), &PodId::parse(&pod.id)?);
    let namespace = Arc::new(directory.open_network(on_node)?);
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut listening = 0;
    for forward in forwards {
        for listener in listen(forward, &options.address).await? {
            let local = listener.local_addr()?;
            output::line(format_args!("Forwarding from {local} -> {}", forward.remote))?;
            listening += 1;
            tokio::spawn(serve(listener, namespace.clone(), forward.remote, room.clone()));
        }
    }
    output::flush()?;
    debug_assert!(listening > 0);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(()),
        _ = terminate.recv() => Ok(()),
    }
}

/// Both loopback addresses, unless something else is said; one of them is enough.
async fn listen(forward: Forward, addresses: &[IpAddr]) -> Result<Vec<TcpListener>> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let (wanted, all): (Vec<IpAddr>, bool) = match (forward.address, addresses) {
        (Some(address), _) => (vec![address], true),
        (None, []) => (loopback.to_vec(), false),
        (None, given) => (given.to_vec(), true),
    };
    let (mut listeners, mut failure, mut port) = (Vec::new(), None, forward.local);
    for address in wanted {
        match TcpListener::bind(SocketAddr::new(address, port)).await {
            Ok(listener) => {
                // A free port is the same on both.
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(e) => failure = Some(anyhow!("cannot listen on {}: {e}", SocketAddr::new(address, port))),
        }
    }
    match failure {
        Some(e) if all || listeners.is_empty() => Err(e),
        _ => Ok(listeners),
    }
}

async fn serve(listener: TcpListener, namespace: Arc<OwnedFd>, port: u16, room: Arc<Semaphore>) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let Ok((client, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let namespace = namespace.clone();
        tokio::spawn(async move {
            if let Err(e) = join(client, namespace, port).await {
                eprintln!("berth: port {port}: {e:#}");
            }
            drop(permit);
        });
    }
}

async fn join(mut client: TcpStream, namespace: Arc<OwnedFd>, port: u16) -> Result<()> {
    let mut there = berth_streaming::connect_in(namespace, port).await?;
    client.set_nodelay(true)?;
    // A side that resets its connection has its reasons.
    let _ = tokio::io::copy_bidirectional(&mut client, &mut there).await;
    Ok(())
}

fn parse(text: &str) -> Result<Forward> {
    let wrong = || format!("{text:?}: must be [[ADDRESS:]LOCAL:]REMOTE, with ports from 1 to 65535");
    let (rest, remote) = text.rsplit_once(':').map_or((None, text), |(rest, remote)| (Some(rest), remote));
    let remote = remote.parse().ok().filter(|port| *port > 0).with_context(wrong)?;
    let Some(rest) = rest else { return Ok(Forward { address: None, local: remote, remote }) };
    let (address, local) = rest.rsplit_once(':').map_or((None, rest), |(address, local)| (Some(address), local));
    let local = if local.is_empty() { 0 } else { local.parse().ok().with_context(wrong)? };
    let address = match address {
        None | Some("") => None,
        Some("localhost") => Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        Some(address) => Some(address.trim_start_matches('[').trim_end_matches(']').parse().with_context(wrong)?),
    };
    Ok(Forward { address, local, remote })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read() {
        let forward = |address: Option<&str>, local, remote| Forward {
            address: address.map(|a| a.parse().unwrap()),
            local,
            remote,
        };
        let table = [
            ("80", forward(None, 80, 80)),
            ("8080:80", forward(None, 8080, 80)),
            (":80", forward(None, 0, 80)),
            ("0.0.0.0:8080:80", forward(Some("0.0.0.0"), 8080, 80)),
            ("[fd00::1]:8443:443", forward(Some("fd00::1"), 8443, 443)),
            ("localhost:1:2", forward(Some("127.0.0.1"), 1, 2)),
        ];
        for (text, wanted) in table {
            assert_eq!(parse(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "x", "80:0", "80:x", "x:80", "99999", "host:80:80", "1:2:3:4"] {
            let error = parse(bad).unwrap_err().to_string();
            assert!(error.contains("must be [[ADDRESS:]LOCAL:]REMOTE"), "{bad:?}: {error}");
        }
    }
}
