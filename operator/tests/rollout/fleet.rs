//! A fleet of simulated agents around the planner. It plans only when something changed or when the plan said so: a plan that
//! forgets to ask to be woken shows as a rollout that never ends.
use berth_operator::rollout::{
    Action, AgentState, Beside, Cordon, Disruption, Node, Plan, Pods, Revision, Rollout, Share, Stage, Strategy,
    UNUSED_LEAVES, Why, plan,
};
use std::collections::{BTreeMap, BTreeSet};

/// How a node takes the target. Times in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Agent {
    /// Applies it in that time.
    Good(u64),
    /// Tries for that time, gives up, and is back on what it had.
    GivesUp(u64),
    /// Never comes to an end.
    Hangs,
    /// Is not there: it never asks for anything.
    Absent,
    /// Applies it in that time, and the node is not Ready from then on until it has something else.
    Breaks(u64),
}

pub const TICK: u64 = 10;

pub fn revision(name: &str) -> Revision {
    Revision(name.to_owned())
}

/// What the ways between revisions take.
pub type Between = Box<dyn Fn(&str, &str) -> Disruption>;

/// A node that has `old`, ready, with pods. Every way takes the same, unless the fleet is told otherwise.
pub fn node(number: usize, zones: usize, disruption: Disruption) -> Node {
    Node {
        name: format!("n{number:03}"),
        zone: format!("z{}", number % zones.max(1)),
        control_plane: false,
        created: 0,
        unready_since: None,
        unhealthy_since: None,
        well_since: 0,
        cordon: Cordon::None,
        pods: Pods::Evictable,
        desired: Some((revision("old"), 0)),
        current: Some((revision("old"), 0)),
        failed: None,
        crashes: 0,
        asks: false,
        begun: false,
        lacks_policies: false,
        unstaged: BTreeSet::new(),
        agent: AgentState::Runs,
        grant: None,
        unused: 0,
        hold: false,
        postponed_until: 0,
        ways: ["old", "new", "newer"].map(|name| (revision(name), disruption)).into(),
    }
}

pub struct Fleet {
    pub rollout: Rollout,
    pub nodes: Vec<Node>,
    pub agents: BTreeMap<String, Agent>,
    /// What the ways take, where they do not all take the same.
    pub between: Option<Between>,
    /// Nodes whose pods cannot be evicted before that time.
    pub stuck_until: BTreeMap<String, u64>,
    /// Until when no agent has the image policies without which it begins nothing.
    pub policies_from: u64,
    /// Until when no agent can look again what its node could have: it asks on, and begins nothing under its leave.
    pub busy_until: u64,
    /// Nodes whose agents never can.
    pub never_begin: BTreeSet<String>,
    /// When each agent began what it is doing.
    began: BTreeMap<String, (Revision, u64)>,
    pub now: u64,
    pub ever_told_target: BTreeSet<String>,
    pub stage: Stage,
    look_again: Option<u64>,
    dirty: bool,
    pub log: Vec<String>,
}

impl Fleet {
    pub fn new(nodes: Vec<Node>, strategy: Strategy) -> Self {
        let rollout = Rollout {
            target: revision("new"),
            came_through: None,
            last_known_good: Some(revision("old")),
            bad: BTreeSet::new(),
            paused: false,
            strategy,
            beside: Beside::default(),
        };
        Self {
            rollout,
            nodes,
            agents: BTreeMap::new(),
            between: None,
            stuck_until: BTreeMap::new(),
            policies_from: 0,
            busy_until: 0,
            never_begin: BTreeSet::new(),
            began: BTreeMap::new(),
            now: 1000,
            ever_told_target: BTreeSet::new(),
            stage: Stage::Paused,
            look_again: None,
            dirty: true,
            log: Vec::new(),
        }
    }

    /// Something outside changed.
    pub fn touch(&mut self, change: impl FnOnce(&mut Self)) {
        change(self);
        self.dirty = true;
    }

    pub fn node(&mut self, name: &str) -> &mut Node {
        self.nodes.iter_mut().find(|n| n.name == name).unwrap()
    }

