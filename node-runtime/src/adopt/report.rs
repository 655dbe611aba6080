//! What people and scripts are told of adoptions: the plan, the outcome, the status.
//!
//! Owns: words and fields. Must not: read the node but for whether files are as they were left.
use super::record::Holder;
use super::steps::found;
use crate::commands::output::{self, Format};
use crate::commands::time::rfc3339;
use anyhow::Result;
use berth_adopt::journal::{InForce, State, Way};
use berth_adopt::plan::{FileChange, Plan, Runtime, Settings};
use berth_adopt::{Direction, Refusal};
use serde::Serialize;
use std::fmt::Write as _;
use std::path::PathBuf;

/// A file of others: what it was, what it became, what it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct File {
    path: String,
    /// SHA-256; null where there was no file.
    before: Option<String>,
    after: Option<String>,
    now: Option<String>,
    /// It is as it was left, and what it overrides is not: a unit of systemd that starts the kubelet otherwise since.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    outdated: bool,
}

impl File {
    fn of(change: &FileChange, outdated: &[PathBuf]) -> Self {
        let after = change.after.as_ref().map(|state| state.sha256.clone());
        let now = found(&change.path).ok().flatten().map(|state| state.sha256);
        Self {
            path: change.path.display().to_string(),
            before: change.before.as_ref().map(|state| state.sha256.clone()),
            outdated: now == after && outdated.contains(&change.path),
            after,
            now,
        }
    }

    /// What to do about one that is outdated.
    fn note(&self) -> Option<String> {
        self.outdated.then(|| {
            format!(
                "{}: the unit that it overrides has another command line since, as after an upgrade of the kubelet's package, and the kubelet \
                 goes on with the former one; `berth adopt return`, then `berth adopt start`, have it started by the new one (in a cluster \
                 `state: Absent`, then `Managed`)",
                self.path
            )
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: &'static str,
    operation: Option<String>,
    profile: Option<&'static str>,
    step: Option<String>,
    reason: Option<String>,
    /// The walk back is or was for no fault of what the operation was for: trying it again may bring something else.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    interrupted: bool,
    stuck: Option<String>,
    from: Option<String>,
    to: Option<String>,
    holder: Option<u32>,
    at: Option<String>,
    /// What Berth sets of the kubelet's configuration.
    kubelet: Settings,
    /// `kubelet` where the last operation was a change of those, and is or was walked back.
    #[serde(skip_serializing_if = "Option::is_none")]
    failed: Option<&'static str>,
    files: Vec<File>,
    notes: Vec<String>,
}

/// Where the node is, in one word.
fn phase(state: Option<&State>, in_force: bool) -> &'static str {
    match state {
        Some(state) if state.stuck.is_some() && state.ended.is_none() => "stuck",
        Some(state) => match (state.way(), state.plan.direction) {
            (Way::Back, _) if state.back.is_some() => "walking-back",
            (Way::Nowhere, _) if in_force => "adopted",
            (Way::Nowhere, Direction::Return) => "returned",
            (Way::Nowhere, Direction::Adopt | Direction::Configure) => "not-adopted",
            (_, Direction::Adopt) => "adopting",
            (_, Direction::Return) => "returning",
            (_, Direction::Configure) => "configuring",
        },
        None => "not-adopted",
    }
}

/// `berth adopt status`, and what the other commands end with. `outdated`: drop-ins whose unit has another command line since.
pub(super) fn status(
    state: Option<&State>,
    in_force: &InForce,
    holder: Option<Holder>,
    outdated: &[PathBuf],
    format: Format,
) -> Result<()> {
    let plan = state.map(|state| &state.plan);
    let files = files(in_force, plan, outdated);
    let notes = plan.into_iter().flat_map(|plan| plan.notes.clone()).chain(files.iter().filter_map(File::note));
    let shown = Status {
        phase: phase(state, in_force.adoption.is_some()),
        operation: plan.map(|plan| plan.id.clone()),
        profile: plan.map(|plan| plan.profile.name()),
        step: state.filter(|s| s.ended.is_none()).and_then(|s| s.entered.last()).map(ToString::to_string),
        reason: state.and_then(|state| state.back.clone()),
        interrupted: state.is_some_and(|state| state.interrupted),
        stuck: state.and_then(|state| state.stuck.as_ref()).map(|(step, why)| format!("{step}: {why}")),
        from: plan.map(|plan| format!("{} {}", plan.from.name, plan.from.endpoint())),
        to: plan.map(|plan| format!("{} {}", plan.to.name, plan.to.endpoint())),
        holder: holder.map(|holder| holder.pid),
        at: state.map(|state| rfc3339(i64::try_from(state.at).unwrap_or(0).saturating_mul(1_000_000))),
        kubelet: in_force.settings.as_ref().and_then(|plan| plan.settings.clone()).unwrap_or_default(),
        failed: state.filter(|state| kubelet_failed(state)).map(|_| "kubelet"),
        notes: notes.collect(),
        files,
    };
    match format {
        Format::Json | Format::Yaml => document(&shown, format),
        Format::Table | Format::Wide => output::bytes(text(&shown).as_bytes()),
    }
}

/// Files as what is in force left them; where nothing is, those of the last operation.
fn files(in_force: &InForce, last: Option<&Plan>, outdated: &[PathBuf]) -> Vec<File> {
    let mut changes = in_force.files();
    if changes.is_empty() {
        changes = last.map(|plan| plan.files.clone()).unwrap_or_default();
    }
    changes.iter().map(|change| File::of(change, outdated)).collect()
}

fn kubelet_failed(state: &State) -> bool {
    let back = state.ended == Some(false) || (state.back.is_some() && state.ended.is_none());
    state.plan.direction == Direction::Configure && back
}

fn text(status: &Status) -> String {
    let mut text = format!("{:<10} {}\n", "phase", status.phase);
    let lines = [
        ("operation", &status.operation),
        ("step", &status.step),
        ("reason", &status.reason),
        ("stuck", &status.stuck),
        ("from", &status.from),
        ("to", &status.to),
        ("at", &status.at),
    ];
    for (name, value) in lines {
        if let Some(value) = value {
            let _ = writeln!(text, "{name:<10} {value}");
        }
    }
    for (field, value) in &status.kubelet {
        let _ = writeln!(text, "{:<10} {field}: {value}", "kubelet");
    }
    for file in &status.files {
        let word = if file.outdated {
            "as the operation left it, which is outdated"
        } else if file.now == file.after {
            "as the operation left it"
        } else if file.now == file.before {
            "as it was before"
        } else {
            "changed by somebody else"
        };
        let _ = writeln!(text, "{:<10} {}: {word}", "file", file.path);
    }
    for note in &status.notes {
        let _ = writeln!(text, "{:<10} {note}", "note");
    }
    text
}

/// `--dry-run`: what would be done.
pub(super) fn plan(plan: &Plan, format: Format) -> Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return document(plan, format);
    }
    let mut text = headline(plan);
    for step in &plan.steps {
        let undo = step.undo(plan.direction).map_or(String::new(), |undo| format!("undo: {undo}"));
        let _ = writeln!(text, "{:<14} {}", step.name(), undo);
    }
    for change in &plan.files {
        let word = match (&change.before, &change.after) {
            (None, Some(_)) => "is made",
            (Some(_), None) => "is removed",
            _ => "is changed",
        };
        let _ = writeln!(text, "\n{} {word}", change.path.display());
        for line in difference(change) {
            let _ = writeln!(text, "  {line}");
        }
    }
    if let Some(change) = &plan.revision {
        let _ = writeln!(text, "{:<14} {}", "revision", change.wanted.name);
        if let Some(policies) = &change.policies {
            let _ = writeln!(text, "{:<14} {}", "policies", policies.wanted.name);
        }
    }
    let images: Vec<_> = plan.images.iter().chain(&plan.wished).cloned().collect();
    let lists = [("image", images), ("pod", plan.pods.iter().map(ToString::to_string).collect())];
    for (kind, names) in lists {
        for name in names {
            let _ = writeln!(text, "{kind:<14} {name}");
        }
    }
    for note in &plan.notes {
        let _ = writeln!(text, "note: {note}");
    }
    output::bytes(text.as_bytes())
}

