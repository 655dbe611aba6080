//! The daemon's part of a node, over node.sock.
//!
//! Owns: these calls, their time limits, and which answers are refusals. Must not: interpret a revision.
use crate::credential::Credential;
use crate::facts::Daemon;
use crate::node::Trouble;
use berth_crds::{Disruption, Drift, PolicyDecisions, PrefetchStatus, SecretCredential};
use berth_proto::node as wire;
use berth_proto::node::node_client::NodeClient;
use std::path::PathBuf;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Longest answer: the series of a node with many pods.
const MAX_MESSAGE: usize = 64 << 20;
/// How long a call may take.
const LIMIT: Duration = Duration::from_secs(30);
/// How long a look at the daemon may take.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// The socket.
#[derive(Debug, Clone)]
pub struct NodeSock {
    /// Where it is.
    pub path: PathBuf,
}

impl NodeSock {
    /// A connection of its own for each call: the daemon may be another one by now.
    pub(crate) async fn connect(&self) -> Result<NodeClient<Channel>, Trouble> {
        let later = |e: tonic::transport::Error| Trouble::Later(format!("{}: {e}", self.path.display()));
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.path.display())).map_err(later)?;
        endpoint
            .connect_timeout(LOOK_LIMIT)
            .connect()
            .await
            .map(|channel| NodeClient::new(channel).max_decoding_message_size(MAX_MESSAGE))
            .map_err(later)
    }

    /// What the daemon says of itself; `None`: it does not answer.
    pub async fn look(&self) -> Option<(Daemon, wire::InfoResponse)> {
        let looked = tokio::time::timeout(LOOK_LIMIT, self.try_look()).await;
        match looked {
            Ok(Ok(found)) => Some(found),
            Ok(Err(e)) => {
                tracing::debug!(error = ?e, "the daemon does not answer");
                None
            }
            Err(_) => None,
        }
    }

    async fn try_look(&self) -> Result<(Daemon, wire::InfoResponse), Trouble> {
        let mut node = self.connect().await?;
        let info = node.info(wire::InfoRequest {}).await.map_err(trouble)?.into_inner();
        let revisions = node.revisions(wire::RevisionsRequest {}).await.map_err(trouble)?.into_inner();
        let diagnosis = node.diagnose(wire::DiagnoseRequest {}).await.map_err(trouble)?.into_inner();
        let bad = diagnosis.conditions.into_iter().filter(|c| !c.ok);
        let mut troubles: Vec<String> = bad.map(|c| format!("{}: {} {}", c.kind, c.reason, c.message)).collect();
        let lasting = !revisions.problems.is_empty() || diagnosis.cni.as_ref().is_some_and(unconfigured);
        let mut problems: Vec<_> = revisions.problems.into_iter().collect();
        problems.sort();
        troubles.extend(problems.into_iter().map(|(field, why)| format!("{field}: {why}")));
        let named = |name: String| (!name.is_empty()).then_some(name);
        let daemon = Daemon {
            version: info.version.clone(),
            pid: info.pid,
            cgroup_driver: info.cgroup_driver.clone(),
            configuration: named(revisions.configuration),
            policies: named(revisions.policies),
            credentials: revisions.credentials.into_iter().map(credential).collect(),
            pending: revisions.pending_restart,
            lasting: lasting && !troubles.is_empty(),
            troubles,
            not_started: revisions.failed_start.map(|failed| (failed.revision, failed.problem)),
            prefetch: prefetch(&info.prefetch),
            decisions: revisions.decisions.into_iter().map(decisions).collect(),
            drift: revisions.drift.into_iter().map(|d| Drift { path: d.path, kind: d.kind }).collect(),
        };
        Ok((daemon, info))
    }

    /// What a revision takes.
    pub async fn preflight(&self, revision: &str, content: &str) -> Result<Disruption, Trouble> {
        let request = wire::PreflightRevisionRequest { name: revision.to_owned(), content: content.to_owned() };
        let answer = self.connect().await?.preflight_revision(limited(request)).await.map_err(trouble)?;
        disruption(&answer.get_ref().class)
    }

    /// The daemon's series; `None`: it does not answer in time.
    pub async fn metrics(&self) -> Option<Vec<u8>> {
        let asked = async {
            let answer = self.connect().await?.metrics(wire::MetricsRequest {}).await.map_err(trouble)?;
            Ok::<_, Trouble>(answer.into_inner().text)
        };
        tokio::time::timeout(LOOK_LIMIT, asked).await.ok()?.ok()
    }

    /// Hands credentials over.
    pub async fn hand_over(&self, credentials: Vec<Credential>) -> Result<(), Trouble> {
        let entry = |c: Credential| wire::GivenCredential { name: c.name, sha256: c.sha256, content: c.bytes };
        let request = wire::GiveCredentialsRequest { credentials: credentials.into_iter().map(entry).collect() };
        self.connect().await?.give_credentials(limited(request)).await.map(drop).map_err(trouble)
    }

    /// Has all revisions forgotten.
    pub async fn release(&self) -> Result<(), Trouble> {
        let request = limited(wire::ReleaseRevisionsRequest::default());
        self.connect().await?.release_revisions(request).await.map(drop).map_err(trouble)
    }

    /// Has a revision applied.
    pub async fn apply(&self, revision: &str, content: &str) -> Result<(), Trouble> {
        let request = wire::ApplyRevisionRequest { name: revision.to_owned(), content: content.to_owned() };
        self.connect().await?.apply_revision(limited(request)).await.map(drop).map_err(trouble)
    }
}

