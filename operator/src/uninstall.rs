//! Whether the release may go: not while nodes run on Berth, for nobody could change them any more, nor while one is cordoned by the operator,
//! for nobody else would make it schedulable. The chart's hook asks before anything of it is deleted (charts/berth/templates/uninstall).
//!
//! Owns: the question and the answer's words. Must not: change anything.
use crate::cluster::Clock;
use crate::cluster::client::{self, PAGE, REQUEST_LIMIT};
use crate::controllers::rollout::{CORDONED, said};
use crate::time;
use berth_crds::{NodeState, Phase, RuntimeNode, RuntimeNodeSpec, RuntimeNodeStatus};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams, ObjectList};
use kube::{Api, Client, ResourceExt};
use std::fmt;

/// Most nodes that are named.
const MAX_NAMED: usize = 10;
const TURN: &str = " (has its turn)";
const TURN_REMEDY: &str = ". Where one has its turn, pause its rollout before that \
    (kubectl berth rollout pause NAME), or wait until it is through";
const ODD: &str = " (its RuntimeNode is not understood)";
const ODD_REMEDY: &str = ". What is not understood a newer version of Berth wrote: go back up to it, or see for yourself \
    that the node is not on Berth";

/// A node that would be left, by name, and what it is at.
type Left = (String, &'static str);

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

/// Asks the API server; `clock` is of the same client. Without the definition of RuntimeNode there is no node that could be left.
///
/// # Errors
/// It may not go, or the API server does not say.
pub async fn ask(client: Client, clock: &Clock) -> Result<(), Refusal> {
    let left = all(client.clone(), clock).await.map_err(Refusal::Unknown)?;
    // Afterwards: a node whose turn has begun meanwhile is seen here.
    let cordoned = all_cordoned(client).await.map_err(Refusal::Unknown)?;
    may_go(&left, &cordoned).map_err(Refusal::Nodes)
}

/// Those that would be left. Each object is read by itself: one that this version cannot parse hides no other.
async fn all(client: Client, clock: &Clock) -> Result<Vec<Left>, String> {
    let api: Api<DynamicObject> = Api::all_with(client, &ApiResource::erase::<RuntimeNode>(&()));
    let mut found = Vec::new();
    let list = async |params: &ListParams| api.list(params).await;
    each("runtimenodes", list, |object| found.extend(left(object, clock.now()))).await?;
    Ok(found)
}

/// Nodes that this operator has cordoned: all that is asked of a Node is its metadata, for the rest may be long.
async fn all_cordoned(client: Client) -> Result<Vec<String>, String> {
    let api: Api<Node> = Api::all(client);
    let mut found = Vec::new();
    let list = async |params: &ListParams| api.list_metadata(params).await;
    each("nodes", list, |node| found.extend(node.annotations().contains_key(CORDONED).then(|| node.name_any())))
        .await?;
    Ok(found)
}

/// Shows each object, page by page. Of a kind that the API server does not know there is none.
async fn each<K: Clone>(
    kind: &str,
    list: impl AsyncFn(&ListParams) -> kube::Result<ObjectList<K>>,
    mut see: impl FnMut(&K),
) -> Result<(), String> {
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = match tokio::time::timeout(REQUEST_LIMIT, list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
            Ok(Err(e)) => return Err(format!("{kind} cannot be listed: {e}")),
            Err(_) => return Err(format!("the API server did not answer within {} s", REQUEST_LIMIT.as_secs())),
        };
        page.items.iter().for_each(&mut see);
        if !client::goes_on(&mut params, page.metadata) {
            return Ok(());
        }
    }
}

/// Whether nodes would be left on Berth, or as it has made them. Pure. Errors: why not, in sentences with the remedies.
fn may_go(left: &[Left], cordoned: &[String]) -> Result<(), String> {
    // Of one that is on Berth that is to be mended first.
    let cordoned: Vec<_> = cordoned.iter().filter(|name| !left.iter().any(|(other, _)| other == *name)).collect();
    let mut why = Vec::new();
    if !left.is_empty() {
        why.push(on_berth(left));
    }
    if !cordoned.is_empty() {
        let named = named(cordoned.into_iter().cloned());
        why.push(format!(
            "without its operator, nobody would make these nodes schedulable again, which it has cordoned: {named}. It does so once a node is Ready \
             and its turn is over: wait until none has the annotation {CORDONED}, and uninstall again. Where it does not, `kubectl uncordon NODE` \
             and `kubectl annotate node NODE {CORDONED}-` do"
        ));
    }
    if why.is_empty() {
        return Ok(());
    }
    let why = why.join(". Besides, ");
    Err(format!("Berth is not uninstalled: {why}. To leave them as they are: helm uninstall --no-hooks"))
}

