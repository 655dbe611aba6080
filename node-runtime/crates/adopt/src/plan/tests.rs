//! Nodes as they are met, and what is done about them.
use super::*;
use crate::kubelet::{Configuration, ENDPOINT, Files, STATS_GATE};
use std::collections::BTreeMap;
use std::io;
use std::path::Path;

struct Memory(BTreeMap<PathBuf, String>);

impl Files for Memory {
    fn text(&self, path: &Path) -> io::Result<String> {
        self.0.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn below(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.0.keys().filter(|path| path.starts_with(dir)).cloned().collect())
    }
}

pub(crate) fn configuration(line: &str, files: &[(&str, &str)]) -> Configuration {
    let files = files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect();
    Configuration::read(line.split(' ').map(str::to_owned).collect(), &Memory(files))
}

/// A node of kubeadm's, 1.34 and before: the endpoint is a flag.
pub(crate) fn example_facts() -> Facts {
    let line = "kubelet --config=/var/lib/kubelet/config.yaml --container-runtime-endpoint=unix:///run/containerd/containerd.sock";
    let files = [("/var/lib/kubelet/config.yaml", "cgroupDriver: systemd\nkind: KubeletConfiguration\n")];
    let runtime = |socket: &str, name: &str| Runtime {
        socket: socket.into(),
        name: name.into(),
        version: "1".into(),
        cgroup_driver: Some("systemd".into()),
    };
    let pod = |name: &str, is_static, image: &str| Pod {
        name: PodName { namespace: "kube-system".into(), name: name.into() },
        is_static,
        images: vec![image.into()],
        ended: vec![format!("{image}-init")],
    };
    Facts {
        id: "a1".into(),
        boot_id: "boot".into(),
        now: 1000,
        deadline: 1600,
        kubelet: KubeletProcess {
            pid: 7,
            configuration: configuration(line, &files),
            unit: Some("kubelet.service".into()),
            unit_process: Some(7),
            kubeadm: true,
        },
        profile: None,
        commands: None,
        carriers: vec![Carrier {
            path: "/var/lib/kubelet/kubeadm-flags.env".into(),
            text: "KUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n"
                .into(),
            kind: CarrierKind::Environment,
        }],
        instance_config: None,
        old: runtime("/run/containerd/containerd.sock", "containerd"),
        new: runtime("/run/berth/berth.sock", "berth"),
        handed: Handed::default(),
        pods: vec![pod("proxy-x", false, "proxy:1"), pod("logs-node", true, "logs:1")],
        manifests: Vec::new(),
        install: Install {
            prefix: "/opt/berth".into(),
            from: "/tmp".into(),
            version: "0.1.0".into(),
            current_before: None,
            staged_before: false,
            prefix_before: false,
            daemon_before: false,
            systemd: true,
            unit_before: false,
            unit_enabled_before: false,
            network_before: false,
        },
        permission: Permission::Grant(Grant { id: "g".into(), expires: 2000 }),
        control_plane: false,
        keep_stats: false,
        attributes: vec![("/var/lib/kubelet/config.yaml".into(), (0o600, 0, 0))],
        existing: Vec::new(),
    }
}

fn refused(facts: &Facts) -> String {
    adopt(facts).unwrap_err().iter().map(|r| format!("{r}\n")).collect()
}

