//! Kubelets that get other settings, and what is in their way.
use super::tests::{configuration, example_facts};
use super::*;
use crate::kubelet::Configuration;
use serde_json::json;

const LINE: &str = "kubelet --config=/c --config-dir=/c.d";
const OURS: &str = "/c.d/98-berth-settings.conf";

fn facts(line: &str, files: &[(&str, &str)], settings: serde_json::Value) -> ConfigureFacts {
    let example = example_facts();
    ConfigureFacts {
        id: "c1".into(),
        boot_id: "boot".into(),
        now: 1000,
        deadline: 1600,
        permission: Permission::Person,
        kubelet: KubeletProcess { configuration: configuration(line, files), ..example.kubelet },
        commands: None,
        runtime: example.new,
        on_berth: true,
        adopted: Some(Plan::example(Direction::Adopt)),
        former: None,
        found: Vec::new(),
        pods: Vec::new(),
        settings: settings.as_object().unwrap().clone(),
        restart: false,
    }
}

fn refused(facts: &ConfigureFacts) -> String {
    configure(facts).unwrap_err().iter().map(|r| format!("{r}\n")).collect()
}

fn state(text: &str) -> FileState {
    FileState { text: text.into(), sha256: String::new(), mode: 0o644, uid: 0, gid: 0 }
}

/// The facts of the node after that plan was carried out.
fn after(plan: &Plan, settings: serde_json::Value) -> ConfigureFacts {
    let text = plan.files.last().unwrap().after.as_ref().unwrap().text.clone();
    let mut next = facts(LINE, &[("/c", "maxPods: 110\n"), (OURS, &text)], settings);
    next.found = vec![(OURS.into(), state(&text))];
    next.former = Some(plan.clone());
    next
}

#[test]
fn settings_become_one_file_which_is_written_anew_and_goes() {
    let wish = json!({"maxPods": 80, "evictionHard": {"memory.available": "200Mi"}});
    let plan = configure(&facts(LINE, &[("/c", "maxPods: 110\n")], wish.clone())).unwrap().unwrap();
    assert_eq!((plan.direction, plan.steps.as_slice()), (Direction::Configure, Direction::Configure.steps()));
    assert_eq!((plan.from.clone(), plan.profile), (plan.to.clone(), Profile::Kubeadm));
    let [file] = &plan.files[..] else { panic!("{:?}", plan.files) };
    assert_eq!((file.path.to_str(), &file.before), (Some(OURS), &None));
    let text = &file.after.as_ref().unwrap().text;
    let told = crate::yaml::fields(text).unwrap();
    assert_eq!((&told["maxPods"], &told["evictionHard"]), (&json!(80), &json!({"memory.available": "200Mi"})));
    assert_eq!(told["kind"], "KubeletConfiguration");

    assert_eq!(configure(&after(&plan, wish)).unwrap(), None, "nothing to do");
    let other = configure(&after(&plan, json!({"maxPods": 70}))).unwrap().unwrap();
    assert_eq!(other.files[0].before.as_ref().map(|state| &state.text), Some(text), "what is there comes back");
    let none = configure(&after(&plan, json!({}))).unwrap().unwrap();
    assert!(none.files[0].after.is_none());
    assert_eq!(configure(&facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], json!({}))).unwrap(), None);
}

#[test]
fn a_restart_is_one_of_a_kubelet_that_has_its_settings_too() {
    let line = [("/c", "maxPods: 110\n")];
    let wish = json!({"maxPods": 80});
    let plan = configure(&facts(LINE, &line, wish.clone())).unwrap().unwrap();
    let again = ConfigureFacts { restart: true, ..after(&plan, wish) };
    let restarts = configure(&again).unwrap().unwrap();
    assert!(restarts.restart && !plan.restart);
    assert_eq!(restarts.steps, Direction::Configure.steps());
    let [file] = &restarts.files[..] else { panic!("{:?}", restarts.files) };
    let text = |state: &Option<FileState>| state.as_ref().map(|state| state.text.clone());
    assert_eq!((text(&file.before), text(&file.after)), (text(&plan.files[0].after), text(&plan.files[0].after)));
    assert_eq!(restarts.settings, plan.settings, "what is in force stays in force");

    let bare = ConfigureFacts { restart: true, ..facts("kubelet --config=/c", &line, json!({})) };
    assert!(configure(&bare).unwrap().unwrap().files.is_empty(), "without a directory for settings too");
    let gate = [("/c", "featureGates: {KubeletCgroupDriverFromCRI: false}\n")];
    let deaf = ConfigureFacts { restart: true, ..facts(LINE, &gate, json!({})) };
    assert!(refused(&deaf).contains("featureGates.KubeletCgroupDriverFromCRI: is false"), "{}", refused(&deaf));
    assert_eq!(configure(&ConfigureFacts { restart: false, ..deaf }).unwrap(), None);
}