fn on_berth(left: &[Left]) -> String {
    let named = named(left.iter().map(|(name, is)| format!("{name}{is}")));
    let remedies = [(TURN, TURN_REMEDY), (ODD, ODD_REMEDY)].into_iter();
    let remedies = remedies.filter(|(is, _)| left.iter().any(|(_, other)| other == is)).map(|(_, remedy)| remedy);
    format!(
        "without it, nobody could change these nodes any more, which run on it or are on their way: {named}. Give them back first: set \
         `state: Absent` in the RuntimeConfigs that select them, wait until none is Managed (kubectl berth nodes), and uninstall \
         again (docs/cluster.md, Uninstall){}",
        remedies.collect::<String>()
    )
}

/// Some names.
fn named(names: impl ExactSizeIterator<Item = String>) -> String {
    let count = names.len();
    let mut named = names.take(MAX_NAMED).collect::<Vec<_>>().join(", ");
    if count > MAX_NAMED {
        named.push_str(&format!(" and {} more", count - MAX_NAMED));
    }
    named
}

/// The node, if it is on Berth, on its way to or from it, or has its turn; by what its agent says of it, and of what it is told.
fn left(object: &DynamicObject, now: u64) -> Option<Left> {
    let name = object.name_any();
    let Ok(node) = object.clone().try_parse::<RuntimeNode>() else { return Some((name, ODD)) };
    let status = said(&node);
    match (status.state, status.phase) {
        (NodeState::Managed, _) => Some((name, "")),
        (_, Phase::Applying) => Some((name, " (is being switched)")),
        (_, Phase::RollingBack) => Some((name, " (is going back)")),
        _ => has_its_turn(&node.spec, &status, now).then_some((name, TURN)),
    }
}

