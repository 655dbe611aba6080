//! A profile: what was written, checked, and not yet compiled for a machine.
use crate::{Action, Arch, Condition, json};
use berth_model::{Error, Result};

/// Largest profile in bytes.
pub const MAX_PROFILE: usize = 1024 * 1024;

/// A seccomp profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// For every system call without a rule.
    pub default_action: Action,
    /// Architectures that are filtered beside the native one. Those of another family have no effect.
    pub architectures: Vec<Arch>,
    /// Docker's `archMap`: the second list counts where the first is native.
    pub arch_map: Vec<(Arch, Vec<Arch>)>,
    /// `SECCOMP_FILTER_FLAG_*` for loading it.
    pub flags: u32,
    /// Rules.
    pub rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Names of system calls.
    pub names: Vec<String>,
    /// What happens to them.
    pub action: Action,
    /// All must hold (see the crate's header for two on the same argument). None: always.
    pub conditions: Vec<Condition>,
    /// The rule counts only where all of this is met.
    pub includes: Requirement,
    /// The rule does not count where any of this is met.
    pub excludes: Requirement,
}

/// Where a rule of Docker's format counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirement {
    /// Capabilities, as a bit set, of the container's bounding set.
    pub capabilities: u64,
    /// Native architectures by Docker's names, any of them.
    pub arches: Vec<String>,
    /// Kernel of at least this version.
    pub min_kernel: Option<(u32, u32)>,
}

impl Profile {
    /// Reads a JSON profile of the OCI runtime specification (`config-linux.md`, seccomp) or of Docker.
    ///
    /// Errors: `InvalidArgument` for more than [`MAX_PROFILE`] bytes, JSON that is not a profile (with line and column), and
    /// anything that cannot be applied, by the name of its field.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_PROFILE {
            let problem = format!("{} bytes are more than the limit of {MAX_PROFILE}", bytes.len());
            return Err(Error::invalid("seccomp profile", problem));
        }
        json::parse(bytes).map_err(|e| e.context("seccomp profile"))
    }
}

impl Rule {
    /// A rule without conditions that always counts.
    pub(crate) fn new(names: &str, action: Action) -> Self {
        Self {
            names: names.split_ascii_whitespace().map(str::to_owned).collect(),
            action,
            conditions: Vec::new(),
            includes: Requirement::default(),
            excludes: Requirement::default(),
        }
    }

    /// The rule counts for a container with these bounding capabilities on this kernel.
    pub(crate) fn counts(&self, native: Arch, bounding: u64, kernel: (u32, u32)) -> bool {
        let named = |requirement: &Requirement| requirement.arches.iter().any(|name| name == native.docker_name());
        let (with, without) = (&self.includes, &self.excludes);
        let included = with.capabilities & bounding == with.capabilities
            && (with.arches.is_empty() || named(with))
            && with.min_kernel.is_none_or(|min| kernel >= min);
        let excluded = without.capabilities & bounding != 0
            || named(without)
            || without.min_kernel.is_some_and(|min| kernel >= min);
        included && !excluded
    }

    /// The rule's alternatives, each a list of conditions that must all hold. Two conditions on one argument make every
    /// condition an alternative of its own: so runc has read such rules since its first versions, which could not express
    /// anything else, and profiles rely on it.
    pub(crate) fn alternatives(&self) -> Vec<Vec<Condition>> {
        let mut seen = [false; 6];
        let doubled = self.conditions.iter().any(|condition| {
            seen.get_mut(usize::from(condition.index)).is_some_and(|slot| std::mem::replace(slot, true))
        });
        if doubled {
            self.conditions.iter().map(|condition| vec![*condition]).collect()
        } else {
            vec![self.conditions.clone()]
        }
    }
}
