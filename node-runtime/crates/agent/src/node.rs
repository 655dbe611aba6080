//! What is done on a node. One implementation does it on the node that it runs on (`node_sock`, `host`); tests of the cluster half have
//! others, and everything else is the same for them.
use crate::credential::Credential;
use crate::facts::Facts;
use crate::plan::Wanted;
use berth_crds::Disruption;
use std::future::Future;

/// Why a step did not come off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// The node refuses; trying again brings the same.
    Refused(String),
    /// The node runs a part of the control plane, and nobody asked for such nodes. That says nothing of the revision.
    NotAskedFor(String),
    /// The node refuses the image policies that go with a revision, and says nothing against that itself.
    Unfit(String),
    /// The leave was over before anything began under it. That says nothing of the revision.
    Expired(String),
    /// Somebody does not answer now.
    Later(String),
}

/// Leave to interrupt the node, as `berth adopt` wants it.
#[derive(Debug, Clone, Copy)]
pub struct Permit<'a> {
    /// Its name.
    pub grant: &'a str,
    /// When it ends, in Unix seconds.
    pub expires: u64,
}

/// A set of image policies that goes with a configuration where a node is taken over: it is enforced from the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policies<'a> {
    /// Name of its revision.
    pub revision: &'a str,
    /// Its content, as JSON.
    pub json: &'a str,
}

/// A node. Each call may be made again after it was broken off.
pub trait NodeSide: Send + Sync {
    /// Looks at it. What does not answer is a fact too.
    fn look(&self) -> impl Future<Output = Facts> + Send;

    /// Asks the daemon what it takes to have a revision or, on a node with another runtime (`foreign`), `berth adopt` whether it would
    /// take the node over, with these policies.
    fn check(
        &self,
        revision: &str,
        wanted: &Wanted,
        foreign: bool,
        policies: Option<Policies<'_>>,
    ) -> impl Future<Output = Result<Disruption, Trouble>> + Send;

    /// Has the daemon apply a revision, whose content is that JSON.
    fn apply(&self, revision: &str, json: &str) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Hands credentials to the daemon, which keeps them until it ends.
    fn hand_over(&self, credentials: Vec<Credential>) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Restarts the daemon as that version.
    fn restart(&self, version: &str) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Begins to take the node over, with a revision and policies that the daemon has from the beginning. It returns when that goes on by
    /// itself or is over; what became of it, a look says.
    fn adopt(
        &self,
        revision: &str,
        wanted: &Wanted,
        policies: Option<Policies<'_>>,
        permit: Permit<'_>,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Begins to give the node back; as [`Self::adopt`].
    fn give_back(&self, permit: Permit<'_>) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Begins to have the kubelet started anew with the settings that are wanted, in the place of all that the product has set before; with
    /// `restart` also if it has them already. As [`Self::adopt`].
    fn configure_kubelet(
        &self,
        wanted: &Wanted,
        restart: bool,
        permit: Option<Permit<'_>>,
    ) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Has the cluster's revisions forgotten: by the daemon, or where none runs for the one that starts next.
    fn release(&self) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Has the daemon supervised again, whether it runs or not, on a node without a service manager.
    fn supervise(&self) -> impl Future<Output = Result<(), Trouble>> + Send;

    /// Has an operation that was left walk back, or finishes it.
    fn recover(&self) -> impl Future<Output = Result<(), Trouble>> + Send;
}
