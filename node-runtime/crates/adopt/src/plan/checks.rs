//! What speaks against taking a node over, and how its kubelet is stopped and started.
//!
//! Owns: those judgements, each with what was found and what to do. Must not: decide about files.
use super::{Commands, Facts, KubeletProcess, Permission, Profile, Reason, Refusal};
use crate::kubelet::{self, Configuration, STATS_GATE};

/// Start of the names of the control plane's static pods, as kubeadm and others give them.
const CONTROL_PLANE: [&str; 4] = ["kube-apiserver", "etcd", "kube-controller-manager", "kube-scheduler"];

/// All of it, but what concerns single files.
pub(super) fn all(facts: &Facts) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let configuration = &facts.kubelet.configuration;
    refusals.extend(readable(configuration));
    refusals.extend(facts.handed.unfit.iter().cloned());
    refusals.extend(runtimes(facts));
    if let Some(endpoint) = configuration.text("imageServiceEndpoint").filter(|e| !e.is_empty()) {
        refusals.push(Refusal::new(
            "imageServiceEndpoint",
            format!("is {endpoint:?}: images come from a service of their own"),
            "remove it (and --image-service-endpoint), and restart the kubelet",
        ));
    }
    let switched_off = kubelet::gates(&configuration.arguments).iter().any(|(name, on)| name == STATS_GATE && !on);
    if switched_off && !facts.keep_stats {
        refusals.push(Refusal::new(
            format!("--feature-gates={STATS_GATE}"),
            "is false on the command line, which wins over every file",
            "remove it there, or use --keep-stats-gate (in a cluster the chart's agent.adopt.keepStatsGate): the kubelet then knows nothing of the pods' networks",
        ));
    }
    refusals.extend(permission(&facts.permission, in_cluster(&facts.kubelet), facts.now));
    let running = facts.pods.iter().filter(|pod| pod.is_static).map(|pod| pod.name.name.as_str());
    // Those that are not up just now make no less of a control plane.
    let mut all = running.chain(facts.manifests.iter().map(|manifest| manifest.name.as_str()));
    let plane = all.find(|pod| CONTROL_PLANE.iter().any(|name| pod.starts_with(name)));
    if let Some(pod) = plane.filter(|_| !facts.control_plane) {
        let refusal = Refusal::new(
            format!("static pod {pod}"),
            "is a part of the control plane",
            "use --control-plane (in a cluster spec.rollout.controlPlane: Last) to take such a node over, one after the other",
        );
        refusals.push(refusal.known_as(Reason::ControlPlane));
    }
    refusals
}

/// What speaks against changing a configuration that cannot be read, or be found.
pub(super) fn readable(configuration: &Configuration) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    for (path, problem) in &configuration.problems {
        refusals.push(Refusal::new(
            path.display().to_string(),
            format!("cannot be read: {problem}"),
            "what the kubelet would do with it cannot be known; mend it, and restart the kubelet",
        ));
    }
    let sources = configuration.file.iter().map(|file| &file.path).chain(&configuration.drop_in_dir);
    for path in sources.filter(|path| !path.is_absolute()) {
        refusals.push(Refusal::new(
            path.display().to_string(),
            "is relative to the kubelet's working directory",
            "name it by its whole path on the kubelet's command line",
        ));
    }
    refusals
}

/// Whether the kubelet belongs to a cluster.
pub(super) fn in_cluster(kubelet: &KubeletProcess) -> bool {
    kubelet::flag(&kubelet.configuration.arguments, "kubeconfig").is_some()
}

