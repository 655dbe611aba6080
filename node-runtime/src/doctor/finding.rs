//! Findings: the list of all that can be found, and one that was.
//!
//! Owns: [`KINDS`]; a test makes the table of docs/doctor.md from it. Must not: look at anything.
use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing; nothing is wrong.
    Info,
    /// Something does not work as it should, or soon will not.
    Warning,
    /// Pods cannot run, or not as they were asked for.
    Error,
}

impl Severity {
    /// As a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// A kind of finding.
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its name.
    pub id: &'static str,
    /// The check that looks for it.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What it is, for the table.
    pub title: &'static str,
    /// Why it matters.
    pub why: &'static str,
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of its kind.
    pub id: &'static str,
    /// The check that found it.
    pub check: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, with figures.
    pub what: String,
    /// Why it matters.
    pub why: &'static str,
    /// What to do: a command, or a line of a document.
    pub fix: String,
}

impl Kind {
    /// It was found.
    pub fn found(&'static self, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding {
            id: self.id,
            check: self.check,
            severity: self.severity,
            what: what.into(),
            why: self.why,
            fix: fix.into(),
        }
    }
}

macro_rules! kinds {
    ($($name:ident $severity:ident $check:literal $id:literal: $title:literal, $why:literal;)*) => {
        $(
            pub static $name: Kind = Kind {
                id: $id, check: $check, severity: Severity::$severity, title: $title, why: $why,
            };
        )*
        /// All kinds of findings, by check.
        pub static KINDS: &[&Kind] = &[$(&$name),*];
    };
}

