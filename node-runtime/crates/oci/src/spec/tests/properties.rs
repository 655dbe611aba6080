//! For any request: what is validated can be assembled, and what is assembled keeps the promises init relies on.
use super::*;
use crate::spec::validate_container;
use berth_model::{Mount, NamespaceMode, Propagation};
use proptest::prelude::*;

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(prop::sample::select(vec!["a", "b", "dev", "shm", "proc", "etc", "hosts", ".", ""]), 1..4)
            .prop_map(|parts| format!("/{}", parts.join("/"))),
        1 => Just("..".to_owned()),
        1 => "[/.a]{0,6}",
    ]
}

fn mount() -> impl Strategy<Value = Mount> {
    let propagation =
        prop::sample::select(vec![Propagation::Private, Propagation::HostToContainer, Propagation::Bidirectional]);
    (path(), path(), any::<bool>(), any::<bool>(), propagation).prop_map(
        |(container_path, host_path, readonly, rro, propagation)| Mount {
            container_path,
            host_path,
            readonly,
            recursive_read_only: rro,
            propagation,
            ..Mount::default()
        },
    )
}

fn config() -> impl Strategy<Value = ContainerConfig> {
    let mode = prop::sample::select(vec![NamespaceMode::Pod, NamespaceMode::Container, NamespaceMode::Node]);
    let env = prop::collection::vec(("[A-C=]{0,2}", prop::collection::vec(any::<u8>(), 0..3)), 0..4);
    let caps = prop::sample::select(vec!["ALL", "CHOWN", "cap_sys_admin", "SYS_RESOURCE", "NOPE"]);
    let caps = prop::collection::vec(caps.prop_map(str::to_owned), 0..3);
    (prop::collection::vec(mount(), 0..5), env, mode, caps.clone(), caps, any::<bool>()).prop_map(
        |(mounts, env, pid, add, drop, tty)| {
            let mut config = ContainerConfig { mounts, env, tty, ..container() };
            config.security.namespaces.pid = pid;
            config.security.add_capabilities = add;
            config.security.drop_capabilities = drop;
            config
        },
    )
}

proptest! {
    #[test]
    fn validated_requests_assemble(config in config()) {
        if validate_container(&config, &pod(), &image(), &node()).is_err() {
            return Ok(());
        }
        let spec = assemble(&pod(), &config, &image()).unwrap();
        prop_assert!(!spec.process.args.is_empty() && spec.process.cwd.is_absolute());
        let keys: Vec<_> = spec.process.env.iter().map(|entry| entry.split(|b| *b == b'=').next().unwrap()).collect();
        for (i, key) in keys.iter().enumerate() {
            prop_assert!(!key.is_empty() && !keys[..i].contains(key), "{key:?} twice");
        }
        for (i, mount) in spec.mounts.iter().enumerate() {
            prop_assert!(mount.target.is_absolute() && mount.target != Path::new("/"));
            let late_parent = spec.mounts[i + 1..].iter().find(|later| later.target != mount.target && mount.target.starts_with(&later.target));
            prop_assert!(late_parent.is_none(), "{:?} after {:?}", late_parent, mount.target);
        }
        prop_assert_eq!(spec.process.capabilities.bounding & !HELD, 0);
        let encoded = berth_monitor_api::spec::InitSpec::Container(Box::new(spec)).encode();
        prop_assert!(berth_monitor_api::spec::InitSpec::decode(&encoded).is_ok());
    }
}
