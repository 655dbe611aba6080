//! The container runtime of a node: Berth, or containerd for comparison, so that the same cases run on both. Owns: their configuration,
//! start and end. Must not: configure one in favour of the other.
mod berth;
mod containerd;

use crate::programs;
use crate::service::Service;
use crate::space::NodeSpace;
use crate::wait::{Diagnose, wait_for};
use std::fmt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

/// Addresses of pods.
pub const POD_NETWORK: &str = "10.88.0.0/24";
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_GRACE: Duration = Duration::from_secs(20);

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `berth serve`.
    Berth,
    /// containerd with runc and CNI plugins.
    Containerd,
}

impl Kind {
    /// The one that `BERTH_CLUSTER_RUNTIME` names, `berth` if it is not set.
    ///
    /// # Panics
    /// For another name.
    pub fn from_env() -> Self {
        match std::env::var("BERTH_CLUSTER_RUNTIME").as_deref() {
            Err(_) | Ok("" | "berth") => Self::Berth,
            Ok("containerd") => Self::Containerd,
            Ok(other) => panic!("BERTH_CLUSTER_RUNTIME={other}: there are berth and containerd"),
        }
    }

    /// Its name, as it stands before containers' ids.
    pub fn name(self) -> &'static str {
        match self {
            Self::Berth => "berth",
            Self::Containerd => "containerd",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A running runtime.
#[derive(Debug)]
pub struct Runtime {
    kind: Kind,
    socket: PathBuf,
    service: Option<Service>,
}

impl Runtime {
    /// Starts it and waits until crictl gets an answer.
    pub fn start(space: &NodeSpace, node: &impl Diagnose, kind: Kind) -> Self {
        let (recipe, socket) = match kind {
            Kind::Berth => berth::prepare(space),
            Kind::Containerd => containerd::prepare(space),
        };
        let mut runtime = Self { kind, socket, service: Some(Service::start(space, recipe)) };
        runtime.wait(space, node);
        if kind == Kind::Berth {
            space.owns_group(&berth::own_group(space));
        }
        runtime
    }

    /// Which one.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its endpoint, as kubelets and crictl want it.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Process id of the daemon.
    pub fn pid(&self) -> i32 {
        self.service.as_ref().expect("the runtime runs").pid()
    }

    /// SIGKILL to the daemon, and a new start.
    pub fn kill_and_start(&mut self, space: &NodeSpace, node: &impl Diagnose) {
        let recipe = self.service.take().expect("the runtime runs").kill();
        self.service = Some(Service::start(space, recipe));
        self.wait(space, node);
    }

    /// Removes all pods, and ends the daemon.
    pub fn finish(mut self, space: &NodeSpace) {
        let removed = crictl(space, &self.endpoint(), &["rmp", "--all", "--force"]);
        assert!(removed.is_ok(), "pods cannot be removed: {removed:?}\n{}", space.log_tails());
        let status = self.service.take().expect("the runtime runs").stop(STOP_GRACE);
        assert!(status.success(), "{} ended with {status}\n{}", self.kind, space.log_tails());
    }

    fn wait(&mut self, space: &NodeSpace, node: &impl Diagnose) {
        let endpoint = self.endpoint();
        let service = self.service.as_mut().expect("the runtime runs");
        wait_for(node, "the runtime answers", START_LIMIT, || {
            service.must_live();
            crictl(space, &endpoint, &["version"])
        });
    }
}

/// What crictl says on stdout; its stderr where it fails.
pub fn crictl(space: &NodeSpace, endpoint: &str, args: &[&str]) -> Result<String, String> {
    let mut command = space.command("tools", programs::crictl());
    command.args(["--timeout=60s", "--runtime-endpoint", endpoint, "--image-endpoint", endpoint]).args(args);
    let output = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}
