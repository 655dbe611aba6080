//! Security profiles that a RuntimeConfig brings to nodes, and what RuntimeDefault means there.
//!
//! Owns: their types and the rules on names and sizes. Must not: judge what a profile's text means (seccomp's compiler does, and the
//! node's AppArmor parser).
use crate::fields::Keyed;
use berth_model::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most profiles of one document.
const MAX_PROFILES: usize = 64;
/// Longest name in bytes.
const MAX_NAME: usize = 255;
/// Longest text in bytes: several profiles of the usual size fit into one object of the API server.
const MAX_TEXT: usize = 256 << 10;

/// A profile by name. A pod asks for it as for a profile on the node's disk (`type: Localhost`, `localhostProfile: NAME`); a file of the
/// same name is not looked at. It counts for containers that are made or entered from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecurityProfile {
    /// Seccomp: a relative path, as pods write it (`profiles/audit.json`). AppArmor: the name of the one profile that the text declares;
    /// one of that name that the node has loaded itself is replaced, also for the processes that have it.
    pub name: String,
    /// What reads it.
    #[serde(rename = "type")]
    pub kind: ProfileType,
    /// Its text.
    pub source: ProfileSource,
}

/// What reads a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum ProfileType {
    /// Seccomp, in the JSON of the OCI runtime specification or of Docker.
    Seccomp,
    /// AppArmor, in the language of `apparmor_parser(8)`.
    AppArmor,
}

/// Where a profile's text stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileSource {
    /// The text, at most 256 KiB.
    pub inline: String,
}

/// What RuntimeDefault means; unset is the runtime's own profile.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefaultProfiles {
    /// Name of a Seccomp profile in `spec.profiles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<String>,
    /// Name of an AppArmor profile in `spec.profiles`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_armor: Option<String>,
}

impl Keyed for SecurityProfile {
    fn key(&self) -> String {
        format!("{:?}/{}", self.kind, self.name)
    }
}

pub(crate) fn check_profiles(profiles: &[SecurityProfile], defaults: &DefaultProfiles) -> Result<()> {
    if profiles.len() > MAX_PROFILES {
        return Err(Error::invalid(
            "spec.profiles",
            format!("has {} entries, the limit is {MAX_PROFILES}", profiles.len()),
        ));
    }
    let mut seen = BTreeSet::new();
    for (i, profile) in profiles.iter().enumerate() {
        let field = |name: &str| format!("spec.profiles[{i}].{name}");
        check_name(&field("name"), profile.kind, &profile.name)?;
        if !seen.insert((profile.kind, &profile.name)) {
            return Err(Error::invalid(
                field("name"),
                format!("{:?} profile {} stands twice", profile.kind, profile.name),
            ));
        }
        let size = profile.source.inline.len();
        if size == 0 || size > MAX_TEXT {
            return Err(Error::invalid(
                field("source.inline"),
                format!("is {size} bytes long, must be 1 to {MAX_TEXT}"),
            ));
        }
    }
    for (name, kind, member) in
        [(&defaults.seccomp, ProfileType::Seccomp, "seccomp"), (&defaults.app_armor, ProfileType::AppArmor, "appArmor")]
    {
        name.iter().try_for_each(|n| check_name(&format!("spec.runtime.defaultProfiles.{member}"), kind, n))?;
    }
    Ok(())
}

fn check_name(field: &str, kind: ProfileType, name: &str) -> Result<()> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(Error::invalid(field, format!("is {} bytes long, must be 1 to {MAX_NAME}", name.len())));
    }
    match kind {
        ProfileType::Seccomp => {
            // What the kubelet takes as localhostProfile (validateLocalhostProfile of Kubernetes' core validation).
            let part = |p: &str| !p.is_empty() && p != "." && p != ".." && !p.chars().any(char::is_control);
            if !name.split('/').all(part) {
                return Err(Error::invalid(field, format!("{name:?} must be a relative path without . and .. in it")));
            }
        }
        ProfileType::AppArmor => {
            // apparmor.d(5): others would need quotes, name a child profile (//), a namespace (:) or a pattern.
            let plain = |c: char| c.is_ascii_alphanumeric() || "._-/@+".contains(c);
            if !name.chars().all(plain) || name.contains("//") || ["unconfined", "berth-default"].contains(&name) {
                let problem = "must be letters, digits and . _ - / @ +, and neither unconfined nor berth-default";
                return Err(Error::invalid(field, format!("{name:?} {problem}")));
            }
        }
    }
    Ok(())
}

/// The profile of that type and name, if a document has it.
pub fn find_profile<'a>(profiles: &'a [SecurityProfile], kind: ProfileType, name: &str) -> Option<&'a SecurityProfile> {
    profiles.iter().find(|p| p.kind == kind && p.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(kind: ProfileType, name: &str, inline: &str) -> SecurityProfile {
        SecurityProfile { name: name.into(), kind, source: ProfileSource { inline: inline.into() } }
    }

    #[test]
    fn names_and_sizes_have_limits() {
        use ProfileType::{AppArmor, Seccomp};
        let none = DefaultProfiles::default();
        let check = |p: SecurityProfile| check_profiles(&[p], &none);
        for (kind, good) in [(Seccomp, "a/b.json"), (Seccomp, "..a"), (AppArmor, "k8s-web"), (AppArmor, "/usr/bin/x")] {
            check(profile(kind, good, "x")).unwrap();
        }
        let long = "x".repeat(256);
        for (kind, bad) in [
            (Seccomp, ""),
            (Seccomp, "/a"),
            (Seccomp, "a/../b"),
            (Seccomp, "a//b"),
            (Seccomp, long.as_str()),
            (AppArmor, "unconfined"),
            (AppArmor, "berth-default"),
            (AppArmor, "a b"),
            (AppArmor, "a//b"),
            (AppArmor, ":ns:a"),
            (AppArmor, "a*"),
        ] {
            let message = check(profile(kind, bad, "x")).unwrap_err().to_string();
            assert!(message.contains("spec.profiles[0].name"), "{message}");
        }
        for text in [String::new(), "x".repeat(MAX_TEXT + 1)] {
            let message = check(profile(Seccomp, "a", &text)).unwrap_err().to_string();
            assert!(message.contains("source.inline") && message.contains("262144"), "{message}");
        }
        let twice = [profile(Seccomp, "a", "x"), profile(AppArmor, "a", "x"), profile(Seccomp, "a", "y")];
        check_profiles(&twice[..2], &none).unwrap();
        assert!(check_profiles(&twice, &none).unwrap_err().to_string().contains("stands twice"));
        let many: Vec<_> = (0..65).map(|n| profile(Seccomp, &n.to_string(), "x")).collect();
        assert!(check_profiles(&many, &none).is_err());
        let bad = DefaultProfiles { app_armor: Some("unconfined".into()), ..none };
        assert!(check_profiles(&[], &bad).unwrap_err().to_string().contains("defaultProfiles.appArmor"));
    }
}