fn runtimes(facts: &Facts) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    let endpoint = facts.kubelet.configuration.endpoint();
    if facts.old.socket == facts.new.socket {
        refusals.push(Refusal::new(
            kubelet::ENDPOINT,
            format!("is {endpoint:?}"),
            "the kubelet is on Berth already; there is nothing to do",
        ));
    } else if facts.old.name == "berth" {
        refusals.push(Refusal::new(
            kubelet::ENDPOINT,
            format!("is {endpoint:?}, which is another Berth"),
            "name that one's root with --root",
        ));
    }
    let told = facts.kubelet.configuration.text("cgroupDriver");
    // What the runtime says counts for the kubelet (KEP-4033); an older runtime says nothing, and then the configuration does.
    let driver = facts.old.cgroup_driver.clone().or(told).unwrap_or_else(|| "cgroupfs".to_owned());
    if let Some(ours) = facts.new.cgroup_driver.as_ref().filter(|ours| **ours != driver) {
        let wanted = if driver == "systemd" { "Systemd" } else { "Cgroupfs" };
        let place = match &facts.handed.change {
            Some(change) => format!("the RuntimeConfig that {} comes from", change.wanted.name),
            None => "a document of /etc/berth".to_owned(),
        };
        refusals.push(Refusal::new(
            "cgroupDriver",
            format!("is {driver} on this node, and {ours} for Berth"),
            format!("set spec.runtime.cgroupManager: {wanted} in {place}"),
        ));
    }
    refusals
}

/// Nobody's pods are interrupted without somebody's word.
pub(super) fn permission(permission: &Permission, in_cluster: bool, now: u64) -> Option<Refusal> {
    match permission {
        Permission::Grant(grant) if grant.expires > now => None,
        Permission::Grant(grant) => Some(Refusal::new(
            format!("grant {}", grant.id),
            format!("has expired {} s ago", now - grant.expires),
            "cordon and drain the node, and give a new grant",
        )),
        Permission::Person if in_cluster => Some(Refusal::new(
            "--without-grant",
            "the kubelet has a kubeconfig, so this node belongs to a cluster",
            "cordon and drain it, and use --grant ID --grant-expires TIME",
        )),
        Permission::Person => None,
        Permission::Nobody => Some(Refusal::new(
            "--grant",
            "is not given, and every pod of this node is going to end",
            "on a node of a cluster use --grant ID --grant-expires TIME; on a node without one --without-grant",
        )),
    }
}

/// How the kubelet is started, and the commands for it.
pub(super) fn profile(
    kubelet: &KubeletProcess,
    given: Option<&Commands>,
    wanted: Option<Profile>,
) -> Result<(Profile, Commands), Refusal> {
    let found = match (given, &kubelet.unit) {
        (Some(_), _) => Profile::Command,
        (None, Some(_)) if kubelet.kubeadm => Profile::Kubeadm,
        (None, Some(_)) => Profile::Systemd,
        (None, None) => {
            return Err(Refusal::new(
                format!("kubelet (process {})", kubelet.pid),
                "is not started by a unit of systemd",
                "say how it is stopped and started: --kubelet-stop COMMAND --kubelet-start COMMAND",
            ));
        }
    };
    let other = kubelet.unit_process.filter(|process| *process != kubelet.pid);
    if let (None, Some(unit), Some(process)) = (given, &kubelet.unit, other) {
        return Err(Refusal::new(
            format!("kubelet (process {})", kubelet.pid),
            format!(
                "is not the main process of {unit}, which is process {process}: stopping that unit would end more than the kubelet"
            ),
            "distributions that start it from a program of their own (k3s, k0s, RKE2) are not known; where there are commands that stop and start the kubelet alone, give them: --kubelet-stop COMMAND --kubelet-start COMMAND",
        ));
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != found) {
        return Err(Refusal::new(
            "--profile",
            format!("is {}, but what was found is {}", wanted.name(), found.name()),
            "leave it out, or give the kubelet's commands for the profile `command`",
        ));
    }
    let commands = match (given, &kubelet.unit) {
        (Some(commands), _) => commands.clone(),
        (None, unit) => {
            let unit = unit.clone().unwrap_or_default();
            let systemctl = |verb: &str| vec!["systemctl".to_owned(), verb.to_owned(), unit.clone()];
            Commands { stop: systemctl("stop"), start: systemctl("start") }
        }
    };
    Ok((found, commands))
}
