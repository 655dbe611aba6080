//! Linux capabilities: names and numbers (`include/uapi/linux/capability.h`, Linux 7.2; unchanged since 5.9).

/// Names without `CAP_`; the index is the number.
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The bit of a capability in a 64-bit set, by name: any case, with or without `CAP_`. `None` for an unknown name.
pub fn capability_bit(name: &str) -> Option<u64> {
    let bare = match name.get(..4) {
        Some(prefix) if prefix.eq_ignore_ascii_case("CAP_") => &name[4..],
        _ => name,
    };
    let number = CAPABILITIES.iter().position(|known| known.eq_ignore_ascii_case(bare))?;
    Some(1 << number)
}

/// The names in a set, in order of their numbers; bits without a name are left out.
pub fn capability_names(set: u64) -> impl Iterator<Item = &'static str> {
    CAPABILITIES.iter().enumerate().filter(move |(number, _)| set & (1 << number) != 0).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_every_spelling() {
        for (name, bit) in [("CHOWN", 0), ("cap_sys_admin", 21), ("Sys_Admin", 21), ("CAP_CHECKPOINT_RESTORE", 40)] {
            assert_eq!(capability_bit(name), Some(1 << bit), "{name}");
        }
        for bad in ["", "CAP_", "ALL", "CAP_CAP_CHOWN", "CHOWN ", "ÄÖÜ"] {
            assert_eq!(capability_bit(bad), None, "{bad:?}");
        }
        assert_eq!(capability_names(1 | 1 << 13).collect::<Vec<_>>(), ["CHOWN", "NET_RAW"]);
    }
}
