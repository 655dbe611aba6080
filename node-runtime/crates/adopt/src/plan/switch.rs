//! Which files have to change so that the kubelet uses another runtime, and the proof that they do: the configuration is merged again with
//! the changed texts, and must say what was meant.
//!
//! Owns: choosing the files. Must not: read or write any.
use super::overlay::Overlay;
use super::{Carrier, CarrierKind, Facts, FileChange, FileState, Plan, Refusal};
use crate::edit::{self, Wish};
use crate::kubelet::{self, Configuration, ENDPOINT, ENDPOINT_FLAG, Origin, STATS_GATE};
use std::path::{Path, PathBuf};

/// Name of our drop-ins: late in the order of names.
const DROP_IN: &str = "99-berth.conf";
/// Where units of the node's own, and their drop-ins, lie (systemd.unit(5)).
const UNITS: &str = "/etc/systemd/system";

/// Where our drop-in of a unit of systemd lies.
fn unit_drop_in(unit: &str) -> PathBuf {
    Path::new(UNITS).join(format!("{unit}.d")).join(DROP_IN)
}

/// What changes.
pub(super) struct Switched {
    pub(super) files: Vec<FileChange>,
    pub(super) notes: Vec<String>,
}

/// The files that change. Errors: what cannot be changed safely, each with what to do.
pub(super) fn files(facts: &Facts) -> Result<Switched, Vec<Refusal>> {
    let mut plan = Switch { facts, changes: Vec::new(), refusals: Vec::new(), notes: Vec::new() };
    let configuration = &facts.kubelet.configuration;
    let by_flag = configuration.origin(ENDPOINT) == Origin::Flag;
    if by_flag {
        plan.flag();
    }
    let gate = (!facts.keep_stats && configuration.gate(STATS_GATE) != Some(true)).then_some(STATS_GATE);
    let wish = Wish { endpoint: (!by_flag).then(|| facts.new.endpoint()), gate };
    if wish != Wish::default() {
        plan.configuration(&wish);
    }
    plan.instance_config(by_flag);
    if plan.refusals.is_empty() {
        plan.prove(by_flag);
    }
    if !plan.refusals.is_empty() {
        return Err(plan.refusals);
    }
    Ok(Switched { files: plan.changes, notes: plan.notes })
}

struct Switch<'a> {
    facts: &'a Facts,
    changes: Vec<FileChange>,
    refusals: Vec<Refusal>,
    notes: Vec<String>,
}

