//! The JSON of profiles: what is understood, and by which name the rest is refused.
use crate::{Action, Arch, Condition, MAX_PROFILE, Op, Profile, Requirement};

#[test]
fn a_profile_of_docker() {
    let profile = Profile::parse(
        br#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
                    {"architecture": "SCMP_ARCH_S390X", "subArchitectures": ["SCMP_ARCH_S390"]},
                    {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": null}],
        "syscalls": [
          {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}, "excludes": {}},
          {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
           "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
           "includes": {"arches": ["amd64"], "minKernel": "4.8"}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
          {"name": "clone3", "action": "SCMP_ACT_ERRNO", "errnoRet": 38}]}"#,
    )
    .unwrap();
    assert_eq!(profile.default_action, Action::Errno(13));
    assert_eq!(profile.arch_map, [(Arch::X86_64, vec![Arch::X86, Arch::X32]), (Arch::Aarch64, vec![])]);
    assert_eq!(profile.rules[0].names, ["read", "write"]);
    assert_eq!(
        profile.rules[1].conditions,
        [Condition { index: 0, op: Op::MaskedEq, value: 0x7e02_0000, value_two: 0 }]
    );
    assert_eq!(
        profile.rules[1].includes,
        Requirement { capabilities: 0, arches: vec!["amd64".into()], min_kernel: Some((4, 8)) }
    );
    assert_eq!(profile.rules[1].excludes.capabilities, 1 << 21);
    assert_eq!((profile.rules[2].action, profile.rules[2].names[0].as_str()), (Action::Errno(38), "clone3"));
    assert_eq!(profile.flags, 4, "SPEC_ALLOW unless the profile says otherwise");
}

#[test]
fn a_profile_of_the_oci_specification() {
    let profile = Profile::parse(
        br#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_MIPS"],
             "flags": ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"],
             "syscalls": [{"names": ["sethostname"], "action": "SCMP_ACT_KILL"}]}"#,
    )
    .unwrap();
    assert_eq!((profile.architectures.as_slice(), profile.flags), ([Arch::X86_64].as_slice(), 2));
    assert_eq!(profile.rules[0].action, Action::KillThread);
}

#[test]
fn errors_name_the_field() {
    let rule = |inner: &str| format!(r#"{{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{{{inner}}}]}}"#);
    let arg = |inner: &str| rule(&format!(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{{{inner}}}]"#));
    for (json, expected) in [
        ("{}".to_owned(), "defaultAction"),
        ("[1]".to_owned(), "line 1"),
        (r#"{"defaultAction": "ALLOW"}"#.to_owned(), "defaultAction"),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#.to_owned(), "SCMP_ACT_NOTIFY needs an agent"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}"#.to_owned(), "4095"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPERM"}"#.to_owned(), "defaultErrno"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["amd64"]}"#.to_owned(), "architectures"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "flags": ["X"]}"#.to_owned(), "flags"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "listenerPath": "/run/x"}"#.to_owned(), "listenerPath"),
        (r#"{"defaultAction": "SCMP_ACT_ERRNO", "sycsalls": []}"#.to_owned(), "unknown field `sycsalls`"),
        (
            r#"{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"], "archMap": [{"architecture": "SCMP_ARCH_X86"}]}"#
                .to_owned(),
            "archMap",
        ),
        (rule(r#""names": [], "action": "SCMP_ACT_ALLOW""#), "syscalls[0].names"),
        (rule(r#""names": ["re ad"], "action": "SCMP_ACT_ALLOW""#), "syscalls[0].names"),
        (rule(r#""names": ["read"], "action": "SCMP_ACT_WAT""#), "syscalls[0].action"),
        (rule(r#""names": ["read"], "action": "SCMP_ACT_NOTIFY""#), "syscalls[0].action"),
        (rule(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", "exlcudes": {}"#), "unknown field `exlcudes`"),
        (rule(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_X"]}"#), "syscalls[0].includes.caps"),
        (rule(r#""names": ["read"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "new"}"#), "syscalls[0].excludes.minKernel"),
        (arg(r#""index": 6, "value": 0, "op": "SCMP_CMP_EQ""#), "syscalls[0].args[0].index"),
        (arg(r#""index": 0, "value": 0, "op": "==""#), "syscalls[0].args[0].op"),
        (arg(r#""index": 0, "value": -1, "op": "SCMP_CMP_EQ""#), "line 1"),
        (arg(r#""index": 0, "value": 18446744073709551616, "op": "SCMP_CMP_EQ""#), "line 1"),
    ] {
        let error = Profile::parse(json.as_bytes()).expect_err(&json);
        assert!(error.message().contains(expected), "{json}: {error}");
        assert!(error.message().starts_with("seccomp profile: "), "{error}");
    }
}

#[test]
fn size_and_depth_are_limited() {
    let long = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "comment": "{}"}}"#, "x".repeat(MAX_PROFILE));
    assert!(Profile::parse(long.as_bytes()).unwrap_err().message().contains("limit of 1048576"));
    let deep = format!(r#"{{"defaultAction": {}"#, "[".repeat(200_000));
    assert!(Profile::parse(deep.as_bytes()).is_err());
}
