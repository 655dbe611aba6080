//! Capabilities of a container.
use super::facts::NodeFacts;
use berth_model::{Error, ErrorKind, Result, SecurityContext, capability_bit, capability_names};
use berth_monitor_api::spec::Capabilities;

/// What a container has unless it asks otherwise: containerd's and Docker's set. CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL,
/// SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP.
pub const DEFAULT_CAPABILITIES: u64 = 0xa804_25fb;

const ALL: &str = "ALL";

/// The sets of a container. ALL and privileged mean what the daemon itself may have; a capability that is named must be one of
/// those. Order: ALL added, ALL dropped, single ones added, single ones dropped.
///
/// Errors: `InvalidArgument` for names that are no capabilities, `FailedPrecondition` for named ones that the daemon lacks.
pub fn capabilities(security: &SecurityContext, node: &NodeFacts) -> Result<Capabilities> {
    let held = node.bounding_capabilities;
    let (add_all, add) = parse("capabilities.add_capabilities", &security.add_capabilities)?;
    let (drop_all, drop) = parse("capabilities.drop_capabilities", &security.drop_capabilities)?;
    let (ambient_all, ambient) = parse("capabilities.add_ambient_capabilities", &security.add_ambient_capabilities)?;
    // Privileged overrides both lists, as with the peers.
    let set = if security.privileged {
        held
    } else {
        require("capabilities.add_capabilities", add & !drop, held)?;
        let start = if drop_all {
            0
        } else if add_all {
            held
        } else {
            DEFAULT_CAPABILITIES & held
        };
        (start | add) & !drop
    };
    let missing = ambient & !set;
    if missing != 0 {
        let names: Vec<_> = capability_names(missing).collect();
        let problem = format!("{} is not among the container's capabilities; add it there too", names.join(", "));
        return Err(Error::invalid("capabilities.add_ambient_capabilities", problem));
    }
    let ambient = if ambient_all { set } else { ambient };
    Ok(Capabilities { bounding: set, effective: set, permitted: set, ambient })
}

/// Whether ALL is named, and the others as a set.
fn parse(field: &str, names: &[String]) -> Result<(bool, u64)> {
    let (mut all, mut set) = (false, 0);
    for (i, name) in names.iter().enumerate() {
        if name.eq_ignore_ascii_case(ALL) {
            all = true;
            continue;
        }
        let shown: String = name.chars().take(64).collect();
        let unknown = || Error::invalid(format!("{field}[{i}]"), format_args!("{shown:?} is not a capability"));
        set |= capability_bit(name).ok_or_else(unknown)?;
    }
    Ok((all, set))
}

fn require(field: &str, wanted: u64, held: u64) -> Result<()> {
    let missing = wanted & !held;
    if missing == 0 {
        return Ok(());
    }
    let names: Vec<_> = capability_names(missing).collect();
    let problem = format!("{field}: this node's runtime does not have {} itself and cannot give it", names.join(", "));
    Err(Error::new(ErrorKind::FailedPrecondition, problem))
}
