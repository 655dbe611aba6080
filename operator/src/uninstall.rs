//! Whether the release may go: not while nodes run on Berth, for nobody could change them any more, nor while one is cordoned by the operator,
//! for nobody else would make it schedulable. The chart's hook asks before anything of it is deleted (charts/berth/templates/uninstall).
//!
//! Owns: the question and the answer's words. Must not: change anything.
use crate::cluster::Clock;
use crate::cluster::client::{self, PAGE, REQUEST_LIMIT};
use crate::controllers::rollout::{CORDONED, heard, said};
use crate::time;
use berth_crds::{NodeState, Phase, RuntimeNode, RuntimeNodeSpec, RuntimeNodeStatus};
use k8s_openapi::api::core::v1::Node;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use std::collections::BTreeSet;
use std::fmt;

/// Most nodes that are named.
const MAX_NAMED: usize = 10;
/// Most Nodes of one answer: a Node may be long, for the names of its images are in it.
const NODES_PAGE: u32 = 100;
const TURN: &str = " (has its turn)";
const TURN_REMEDY: &str = ". Where one has its turn, pause its rollout before that \
    (kubectl berth rollout pause NAME), or wait until it is through";
/// As after the definitions were deleted and made anew, which brings RuntimeNodes of which nothing is known.
const SILENT: &str = " (its kubelet is on Berth, and no agent has said anything of it)";
const SILENT_REMEDY: &str = ". Where no agent has said anything, wait until one has (kubectl berth nodes; minutes, once the \
    definitions are there), and see to the agent's pod where it does not; of a machine that is gone for good, delete the Node";
const ODD: &str = " (its RuntimeNode is not understood)";
const ODD_REMEDY: &str = ". What is not understood a newer version of Berth wrote: go back up to it, or see for yourself \
    that the node is not on Berth";

