//! The JSON of profiles. Fields are those of the OCI runtime specification, of Docker's profiles and of Podman's; any other
//! is refused, since a misspelt restriction would silently be none.
use crate::profile::{Profile, Requirement, Rule};
use crate::{Action, Arch, Condition, Op};
use berth_model::{Error, Result, capability_bit};
use serde::{Deserialize, Deserializer};

/// `SECCOMP_FILTER_FLAG_LOG`.
const FLAG_LOG: u32 = 1 << 1;
/// `SECCOMP_FILTER_FLAG_SPEC_ALLOW`: no speculation mitigation by the mere use of a filter; runc's default as well.
pub(crate) const FLAG_SPEC_ALLOW: u32 = 1 << 2;
/// Longest name of a system call that is accepted, in bytes.
const MAX_NAME: usize = 64;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawProfile {
    default_action: String,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    /// Podman's second spelling of `defaultErrnoRet`, a name such as `EPERM`: understood only beside the number.
    #[serde(default)]
    default_errno: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    architectures: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    arch_map: Vec<RawArchMap>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    listener_metadata: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    syscalls: Vec<RawRule>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default, rename = "$schema")]
    _schema: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawArchMap {
    architecture: String,
    #[serde(default, deserialize_with = "or_default")]
    sub_architectures: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRule {
    /// Docker's spelling before 1.13: one name.
    #[serde(default, deserialize_with = "or_default")]
    name: String,
    #[serde(default, deserialize_with = "or_default")]
    names: Vec<String>,
    action: String,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    errno: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    args: Vec<RawArg>,
    #[serde(default, deserialize_with = "or_default")]
    includes: RawRequirement,
    #[serde(default, deserialize_with = "or_default")]
    excludes: RawRequirement,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawArg {
    index: u64,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RawRequirement {
    #[serde(default, deserialize_with = "or_default")]
    caps: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    arches: Vec<String>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Go writes empty lists and structures as `null`.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Profile> {
    let raw: RawProfile = serde_json::from_slice(bytes)
        .map_err(|e| Error::new(berth_model::ErrorKind::InvalidArgument, e.to_string()))?;
    if !raw.architectures.is_empty() && !raw.arch_map.is_empty() {
        return Err(Error::invalid("archMap", "cannot be combined with architectures; keep one of them"));
    }
    for (field, value) in [("listenerPath", &raw.listener_path), ("listenerMetadata", &raw.listener_metadata)] {
        if value.as_ref().is_some_and(|text| !text.is_empty()) {
            return Err(Error::invalid(field, "notification of another process is not offered; remove it"));
        }
    }
    let errno = numbered("defaultErrno", raw.default_errno.as_deref(), raw.default_errno_ret)?;
    let arch_map = raw.arch_map.iter().enumerate().filter_map(|(i, entry)| arch_entry(i, entry).transpose());
    Ok(Profile {
        default_action: Action::parse("defaultAction", &raw.default_action, errno)?,
        architectures: arches("architectures", &raw.architectures)?,
        arch_map: arch_map.collect::<Result<_>>()?,
        flags: flags(raw.flags.as_deref())?,
        rules: raw.syscalls.into_iter().enumerate().map(|(i, rule)| self::rule(i, rule)).collect::<Result<_>>()?,
    })
}

/// Podman writes errnos by name beside the number; a name alone would need a table that nothing else needs.
fn numbered(field: &str, name: Option<&str>, number: Option<u32>) -> Result<Option<u32>> {
    match (name, number) {
        (Some(name), None) if !name.is_empty() => {
            Err(Error::invalid(field, format_args!("{name:?}: write the number of the errno in {field}Ret instead")))
        }
        (_, number) => Ok(number),
    }
}

fn arch_entry(i: usize, entry: &RawArchMap) -> Result<Option<(Arch, Vec<Arch>)>> {
    let field = format!("archMap[{i}]");
    let native = arches(&format!("{field}.architecture"), std::slice::from_ref(&entry.architecture))?;
    let subs = arches(&format!("{field}.subArchitectures"), &entry.sub_architectures)?;
    Ok(native.first().map(|arch| (*arch, subs)))
}

fn arches(field: &str, names: &[String]) -> Result<Vec<Arch>> {
    let parsed = names.iter().filter_map(|name| {
        let unknown =
            |()| Error::invalid(field, format_args!("{name:?} is not an architecture of the OCI specification"));
        Arch::parse(name).map_err(unknown).transpose()
    });
    parsed.collect()
}

fn flags(names: Option<&[String]>) -> Result<u32> {
    let Some(names) = names else { return Ok(FLAG_SPEC_ALLOW) };
    let flag = |name: &String| match name.as_str() {
        "SECCOMP_FILTER_FLAG_LOG" => Ok(FLAG_LOG),
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => Ok(FLAG_SPEC_ALLOW),
        // The process that loads the filter has one thread, and nothing is notified: neither has an effect.
        "SECCOMP_FILTER_FLAG_TSYNC" | "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV" => Ok(0),
        other => Err(Error::invalid("flags", format_args!("{other:?} is not a flag of a seccomp filter"))),
    };
    names.iter().try_fold(0, |all, name| Ok(all | flag(name)?))
}

fn rule(i: usize, raw: RawRule) -> Result<Rule> {
    let field = format!("syscalls[{i}]");
    let mut names = raw.names;
    if !raw.name.is_empty() {
        names.push(raw.name);
    }
    if names.is_empty() {
        return Err(Error::invalid(format!("{field}.names"), "name at least one system call"));
    }
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        let start: String = bad.chars().take(MAX_NAME).collect();
        return Err(Error::invalid(
            format!("{field}.names"),
            format_args!("{start:?} cannot be the name of a system call"),
        ));
    }
    let errno = numbered(&format!("{field}.errno"), raw.errno.as_deref(), raw.errno_ret)?;
    Ok(Rule {
        names,
        action: Action::parse(&format!("{field}.action"), &raw.action, errno)?,
        conditions: raw.args.iter().enumerate().map(|(n, arg)| condition(&field, n, arg)).collect::<Result<_>>()?,
        includes: requirement(&format!("{field}.includes"), raw.includes)?,
        excludes: requirement(&format!("{field}.excludes"), raw.excludes)?,
    })
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

fn condition(rule: &str, n: usize, arg: &RawArg) -> Result<Condition> {
    let field = format!("{rule}.args[{n}]");
    let index = u8::try_from(arg.index).ok().filter(|index| *index < 6);
    let out_of_range = || Error::invalid(format!("{field}.index"), "system calls have arguments 0 to 5");
    Ok(Condition {
        index: index.ok_or_else(out_of_range)?,
        op: Op::parse(&format!("{field}.op"), &arg.op)?,
        value: arg.value,
        value_two: arg.value_two,
    })
}

fn requirement(field: &str, raw: RawRequirement) -> Result<Requirement> {
    let mut capabilities = 0;
    for name in &raw.caps {
        let unknown = || Error::invalid(format!("{field}.caps"), format_args!("{name:?} is not a capability"));
        capabilities |= capability_bit(name).ok_or_else(unknown)?;
    }
    let min_kernel = match raw.min_kernel.as_deref() {
        None | Some("") => None,
        Some(text) => Some(kernel_version(text).ok_or_else(|| {
            Error::invalid(format!("{field}.minKernel"), format_args!("{text:?} is not a version such as 4.8"))
        })?),
    };
    Ok(Requirement { capabilities, arches: raw.arches, min_kernel })
}

fn kernel_version(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}