/// Whether the operator may have cordoned the node, drains it, or has given it leave: nobody else would make it schedulable again.
fn has_its_turn(spec: &RuntimeNodeSpec, status: &RuntimeNodeStatus, now: u64) -> bool {
    let Some(desired) = spec.desired_revision.as_ref().filter(|d| status.current_revision.as_ref() != Some(d)) else {
        return false;
    };
    // Of another order for the same revision it says nothing.
    let of_this_order = |at: &Option<String>| at.is_none() || *at == spec.desired_since;
    if status.failed.as_ref().is_some_and(|f| f.revision == *desired && of_this_order(&f.desired_since)) {
        return false;
    }
    match spec.grant.as_ref().filter(|grant| grant.revision == *desired) {
        // A time that cannot be read is not over.
        Some(grant) => time::seconds(&grant.expires_at).is_none_or(|at| now < at),
        None => matches!(status.phase, Phase::AwaitingGrant | Phase::Draining),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_crds::{Disruption, FailedRevision, Grant};
    use serde_json::json;

    const NOW: u64 = 1_800_000_000;

    fn node(name: &str, state: NodeState, phase: Phase) -> RuntimeNode {
        let spec = RuntimeNodeSpec { node_name: name.to_owned(), node_uid: "1".to_owned(), ..Default::default() };
        let mut node = RuntimeNode::new(name, spec);
        node.status = Some(RuntimeNodeStatus { node_uid: "1".to_owned(), state, phase, ..Default::default() });
        node
    }

    /// Told to have a revision that it does not have.
    fn told(name: &str, phase: Phase) -> RuntimeNode {
        let mut node = node(name, NodeState::Foreign, phase);
        node.spec.desired_revision = Some("config-1".to_owned());
        node.spec.desired_since = Some(time::text(NOW - 100));
        node
    }

    fn granted(mut node: RuntimeNode, revision: &str, expires: u64) -> RuntimeNode {
        let (revision, expires_at) = (revision.to_owned(), time::text(expires));
        node.spec.grant = Some(Grant { revision, disruption: Disruption::Drain, expires_at });
        node
    }

    fn failed(mut node: RuntimeNode, since: u64) -> RuntimeNode {
        let (revision, desired_since) = ("config-1".to_owned(), Some(time::text(since)));
        let failed = FailedRevision { revision, desired_since, ..Default::default() };
        node.status.as_mut().unwrap().failed = Some(failed);
        node
    }

    fn asked(nodes: &[RuntimeNode]) -> Result<(), String> {
        let objects = nodes.iter().map(|node| serde_json::from_value(json!(node)).unwrap());
        may_go(&objects.filter_map(|object| left(&object, NOW)).collect::<Vec<_>>(), &[])
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
        let why = asked(&nodes).unwrap_err();
        assert!(why.contains(": a, c, d (is being switched), e (is going back). Give them back"), "{why}");
        assert!(why.contains("`state: Absent`") && why.contains("--no-hooks"), "{why}");
        assert!(!why.contains("rollout pause") && !why.contains("newer version"), "{why}");
    }

    #[test]
    fn nodes_that_have_another_runtime_hold_up_nothing() {
        let mut silent = node("silent", NodeState::Managed, Phase::Idle);
        silent.status = None;
        let mut another = node("another-machine", NodeState::Managed, Phase::Idle);
        another.spec.node_uid = "2".to_owned();
        let recalled = node("recalled", NodeState::Foreign, Phase::AwaitingGrant);
        assert_eq!(asked(&[node("back", NodeState::Absent, Phase::Idle), silent, another, recalled]), Ok(()));
        assert_eq!(asked(&[]), Ok(()));
    }

    #[test]
    fn a_node_that_is_still_cordoned_by_us_is_named_with_the_remedy() {
        let cordoned: Vec<_> = ["a", "b"].map(str::to_owned).into();
        let why = may_go(&[], &cordoned).unwrap_err();
        assert!(
            why.starts_with("Berth is not uninstalled: without its operator, ") && why.contains(": a, b. "),
            "{why}"
        );
        assert!(why.contains("`kubectl uncordon NODE`") && why.contains("NODE berth.dev/cordoned-since-`"), "{why}");
        assert!(!why.contains("`state: Absent`"), "{why}");
        let both = may_go(&[("a".to_owned(), "")], &cordoned).unwrap_err();
        assert!(
            both.contains(": a. Give") && both.contains("Uninstall). Besides, ") && both.contains(": b. It"),
            "{both}"
        );
    }

    /// The operator has cordoned it before it gives leave: who goes in the middle of a drain leaves it so.
    #[test]
    fn a_node_that_has_its_turn_is_waited_for() {
        let last = failed(told("tried-again", Phase::AwaitingGrant), NOW - 200);
        let turns = [
            told("asks", Phase::AwaitingGrant),
            granted(told("may", Phase::Preparing), "config-1", NOW + 1),
            granted(told("of-another", Phase::AwaitingGrant), "config-0", NOW - 1),
            last,
        ];
        for node in &turns {
            let why = asked(std::slice::from_ref(node)).unwrap_err();
            assert!(why.contains(&format!(": {} (has its turn). ", node.name_any())), "{why}");
            assert!(why.contains("kubectl berth rollout pause"), "{why}");
        }
        let mut back = granted(told("back", Phase::Idle), "config-1", NOW + 1);
        back.status.as_mut().unwrap().current_revision = Some("config-1".to_owned());
        let over = [
            back,
            told("checks", Phase::Preparing),
            granted(told("late", Phase::AwaitingGrant), "config-1", NOW),
            failed(granted(told("failed", Phase::Idle), "config-1", NOW + 1), NOW - 100),
        ];
        assert_eq!(asked(&over), Ok(()));
    }

    #[test]
    fn a_fleet_does_not_fill_the_screen() {
        let nodes: Vec<_> = (10..60).map(|i| node(&format!("n{i}"), NodeState::Managed, Phase::Idle)).collect();
        let why = asked(&nodes).unwrap_err();
        assert!(why.contains("n19 and 40 more") && !why.contains("n20"), "{why}");
    }

    #[test]
    fn only_an_answer_is_final() {
        assert_eq!((Refusal::Nodes(String::new()).exit_code(), Refusal::Unknown(String::new()).exit_code()), (1, 2));
        assert!(Refusal::Unknown("no route".to_owned()).to_string().contains("no route. To uninstall it all the same"));
    }
}
