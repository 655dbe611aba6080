//! What was fetched and checked, and is not remembered over the agent's end: it can be had again.
use crate::facts::Facts;
use berth_crds::{AdoptProfile, Disruption, KubeletConfig, RuntimeRevisionSpec, SecretCredential, State};
use std::collections::{BTreeMap, BTreeSet};

/// All of it.
#[derive(Debug, Clone, Default)]
pub struct Known {
    /// Revisions by name. What cannot be used stays: it is content-addressed, so that fetching it again brings the same.
    pub contents: BTreeMap<String, Content>,
    /// Revisions that cannot be had now, and why. Emptied when it is time to try again.
    pub away: BTreeMap<String, String>,
    /// What the node said of a revision, and under which circumstances it was asked.
    pub checks: BTreeMap<(String, Circumstances), Answer>,
    /// Sets of policies that cannot be applied now for reasons of the node. Emptied when it is time to try again.
    pub postponed: BTreeSet<String>,
    /// Revisions whose credentials are not what they should be, and why. Emptied when it is time to try again.
    pub lacking: BTreeMap<String, String>,
    /// For how many seconds each look at the node has found it unwell.
    pub unwell: u64,
    /// Why the last step that changes the node did not come off.
    pub trouble: Option<String>,
}

/// What a node says of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It can have it; what that takes.
    Fits(Disruption),
    /// It cannot; why.
    Refused(String),
    /// It is not taken over at all: it runs a part of the control plane, and nobody asked for such nodes; why.
    NotAskedFor(String),
    /// It cannot have the image policies that go with it.
    Unfit {
        /// Why.
        why: String,
        /// The order that it was asked for; another one is another question.
        order: String,
        /// When, in Unix seconds: what speaks against them may be the node's own, and pass.
        at: u64,
    },
}

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Circumstances {
    /// The daemon's version and configuration; `None`: it does not answer.
    Daemon(Option<(String, Option<String>)>),
    /// The node is another runtime's; the policies that it would be taken over with.
    Foreign(Option<String>),
}

impl Circumstances {
    /// As they are.
    pub fn of(facts: &Facts, policies: Option<&str>) -> Self {
        if facts.adoption.phase.foreign() {
            return Self::Foreign(policies.map(str::to_owned));
        }
        Self::Daemon(facts.daemon.as_ref().map(|d| (d.version.clone(), d.configuration.clone())))
    }
}

/// A revision as it was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A configuration.
    Configuration(Wanted),
    /// A set of policies, as JSON.
    Policies(String),
    /// It says something that this version does not know; what.
    Unsupported(String),
    /// It is not what its name says; why.
    Broken(String),
}

/// What a configuration asks of the agent. The rest is the daemon's business.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Version of the runtime.
    pub version: String,
    /// Whether the node is to be given back.
    pub absent: bool,
    /// Whether the node may be one of the control plane; the node is told beside its revision.
    pub control_plane: bool,
    /// How the kubelet is run.
    pub profile: Option<AdoptProfile>,
    /// Credentials that the daemon is to be handed.
    pub credentials: Vec<SecretCredential>,
    /// What the kubelet's configuration is to have.
    pub kubelet: KubeletConfig,
    /// The whole content, as JSON.
    pub json: String,
}

impl Content {
    /// Of what the API server gave under that name.
    pub fn of(name: &str, spec: &RuntimeRevisionSpec) -> Self {
        if let Err(e) = spec.check(name) {
            return Self::Broken(e.message().to_owned());
        }
        let json = serde_json::to_string(spec).unwrap_or_default();
        let Some(runtime) = &spec.runtime else {
            return match spec.policies() {
                Ok(_) => Self::Policies(json),
                Err(e) => Self::Unsupported(e.message().to_owned()),
            };
        };
        match spec.config() {
            Ok(config) => Self::Configuration(Wanted {
                version: runtime.version.clone(),
                absent: config.state == Some(State::Absent),
                control_plane: false,
                profile: config.adopt.profile,
                credentials: config.credentials.from_secret,
                kubelet: config.kubelet.config,
                json,
            }),
            Err(e) => Self::Unsupported(e.message().to_owned()),
        }
    }

    /// Its JSON, if it can be used.
    pub fn json(&self) -> Option<&str> {
        match self {
            Self::Configuration(wanted) => Some(&wanted.json),
            Self::Policies(json) => Some(json),
            Self::Unsupported(_) | Self::Broken(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_can_and_what_cannot_be_used() {
        let config = serde_json::from_value(json!({"state": "Absent", "runtime": {"pidsLimit": 50}})).unwrap();
        let mut spec = RuntimeRevisionSpec::of_runtime("0.1.0", &config);
        match Content::of(&spec.name(), &spec) {
            Content::Configuration(wanted) => assert!(wanted.absent && wanted.version == "0.1.0"),
            other => panic!("{other:?}"),
        }
        assert!(matches!(Content::of("config-0", &spec), Content::Broken(_)));
        if let Some(runtime) = &mut spec.runtime {
            runtime.config = json!({"runtime": {"turbo": true}});
        }
        match Content::of(&spec.name(), &spec) {
            Content::Unsupported(why) => assert!(why.contains("turbo"), "{why}"),
            other => panic!("{other:?}"),
        }
        let policies = RuntimeRevisionSpec::of_policies([]);
        assert!(matches!(Content::of(&policies.name(), &policies), Content::Policies(_)));
    }
}