#[test]
fn kubeadm_nodes_have_flags_and_configuration_changed() {
    let plan = adopt(&example_facts()).unwrap();
    assert_eq!(plan.profile, Profile::Kubeadm);
    assert_eq!(plan.commands.stop, ["systemctl", "stop", "kubelet.service"]);
    let paths: Vec<_> = plan.files.iter().map(|f| f.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/var/lib/kubelet/kubeadm-flags.env", "/var/lib/kubelet/config.yaml"]);
    assert!(plan.files[0].after.as_ref().unwrap().text.contains("unix:///run/berth/berth.sock"));
    assert_eq!(plan.files[1].after.as_ref().unwrap().mode, 0o600, "permissions stay");
    assert_eq!((plan.images.as_slice(), plan.pods.len()), (&["logs:1".to_owned()][..], 1));
    assert_eq!(
        plan.wished,
        ["logs:1-init", "proxy:1", "proxy:1-init"],
        "of what a drain leaves, also what has ended in it"
    );
}

/// The kubelet takes both for the same.
#[test]
fn a_flag_with_low_lines_is_changed_like_one_with_hyphens() {
    let mut facts = example_facts();
    let other = |text: &str| text.replace("container-runtime-endpoint", "container_runtime_endpoint");
    let line = other(&facts.kubelet.configuration.arguments.join(" "));
    facts.kubelet.configuration = configuration(&line, &[("/var/lib/kubelet/config.yaml", "cgroupDriver: systemd\n")]);
    assert_eq!(facts.kubelet.configuration.origin(ENDPOINT), crate::kubelet::Origin::Flag);
    facts.carriers[0].text = other(&facts.carriers[0].text);
    let plan = adopt(&facts).unwrap();
    let text = &plan.files[0].after.as_ref().unwrap().text;
    assert_eq!(text, "KUBELET_KUBEADM_ARGS=\"--container_runtime_endpoint=unix:///run/berth/berth.sock\"\n");
}

#[test]
fn newer_kubeadm_nodes_have_the_instance_configuration_changed_too() {
    let endpoint = "containerRuntimeEndpoint: \"unix:///run/containerd/containerd.sock\"\n";
    let mut facts = example_facts();
    let config = format!("cgroupDriver: systemd\n{endpoint}");
    facts.kubelet.configuration =
        configuration("kubelet --config=/var/lib/kubelet/config.yaml", &[("/var/lib/kubelet/config.yaml", &config)]);
    facts.instance_config = Some(("/var/lib/kubelet/instance-config.yaml".into(), endpoint.into()));
    let plan = adopt(&facts).unwrap();
    let paths: Vec<_> = plan.files.iter().map(|f| f.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/var/lib/kubelet/config.yaml", "/var/lib/kubelet/instance-config.yaml"]);
    assert_eq!(plan.files[1].after.as_ref().unwrap().text, "containerRuntimeEndpoint: unix:///run/berth/berth.sock\n");
    facts.instance_config = None;
    assert!(adopt(&facts).unwrap().notes[0].contains("kubeadm upgrade node"));
}

#[test]
fn drop_ins_are_added_where_there_are_drop_ins() {
    let mut facts = example_facts();
    let line = "kubelet --config=/c --config-dir=/c.d";
    facts.kubelet.kubeadm = false;
    facts.kubelet.configuration = configuration(line, &[("/c", "cgroupDriver: systemd\n")]);
    let plan = adopt(&facts).unwrap();
    assert_eq!((plan.profile, plan.files.len()), (Profile::Systemd, 1));
    assert_eq!((plan.files[0].path.to_str(), &plan.files[0].before), (Some("/c.d/99-berth.conf"), &None));
    let back = plan.files[0].reversed();
    assert!(back.after.is_none() && back.reversed() == plan.files[0]);

    facts.existing = vec!["/c.d/99-berth.conf".into()];
    assert!(refused(&facts).contains("is there already"));
    facts.existing.clear();
    let later = [("/c", ""), ("/c.d/99-zz.conf", "containerRuntimeEndpoint: unix:///x\n")];
    facts.kubelet.configuration = configuration(line, &later[1..]);
    facts.kubelet.configuration.problems.clear();
    assert!(refused(&facts).contains("is read after"));
}

#[test]
fn a_flag_in_a_unit_is_overridden_and_one_from_nowhere_refused() {
    let mut facts = example_facts();
    facts.kubelet.kubeadm = false;
    facts.carriers = vec![Carrier {
        path: "/lib/systemd/system/kubelet.service".into(),
        text: "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock\n".into(),
        kind: CarrierKind::Unit,
    }];
    let plan = adopt(&facts).unwrap();
    assert_eq!(plan.files[0].path.to_str(), Some("/etc/systemd/system/kubelet.service.d/99-berth.conf"));
    facts.carriers[0].text = facts.carriers[0].text.replace("unix:///run/containerd", "unix:///run/later");
    assert!(refused(&facts).contains("in none of the files"), "it runs otherwise than its files say");
    facts.carriers.clear();
    assert!(refused(&facts).contains("--kubelet-flags-file"));
}

#[test]
fn a_units_other_command_line_is_seen_behind_what_overrides_it_and_holds_after_the_return() {
    let mut facts = example_facts();
    facts.kubelet.kubeadm = false;
    let carrier = |path: &str, kind, text: &str| Carrier { path: path.into(), text: text.into(), kind };
    let line = "ExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///run/containerd/containerd.sock $EXTRA";
    facts.carriers =
        vec![carrier("/lib/systemd/system/kubelet.service", CarrierKind::Unit, &format!("[Service]\n{line}\n"))];
    let plan = adopt(&facts).unwrap();
    let units: Vec<_> = plan.files.iter().map(overridden_unit).collect();
    assert_eq!(units, [Some("kubelet.service"), None], "the configuration file overrides nothing");
    let ours =
        carrier(plan.files[0].path.to_str().unwrap(), CarrierKind::Unit, &plan.files[0].after.as_ref().unwrap().text);
    let flags = carrier("/etc/default/kubelet", CarrierKind::Environment, "EXTRA=--v=2\n");
    let outdated = |unit: &Carrier| is_outdated(&plan, &plan.files[0], &[unit.clone(), ours.clone(), flags.clone()]);
    assert!(!outdated(&facts.carriers[0]));
    let upgraded =
        Carrier { text: facts.carriers[0].text.replace("$EXTRA", "--new $EXTRA"), ..facts.carriers[0].clone() };
    assert!(outdated(&upgraded));
    assert!(!is_outdated(&plan, &plan.files[0], &[ours, flags]), "without the unit's own files nothing is known");
    // Its drop-in goes on the way back, so that the unit's own line counts, and that one is what the kubelet runs with when it is taken again.
    let back = give_back(&plan, &return_facts()).unwrap();
    assert!(back.files.iter().any(|change| change.path == plan.files[0].path && change.after.is_none()));
    facts.carriers = vec![upgraded];
    let again = adopt(&facts).unwrap();
    assert!(again.files[0].after.as_ref().unwrap().text.contains("berth.sock --new $EXTRA"));
}

/// One that is in back-off just now.
fn etcd() -> Manifest {
    let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd}\nspec:\n  initContainers: [{image: \"init:1\"}]\n  containers: [{image: \"etcd:1\"}, {}]\n";
    manifest(text).unwrap()
}

#[test]
fn static_pods_that_do_not_run_are_known_by_their_files() {
    let images = vec!["init:1".into(), "etcd:1".into()];
    assert_eq!(etcd(), Manifest { namespace: "default".into(), name: "etcd".into(), images });
    let named = "kind: Pod\nmetadata: {name: a, namespace: kube-system}\nspec: {}\n";
    assert_eq!(manifest(named).unwrap().namespace, "kube-system");
    for bad in ["", "kind: List", "kind: Pod", "{\"kind\": \"Pod\", \"metadata\": {\"name\": 1}, \"spec\": {}}"] {
        assert_eq!(manifest(bad), None, "{bad:?}");
    }
    let mut facts = example_facts();
    facts.manifests = vec![etcd()];
    facts.control_plane = true;
    assert_eq!(adopt(&facts).unwrap().images, ["etcd:1", "init:1", "logs:1"]);
}

#[test]
fn without_a_service_manager_it_is_said_what_a_reboot_needs() {
    let mut facts = example_facts();
    assert!(adopt(&facts).unwrap().notes.is_empty());
    facts.install.systemd = false;
    assert!(adopt(&facts).unwrap().notes[0].contains("/opt/berth/current/berth supervise"));
}

/// The other side of it: `a_node_of_the_control_plane_that_is_not_asked_for_is_no_refusal_of_the_revision`
/// (node-runtime/crates/agent/src/host/adopt/tests.rs).
#[test]
fn a_part_of_the_control_plane_is_told_by_a_word() {
    let mut facts = example_facts();
    facts.manifests = vec![etcd()];
    facts.kubelet.configuration.problems.push(("/x".into(), "no".into()));
    let reasons = adopt(&facts).unwrap_err().into_iter().map(|r| serde_json::to_value(r).unwrap()["reason"].clone());
    let reasons: Vec<_> = reasons.collect();
    assert_eq!(reasons, [serde_json::Value::Null, "ControlPlane".into()]);
    facts.control_plane = true;
    assert!(adopt(&facts).unwrap_err().iter().all(|refusal| refusal.reason.is_none()));
}

#[test]
fn what_is_not_known_is_refused_with_a_remedy() {
    type Change = fn(&mut Facts);
    let cases: [(&str, Change); 13] = [
        ("is going to end", |f| f.permission = Permission::Nobody),
        ("has expired 5 s ago", |f| f.permission = Permission::Grant(Grant { id: "g".into(), expires: 995 })),
        ("control plane", |f| f.pods[1].name.name = "kube-apiserver-node".into()),
        ("static pod etcd: is a part of the control plane", |f| f.manifests = vec![etcd()]),
        ("main process of kubelet.service, which is process 5", |f| f.kubelet.unit_process = Some(5)),
        ("already", |f| f.new.socket = f.old.socket.clone()),
        ("another Berth", |f| f.old.name = "berth".into()),
        ("spec.runtime.cgroupManager: Systemd", |f| f.new.cgroup_driver = Some("cgroupfs".into())),
        ("--kubelet-stop", |f| f.kubelet.unit = None),
        ("what was found is kubeadm", |f| f.profile = Some(Profile::Command)),
        ("images come from a service", |f| {
            f.kubelet.configuration.settings.insert("imageServiceEndpoint".into(), "unix:///i".into());
        }),
        ("cannot be read: no", |f| f.kubelet.configuration.problems.push(("/x".into(), "no".into()))),
        ("wins over every file", |f| {
            f.kubelet.configuration.arguments.push(format!("--feature-gates={STATS_GATE}=false"));
        }),
    ];
    for (words, change) in cases {
        let mut facts = example_facts();
        change(&mut facts);
        assert!(refused(&facts).contains(words), "{words}: {}", refused(&facts));
    }
    let mut facts = example_facts();
    facts.permission = Permission::Person;
    assert!(adopt(&facts).is_ok());
    facts.kubelet.configuration.arguments.push("--kubeconfig=/etc/kubernetes/kubelet.conf".into());
    assert!(refused(&facts).contains("belongs to a cluster"));
}

#[test]
fn commands_that_are_given_make_the_profile() {
    let mut facts = example_facts();
    facts.commands = Some(Commands { stop: vec!["/stop".into()], start: vec!["/start".into()] });
    let plan = adopt(&facts).unwrap();
    assert_eq!((plan.profile, plan.commands.start.as_slice()), (Profile::Command, &["/start".to_owned()][..]));
    facts.keep_stats = true;
    assert_eq!(adopt(&facts).unwrap().files.len(), 1, "only the flag");
    facts.kubelet.configuration.file = None;
    facts.keep_stats = false;
    assert!(refused(&facts).contains("--keep-stats-gate"));
    assert_eq!(facts.kubelet.configuration.origin(ENDPOINT), crate::kubelet::Origin::Flag);
}

fn return_facts() -> ReturnFacts {
    ReturnFacts {
        id: "r1".into(),
        boot_id: "boot".into(),
        now: 1000,
        deadline: 1600,
        permission: Permission::Person,
        kubelet: None,
        commands: None,
        without_daemon: false,
        changed: Vec::new(),
        pods: Vec::new(),
        others: Vec::new(),
    }
}

#[test]
fn the_way_back_is_the_same_in_reverse() {
    let adopted = Plan::example(Direction::Adopt);
    let facts = ReturnFacts { pods: adopted.pods.clone(), ..return_facts() };
    let back = give_back(&adopted, &facts).unwrap();
    assert_eq!((&back.from, &back.to, back.direction), (&adopted.to, &adopted.from, Direction::Return));
    assert_eq!(back.files.len(), 2);
    assert_eq!(back.files[1].after, adopted.files[0].before);
    let clustered = Plan { in_cluster: true, ..adopted.clone() };
    assert!(give_back(&clustered, &facts).unwrap_err()[0].to_string().contains("belongs to a cluster"));
    let stays = ReturnFacts { others: vec![adopted.pods[0].clone()], ..facts.clone() };
    assert!(give_back(&adopted, &stays).unwrap_err()[0].to_string().contains("berth rm --force"));
}

/// Both may have changed since the adoption, and it is by them that the kubelet is stopped, started and proven to be well.
#[test]
fn the_way_back_goes_by_the_kubelet_as_it_is_now() {
    let adopted = Plan::example(Direction::Adopt);
    assert_eq!(adopted.healthz, Some(("127.0.0.1".to_owned(), 10248)));
    let mut moved = Configuration::default();
    moved.settings.insert("healthzPort".to_owned(), 10300.into());
    let healthz = |kubelet| give_back(&adopted, &ReturnFacts { kubelet, ..return_facts() }).unwrap().healthz;
    assert_eq!(healthz(None), adopted.healthz, "none runs");
    assert_eq!(healthz(Some(moved.clone())), Some(("127.0.0.1".to_owned(), 10300)));
    moved.problems.push(("/etc/k.yaml".into(), "is no text".to_owned()));
    assert_eq!(healthz(Some(moved)), adopted.healthz, "it cannot be read");
    let new = Commands { stop: vec!["/new/stop".into()], start: vec!["/new/start".into()] };
    let facts = ReturnFacts { commands: Some(new.clone()), ..return_facts() };
    let back = give_back(&adopted, &facts).unwrap();
    assert_eq!((back.commands, back.notes.len()), (adopted.commands.clone(), 1), "it has a unit");
    let by_command = Plan { profile: Profile::Command, ..adopted };
    assert_eq!(give_back(&by_command, &facts).unwrap().commands, new);
}

/// Whoever gave it knows it by its field again, whatever the words are: `refused` in node-runtime/crates/agent/src/host/adopt.rs.
#[test]
fn a_grant_that_is_over_is_told_by_its_name() {
    let over = || Permission::Grant(Grant { id: "new@995".into(), expires: 995 });
    let adopted = Plan::example(Direction::Adopt);
    let adopting = Facts { permission: over(), ..example_facts() };
    let returning = ReturnFacts { permission: over(), ..return_facts() };
    for refusals in [adopt(&adopting).unwrap_err(), give_back(&adopted, &returning).unwrap_err()] {
        let told = serde_json::to_value(&refusals).unwrap();
        assert_eq!((told[0]["field"].as_str(), refusals.len()), (Some("grant new@995"), 1), "{told}");
    }
    let both = Facts {
        handed: Handed { unfit: vec![Refusal::new("--config", "is bad", "mend it")], ..Handed::default() },
        ..adopting
    };
    assert_eq!(adopt(&both).unwrap_err().len(), 2, "what else speaks against it is told too");
}

/// kubeadm writes both files anew at an upgrade; what names Berth in them goes, and nothing else.
#[test]
fn files_that_others_have_changed_get_their_runtime_back() {
    let adopted = Plan::example(Direction::Adopt);
    let (flags, config) = (&adopted.files[0], &adopted.files[1]);
    let after = |change: &FileChange| change.after.clone().unwrap();
    let facts = |changed| ReturnFacts { changed, ..return_facts() };
    let found = |change: &FileChange, text: String| Found {
        path: change.path.clone(),
        now: Ok(Some(FileState { text, ..after(change) })),
    };
    let with_more = found(flags, after(flags).text.replace("ARGS=\"", "ARGS=\"--v=4 "));
    let anew = found(config, "cgroupDriver: systemd\nmaxPods: 50\n".into());
    let back = give_back(&adopted, &facts(vec![with_more.clone(), anew])).unwrap();
    assert_eq!((back.files.len(), back.notes.len()), (1, 2), "the other one does not name Berth any more");
    assert_eq!(back.files[0].before, with_more.now.unwrap());
    assert_eq!(
        back.files[0].after.as_ref().unwrap().text,
        "KUBELET_KUBEADM_ARGS=\"--v=4 --container-runtime-endpoint=unix:///run/containerd/containerd.sock\"\n"
    );
    let gone = Found { path: config.path.clone(), now: Ok(None) };
    let back = give_back(&adopted, &facts(vec![gone])).unwrap();
    assert_eq!((&back.files[0].before, &back.files[0].after), (&None, &config.before));
    for bad in [
        Found { path: config.path.clone(), now: Err("is a symbolic link".into()) },
        found(flags, "A=unix:///run/berth/berth.sock\n".into()),
    ] {
        let refused = give_back(&adopted, &facts(vec![bad])).unwrap_err()[0].to_string();
        assert!(refused.contains("run `berth adopt return` again"), "{refused}");
    }
    let mut adopted = adopted;
    adopted.files[1].before = None;
    let back = give_back(&adopted, &facts(vec![found(&adopted.files[1], "a: 1\n".into())])).unwrap();
    assert_eq!(back.files[0].after, None, "what was made for Berth alone goes");
}
