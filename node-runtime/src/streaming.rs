//! `berth streaming`: the process that serves exec, attach and port-forward sessions. The daemon starts it; people do not.
use anyhow::{Context, Result};
use berth_streaming::protocol::CHANNEL_FD;
use berth_streaming::{Listen, TlsFiles};
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the daemon says to it.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Listen on ADDRESS:PORT; port 0 is any.
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub bind: SocketAddr,

    /// Certificate chain in PEM; with it the server speaks TLS.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// Private key in PEM.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

/// Runs until the daemon is gone and the last session has ended.
pub fn run(options: Options) -> Result<()> {
    // First of all: nothing of this process has taken the number yet.
    let channel = berth_sys::process::take_inherited(CHANNEL_FD);
    let channel =
        channel.context("berth streaming is started by berth serve, on the first exec, attach or port-forward")?;
    // Its stderr is the daemon's. Nobody is left to change the level once the daemon is gone.
    crate::serve::logging::start(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let mut wanted = berth_streaming::Options::new(channel, Listen::Address(options.bind));
    wanted.tls = options.tls_cert.zip(options.tls_key).map(|(certificate, key)| TlsFiles { certificate, key });
    runtime.context("cannot start the async runtime")?.block_on(berth_streaming::run(wanted))?;
    Ok(())
}
