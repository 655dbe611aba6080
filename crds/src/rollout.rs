//! How a change of a RuntimeConfig reaches the nodes of a cluster, and how nodes are taken over. Types and rules. A node without
//! a cluster accepts these fields, follows none of them and says so.
//! Must not: plan; `operator/src/rollout` does.
use crate::fields::Careful;
use crate::runtime_config::seconds;
use berth_model::{Error, Result};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Most waves.
const MAX_WAVES: usize = 10;
/// Longest duration here: a day.
const MAX_SECONDS: u64 = 86_400;
/// Most nodes that a field can name.
const MAX_NODES: u32 = 1_000_000;

/// How changes reach the nodes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// Begin nothing new. What heals goes on: going back to the last good revision, and every ImagePolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<bool>,
    /// Sizes of the waves, each counting the waves before it: numbers of nodes, or percentages; default `[1, 5%, 25%, 100%]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waves: Option<Vec<IntOrPercent>>,
    /// Most nodes that may be unavailable when a change interrupts nodes, those counted that are away for other reasons; default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<IntOrPercent>,
    /// Most nodes at work at a time when a change interrupts nothing; default `10%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<IntOrPercent>,
    /// Most nodes that may fail after the first wave, in which none may; default `5%`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<IntOrPercent>,
    /// What happens when more nodes fail; default `Rollback`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// What happens to nodes of the control plane; default `Exclude`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// How long one node may take, 1s to 24h; default `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_timeout: Option<String>,
    /// How long a wave must be well before the next one starts.
    #[serde(default)]
    pub soak: Soak,
    /// How the pods of a node are moved away, for changes that need it.
    #[serde(default)]
    pub drain: Drain,
}

/// How long a wave must be well before the next one starts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Soak {
    /// The first wave, 0s to 24h; default `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<String>,
    /// Each further wave, 0s to 24h; default `5m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wave: Option<String>,
}

/// How the pods of a node are moved away.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Drain {
    /// How long evicting a node's pods may take before the node keeps what it has and gets its turn later, 1s to 24h; default `30m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// How long such a node is left alone, 1s to 24h; default `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// Evict pods that no controller makes anew, too: they are gone then. Otherwise such a pod keeps its node from being drained; default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub force: Option<bool>,
    /// Evict pods with emptyDir volumes, too, whose data is gone then. Otherwise such a pod keeps its node from being drained; default `false`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_empty_dir: Option<bool>,
}

/// What happens when too many nodes fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// Every node goes back to the last revision that was good.
    Rollback,
    /// Everything stays as it is until somebody decides.
    Halt,
    /// Failures are reported, and the rollout goes on.
    Continue,
}

/// What happens to nodes of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ControlPlane {
    /// They keep what they have.
    Exclude,
    /// They come after all others, one at a time.
    Last,
}

/// How a node that runs on another runtime is taken over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Adopt {
    /// How the node's kubelet is run and restarted; default `Auto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<AdoptProfile>,
}

/// How a node's kubelet is run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AdoptProfile {
    /// What the node is found to be; what is not known is refused.
    Auto,
    /// By kubeadm: a systemd unit with kubeadm's drop-in and files.
    Kubeadm,
    /// By a systemd unit, with a configuration file.
    Systemd,
    /// By a command that the chart's values name.
    Command,
}

/// A number of nodes, or a part of them: `3` or `10%`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum IntOrPercent {
    /// So many.
    Int(u32),
    /// So many of a hundred, 1 to 100.
    Percent(u8),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Int(u32),
    Text(String),
}

impl TryFrom<Written> for IntOrPercent {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        match written {
            Written::Int(number) => Ok(Self::Int(number)),
            Written::Text(text) => {
                let percent = text.strip_suffix('%').filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
                match percent.and_then(|t| t.parse().ok()) {
                    Some(percent @ 1..=100) => Ok(Self::Percent(percent)),
                    _ => Err(format!("{text:?} is neither a number nor a percentage from 1% to 100%")),
                }
            }
        }
    }
}

impl From<IntOrPercent> for Written {
    fn from(value: IntOrPercent) -> Self {
        match value {
            IntOrPercent::Int(number) => Self::Int(number),
            IntOrPercent::Percent(percent) => Self::Text(format!("{percent}%")),
        }
    }
}

/// Of two numbers the smaller. What a percentage comes to depends on how many nodes there are.
impl Careful for IntOrPercent {
    fn careful(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => Some(Self::Int(*a.min(b))),
            _ => (self == other).then_some(*self),
        }
    }
}

impl JsonSchema for IntOrPercent {
    fn schema_name() -> Cow<'static, str> {
        "IntOrPercent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// As the API server wants it, which knows no `oneOf` here.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true })
    }
}

pub(crate) fn check(rollout: &Rollout) -> Result<()> {
    if let Some(waves) = &rollout.waves {
        if waves.is_empty() || waves.len() > MAX_WAVES {
            return Err(Error::invalid("spec.rollout.waves", format!("must have 1 to {MAX_WAVES} entries")));
        }
        if let Some(i) = waves.iter().position(|wave| *wave == IntOrPercent::Int(0)) {
            return Err(Error::invalid(format!("spec.rollout.waves[{i}]"), "must be at least 1 node or 1%"));
        }
    }
    let shares = [("maxUnavailable", rollout.max_unavailable), ("maxInFlight", rollout.max_in_flight)];
    for (name, share) in shares {
        if share == Some(IntOrPercent::Int(0)) {
            let remedy = "must be at least 1, or no node could ever be changed; spec.rollout.paused stops a rollout";
            return Err(Error::invalid(format!("spec.rollout.{name}"), remedy));
        }
    }
    let waves = rollout.waves.iter().flatten().copied().enumerate().map(|(i, wave)| (format!("waves[{i}]"), wave));
    let failures = rollout.max_failures.map(|share| ("maxFailures".to_owned(), share));
    let set = shares.into_iter().filter_map(|(name, share)| Some((name.to_owned(), share?)));
    for (name, share) in waves.chain(failures).chain(set) {
        if matches!(share, IntOrPercent::Int(nodes) if nodes > MAX_NODES) {
            return Err(Error::invalid(format!("spec.rollout.{name}"), format!("must be at most {MAX_NODES} nodes")));
        }
    }
    let durations = [
        ("nodeTimeout", &rollout.node_timeout, 1),
        ("soak.canary", &rollout.soak.canary, 0),
        ("soak.wave", &rollout.soak.wave, 0),
        ("drain.timeout", &rollout.drain.timeout, 1),
        ("drain.retryAfter", &rollout.drain.retry_after, 1),
    ];
    for (name, text, least) in durations {
        let Some(text) = text else { continue };
        if !seconds(text).is_some_and(|s| (least..=MAX_SECONDS).contains(&s)) {
            let problem = format!("must be a duration from {least}s to 24h, like 90s, 10m or 1h30m");
            return Err(Error::invalid(format!("spec.rollout.{name}"), problem));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_percentages() {
        let read = |json: &str| serde_json::from_str::<IntOrPercent>(json);
        assert_eq!(read("3").unwrap(), IntOrPercent::Int(3));
        assert_eq!(read("\"25%\"").unwrap(), IntOrPercent::Percent(25));
        assert_eq!(serde_json::to_string(&IntOrPercent::Percent(5)).unwrap(), "\"5%\"");
        for bad in ["-1", "\"0%\"", "\"101%\"", "\"5\"", "\"%\"", "\"+5%\"", "1.5", "null", "\"é%\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
