//! Arguments, environment, directory, user, capabilities, commands.
use super::*;
use crate::spec::{DEFAULT_CAPABILITIES, capabilities, exec_process, seccomp_filter};
use berth_model::{NamespaceMode, Profile, RunAs, SecurityContext, capability_bit};
use berth_monitor_api::spec::TerminalSize;

#[test]
fn commands_and_arguments_replace_the_images() {
    for (command, args, entrypoint, cmd, expected) in [
        (vec![], vec![], vec!["/e"], vec!["c"], Some(vec!["/e", "c"])),
        (vec![], vec!["a"], vec!["/e"], vec!["c"], Some(vec!["/e", "a"])),
        (vec!["x"], vec![], vec!["/e"], vec!["c"], Some(vec!["x"])),
        (vec!["x"], vec!["a"], vec!["/e"], vec!["c"], Some(vec!["x", "a"])),
        (vec![], vec!["a", ""], vec![], vec!["c"], Some(vec!["a", ""])),
        (vec![], vec![], vec![], vec!["c"], Some(vec!["c"])),
        (vec![], vec![], vec![], vec![], None),
        (vec![""], vec!["a"], vec![], vec![], None),
    ] {
        let config = ContainerConfig { command: strings(&command), args: strings(&args), ..container() };
        let image = ImageConfig { entrypoint: strings(&entrypoint), cmd: strings(&cmd), ..ImageConfig::default() };
        match (assemble(&pod(), &config, &image), expected) {
            (Ok(spec), Some(expected)) => assert_eq!(spec.process.args, strings(&expected)),
            (Err(e), None) => assert!(e.message().contains("no command specified"), "{e}"),
            (got, expected) => panic!("{command:?} {args:?}: {got:?}, not {expected:?}"),
        }
    }
}

#[test]
fn the_environment_is_merged_in_order_and_in_place() {
    let image = ImageConfig { env: strings(&["A=1", "PATH=/image", "broken", "=x", "B=2=3"]), ..image() };
    let config = ContainerConfig {
        env: vec![("A".into(), vec![0xff, 0xfe]), ("C".into(), vec![]), ("C".into(), b"last".to_vec())],
        ..container()
    };
    let spec = assemble(&pod(), &config, &image).unwrap();
    let expected: [&[u8]; 5] = [b"PATH=/image", b"HOSTNAME=web", b"A=\xff\xfe", b"B=2=3", b"C=last"];
    assert_eq!(spec.process.env, expected);
}

#[test]
fn defaults_of_the_environment() {
    let path: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut host = pod();
    host.security.namespaces.network = NamespaceMode::Node;
    let nameless = PodConfig { hostname: String::new(), ..pod() };
    for (pod, tty, expected) in [
        (pod(), false, vec![path, b"HOSTNAME=web"]),
        (pod(), true, vec![path, b"TERM=xterm", b"HOSTNAME=web"]),
        (host, false, vec![path, b"HOSTNAME=node-1"]),
        (nameless, false, vec![path, b"HOSTNAME=node-1"]),
    ] {
        assert_eq!(assemble(&pod, &ContainerConfig { tty, ..container() }, &image()).unwrap().process.env, expected);
    }
    let own = ContainerConfig { tty: true, env: vec![("TERM".into(), b"vt100".to_vec())], ..container() };
    assert_eq!(assemble(&pod(), &own, &image()).unwrap().process.env[1], b"TERM=vt100");
}

#[test]
fn the_working_directory_is_the_containers_the_images_or_the_root() {
    for (own, images, expected) in [
        ("", "", Some("/")),
        ("", "/i/", Some("/i")),
        ("/o//./x", "/i", Some("/o/x")),
        ("o", "", None),
        ("/a/../b", "", None),
    ] {
        let config = ContainerConfig { working_dir: own.to_owned(), ..container() };
        let image = ImageConfig { working_dir: images.to_owned(), ..image() };
        let got = assemble(&pod(), &config, &image).map(|spec| spec.process.cwd);
        assert_eq!(got.ok().as_deref(), expected.map(Path::new), "{own:?} {images:?}");
    }
}

#[test]
fn user_groups_limits_and_terminal_are_handed_on() {
    let mut config = ContainerConfig { tty: true, ..container() };
    config.security.run_as = RunAs::Uid { uid: 1000, gid: Some(2000) };
    config.security.supplemental_groups = vec![5];
    config.security.no_new_privs = true;
    config.resources.oom_score_adj = Some(-500);
    let process = assemble(&pod(), &config, &ImageConfig { user: "www".into(), ..image() }).unwrap().process;
    assert_eq!(process.user.run_as, RunAs::Uid { uid: 1000, gid: Some(2000) });
    assert_eq!(
        (process.user.image_user.as_str(), process.user.supplemental_groups.as_slice()),
        ("www", [5].as_slice())
    );
    assert_eq!((process.no_new_privs, process.oom_score_adj), (true, Some(-500)));
    assert_eq!(process.rlimits, node().rlimits);
    assert_eq!(process.terminal, Some(TerminalSize::default()));
}

fn with(add: &[&str], drop: &[&str]) -> SecurityContext {
    SecurityContext { add_capabilities: strings(add), drop_capabilities: strings(drop), ..SecurityContext::default() }
}

