//! Sysctls of pods: only those that the kernel keeps per namespace, and only where the pod has that namespace for itself.
use berth_model::{Error, NamespaceMode, PodConfig, Result};
use std::collections::BTreeMap;

/// Of the IPC namespace (`ipc/ipc_sysctl.c`).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];
/// Longest value in bytes: a page, which is what the kernel takes.
const MAX_VALUE: usize = 4095;

const UNPRIVILEGED_PORTS: &str = "net.ipv4.ip_unprivileged_port_start";
const PING_GROUPS: &str = "net.ipv4.ping_group_range";

/// The sysctls to write, by their dotted names: those given, and the defaults that containerd has too (ports below 1024 and
/// ping without a capability, in network namespaces of our own).
/// Errors: `InvalidArgument` naming the sysctl, and which namespace is missing.
pub(crate) fn sysctls(pod: &PodConfig) -> Result<BTreeMap<String, String>> {
    let mut all = BTreeMap::new();
    for (key, value) in &pod.sysctls {
        let name = dotted(key)?;
        let field = format!("linux.sysctls[{key}]");
        check_namespace(&field, &name, pod)?;
        check_value(&field, value)?;
        if all.insert(name, value.clone()).is_some() {
            return Err(Error::invalid(field, "is given twice, in dotted and in slashed form"));
        }
    }
    if pod.security.namespaces.network != NamespaceMode::Node {
        all.entry(UNPRIVILEGED_PORTS.to_owned()).or_insert_with(|| "0".to_owned());
        // Both ends must be ids of the network namespace's user namespace.
        let last = pod.security.namespaces.user.map_or(0x7fff_ffff, |(_, gid)| gid.length.saturating_sub(1));
        all.entry(PING_GROUPS.to_owned()).or_insert_with(|| format!("0 {last}"));
    }
    Ok(all)
}

/// sysctl(8)'s two spellings: where the first separator is a slash, slashes and dots change places.
fn dotted(key: &str) -> Result<String> {
    let bad = || Error::invalid("linux.sysctls", format_args!("{key:?} is not the name of a sysctl"));
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/');
    if key.is_empty() || key.len() > 256 || !key.chars().all(valid) {
        return Err(bad());
    }
    let slashed = key.find(['.', '/']).is_some_and(|at| key.as_bytes()[at] == b'/');
    let swap = |c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    };
    let name: String = if slashed { key.chars().map(swap).collect() } else { key.to_owned() };
    // In the dotted form a slash stands for a dot in a name (eth0.1), so no part between dots is a way upwards.
    let upwards = |part: &str| part.is_empty() || part.chars().all(|c| c == '/');
    if name.split('.').any(upwards) { Err(bad()) } else { Ok(name) }
}

fn check_namespace(field: &str, name: &str, pod: &PodConfig) -> Result<()> {
    let namespaces = &pod.security.namespaces;
    let host = |mode: NamespaceMode, what: &str| match mode {
        NamespaceMode::Node => Err(Error::invalid(
            field,
            format_args!("the pod uses the node's {what} namespace, where it must not be changed"),
        )),
        _ => Ok(()),
    };
    if name == "kernel.hostname" {
        return Err(Error::invalid(field, "set the pod's hostname instead"));
    }
    if name == "kernel.domainname" {
        return host(namespaces.network, "UTS");
    }
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return host(namespaces.ipc, "IPC");
    }
    if name.starts_with("net.") {
        return host(namespaces.network, "network");
    }
    if name.starts_with("user.") {
        return match namespaces.user {
            Some(_) => Ok(()),
            None => Err(Error::invalid(field, "needs a pod with a user namespace of its own")),
        };
    }
    Err(Error::invalid(field, "is not kept per namespace, so it would change the whole node"))
}

