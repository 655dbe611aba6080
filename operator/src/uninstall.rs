//! Whether the release may go: not while nodes run on Berth, for nobody could change them any more. The chart's hook asks before anything of it
//! is deleted (charts/berth/templates/uninstall).
//!
//! Owns: the question and the answer's words. Must not: change anything.
use crate::cluster::client::REQUEST_LIMIT;
use crate::controllers::rollout::said;
use berth_crds::{NodeState, Phase, RuntimeNode};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use std::fmt;

/// Most objects of one answer.
const PAGE: u32 = 500;
/// Most nodes that are named.
const MAX_NAMED: usize = 10;

/// Why it may not go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Nodes would be left on it; the sentence names them and the remedy. Asked again, the answer is the same.
    Nodes(String),
    /// It cannot be found out now.
    Unknown(String),
}

impl Refusal {
    /// The program's exit code. The hook's Job asks again after a 2, and not after a 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Nodes(_) => 1,
            Self::Unknown(_) => 2,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(why) => f.write_str(why),
            Self::Unknown(why) => write!(
                f,
                "Berth is not uninstalled: it cannot be found out which nodes run on it: {why}. To uninstall it all the same: helm uninstall --no-hooks"
            ),
        }
    }
}

/// Asks the API server. Without the definition of RuntimeNode there is no node that could be left.
///
/// # Errors
/// It may not go, or the API server does not say.
pub async fn ask(client: Client) -> Result<(), Refusal> {
    may_go(&all(client).await.map_err(Refusal::Unknown)?).map_err(Refusal::Nodes)
}

async fn all(client: Client) -> Result<Vec<RuntimeNode>, String> {
    let api: Api<RuntimeNode> = Api::all(client);
    let mut params = ListParams::default().limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = match tokio::time::timeout(REQUEST_LIMIT, api.list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(Vec::new()),
            Ok(Err(e)) => return Err(format!("runtimenodes cannot be listed: {e}")),
            Err(_) => return Err(format!("the API server did not answer within {} s", REQUEST_LIMIT.as_secs())),
        };
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}

/// Whether nodes would be left on Berth, by what their agents say of them. Pure. Errors: why not, as a sentence with the remedy.
fn may_go(nodes: &[RuntimeNode]) -> Result<(), String> {
    let left: Vec<String> = nodes.iter().filter_map(left).collect();
    if left.is_empty() {
        return Ok(());
    }
    let mut named = left.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    if left.len() > MAX_NAMED {
        named.push_str(&format!(" and {} more", left.len() - MAX_NAMED));
    }
    Err(format!(
        "Berth is not uninstalled: without it, nobody could change these nodes any more, which run on it: {named}. Give them back first: set \
         `state: Absent` in the RuntimeConfigs that select them, wait until none is Managed (kubectl berth nodes), and uninstall again \
         (docs/cluster.md, Uninstall). To leave them as they are: helm uninstall --no-hooks"
    ))
}

/// The node's name, if it is on Berth or on its way to or from it.
fn left(node: &RuntimeNode) -> Option<String> {
    let (name, status) = (node.name_any(), said(node));
    match (status.state, status.phase) {
        (NodeState::Managed, _) => Some(name),
        (_, Phase::Applying) => Some(format!("{name} (is being switched)")),
        (_, Phase::RollingBack) => Some(format!("{name} (is going back)")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{RuntimeNodeSpec, RuntimeNodeStatus};

    fn node(name: &str, state: NodeState, phase: Phase) -> RuntimeNode {
        let spec = RuntimeNodeSpec { node_name: name.to_owned(), node_uid: "1".to_owned(), ..Default::default() };
        let mut node = RuntimeNode::new(name, spec);
        node.status = Some(RuntimeNodeStatus { node_uid: "1".to_owned(), state, phase, ..Default::default() });
        node
    }

    #[test]
    fn nodes_that_would_be_left_on_it_are_named_with_the_remedy() {
        let nodes = [
            node("a", NodeState::Managed, Phase::Idle),
            node("b", NodeState::Foreign, Phase::Idle),
            node("c", NodeState::Managed, Phase::Quarantined),
            node("d", NodeState::Foreign, Phase::Applying),
            node("e", NodeState::Foreign, Phase::RollingBack),
            node("f", NodeState::Absent, Phase::Idle),
        ];
        let why = may_go(&nodes).unwrap_err();
        assert!(why.contains(": a, c, d (is being switched), e (is going back). Give them back"), "{why}");
        assert!(why.contains("`state: Absent`") && why.contains("--no-hooks"), "{why}");
    }

    #[test]
    fn nodes_that_have_another_runtime_hold_up_nothing() {
        let mut silent = node("silent", NodeState::Managed, Phase::Idle);
        silent.status = None;
        let mut another = node("another-machine", NodeState::Managed, Phase::Idle);
        another.spec.node_uid = "2".to_owned();
        let waits = node("waits", NodeState::Foreign, Phase::AwaitingGrant);
        assert_eq!(may_go(&[node("back", NodeState::Absent, Phase::Idle), silent, another, waits]), Ok(()));
        assert_eq!(may_go(&[]), Ok(()));
    }

    #[test]
    fn a_fleet_does_not_fill_the_screen() {
        let nodes: Vec<_> = (10..60).map(|i| node(&format!("n{i}"), NodeState::Managed, Phase::Idle)).collect();
        let why = may_go(&nodes).unwrap_err();
        assert!(why.contains("n19 and 40 more") && !why.contains("n20"), "{why}");
    }

    #[test]
    fn only_an_answer_is_final() {
        assert_eq!((Refusal::Nodes(String::new()).exit_code(), Refusal::Unknown(String::new()).exit_code()), (1, 2));
        assert!(Refusal::Unknown("no route".to_owned()).to_string().contains("no route. To uninstall it all the same"));
    }
}