/// Whether the daemon has looked for a network's configuration and found none that can be used. One that it writes itself (a field of
/// the spec) waits for what the kubelet tells.
fn unconfigured(cni: &wire::CniState) -> bool {
    cni.file.is_empty() && !cni.refused.iter().any(|why| why.starts_with("spec."))
}

/// One that is tried again fails until it is here. One that somebody removed was here.
fn prefetch(images: &[wire::PrefetchedImage]) -> Option<PrefetchStatus> {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let failing: Vec<_> = images.iter().filter(|image| !image.problem.is_empty()).collect();
    let state = match failing.as_slice() {
        [_, ..] => "Failing",
        [] if images.iter().all(|image| matches!(image.state.as_str(), "present" | "removed")) => "Complete",
        [] => "Fetching",
    };
    (!images.is_empty()).then(|| PrefetchStatus {
        state: state.to_owned(),
        wanted: count(images.len()),
        failing: count(failing.len()),
        message: failing.first().map(|image| format!("{}: {}", image.reference, image.problem)),
    })
}

fn credential(of: wire::CredentialName) -> SecretCredential {
    SecretCredential { name: of.name, sha256: of.sha256 }
}

fn decisions(of: wire::PolicyDecisions) -> PolicyDecisions {
    PolicyDecisions { policy: of.policy, denied: of.denied, warned: of.warned }
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(LIMIT);
    request
}

/// Classes by the names that the daemon gives them (`crds/src/fields.rs`). One that is not known here is a refusal: it may be a heavy one.
fn disruption(class: &str) -> Result<Disruption, Trouble> {
    match class {
        "live" => Ok(Disruption::Live),
        "new containers" | "new pods" => Ok(Disruption::NewPods),
        "daemon restart" => Ok(Disruption::DaemonRestart),
        "kubelet restart" => Ok(Disruption::KubeletRestart),
        "drain" => Ok(Disruption::Drain),
        other => {
            Err(Trouble::Refused(format!("the daemon says that it takes {other:?}, which this agent does not know")))
        }
    }
}

/// What says that the same request will fail again is a refusal.
fn trouble(status: Status) -> Trouble {
    let message = match status.message() {
        "" => format!("the daemon answered {}", status.code()),
        message => message.to_owned(),
    };
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied => {
            Trouble::Refused(message)
        }
        _ => Trouble::Later(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::Class;

    #[test]
    fn every_class_has_its_disruption_and_an_unknown_one_is_refused() {
        let classes = [
            (Class::Live, Disruption::Live),
            (Class::NewContainers, Disruption::NewPods),
            (Class::NewPods, Disruption::NewPods),
            (Class::DaemonRestart, Disruption::DaemonRestart),
            (Class::KubeletRestart, Disruption::KubeletRestart),
            (Class::Drain, Disruption::Drain),
        ];
        for (class, expected) in classes {
            assert_eq!(disruption(&class.to_string()), Ok(expected));
        }
        assert!(matches!(disruption("reboot"), Err(Trouble::Refused(_))));
    }

    #[test]
    fn a_network_without_a_configuration_is_told_from_one_that_waits() {
        let cni = |file: &str, refused: &[&str]| wire::CniState {
            file: file.to_owned(),
            refused: refused.iter().map(|why| (*why).to_owned()).collect(),
            ..wire::CniState::default()
        };
        assert!(unconfigured(&cni("", &[])) && unconfigured(&cni("", &["/etc/cni/net.d/10.conf: no JSON"])));
        assert!(!unconfigured(&cni("/etc/cni/net.d/10.conflist", &[])));
        assert!(!unconfigured(&cni("", &["spec.network.cni.confList waits for the pod CIDR that the kubelet tells"])));
    }

    #[test]
    fn images_that_are_fetched_are_summed_up() {
        let image = |state: &str, problem: &str| wire::PrefetchedImage {
            reference: "r.io/a:1".to_owned(),
            state: state.to_owned(),
            problem: problem.to_owned(),
            failures: 0,
        };
        let state = |images: &[wire::PrefetchedImage]| prefetch(images).map(|p| (p.state, p.wanted, p.failing));
        assert_eq!(state(&[]), None);
        assert_eq!(state(&[image("present", ""), image("removed", "")]), Some(("Complete".to_owned(), 2, 0)));
        assert_eq!(state(&[image("present", ""), image("waiting", "")]), Some(("Fetching".to_owned(), 2, 0)));
        let failing = [image("present", ""), image("pulling", "no such tag")];
        assert_eq!(state(&failing), Some(("Failing".to_owned(), 2, 1)));
        assert_eq!(prefetch(&failing).and_then(|p| p.message).as_deref(), Some("r.io/a:1: no such tag"));
    }

    #[test]
    fn what_would_fail_again_is_a_refusal() {
        assert!(matches!(trouble(Status::invalid_argument("pidsLimit")), Trouble::Refused(_)));
        assert!(matches!(trouble(Status::resource_exhausted("disk")), Trouble::Later(_)));
        assert!(matches!(trouble(Status::unavailable("")), Trouble::Later(_)));
    }
}
