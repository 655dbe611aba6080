//! Seccomp and AppArmor: which profile counts.
use super::capabilities::capabilities;
use super::facts::NodeFacts;
use berth_model::{Error, ErrorKind, PodConfig, Profile, Result, ResultExt, SecurityContext};
use berth_monitor_api::spec::SeccompFilter;
use berth_seccomp::{CompileInput, compile, default_profile};

/// The compiled filter of a container; none if it is privileged or unconfined. `localhost` is the content of the file that
/// [`Profile::Localhost`] names.
///
/// Errors: `InvalidArgument` naming the field of the profile, or the container's capabilities.
pub fn seccomp_filter(
    security: &SecurityContext,
    _pod: &PodConfig,
    localhost: Option<&[u8]>,
    node: &NodeFacts,
) -> Result<Option<SeccompFilter>> {
    if security.privileged {
        return Ok(None);
    }
    // The profile's conditional rules look at the bounding set: what the process could ever have.
    let bounding = capabilities(security, node)?.bounding;
    let input = CompileInput { bounding, arch: node.arch, kernel: node.kernel };
    match &security.seccomp {
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => compile(&default_profile(), &input).map(Some),
        Profile::Localhost(path) => {
            let bytes = localhost.ok_or_else(|| Error::internal(format!("seccomp profile {path} was not read")))?;
            let profile = berth_seccomp::Profile::parse(bytes);
            profile.and_then(|profile| compile(&profile, &input)).map(Some).context(|| path)
        }
    }
}

/// Name of the runtime's default AppArmor profile.
pub const DEFAULT_APPARMOR: &str = "berth-default";

/// The AppArmor profile to change to, if any. RuntimeDefault on a node without AppArmor is none, as with the peers; a profile
/// by name is an error there. Whether a profile is loaded is for the caller to see.
///
/// Errors: `InvalidArgument` for what cannot be a name; `FailedPrecondition` for a node without AppArmor.
pub fn apparmor(security: &SecurityContext, node: &NodeFacts) -> Result<Option<String>> {
    let field = "linux.security_context.apparmor";
    let unavailable = |problem: &str| Err(Error::new(ErrorKind::FailedPrecondition, format!("{field}: {problem}")));
    if security.privileged {
        return Ok(None);
    }
    match &security.apparmor {
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(node.apparmor.then(|| DEFAULT_APPARMOR.to_owned())),
        Profile::Localhost(name) => {
            let name = name.strip_prefix("localhost/").unwrap_or(name);
            if name.is_empty() || name.len() > 255 || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
                return Err(Error::invalid(field, format_args!("{name:?} cannot be the name of a profile")));
            }
            if !node.apparmor {
                return unavailable(&format!(
                    "profile {name:?} cannot be applied: AppArmor is not enabled on this node"
                ));
            }
            Ok(Some(name.to_owned()))
        }
    }
}