#[test]
fn a_kubelet_that_reads_another_directory_has_the_file_moved() {
    let plan =
        configure(&facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], json!({"maxPods": 80}))).unwrap().unwrap();
    let mut moved = after(&plan, json!({"maxPods": 80}));
    moved.kubelet.configuration =
        configuration("kubelet --config=/c --config-dir=/d", &[("/c", "kind: KubeletConfiguration\n")]);
    let files = configure(&moved).unwrap().unwrap().files;
    let files: Vec<_> = files.iter().map(|f| (f.path.to_str().unwrap(), f.after.is_some())).collect();
    assert_eq!(files, [(OURS, false), ("/d/98-berth-settings.conf", true)]);
}

#[test]
fn what_is_overruled_is_refused_with_whoever_does_it() {
    let wish = json!({"imageGCHighThresholdPercent": 70});
    let flag =
        facts(&format!("{LINE} --image-gc-high-threshold=80"), &[("/c", "kind: KubeletConfiguration\n")], wish.clone());
    assert!(
        refused(&flag).contains("--image-gc-high-threshold: is on the kubelet's command line"),
        "{}",
        refused(&flag)
    );
    let file = [("/c", "kind: KubeletConfiguration\n")];
    let loud = refused(&facts(&format!("{LINE} --v=2"), &file, json!({"logging": {"verbosity": 4}})));
    assert!(loud.contains("--v: is on the kubelet's command line"), "{loud}");
    let format = facts(&format!("{LINE} --v=2"), &file, json!({"logging": {"format": "json"}}));
    assert!(configure(&format).is_ok(), "a flag of another part is in nobody's way");
    let later = [("/c", "kind: KubeletConfiguration\n"), ("/c.d/99-site.conf", "imageGCHighThresholdPercent: 90\n")];
    let later = refused(&facts(LINE, &later, wish.clone()));
    assert!(later.contains("/c.d/99-site.conf") && later.contains("would be 90"), "{later}");
    let same = [("/c", "kind: KubeletConfiguration\n"), ("/c.d/99-site.conf", "imageGCHighThresholdPercent: 70\n")];
    assert!(configure(&facts(LINE, &same, wish.clone())).is_ok(), "who says the same is in nobody's way");
    let earlier = [("/c", "kind: KubeletConfiguration\n"), ("/c.d/10-site.conf", "imageGCHighThresholdPercent: 90\n")];
    assert!(configure(&facts(LINE, &earlier, wish)).is_ok());
    let entries =
        [("/c", "kind: KubeletConfiguration\n"), ("/c.d/99-site.conf", "evictionHard: {nodefs.available: 5%}\n")];
    let wish = json!({"evictionHard": {"memory.available": "200Mi"}});
    assert!(configure(&facts(LINE, &entries, wish)).is_ok(), "maps are merged entry by entry");
}

#[test]
fn nodes_where_it_cannot_be_done_are_refused() {
    let wish = || json!({"maxPods": 80});
    let no_dir = refused(&facts("kubelet --config=/c", &[("/c", "kind: KubeletConfiguration\n")], wish()));
    assert!(no_dir.contains("--config-dir: is not given") && no_dir.contains("start the kubelet with"), "{no_dir}");
    let foreign = ConfigureFacts { on_berth: false, ..facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], wish()) };
    assert!(refused(&foreign).contains("take the node over first"));
    let grant = Permission::Grant(Grant { id: "g".into(), expires: 999 });
    assert!(
        refused(&ConfigureFacts {
            permission: grant,
            ..facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], wish())
        })
        .starts_with("grant g: has expired")
    );
    let theirs = ConfigureFacts {
        found: vec![(OURS.into(), state("x: 1\n"))],
        ..facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], wish())
    };
    assert!(refused(&theirs).contains("is there already"));
    let mut native = facts(LINE, &[("/c", "kind: KubeletConfiguration\n")], wish());
    native.adopted = None;
    let plan = configure(&native).unwrap().unwrap();
    assert!(plan.install.daemon_before, "a daemon that was there from the beginning stays");
    native.kubelet.unit = None;
    assert!(refused(&native).contains("--kubelet-stop"));
    native.commands = Some(Commands { stop: vec!["/stop".into()], start: vec!["/start".into()] });
    assert_eq!(configure(&native).unwrap().unwrap().profile, Profile::Command);
    native.kubelet.configuration = Configuration::default();
    native.settings.clear();
    assert_eq!(configure(&native).unwrap(), None, "what is not wanted needs no directory");
}