fn headline(plan: &Plan) -> String {
    let runtime = |runtime: &Runtime| format!("{} {} ({})", runtime.name, runtime.version, runtime.endpoint());
    let profile = plan.profile.name();
    match plan.direction {
        Direction::Configure => format!("settings of the kubelet on {}, profile {profile}\n\n", runtime(&plan.to)),
        way => format!("{way} from {} to {}, profile {profile}\n\n", runtime(&plan.from), runtime(&plan.to)),
    }
}

/// Lines that go and lines that come.
fn difference(change: &FileChange) -> Vec<String> {
    let lines = |state: &Option<berth_adopt::plan::FileState>| -> Vec<String> {
        state.as_ref().map(|state| state.text.lines().map(str::to_owned).collect()).unwrap_or_default()
    };
    let (before, after) = (lines(&change.before), lines(&change.after));
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    gone.chain(come).collect()
}

/// Everything that speaks against other settings of the kubelet.
pub(super) fn refused_settings(refusals: &[Refusal], format: Format) -> Result<()> {
    told(refusals, "refused", "the kubelet's settings are not changed", format)
}

/// Everything that speaks against it. `native`: the node's kubelet is on this Berth, and no other runtime had it before.
pub(super) fn refusals(refusals: &[Refusal], native: bool, format: Format) -> Result<()> {
    let phase = if native { "native" } else { "refused" };
    told(refusals, phase, "this node is not taken", format)
}

fn told(refusals: &[Refusal], phase: &str, what: &str, format: Format) -> Result<()> {
    if matches!(format, Format::Json | Format::Yaml) {
        return document(&serde_json::json!({"phase": phase, "refusals": refusals}), format);
    }
    let mut text = format!("{what}:\n");
    for refusal in refusals {
        let _ = writeln!(text, "  {}: {}\n    {}", refusal.field, refusal.found, refusal.remedy);
    }
    output::error_bytes(text.as_bytes())
}

fn document(value: &impl Serialize, format: Format) -> Result<()> {
    let text = match format {
        Format::Yaml => crate::commands::yaml::text(value)?,
        _ => serde_json::to_string_pretty(value)? + "\n",
    };
    output::bytes(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_adopt::plan::FileState;

    #[test]
    fn what_is_outdated_says_what_to_do_and_what_was_changed_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("99-berth.conf");
        std::fs::write(&path, "[Service]\n").unwrap();
        let after = found(&path).unwrap();
        let change = FileChange { path: path.clone(), before: None, after, directory_before: true };
        assert!(File::of(&change, &[]).note().is_none());
        let told = File::of(&change, std::slice::from_ref(&path)).note().unwrap();
        assert!(told.contains("99-berth.conf") && told.contains("`berth adopt return`"), "{told}");
        let after = change.after.clone().map(|state| FileState { sha256: "0".to_owned(), ..state });
        let changed = File::of(&FileChange { after, ..change }, &[path]);
        assert!(!changed.outdated && changed.now != changed.after);
    }
}