    pub fn have(&self, name: &str) -> usize {
        self.nodes.iter().filter(|n| n.has(&revision(name))).count()
    }

    /// Runs until the stage is as wanted, or panics after that many ticks.
    pub fn run_until(&mut self, ticks: usize, wanted: impl Fn(&Stage) -> bool) {
        for _ in 0..ticks {
            self.tick();
            if wanted(&self.stage) && !self.dirty {
                return;
            }
        }
        panic!("after {ticks} ticks: {:?}\n{}\n{:#?}", self.stage, self.log.join("\n"), self.nodes);
    }

    pub fn tick(&mut self) {
        self.now += TICK;
        for at in 0..self.nodes.len() {
            self.work(at);
        }
        if let Some(between) = &self.between {
            for node in &mut self.nodes {
                let from = node.current.as_ref().map_or("", |(current, _)| &current.0).to_owned();
                node.ways.iter_mut().for_each(|(to, way)| *way = between(&from, &to.0));
            }
        }
        if self.dirty || self.look_again.is_some_and(|at| self.now >= at) {
            self.dirty = false;
            let before = self.away();
            let plan = plan(&self.rollout, &self.nodes, self.now);
            self.carry_out(&plan);
            self.check_budgets(before);
            self.stage = plan.stage;
            self.look_again = plan.look_again;
        }
    }

    /// Nodes that are away, or at once may be: their agents hold grants.
    fn away(&self) -> usize {
        self.nodes.iter().filter(|n| n.unavailable() || n.granted(self.now) && !n.settled() && !n.gave_up()).count()
    }

    /// What this plan took must have been there to be taken.
    fn check_budgets(&self, before: usize) {
        let strategy = &self.rollout.strategy;
        let (after, most) = (self.away(), strategy.max_unavailable.at_least(self.nodes.len()));
        assert!(
            after <= most || after <= before,
            "{before} away before, {after} after, at most {most}\n{}",
            self.log.join("\n")
        );
        let gentle = |n: &&Node| n.under_way(strategy.node_timeout, self.now) && !n.way_on().needs_grant();
        let at_work = self.nodes.iter().filter(gentle).count();
        assert!(at_work <= strategy.max_in_flight.at_least(self.nodes.len()), "{at_work} at work");
    }

    /// One agent's part of a tick.
    fn work(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some((desired, told)) = node.desired.clone() else { return };
        if node.settled() || node.gave_up() {
            self.began.remove(&node.name);
            (node.asks, node.begun, node.lacks_policies) = (false, false, false);
            return;
        }
        let target = desired == self.rollout.target;
        let agent = self.agents.get(&node.name).copied().filter(|_| target).unwrap_or(Agent::Good(30));
        if agent == Agent::Absent {
            return;
        }
        // Whoever asks to leave it alone stops nothing half-way.
        if node.hold && !node.begun {
            self.began.remove(&node.name);
            self.dirty |= node.asks || node.lacks_policies;
            (node.asks, node.lacks_policies) = (false, false);
            return;
        }
        let granted = node.granted(self.now);
        let (doing, since) = self.began.entry(node.name.clone()).or_insert((desired.clone(), self.now)).clone();
        if doing != desired || (node.way_on().needs_grant() && !granted) {
            self.began.remove(&node.name);
            // It looks at the revision first, for which it may take a while.
            let asks = node.way_on().needs_grant() && self.now > told;
            let lacks = asks && self.now < self.policies_from;
            self.dirty |= asks != (node.asks || node.lacks_policies) || lacks != node.lacks_policies;
            (node.asks, node.lacks_policies) = (asks && !lacks, lacks);
            return;
        }
        let busy = self.now < self.busy_until || self.never_begin.contains(&node.name);
        if node.way_on().needs_grant() && busy {
            self.began.remove(&node.name);
            return;
        }
        // Leave that was given before they were edited.
        let lacks = node.way_on().needs_grant() && self.now < self.policies_from;
        self.dirty |= lacks != node.lacks_policies;
        (node.asks, node.lacks_policies) = (false, lacks);
        if lacks {
            self.began.remove(&node.name);
            return;
        }
        node.begun = true;
        let (time, good) = match agent {
            Agent::Good(time) | Agent::Breaks(time) => (time, true),
            Agent::GivesUp(time) => (time, false),
            Agent::Hangs | Agent::Absent => return,
        };
        if self.now < since + time {
            return;
        }
        node.grant = None;
        if good {
            node.current = Some((desired, self.now));
            node.unready_since = matches!(agent, Agent::Breaks(_)).then_some(self.now);
        } else {
            node.failed = Some(desired);
        }
        self.dirty = true;
    }

