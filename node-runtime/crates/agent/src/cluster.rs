//! What is asked of the API server, and told to it.
use crate::credential::Credential;
use crate::node::Trouble;
use berth_crds::{RuntimeNode, RuntimeNodeStatus, RuntimeRevisionSpec, SecretCredential};
use std::future::Future;

/// The node's RuntimeNode, as far as is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum Seen {
    /// The API server has not answered yet.
    #[default]
    Nothing,
    /// There is none: the node keeps what it has.
    Gone,
    /// There is one that this version cannot read, and why: the node keeps what it has.
    Unreadable(String),
    /// This one.
    There(Box<RuntimeNode>),
}

/// The API server.
pub trait ClusterSide: Send + Sync {
    /// A RuntimeRevision's content. Errors: whatever keeps it from being had; also that there is none of that name.
    fn revision(&self, name: &str) -> impl Future<Output = Result<RuntimeRevisionSpec, String>> + Send;

    /// The credentials of those names and hashes. Errors: refused where they are not what the revision says, or no Secret may be read.
    fn credentials(&self, wanted: &[SecretCredential])
    -> impl Future<Output = Result<Vec<Credential>, Trouble>> + Send;

    /// Writes a node's status.
    fn report(&self, node: &str, status: &RuntimeNodeStatus) -> impl Future<Output = Result<(), String>> + Send;
}