#[test]
fn capabilities_are_added_and_dropped_in_order() {
    let bit = |name| capability_bit(name).unwrap();
    for (add, drop, expected) in [
        (vec![], vec![], DEFAULT_CAPABILITIES),
        (vec!["NET_ADMIN"], vec![], DEFAULT_CAPABILITIES | bit("NET_ADMIN")),
        (vec!["cap_net_admin"], vec![], DEFAULT_CAPABILITIES | bit("NET_ADMIN")),
        (vec![], vec!["CHOWN"], DEFAULT_CAPABILITIES & !bit("CHOWN")),
        (vec!["ALL"], vec![], HELD),
        (vec![], vec!["all"], 0),
        (vec!["ALL"], vec!["ALL"], 0),
        (vec!["CHOWN"], vec!["ALL"], bit("CHOWN")),
        (vec!["ALL"], vec!["SYS_ADMIN"], HELD & !bit("SYS_ADMIN")),
        (vec!["CHOWN"], vec!["CHOWN"], DEFAULT_CAPABILITIES & !bit("CHOWN")),
        (vec!["SYS_RESOURCE"], vec!["SYS_RESOURCE"], DEFAULT_CAPABILITIES),
    ] {
        let got = capabilities(&with(&add, &drop), &node()).unwrap();
        assert_eq!(got.bounding, expected, "+{add:?} -{drop:?}: {:#x}", got.bounding);
        assert_eq!((got.effective, got.permitted, got.ambient), (expected, expected, 0));
    }
    assert_eq!(DEFAULT_CAPABILITIES.count_ones(), 14);
    let privileged = SecurityContext { privileged: true, ..with(&[], &["ALL"]) };
    assert_eq!(capabilities(&privileged, &node()).unwrap().bounding, HELD);
}

#[test]
fn unknown_and_missing_capabilities_are_named() {
    for (security, expected) in [
        (with(&["CHOWN", "FOO"], &[]), "add_capabilities[1]: \"FOO\""),
        (with(&[], &[""]), "drop_capabilities[0]"),
        (with(&["SYS_RESOURCE"], &[]), "SYS_RESOURCE"),
    ] {
        let error = capabilities(&security, &node()).unwrap_err();
        assert!(error.message().contains(expected), "{error}");
    }
}

#[test]
fn ambient_capabilities_must_be_held() {
    let mut security = with(&[], &[]);
    security.add_ambient_capabilities = strings(&["NET_RAW"]);
    assert_eq!(capabilities(&security, &node()).unwrap().ambient, capability_bit("NET_RAW").unwrap());
    security.add_ambient_capabilities = strings(&["NET_ADMIN"]);
    assert!(capabilities(&security, &node()).unwrap_err().message().contains("NET_ADMIN"));
    security.add_ambient_capabilities = strings(&["ALL"]);
    assert_eq!(capabilities(&security, &node()).unwrap().ambient, DEFAULT_CAPABILITIES);
}

#[test]
fn a_command_inherits_everything_but_its_arguments_and_terminal() {
    let base = assemble(&pod(), &container(), &image()).unwrap();
    let size = TerminalSize { rows: 24, cols: 80 };
    let plain = exec_process(&base, &strings(&["sh", "-c", "x"]), None);
    assert_eq!(plain, berth_monitor_api::spec::Process { args: strings(&["sh", "-c", "x"]), ..base.process.clone() });
    let terminal = exec_process(&base, &strings(&["sh"]), Some(size));
    assert_eq!(terminal.terminal, Some(size));
    assert_eq!(terminal.env.last().unwrap(), b"TERM=xterm");
    let with_term = ContainerConfig { env: vec![("TERM".into(), b"dumb".to_vec())], ..container() };
    let base = assemble(&pod(), &with_term, &image()).unwrap();
    assert_eq!(exec_process(&base, &strings(&["sh"]), Some(size)).env, base.process.env);
}

#[test]
fn which_seccomp_profile_counts() {
    let ask = |seccomp, privileged, bytes: Option<&[u8]>| {
        seccomp_filter(&SecurityContext { seccomp, privileged, ..SecurityContext::default() }, &pod(), bytes, &node())
    };
    assert_eq!(ask(Profile::Unconfined, false, None), Ok(None));
    let default = ask(Profile::RuntimeDefault, false, None).unwrap().unwrap();
    assert!(default.program.len() > 50 && default.flags == 4);
    let file =
        br#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_ERRNO"}]}"#;
    let own = ask(Profile::Localhost("/p.json".into()), false, Some(file)).unwrap().unwrap();
    assert!(own.program.len() < 20);
    let error = ask(Profile::Localhost("/p.json".into()), false, Some(b"{}")).unwrap_err();
    assert!(error.message().starts_with("/p.json: seccomp profile: "), "{error}");
    assert!(ask(Profile::Localhost("/p.json".into()), false, None).is_err());
    for profile in [Profile::RuntimeDefault, Profile::Localhost("/p.json".into())] {
        assert_eq!(ask(profile, true, Some(b"bad")), Ok(None), "privileged is unconfined");
    }
}

#[test]
fn the_default_filter_follows_the_capabilities() {
    let compile = |add: &[&str]| {
        let security = SecurityContext { seccomp: Profile::RuntimeDefault, ..with(add, &[]) };
        seccomp_filter(&security, &pod(), None, &node()).unwrap().unwrap()
    };
    assert_ne!(compile(&[]), compile(&["SYS_ADMIN"]));
    assert_eq!(compile(&[]), compile(&["NET_ADMIN"]), "no rule depends on NET_ADMIN");
}