impl Switch<'_> {
    /// The flag is changed where it comes from.
    fn flag(&mut self) {
        let endpoint = self.facts.new.endpoint();
        let carriers = &self.facts.carriers;
        let of = |kind: CarrierKind| carriers.iter().filter(move |c| c.kind == kind);
        let mut found = false;
        for carrier in of(CarrierKind::Environment) {
            if let Some(text) = edit::endpoint_flag(&carrier.text, &endpoint) {
                self.change(&carrier.path, Some(&carrier.text), text);
                found = true;
            }
        }
        let units: Vec<&str> = of(CarrierKind::Unit).map(|c| c.text.as_str()).collect();
        match (edit::unit_override(&units, &endpoint), &self.facts.kubelet.unit) {
            (Some(text), Some(unit)) => {
                self.create(&unit_drop_in(unit), text);
            }
            _ if found => {}
            _ => self.refusals.push(Refusal::new(
                format!("--{ENDPOINT_FLAG}"),
                "stands on the kubelet's command line, and in no file that is known to make it",
                "set containerRuntimeEndpoint in the configuration file instead, or name the file that has the flag: --kubelet-flags-file FILE",
            )),
        }
    }

    /// A drop-in where there are drop-ins, else the configuration file itself.
    fn configuration(&mut self, wish: &Wish) {
        let configuration = &self.facts.kubelet.configuration;
        if let Some(dir) = &configuration.drop_in_dir {
            let path = dir.join(DROP_IN);
            let later = configuration.drop_ins.iter().find(|source| {
                let gates = source.fields.get(kubelet::GATES).and_then(|gates| gates.get(STATS_GATE));
                let sets = wish.endpoint.is_some() && source.fields.contains_key(ENDPOINT)
                    || wish.gate.is_some() && gates.is_some();
                sets && source.path > path
            });
            if let Some(later) = later {
                self.refusals.push(Refusal::new(
                    later.path.display().to_string(),
                    format!("is read after {} and sets the same fields", path.display()),
                    "take the fields out of it, or rename it so that it is read before",
                ));
                return;
            }
            self.create(&path, edit::drop_in(wish));
        } else if let Some(file) = &configuration.file {
            match edit::configuration(&file.text, wish) {
                Ok(text) => self.change(&file.path, Some(&file.text), text),
                Err(problem) => self.refusals.push(Refusal::new(
                    file.path.display().to_string(),
                    problem,
                    "start the kubelet with --config-dir DIR, so that a file of its own can be added",
                )),
            }
        } else {
            let remedy = "start the kubelet with --config-dir DIR or --config FILE";
            let remedy = if wish.endpoint.is_none() {
                format!("{remedy}, or use --keep-stats-gate (in a cluster the chart's agent.adopt.keepStatsGate)")
            } else {
                remedy.to_owned()
            };
            self.refusals.push(Refusal::new("--config", "is not given, so there is no file to change", remedy));
        }
    }

    /// kubeadm writes config.yaml anew at each upgrade, and takes the endpoint from here.
    fn instance_config(&mut self, by_flag: bool) {
        let Some((path, text)) = &self.facts.instance_config else {
            if self.facts.kubelet.kubeadm && !by_flag && self.facts.kubelet.configuration.drop_in_dir.is_none() {
                self.notes.push(
                    "kubeadm has no instance-config.yaml here: `kubeadm upgrade node` writes config.yaml anew, and the endpoint has to be \
                     set again after it"
                        .to_owned(),
                );
            }
            return;
        };
        let wish = Wish { endpoint: Some(self.facts.new.endpoint()), gate: None };
        match edit::configuration(text, &wish) {
            Ok(changed) if changed == *text => {}
            Ok(changed) => self.change(path, Some(text), changed),
            Err(problem) => self.refusals.push(Refusal::new(
                path.display().to_string(),
                problem,
                "write `containerRuntimeEndpoint: ENDPOINT` on a line of its own",
            )),
        }
    }

    /// With the texts as they will be, the kubelet must be told what was meant.
    fn prove(&mut self, by_flag: bool) {
        let configuration = &self.facts.kubelet.configuration;
        let mut arguments = configuration.arguments.clone();
        if by_flag {
            if let Some(value) = self.flag_from_elsewhere() {
                self.refusals.push(Refusal::new(
                    format!("--{ENDPOINT_FLAG}"),
                    format!(
                        "is {value:?} on the kubelet's command line, and in none of the files that would be changed"
                    ),
                    "restart the kubelet, so that it runs as its files say, or find what else makes its command line",
                ));
                return;
            }
            // Each value comes from a text that is changed; what becomes of them is the command line with the other value.
            arguments.push(format!("--{ENDPOINT_FLAG}={}", self.facts.new.endpoint()));
        }
        let read = Configuration::read(arguments, &Overlay { configuration, changes: &self.changes });
        let gate = self.facts.keep_stats || read.gate(STATS_GATE) == Some(true);
        if read.endpoint() != self.facts.new.endpoint() || !gate || !read.problems.is_empty() {
            self.refusals.push(Refusal::new(
                ENDPOINT,
                format!(
                    "would be {:?} with all files changed, and {STATS_GATE} {:?}",
                    read.endpoint(),
                    read.gate(STATS_GATE)
                ),
                "find what else sets it",
            ));
        }
    }

    /// A value of the flag that the running kubelet was given, and that is in no text which is changed.
    fn flag_from_elsewhere(&self) -> Option<String> {
        let before = self.facts.carriers.iter().flat_map(|carrier| edit::flag_values(&carrier.text));
        let known: Vec<String> = before.collect();
        let given = kubelet::values(&self.facts.kubelet.configuration.arguments, ENDPOINT_FLAG);
        given.into_iter().find(|value| !known.iter().any(|one| one == value)).map(str::to_owned)
    }

    fn change(&mut self, path: &Path, before: Option<&str>, after: String) {
        let attributes = self.facts.attributes.iter().find(|(p, _)| p == path).map(|(_, a)| *a);
        let (mode, uid, gid) = attributes.unwrap_or((0o644, 0, 0));
        let state = |text: &str| FileState { text: text.to_owned(), sha256: String::new(), mode, uid, gid };
        let change = FileChange {
            path: path.to_owned(),
            before: before.map(state),
            after: Some(state(&after)),
            directory_before: false,
        };
        if change.before != change.after {
            self.changes.push(change);
        }
    }

    fn create(&mut self, path: &Path, text: String) {
        if self.facts.existing.iter().any(|existing| existing == path) {
            self.refusals.push(Refusal::new(
                path.display().to_string(),
                "is there already, and no adoption is in force that could have made it",
                "remove or rename it",
            ));
            return;
        }
        self.change(path, None, text);
    }
}

/// Files that the plan would create, so that whoever gathers facts can look whether they are there.
pub(super) fn would_create(drop_in_dir: Option<&Path>, unit: Option<&str>) -> Vec<PathBuf> {
    drop_in_dir.map(|dir| dir.join(DROP_IN)).into_iter().chain(unit.map(unit_drop_in)).collect()
}

/// The unit of systemd whose command line this file takes the place of, if it is a drop-in of ours that does.
pub fn overridden_unit(change: &FileChange) -> Option<&str> {
    let unit = change.path.strip_prefix(UNITS).ok()?.parent()?.to_str()?.strip_suffix(".d")?;
    (unit_drop_in(unit) == change.path).then_some(unit)
}

/// Whether the unit's own files start the kubelet otherwise now than when this drop-in of the adoption was made of them, as after an upgrade of
/// a package: it goes on with the former command line. `carriers` are the unit's files as they are; without any nothing is known.
pub fn is_outdated(adopted: &Plan, change: &FileChange, carriers: &[Carrier]) -> bool {
    let others = carriers.iter().filter(|carrier| carrier.kind == CarrierKind::Unit && carrier.path != change.path);
    let units: Vec<&str> = others.map(|carrier| carrier.text.as_str()).collect();
    let still = |ours: &FileState| edit::is_override_of(&ours.text, &units, &adopted.to.endpoint());
    !units.is_empty() && change.after.as_ref().is_some_and(|ours| !still(ours))
}