fn check_value(field: &str, value: &str) -> Result<()> {
    if value.len() > MAX_VALUE {
        return Err(Error::invalid(field, format_args!("the value has {} bytes, more than {MAX_VALUE}", value.len())));
    }
    // CVE-2022-0811: values that smuggled further settings.
    if value.chars().any(|c| c == '+' || (c.is_control() && c != '\t')) {
        return Err(Error::invalid(field, "the value must not contain `+` or control characters"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_model::IdMapping;

    fn pod(key: &str, value: &str) -> PodConfig {
        PodConfig { sysctls: [(key.to_owned(), value.to_owned())].into(), ..PodConfig::default() }
    }

    #[test]
    fn namespaced_ones_pass_and_no_others() {
        for good in [
            "kernel.shm_rmid_forced",
            "fs.mqueue.msg_max",
            "net.core.somaxconn",
            "kernel.domainname",
            "net/ipv4/conf/eth0.1/rp_filter",
        ] {
            assert!(sysctls(&pod(good, "1")).is_ok(), "{good}");
        }
        for bad in [
            "kernel.core_pattern",
            "vm.overcommit_memory",
            "kernel.hostname",
            "user.max_user_namespaces",
            "fs.file-max",
            "kernel.shmmax.x",
            "net",
            "",
        ] {
            assert!(sysctls(&pod(bad, "1")).is_err(), "{bad}");
        }
        for escape in ["net..ipv4", "net.//.x", "../net.x", "net.a+b", "net.\n", "net/../kernel/core_pattern", "net."] {
            assert!(sysctls(&pod(escape, "1")).is_err(), "{escape}");
        }
    }

    #[test]
    fn the_namespace_must_be_the_pods_own() {
        for (key, network, ipc) in [
            ("net.core.somaxconn", NamespaceMode::Node, NamespaceMode::Pod),
            ("kernel.domainname", NamespaceMode::Node, NamespaceMode::Pod),
            ("kernel.sem", NamespaceMode::Pod, NamespaceMode::Node),
            ("fs.mqueue.msg_max", NamespaceMode::Pod, NamespaceMode::Node),
        ] {
            let mut pod = pod(key, "1");
            pod.security.namespaces.network = network;
            pod.security.namespaces.ipc = ipc;
            let error = sysctls(&pod).unwrap_err();
            assert!(error.message().contains(key) && error.message().contains("namespace"), "{error}");
        }
    }

    #[test]
    fn spellings_are_one_and_values_are_plain() {
        assert_eq!(sysctls(&pod("net/ipv4/tcp_rmem", "1 2\t3")).unwrap()["net.ipv4.tcp_rmem"], "1 2\t3");
        assert_eq!(sysctls(&pod("net/ipv4/conf/eth0.1/x", "1")).unwrap()["net.ipv4.conf.eth0/1.x"], "1");
        let mut twice = pod("net/ipv4/tcp_rmem", "1");
        twice.sysctls.insert("net.ipv4.tcp_rmem".to_owned(), "1".to_owned());
        assert!(sysctls(&twice).unwrap_err().message().contains("twice"));
        for bad in ["1\n2", "1+kernel.core_pattern=x", "\0", &"1".repeat(5000)] {
            assert!(sysctls(&pod("net.core.somaxconn", bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn defaults_give_way_and_fit_the_user_namespace() {
        let own = sysctls(&PodConfig::default()).unwrap();
        assert_eq!((own[UNPRIVILEGED_PORTS].as_str(), own[PING_GROUPS].as_str()), ("0", "0 2147483647"));
        assert_eq!(sysctls(&pod(UNPRIVILEGED_PORTS, "1024")).unwrap()[UNPRIVILEGED_PORTS], "1024");
        let mut host = PodConfig::default();
        host.security.namespaces.network = NamespaceMode::Node;
        assert!(sysctls(&host).unwrap().is_empty());
        let mut mapped = PodConfig::default();
        let map = IdMapping { container: 0, host: 100_000, length: 65_536 };
        mapped.security.namespaces.user = Some((map, map));
        assert_eq!(sysctls(&mapped).unwrap()[PING_GROUPS], "0 65535");
    }
}
