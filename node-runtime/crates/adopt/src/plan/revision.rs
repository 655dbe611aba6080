//! The configuration of a cluster, and its image policies, that Berth's daemon is handed before it has the node.
//!
//! Owns: the words for it, in facts and in the plan. Must not: know what it says; whoever gathers facts judges that.
use super::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A RuntimeRevision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Revision {
    /// Its name, which is the hash of its content.
    pub name: String,
    /// Its content: the object's spec.
    pub content: Value,
}

/// What the daemon is handed, and all that is needed to take it back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionChange {
    /// What it is to run with.
    pub wanted: Revision,
    /// The configuration that was applied before, if one was.
    pub former: Option<Revision>,
    /// Whether a set of image policies was applied before.
    pub policies_before: bool,
    /// The image policies that are in force from the beginning, where some are handed over too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policies: Option<PolicyChange>,
}

/// The image policies that the daemon is handed, and all that is needed to take them back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyChange {
    /// The set that it is to enforce.
    pub wanted: Revision,
    /// The set that was applied before, if one was.
    pub former: Option<Revision>,
}

/// What is known of it.
#[derive(Debug, Clone, Default)]
pub struct Handed {
    /// The change; `None` where no revision is handed over, or it cannot be.
    pub change: Option<RevisionChange>,
    /// What speaks against it.
    pub unfit: Vec<Refusal>,
    /// What whoever asked for it should know.
    pub notes: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{Event, HEADER, MAX_JOURNAL, Record, State, decode, encode};
    use crate::plan::{Plan, ReturnFacts, adopt, example_facts, give_back};
    use crate::{Direction, Facts};

    fn facts() -> Facts {
        let revision = |name: &str| Revision { name: name.to_owned(), content: serde_json::json!({"a": [1.5, "ü"]}) };
        let policies = PolicyChange { wanted: revision("policy-1"), former: Some(revision("policy-0")) };
        let change = RevisionChange {
            wanted: revision("config-1"),
            former: Some(revision("config-0")),
            policies_before: true,
            policies: Some(policies),
        };
        let handed = Handed { change: Some(change), unfit: Vec::new(), notes: vec!["a word".to_owned()] };
        Facts { handed, ..example_facts() }
    }

    #[test]
    fn any_process_can_take_back_what_the_journal_says_was_handed_over() {
        let facts = facts();
        let plan = adopt(&facts).unwrap();
        assert!(plan.revision == facts.handed.change && plan.notes.contains(&"a word".to_owned()));
        let record = Record { at: 1, event: Event::Begin { plan: Box::new(plan.clone()) } };
        let read = decode((HEADER.to_owned() + &encode(&record).unwrap()).as_bytes()).unwrap();
        assert_eq!(State::last(&read.records).unwrap().plan, plan);
        let mut of_before = serde_json::to_value(&plan).unwrap();
        of_before["revision"].as_object_mut().unwrap().remove("policies");
        let of_before = serde_json::from_value::<Plan>(of_before).unwrap().revision.unwrap();
        assert_eq!(of_before.policies, None, "as versions before wrote it");
        let without = serde_json::to_value(Plan::example(Direction::Adopt)).unwrap();
        assert!(without.get("revision").is_none());
        assert_eq!(serde_json::from_value::<Plan>(without).unwrap().revision, None, "as versions before wrote it");
    }

    /// A journal that is not compacted yet (`COMPACT` in `node-runtime/src/adopt/record.rs`), and the way forth and back.
    #[test]
    fn the_largest_revisions_have_room_in_the_journal() {
        let largest = |name: &str| {
            let text = "x".repeat(berth_crds::MAX_REVISION - r#"{"a":""}"#.len());
            Some(Revision { name: name.to_owned(), content: serde_json::json!({"a": text}) })
        };
        let policies = PolicyChange { wanted: largest("policy-1").unwrap(), former: largest("policy-0") };
        let change = RevisionChange {
            wanted: largest("config-1").unwrap(),
            former: largest("config-0"),
            policies_before: true,
            policies: Some(policies),
        };
        let handed = Handed { change: Some(change), ..Handed::default() };
        let plan = adopt(&Facts { handed, ..example_facts() }).unwrap();
        let line = encode(&Record { at: 1, event: Event::Begin { plan: Box::new(plan.clone()) } }).unwrap();
        assert!(line.len() > 4 * berth_crds::MAX_REVISION && 3 * line.len() as u64 + (1 << 20) < MAX_JOURNAL);
        let read = decode((HEADER.to_owned() + &line).as_bytes()).unwrap();
        assert_eq!(State::last(&read.records).unwrap().plan, plan);
    }

    #[test]
    fn a_return_leaves_it_to_whoever_gave_it() {
        let adopted = adopt(&facts()).unwrap();
        let facts = ReturnFacts {
            id: "r".to_owned(),
            boot_id: "boot".to_owned(),
            now: 1000,
            deadline: 1600,
            without_daemon: false,
            permission: adopted.permission.clone(),
            kubelet: None,
            commands: None,
            changed: Vec::new(),
            pods: Vec::new(),
            others: Vec::new(),
        };
        assert_eq!(give_back(&adopted, &facts).unwrap().revision, None);
    }

    #[test]
    fn what_speaks_against_it_is_told_with_everything_else() {
        let mut facts = facts();
        facts.new.cgroup_driver = Some("cgroupfs".to_owned());
        facts.handed.unfit = vec![Refusal::new("--revision", "spec.runtime.turbo: is not known", "mend it")];
        let refusals = adopt(&facts).unwrap_err();
        let told: Vec<_> = refusals.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(
            told[0].contains("turbo") && told[1].contains("the RuntimeConfig that config-1 comes from"),
            "{told:?}"
        );
    }
}
