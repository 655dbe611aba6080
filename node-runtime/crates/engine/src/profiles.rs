//! Security profiles that documents bring: which one a container's context means, and whether their texts can be used.
//!
//! Must not: load profiles (`apparmor`), compile filters (`oci::spec`).
use crate::context::Engine;
use berth_model::{ContainerConfig, Error, Profile, Result, ResultExt};
use berth_settings::{ProfileType, RuntimeConfigSpec, find_profile};

/// Where the kubelet has a pod's profiles: `ROOT/seccomp/NAME`, with the root directory that it was given.
const KUBELET_DIRECTORY: &str = "/seccomp/";

/// All texts of seccomp profiles can be read, and the profiles that RuntimeDefault means are there. Errors: `InvalidArgument` naming the
/// field. What an AppArmor profile says shows when it is loaded.
pub fn check_profiles(spec: &RuntimeConfigSpec) -> Result<()> {
    for profile in spec.profiles.iter().filter(|p| p.kind == ProfileType::Seccomp) {
        let name = || format!("spec.profiles: Seccomp profile {}", profile.name);
        berth_seccomp::Profile::parse(profile.source.inline.as_bytes()).context(name)?;
    }
    let defaults = &spec.runtime.default_profiles;
    let members = [
        ("seccomp", ProfileType::Seccomp, &defaults.seccomp),
        ("appArmor", ProfileType::AppArmor, &defaults.app_armor),
    ];
    for (member, kind, name) in members {
        if let Some(name) = name
            && find_profile(&spec.profiles, kind, name).is_none()
        {
            let field = format!("spec.runtime.defaultProfiles.{member}");
            return Err(Error::invalid(field, format!("spec.profiles has no {kind:?} profile {name:?}")));
        }
    }
    Ok(())
}

/// The text of the seccomp profile that a reference means, if a document has it. A reference is a path as the kubelet sends it, or a name.
pub(crate) fn seccomp_text(spec: &RuntimeConfigSpec, reference: &str) -> Option<Vec<u8>> {
    let named = |name: &str| find_profile(&spec.profiles, ProfileType::Seccomp, name);
    // The first one: a directory of that name in a pod's own path belongs to the name.
    let below = || named(reference.split_once(KUBELET_DIRECTORY)?.1);
    named(reference).or_else(below).map(|p| p.source.inline.clone().into_bytes())
}

impl Engine {
    /// A container's configuration with the documents' profiles in the place of RuntimeDefault. Asked once for each start or exec: the
    /// documents may change in between. Records and comparisons of requests have the configuration as it was asked for.
    pub(crate) fn with_profiles(&self, config: &ContainerConfig) -> ContainerConfig {
        let defaults = self.settings().spec.runtime.default_profiles.clone();
        let mut config = config.clone();
        let security = &mut config.security;
        let place = |profile: &mut Profile, name: Option<String>| {
            if let (Profile::RuntimeDefault, Some(name)) = (&*profile, name) {
                *profile = Profile::Localhost(name);
            }
        };
        place(&mut security.seccomp, defaults.seccomp);
        // Without AppArmor, RuntimeDefault is none.
        place(&mut security.apparmor, defaults.app_armor.filter(|_| self.facts.apparmor));
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(json: &str) -> RuntimeConfigSpec {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn references_of_the_kubelet_name_profiles() {
        let spec = spec(
            r#"{"profiles": [{"name": "a/seccomp/b.json", "type": "Seccomp", "source": {"inline": "1"}},
            {"name": "c", "type": "AppArmor", "source": {"inline": "2"}}]}"#,
        );
        for found in ["a/seccomp/b.json", "/var/lib/kubelet/seccomp/a/seccomp/b.json"] {
            assert_eq!(seccomp_text(&spec, found).unwrap(), b"1", "{found}");
        }
        let team = "/var/lib/kubelet/seccomp/team/seccomp/a/seccomp/b.json";
        for other in ["b.json", team, "/var/lib/kubelet/seccomp/b.json", "c", "/seccomp/c", "/a/seccomp/b.json", ""] {
            assert_eq!(seccomp_text(&spec, other), None, "{other}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let problem = |json: &str| check_profiles(&spec(json)).unwrap_err().to_string();
        let text =
            r#"{"profiles": [{"name": "a", "type": "Seccomp", "source": {"inline": "{\"defaultAction\": \"NO\"}"}}]}"#;
        assert!(problem(text).contains("Seccomp profile a"), "{}", problem(text));
        let missing = problem(r#"{"runtime": {"defaultProfiles": {"appArmor": "x"}}}"#);
        assert!(
            missing.contains("defaultProfiles.appArmor") && missing.contains("no AppArmor profile \"x\""),
            "{missing}"
        );
        check_profiles(&spec("{}")).unwrap();
    }
}