kinds! {
    DAEMON_DOWN Error "daemon" "daemon-down": "nobody serves the daemon's socket", "no pod can be started or stopped; what runs goes on";
    DAEMON_STUCK Error "daemon" "daemon-stuck": "the daemon takes connections and does not answer", "the kubelet's calls run into their time limits, and the node becomes NotReady";
    SOCKET_OPEN Warning "daemon" "socket-open": "a socket is open to others than root", "whoever reaches the socket is root on this node";
    NOT_ROOT Warning "daemon" "not-root": "the doctor does not run as root", "much of what it looks at can only be read by root";
    MONITOR_SILENT Warning "daemon" "monitor-silent": "monitors do not answer", "their pods cannot be started, attached to or measured; they can still be stopped";
    MONITOR_OLD Info "daemon" "monitor-old": "monitors of an older build run", "they keep working; a pod gets the new one when it is made anew";
    CONDITION Error "daemon" "condition": "the daemon says that it is not ready", "the kubelet marks the node NotReady, or pods with profiles are refused";
    DOCUMENT_REFUSED Error "documents" "document-refused": "documents on disk are refused", "the former settings stay in force, also after a restart";
    DOCUMENT_PENDING Warning "documents" "document-pending": "changed settings wait for a restart", "what the documents say is not what the node does";
    PULL_AUTH Warning "image-pulls" "pull-auth": "a registry refused credentials", "pods with these images stay in ImagePullBackOff";
    PULL_RATE Warning "image-pulls" "pull-rate-limit": "a registry limits this node's pulls (429)", "pulls fail until the limit's time is over";
    PULL_TLS Warning "image-pulls" "pull-tls": "a registry's certificate is not trusted", "nothing is pulled from it";
    PULL_DNS Warning "image-pulls" "pull-dns": "a registry's name cannot be resolved", "nothing is pulled from it";
    PULL_PROXY Warning "image-pulls" "pull-proxy": "a proxy refused or could not be reached", "registries behind it are out of reach";
    PULL_UNREACHABLE Warning "image-pulls" "pull-unreachable": "a registry cannot be reached or breaks off", "pods with its images stay in ImagePullBackOff";
    PULL_MISSING Warning "image-pulls" "pull-not-found": "an image does not exist", "pods with it stay in ImagePullBackOff";
    PULL_POLICY Warning "image-pulls" "pull-denied": "an image policy denied a pull", "pods with this image do not start";
    PULL_OTHER Warning "image-pulls" "pull-failed": "a pull failed", "pods with this image stay in ImagePullBackOff";
    START_FAILED Warning "starts" "start-failed": "pods or containers could not be started", "the kubelet tries again with growing pauses";
    CRASH_LOOP Warning "starts" "crash-loop": "a container ends with an error again and again", "its pod is not ready, and each attempt costs the node";
    OOM_KILLED Warning "starts" "oom-killed": "containers were killed for want of memory", "they lose what they were doing, and will again under the same load";
    DISK_FULL Error "disk" "disk-full": "a disk of the daemon is full", "pulls and new containers fail, and logs lose lines";
    DISK_LOW Warning "disk" "disk-low": "a disk of the daemon is nearly full", "the kubelet begins to evict pods at 85 % by default";
    INODES_FULL Error "disk" "inodes-full": "a file system of the daemon has no inodes left", "files cannot be made although there is space: pulls and containers fail";
    LOG_BIG Warning "disk" "log-big": "a container's log is very large", "the kubelet rotates logs; one that grows on is not the kubelet's, or rotation fails";
    MEMORY_LOW Warning "memory" "memory-low": "little memory is available", "the kernel kills processes when none is left";
    SWAP_ON Warning "memory" "swap-on": "swap is on and the kubelet does not allow it", "a kubelet with failSwapOn does not start";
    PIDS_GROUP Error "pids" "pids-limit": "a cgroup above the pods has reached its process limit", "no container can be started: fork fails with EAGAIN";
    PID_MAX Warning "pids" "pid-max": "the node runs out of process ids or threads", "no process can be started";
    FILES_LOW Warning "files" "files-low": "the node runs out of open files", "open and accept fail in every program";
    DAEMON_FILES Warning "files" "daemon-files": "the daemon runs out of descriptors", "starts and streams fail with EMFILE";
    INOTIFY_LOW Warning "files" "inotify-low": "root runs out of inotify instances", "the kubelet and log readers fail with \"too many open files\"";
    ADDRESSES_OUT Error "addresses" "addresses-exhausted": "all pod addresses are in use", "new pods fail at their network";
    ADDRESSES_LOW Warning "addresses" "addresses-low": "few pod addresses are left", "new pods will fail at their network";
    NETWORK_NOT_READY Error "network" "network-not-ready": "the pod network does not work", "the node is NotReady, and pods cannot be run";
    FORWARD_OFF Error "network" "forwarding-off": "the kernel does not forward packets", "pods reach nothing outside of the node";
    FORWARD_DROP Warning "network" "forward-drop": "another firewall drops what is forwarded", "pods may reach nothing outside of their node";
    MTU_HIGH Warning "network" "mtu-high": "the pods' MTU is larger than the node's", "large packets vanish: connections hang after the handshake";
    RESOLV_CONF Warning "network" "resolv-conf": "the node's resolv.conf names no usable server", "pods with dnsPolicy Default resolve nothing";
    CONNTRACK_FULL Warning "network" "conntrack-full": "the table of connections is nearly full", "the kernel drops new connections";
    CNI_CONFIG Error "network" "cni-config-missing": "there is no CNI configuration", "the node is NotReady until a network add-on writes one";
    CNI_PLUGIN Error "network" "cni-plugin-missing": "a CNI plugin's program is missing", "pods fail at their network";
    CNI_REFUSED Warning "network" "cni-config-refused": "a CNI configuration is refused", "it is passed over: pods get the network of another file, or none";
    CNI_DELETE Warning "network" "cni-delete-failed": "a pod's network cannot be deleted", "its address and rules stay taken until a DEL succeeds";
    CNI_BROKEN Warning "network" "cni-check-failed": "CNI finds a running pod's network broken", "the pod may reach nothing, or not be reached";
    KERNEL_OLD Warning "kernel" "kernel-old": "the kernel is older than 5.15", "user namespaces, id-mapped mounts and others are not there";
    KERNEL_FEATURE Error "kernel" "kernel-feature": "the kernel lacks something that containers need", "containers cannot be made";
    CLOCK_BEHIND Warning "kernel" "clock-behind": "the clock is behind the programs' own age", "certificates of registries seem to be not valid yet, and pulls fail";
    LSM_INFO Info "kernel" "lsm": "security modules that confine containers", "what pods may ask for";
    CONTROLLER_MISSING Error "cgroups" "controller-missing": "a cgroup controller is not there", "limits of pods cannot be applied, and such pods are refused";
    CGROUP_HYBRID Info "cgroups" "cgroup-v1": "the node has cgroup v1", "memory QoS and PSI of pods need cgroup v2, and Kubernetes is about to drop v1";
    DRIVER_DIFFERS Warning "cgroups" "cgroup-driver": "kubelet and daemon have different cgroup drivers", "with a kubelet before 1.34 pods end up outside of its groups, or are refused; later ones ask the daemon";
    KUBELET_ENDPOINT Warning "kubelet" "kubelet-endpoint": "a kubelet uses another runtime", "its pods do not run on this daemon";
    KUBELET_IMAGES Warning "kubelet" "kubelet-image-endpoint": "a kubelet pulls images elsewhere", "images that it pulled are not where its pods look";
    KUBELET_RESOLV Warning "kubelet" "kubelet-resolv-conf": "the kubelet's resolvConf does not work", "pods with dnsPolicy Default resolve nothing";
    KUBELET_PODS Warning "kubelet" "kubelet-max-pods": "the kubelet allows more pods than there are addresses", "the last ones fail at their network";
    KUBELET_CONFIG Warning "kubelet" "kubelet-config": "the kubelet's configuration cannot be read", "the doctor cannot compare it with the daemon's";
    LEFTOVER Warning "leftovers" "leftover": "something of a dead pod is left over", "it takes space or processes; the daemon removes such things when it starts";
}

/// Names of all checks, in the order in which they are told.
pub fn checks() -> Vec<&'static str> {
    let mut names: Vec<&str> = Vec::new();
    for kind in KINDS {
        if !names.contains(&kind.check) {
            names.push(kind.check);
        }
    }
    names
}

/// The table of docs/doctor.md.
#[cfg(test)]
fn table() -> String {
    let rows = KINDS.iter().map(|k| {
        let (check, id, severity) = (k.check, k.id, k.severity.as_str());
        format!("| `{check}` | `{id}` | {severity} | {} | {} |\n", k.title, k.why)
    });
    let head = "| check | finding | severity | what | why it matters |\n|---|---|---|---|---|\n";
    format!("{head}{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique() {
        let names: BTreeSet<&str> = KINDS.iter().map(|k| k.id).collect();
        assert_eq!(names.len(), KINDS.len());
    }

    #[test]
    fn the_guide_has_this_table() {
        let page = include_str!("../../../docs/doctor.md");
        assert!(page.contains(&table()), "docs/doctor.md has another table; it is to be:\n{}", table());
    }
}
