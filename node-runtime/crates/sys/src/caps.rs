//! Capability sets of the calling process (`capabilities(7)`), as bit sets by capability number.
//!
//! Owns: the calls. Must not: know names.
use rustix::thread as rx;
use std::io;

/// `CAP_SYS_ADMIN` (`linux/capability.h`).
pub const SYS_ADMIN: u64 = 1 << 21;

/// Permitted set now held.
pub fn permitted() -> io::Result<u64> {
    Ok(rx::capabilities(None)?.permitted.bits())
}

/// Drops every capability that is not in `keep` from the bounding set. Needs `CAP_SETPCAP`.
pub fn limit_bounding(keep: u64) -> io::Result<()> {
    for number in 0..64 {
        let one = rx::CapabilitySet::from_bits_retain(1 << number);
        match rx::capability_is_in_bounding_set(one) {
            Ok(true) if keep & (1 << number) == 0 => rx::remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The first number the kernel does not know.
            Err(rustix::io::Errno::INVAL) => break,
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Keeps the permitted set over a change of user id (`PR_SET_KEEPCAPS`).
pub fn keep_over_setuid(keep: bool) -> io::Result<()> {
    Ok(rx::set_keep_capabilities(keep)?)
}

/// Sets the three sets at once (`capset(2)`); EPERM if `permitted` has more than is held.
pub fn set(effective: u64, permitted: u64, inheritable: u64) -> io::Result<()> {
    Ok(rx::set_capabilities(
        None,
        rx::CapabilitySets {
            effective: rx::CapabilitySet::from_bits_retain(effective),
            permitted: rx::CapabilitySet::from_bits_retain(permitted),
            inheritable: rx::CapabilitySet::from_bits_retain(inheritable),
        },
    )?)
}

/// Makes the ambient set exactly `ambient`, each of which must be permitted and inheritable.
pub fn set_ambient(ambient: u64) -> io::Result<()> {
    rx::clear_ambient_capability_set()?;
    for number in (0..64).filter(|n| ambient & (1 << n) != 0) {
        rx::configure_capability_in_ambient_set(rx::CapabilitySet::from_bits_retain(1 << number), true)?;
    }
    Ok(())
}
