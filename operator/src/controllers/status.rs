//! Conditions: what is true of an object, since when. Must not: change the time of one whose status stays.
use super::Context;
use crate::cluster::Broken;
use crate::cluster::writes::{Done, Kind};
use crate::time;
use berth_crds::Condition;
use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Longest message.
const MAX_MESSAGE: usize = 1000;

/// Makes the conditions of one object.
#[derive(Debug)]
pub struct Conditions<'a> {
    before: &'a [Condition],
    generation: Option<i64>,
    now: u64,
    made: Vec<Condition>,
}

impl<'a> Conditions<'a> {
    /// After those that it had.
    pub fn after(before: &'a [Condition], generation: Option<i64>, now: u64) -> Self {
        Self { before, generation, now, made: Vec::new() }
    }

    /// Adds one.
    pub fn set(&mut self, kind: &str, holds: bool, reason: &str, message: impl Into<String>) {
        let status = if holds { "True" } else { "False" };
        let same = self.before.iter().find(|c| c.kind == kind && c.status == status);
        let mut message: String = message.into();
        let end = (0..=message.len().min(MAX_MESSAGE)).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        message.truncate(end);
        self.made.push(Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            observed_generation: self.generation,
            last_transition_time: same.map_or_else(|| time::text(self.now), |c| c.last_transition_time.clone()),
            reason: reason.to_owned(),
            message,
        });
    }

    /// All of them.
    pub fn finish(self) -> Vec<Condition> {
        self.made
    }
}

/// Whether a condition holds.
pub fn holds(conditions: &[Condition], kind: &str) -> bool {
    conditions.iter().any(|c| c.kind == kind && c.status == "True")
}

/// Says of an object that cannot be parsed that it is not accepted, and why, in its conditions and by an event: no more can be said.
pub async fn not_understood<K: Kind>(
    context: &Context,
    broken: &Broken,
    (reason, message): (&str, &str),
    now: u64,
) -> Result<Done, String> {
    let before: Vec<Condition> =
        serde_json::from_value(broken.object["status"]["conditions"].clone()).unwrap_or_default();
    let mut conditions = Conditions::after(&before, broken.object["metadata"]["generation"].as_i64(), now);
    conditions.set("Accepted", false, reason, message);
    conditions.set("Ready", false, reason, message);
    let conditions = conditions.finish();
    if conditions == before {
        return Ok(Done::Yes);
    }
    let status = json!({ "conditions": conditions });
    let done = context.writes.patch_status_at::<K>(&broken.name, broken.version(), status).await?;
    let accepted = |all: &[Condition]| all.iter().find(|c| c.kind == "Accepted").map(|c| c.message.clone());
    if done == Done::Yes && accepted(&before) != accepted(&conditions) {
        context.events.warning_of(&reference_of::<K>(broken), reason, message.to_owned()).await;
    }
    Ok(done)
}

/// What events of an object that cannot be parsed are about.
pub fn reference_of<K: Kind>(broken: &Broken) -> ObjectReference {
    ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: Some(broken.name.clone()),
        uid: broken.object["metadata"]["uid"].as_str().map(str::to_owned),
        ..Default::default()
    }
}

/// Why an object that only Berth and Kubernetes write cannot be parsed, and what to do.
pub fn not_understood_because(broken: &Broken) -> String {
    format!("this version does not understand it: {}; go back up to the version of Berth that wrote it", broken.error)
}

/// A map of a status as a merge patch (RFC 7396) that puts it in the place of another one: keys that are gone are null.
pub fn in_place_of<T: Serialize>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Value {
    let gone = before.keys().map(|key| (key.clone(), Value::Null));
    let present = after.iter().map(|(key, value)| (key.clone(), json!(value)));
    Value::Object(gone.chain(present).collect())
}

/// As statuses count.
pub fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_that_of_the_last_change() {
        let mut first = Conditions::after(&[], Some(1), 100);
        first.set("Ready", false, "Waiting", "x");
        let first = first.finish();
        let mut second = Conditions::after(&first, Some(2), 200);
        second.set("Ready", false, "StillWaiting", "é".repeat(2000));
        let second = second.finish();
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        assert!(second[0].message.len() <= MAX_MESSAGE);
        let mut third = Conditions::after(&second, Some(2), 300);
        third.set("Ready", true, "Done", "");
        assert_eq!(third.finish()[0].last_transition_time, time::text(300));
    }
}