/// A node that would be left, by name, and what it is at.
type Left = (String, &'static str);

/// What RuntimeNodes say.
#[derive(Debug, Default)]
struct Told {
    left: Vec<Left>,
    /// Nodes of which an agent has said what they are at.
    heard: BTreeSet<String>,
}

/// What Nodes say, by name.
#[derive(Debug, Default)]
struct Seen {
    /// Their kubelet is on Berth.
    on_berth: Vec<String>,
    /// This operator has cordoned them.
    cordoned: Vec<String>,
}

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

/// Asks the API server; `clock` is of the same client. Without the definition of RuntimeNode nobody has said anything of any node.
///
/// # Errors
/// It may not go, or the API server does not say.
pub async fn ask(client: Client, clock: &Clock) -> Result<(), Refusal> {
    let told = told(client.clone(), clock).await.map_err(Refusal::Unknown)?;
    // Afterwards: a node whose turn has begun meanwhile is seen here.
    let seen = seen(client).await.map_err(Refusal::Unknown)?;
    may_go(told, &seen).map_err(Refusal::Nodes)
}

/// Each object is read by itself: one that this version cannot parse hides no other.
async fn told(client: Client, clock: &Clock) -> Result<Told, String> {
    let mut told = Told::default();
    each(client, &ApiResource::erase::<RuntimeNode>(&()), PAGE, |object| told.hear(object, clock.now())).await?;
    Ok(told)
}

async fn seen(client: Client) -> Result<Seen, String> {
    let mut seen = Seen::default();
    each(client, &ApiResource::erase::<Node>(&()), NODES_PAGE, |node| seen.see(node)).await?;
    Ok(seen)
}

/// Shows each object, page by page. Of a kind that the API server does not know there is none.
async fn each(
    client: Client,
    kind: &ApiResource,
    page: u32,
    mut see: impl FnMut(&DynamicObject),
) -> Result<(), String> {
    let api: Api<DynamicObject> = Api::all_with(client, kind);
    let mut params = ListParams::default().limit(page);
    loop {
        let page = match tokio::time::timeout(REQUEST_LIMIT, api.list(&params)).await {
            Ok(Ok(page)) => page,
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => return Ok(()),
            Ok(Err(e)) => return Err(format!("{} cannot be listed: {e}", kind.plural)),
            Err(_) => return Err(format!("the API server did not answer within {} s", REQUEST_LIMIT.as_secs())),
        };
        page.items.iter().for_each(&mut see);
        if !client::goes_on(&mut params, page.metadata) {
            return Ok(());
        }
    }
}

impl Told {
    fn hear(&mut self, object: &DynamicObject, now: u64) {
        let name = object.name_any();
        let Ok(node) = object.clone().try_parse::<RuntimeNode>() else { return self.left.push((name, ODD)) };
        self.left.extend(left(&node, now).map(|is| (name.clone(), is)));
        if heard(&node).is_some() {
            self.heard.insert(name);
        }
    }
}

impl Seen {
    fn see(&mut self, node: &DynamicObject) {
        let name = node.name_any();
        if node.annotations().contains_key(CORDONED) {
            self.cordoned.push(name.clone());
        }
        // NAME://VERSION, as the runtime calls itself in the CRI's Version (nodestatus.VersionInfo in pkg/kubelet of Kubernetes).
        let runtime = node.data["status"]["nodeInfo"]["containerRuntimeVersion"].as_str();
        if runtime.is_some_and(|runtime| runtime.starts_with("berth://")) {
            self.on_berth.push(name);
        }
    }
}

/// Whether nodes would be left on Berth, or as it has made them. Pure. Errors: why not, in sentences with the remedies.
fn may_go(told: Told, seen: &Seen) -> Result<(), String> {
    let Told { mut left, heard } = told;
    // Of one that is heard its agent knows more: a kubelet that is away says what it was on last.
    let silent = seen.on_berth.iter().filter(|name| !heard.contains(*name));
    let silent: Vec<_> = silent.filter(|name| !left.iter().any(|(other, _)| other == *name)).cloned().collect();
    left.extend(silent.into_iter().map(|name| (name, SILENT)));
    // Of one that is on Berth that is to be mended first.
    let cordoned: Vec<_> = seen.cordoned.iter().filter(|name| !left.iter().any(|(other, _)| other == *name)).collect();
    let mut why = Vec::new();
    if !left.is_empty() {
        why.push(on_berth(&left));
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
    let remedies = [(TURN, TURN_REMEDY), (SILENT, SILENT_REMEDY), (ODD, ODD_REMEDY)].into_iter();
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

/// What the node is at, if it is on Berth, on its way to or from it, or has its turn; by what its agent says of it, and of what it is told.
fn left(node: &RuntimeNode, now: u64) -> Option<&'static str> {
    let status = said(node);
    match (status.state, status.phase) {
        (NodeState::Managed, _) => Some(""),
        (_, Phase::Applying) => Some(" (is being switched)"),
        (_, Phase::RollingBack) => Some(" (is going back)"),
        _ => has_its_turn(&node.spec, &status, now).then_some(TURN),
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
        may_go(heard(nodes), &Seen::default())
    }

    fn heard(nodes: &[RuntimeNode]) -> Told {
        let mut told = Told::default();
        nodes.iter().for_each(|node| told.hear(&serde_json::from_value(json!(node)).unwrap(), NOW));
        told
    }

    fn seen(nodes: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::default();
        for (name, runtime) in nodes {
            let status = json!({"nodeInfo": {"containerRuntimeVersion": runtime}});
            seen.see(&serde_json::from_value(json!({"metadata": {"name": name}, "status": status})).unwrap());
        }
        seen
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

    /// The definitions were deleted, and are there again: of the RuntimeNodes that the operator made anew, or has yet to make, no agent has said
    /// anything for a while.
    #[test]
    fn a_node_on_berth_of_which_no_agent_says_anything_is_named_with_the_remedy() {
        let silent = |name: &str| RuntimeNode { status: None, ..node(name, NodeState::Foreign, Phase::Idle) };
        let mut another = node("another-machine", NodeState::Absent, Phase::Idle);
        another.spec.node_uid = "2".to_owned();
        let kubelets = ["silent", "another-machine", "without-object"].map(|name| (name, "berth://0.1.0")).to_vec();
        let why = may_go(heard(&[silent("silent"), another]), &seen(&kubelets)).unwrap_err();
        for (name, _) in &kubelets {
            assert!(why.contains(&format!("{name}{SILENT}")), "{name}: {why}");
        }
        assert!(why.contains("wait until one has") && why.contains("delete the Node"), "{why}");
        // What holds up nobody: another runtime, or an agent that says it was given back while the kubelet has yet to say so.
        let others = [("silent", "containerd://2.4.0"), ("without-object", ""), ("back", "berth://0.1.0")];
        let told = heard(&[silent("silent"), node("back", NodeState::Absent, Phase::Idle)]);
        assert_eq!(may_go(told, &seen(&others)), Ok(()));
        let managed = heard(&[node("a", NodeState::Managed, Phase::Idle)]);
        let why = may_go(managed, &seen(&[("a", "berth://0.1.0")])).unwrap_err();
        assert!(why.contains(": a. Give them back") && !why.contains("no agent"), "{why}");
    }

    #[test]
    fn a_node_that_is_still_cordoned_by_us_is_named_with_the_remedy() {
        let cordoned = || Seen { cordoned: ["a", "b"].map(str::to_owned).into(), ..Default::default() };
        let why = may_go(Told::default(), &cordoned()).unwrap_err();
        assert!(
            why.starts_with("Berth is not uninstalled: without its operator, ") && why.contains(": a, b. "),
            "{why}"
        );
        assert!(why.contains("`kubectl uncordon NODE`") && why.contains("NODE berth.dev/cordoned-since-`"), "{why}");
        assert!(!why.contains("`state: Absent`"), "{why}");
        let both = may_go(heard(&[node("a", NodeState::Managed, Phase::Idle)]), &cordoned()).unwrap_err();
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
