//! SELinux: the labels of a container's process and of its files, from the policy's defaults, the pod's level and the request.
//!
//! Pure. Whether the policy in force knows a label is for the caller to ask the kernel.
use super::facts::NodeFacts;
use berth_model::{Error, ErrorKind, Result, SecurityContext, SelinuxOptions};
use std::fmt;

const FIELD: &str = "linux.security_context.selinux_options";
/// Categories that levels of pods are made of (s0:c0 to c1023, the policies' default number).
const CATEGORIES: u32 = 1024;
/// Longest part of a label, in bytes.
const MAX_PART: usize = 255;

/// A security context (`user:role:type:level`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// User.
    pub user: String,
    /// Role.
    pub role: String,
    /// Type.
    pub kind: String,
    /// Level; may have colons of its own. Empty where the policy has none.
    pub level: String,
}

impl Context {
    /// Parses. The level may be missing.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let level = parts.next().unwrap_or_default();
        let whole = [&user, &role, &kind].iter().all(|part| !part.is_empty());
        whole.then_some(Self { user, role, kind, level })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.user, self.role, self.kind)?;
        if self.level.is_empty() { Ok(()) } else { write!(f, ":{}", self.level) }
    }
}

/// What the policy says of containers (`contexts/lxc_contexts`, selinux_lxc_contexts_path(3)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerContexts {
    /// Of processes.
    pub process: Context,
    /// Of files.
    pub file: Context,
}

/// Labels of one container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelinuxLabels {
    /// Of its processes.
    pub process: String,
    /// Of its files.
    pub file: String,
}

/// The labels; none where SELinux is off, for privileged containers, and where nothing is asked for under a policy that knows
/// no containers. User and level count for files too, as with the peers (go-selinux, InitLabels).
///
/// Errors: `InvalidArgument` for what cannot be part of a label; `FailedPrecondition` for options that this policy cannot take.
pub fn selinux_labels(security: &SecurityContext, level: &str, node: &NodeFacts) -> Result<Option<SelinuxLabels>> {
    let options = &security.selinux;
    check_parts(options)?;
    if !node.selinux || security.privileged {
        return Ok(None);
    }
    let Some(contexts) = &node.selinux_contexts else {
        if *options == SelinuxOptions::default() {
            return Ok(None);
        }
        let problem = "the node's SELinux policy has no contexts for containers (contexts/lxc_contexts); install a policy \
                       with its container module, or remove the options";
        return Err(Error::new(ErrorKind::FailedPrecondition, format!("{FIELD}: {problem}")));
    };
    let level = if options.level.is_empty() { level } else { &options.level };
    let or = |own: &str, default: &str| if own.is_empty() { default.to_owned() } else { own.to_owned() };
    let (process, file) = (&contexts.process, &contexts.file);
    let process = Context {
        user: or(&options.user, &process.user),
        role: or(&options.role, &process.role),
        kind: or(&options.kind, &process.kind),
        level: or(level, &process.level),
    };
    let file = Context {
        user: or(&options.user, &file.user),
        role: file.role.clone(),
        kind: file.kind.clone(),
        level: or(level, &file.level),
    };
    Ok(Some(SelinuxLabels { process: process.to_string(), file: file.to_string() }))
}

fn check_parts(options: &SelinuxOptions) -> Result<()> {
    let name = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let level = |b: u8| name(b) || matches!(b, b':' | b',');
    for (part, valid) in [
        (&options.user, &name as &dyn Fn(u8) -> bool),
        (&options.role, &name),
        (&options.kind, &name),
        (&options.level, &level),
    ] {
        if part.len() > MAX_PART || !part.bytes().all(valid) {
            return Err(Error::invalid(FIELD, format_args!("{part:?} cannot be a part of a label")));
        }
    }
    Ok(())
}

/// A level for a pod: two categories that no other pod has together. `random` is where the search begins.
/// `None` when all are taken: half a million pods.
pub fn free_level(random: u32, taken: impl Fn(&str) -> bool) -> Option<String> {
    let pairs = CATEGORIES * (CATEGORIES - 1) / 2;
    (0..pairs).map(|n| pair((random % pairs + n) % pairs)).map(|(a, b)| format!("s0:c{a},c{b}")).find(|l| !taken(l))
}

/// The pair with this number, in the order (0,1) (0,2) (1,2) (0,3) …
fn pair(number: u32) -> (u32, u32) {
    let mut high = 1;
    while (high + 1) * high / 2 <= number {
        high += 1;
    }
    (number - high * (high - 1) / 2, high)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn contexts_keep_colons_in_levels() {
        let text = "system_u:system_r:container_t:s0:c1,c2";
        let context = Context::parse(text).unwrap();
        assert_eq!((context.level.as_str(), context.to_string().as_str()), ("s0:c1,c2", text));
        assert_eq!(Context::parse("a:b:c").unwrap().to_string(), "a:b:c");
        assert!(Context::parse("a:b").is_none() && Context::parse("a::c").is_none());
    }

    #[test]
    fn pairs_are_all_and_each_once() {
        let all: BTreeSet<(u32, u32)> = (0..CATEGORIES * (CATEGORIES - 1) / 2).step_by(97).map(pair).collect();
        assert!(all.iter().all(|(a, b)| a < b && *b < CATEGORIES));
        assert_eq!((pair(0), pair(1), pair(2), pair(3)), ((0, 1), (0, 2), (1, 2), (0, 3)));
        assert_eq!(pair(CATEGORIES * (CATEGORIES - 1) / 2 - 1), (CATEGORIES - 2, CATEGORIES - 1));
    }

    #[test]
    fn a_taken_level_is_passed_over() {
        assert_eq!(free_level(0, |_| false).as_deref(), Some("s0:c0,c1"));
        assert_eq!(free_level(0, |l| l == "s0:c0,c1").as_deref(), Some("s0:c0,c2"));
        assert_eq!(free_level(5, |_| true), None);
    }
}
