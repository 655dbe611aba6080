//! What changed between two settings, and what it takes to apply it. The fields and their classes are in `berth_crds`' table
//! (`crds/src/fields.rs`); here is what is no field of a RuntimeConfig.
use crate::Settings;
use berth_crds::{Audience, Class};
use serde_json::Value;

/// One changed field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Field path, or `ImagePolicy/NAME`.
    pub field: String,
    /// Class.
    pub class: Class,
    /// Before; `None` is the default in words, or a policy that was not there.
    pub old: Option<Value>,
    /// After.
    pub new: Option<Value>,
}

impl Change {
    /// Whether the daemon has it after its next start only. Fields of others (the kubelet's, the agent's) are nothing to it.
    pub fn waits_for_start(&self) -> bool {
        let own = || berth_crds::all_fields().any(|f| f.path == self.field && f.audience == Audience::Node);
        self.class >= Class::DaemonRestart && own()
    }
}

/// The changed fields, in the order of the documents, then the policies that differ.
pub fn diff(old: &Settings, new: &Settings) -> Vec<Change> {
    let fields = berth_crds::changes(&old.spec, &new.spec).into_iter().map(|change| Change {
        field: change.path.to_owned(),
        class: change.class,
        old: change.old,
        new: change.new,
    });
    fields.chain(policies(old, new)).collect()
}

fn policies(old: &Settings, new: &Settings) -> Vec<Change> {
    let mut names: Vec<&String> = old.policies.iter().chain(&new.policies).map(|p| &p.metadata.name).collect();
    names.sort();
    names.dedup();
    let of = |settings: &Settings, name: &str| {
        let policy = settings.policies.iter().find(|p| p.metadata.name == name);
        policy.and_then(|p| serde_json::to_value(&p.spec).ok())
    };
    let changes = names.into_iter().map(|name| Change {
        field: format!("ImagePolicy/{name}"),
        class: Class::Live,
        old: of(old, name),
        new: of(new, name),
    });
    changes.filter(|change| change.old != change.new).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::from_texts;

    /// What is the kubelet's or the agent's restarts no daemon.
    #[test]
    fn what_waits_for_a_start_is_the_daemons_own() {
        let change = |field: &str| {
            let class = berth_crds::all_fields().find(|f| f.path == field).unwrap().class;
            Change { field: field.to_owned(), class, old: None, new: None }
        };
        let waits = |field: &str| change(field).waits_for_start();
        assert!(waits("spec.network.mode") && waits("spec.runtime.cgroupManager"));
        assert!(!waits("spec.kubelet.config") && !waits("spec.state") && !waits("spec.runtime.pidsLimit"));
    }

    #[test]
    fn fields_and_policies_that_differ_are_told_with_their_class() {
        let config = |spec: &str| {
            format!("apiVersion: berth.dev/v1alpha1\nkind: RuntimeConfig\nmetadata: {{name: a}}\nspec: {spec}\n")
        };
        let policy = "apiVersion: berth.dev/v1alpha1\nkind: ImagePolicy\nmetadata: {name: p}\nspec: {mode: Enforce}\n";
        let old = from_texts(&[("a.yaml".into(), config("{runtime: {pidsLimit: 50}}"))]).unwrap();
        let new = [("a.yaml".into(), config("{network: {mode: Builtin}}")), ("b.yaml".into(), policy.to_owned())];
        let found = diff(&old, &from_texts(&new).unwrap());
        let found: Vec<_> = found.iter().map(|c| (c.field.as_str(), c.class)).collect();
        let wanted = [
            ("spec.runtime.pidsLimit", Class::NewContainers),
            ("spec.network.mode", Class::DaemonRestart),
            ("ImagePolicy/p", Class::Live),
        ];
        assert_eq!(found, wanted);
    }
}