    fn carry_out(&mut self, plan: &Plan) {
        for action in &plan.actions {
            self.log.push(format!("{} {action:?}", self.now));
            self.dirty = true;
            match action {
                Action::MarkBad(revision) => {
                    self.rollout.bad.insert(revision.clone());
                }
                Action::Graduate(revision) => {
                    assert_eq!(*revision, self.rollout.target);
                    self.rollout.came_through = Some(self.now);
                }
                _ => self.on_node(action),
            }
        }
    }

    fn on_node(&mut self, action: &Action) {
        let (now, target, bad) = (self.now, self.rollout.target.clone(), self.rollout.bad.clone());
        let name = action.node().unwrap().to_owned();
        let stuck = self.stuck_until.get(&name).is_some_and(|until| now < *until);
        let node = self.node(&name);
        match action {
            Action::Tell { revision, .. } => {
                assert!(!bad.contains(revision), "{name} is told of a revision that is known to be bad");
                assert!(!node.hold && node.cordon != Cordon::Foreign || *revision != target, "{name} is left alone");
                assert!(node.agent == AgentState::Runs || *revision != target, "{name} has nobody to tell");
                assert!(!node.unstaged.contains(revision) || *revision != target, "{name} has no such version");
                node.desired = Some((revision.clone(), now));
                (node.grant, node.begun, node.postponed_until) = (None, false, 0);
                if *revision == target {
                    self.ever_told_target.insert(name);
                }
            }
            Action::Grant { grant, .. } => {
                assert!(node.wants(&grant.revision), "a grant is for what the node is told to have");
                assert!(grant.disruption < Disruption::Drain || node.pods == Pods::Gone, "{name} still has pods");
                assert!(grant.disruption >= node.way_on(), "{name} needs more");
                node.grant = Some(grant.clone());
            }
            Action::Cordon { .. } => {
                assert_eq!(node.cordon, Cordon::None, "{name}");
                node.cordon = Cordon::Ours(now);
            }
            Action::Uncordon { .. } => {
                assert!(matches!(node.cordon, Cordon::Ours(_)), "{name} was cordoned by somebody else");
                node.cordon = Cordon::None;
                node.pods = if node.pods == Pods::Blocking { Pods::Blocking } else { Pods::Evictable };
            }
            Action::Evict { .. } => {
                assert_ne!(node.cordon, Cordon::None, "{name}: evicted pods would come back");
                assert_eq!(node.pods, Pods::Evictable, "{name}");
                node.pods = if stuck { Pods::Evictable } else { Pods::Gone };
            }
            Action::Postpone { back_to, until, why, .. } => {
                if let Why::LeaveUnused { times } = why {
                    assert_eq!(*times, node.unused + 1, "{name}");
                    node.unused = *times;
                    node.failed = node.desired.clone().map(|(r, _)| r).filter(|_| *times >= UNUSED_LEAVES);
                }
                if node.desired.as_ref().map(|(desired, _)| desired) != back_to.as_ref() {
                    node.desired = back_to.clone().map(|r| (r, now));
                    node.begun = false;
                }
                node.postponed_until = *until;
                node.grant = None;
            }
            Action::MarkBad(_) | Action::Graduate(_) => unreachable!("not about a node"),
        }
    }
}

pub fn strategy() -> Strategy {
    Strategy { max_unavailable: Share::Percent(20), max_in_flight: Share::Percent(50), ..Strategy::default() }
}
