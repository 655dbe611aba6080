//! Our `runtime_v1.proto` says the same as the cri-api module that the kubelet is built with: every message, field, number,
//! type, label, enumeration value and call. `BERTH_CRI_API_PROTO` names cri-api's own file; the test tiers set it from the Go
//! module cache, and without it this test fails rather than being skipped.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};
use std::collections::BTreeSet;
use std::path::Path;

fn enum_lines(prefix: &str, e: &EnumDescriptorProto, out: &mut BTreeSet<String>) {
    for v in &e.value {
        out.insert(format!("enum {prefix}{} {}={}", e.name(), v.name(), v.number()));
    }
}

fn message_lines(m: &DescriptorProto, out: &mut BTreeSet<String>) {
    out.insert(format!("message {}", m.name()));
    for f in &m.field {
        let oneof = f.oneof_index.map(|i| m.oneof_decl[i as usize].name().to_owned());
        out.insert(format!(
            "field {}.{} = {} {:?} {:?} {} {oneof:?}",
            m.name(),
            f.name(),
            f.number(),
            f.label(),
            f.r#type(),
            f.type_name()
        ));
    }
    for e in &m.enum_type {
        enum_lines(&format!("{}.", m.name()), e, out);
    }
    for n in &m.nested_type {
        for f in &n.field {
            out.insert(format!("map {}.{} {:?} {}", m.name(), n.name(), f.r#type(), f.type_name()));
        }
    }
}

fn lines(file: &FileDescriptorProto) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    file.message_type.iter().for_each(|m| message_lines(m, &mut out));
    file.enum_type.iter().for_each(|e| enum_lines("", e, &mut out));
    for s in &file.service {
        for m in &s.method {
            let stream = m.server_streaming();
            out.insert(format!("rpc {}.{}({}) {stream} {}", s.name(), m.name(), m.input_type(), m.output_type()));
        }
    }
    out
}

fn compile(path: &Path) -> FileDescriptorProto {
    let dir = path.parent().unwrap();
    protox::compile([path.file_name().unwrap()], [dir]).unwrap().file.pop().unwrap()
}

#[test]
fn our_file_says_what_cri_api_says() {
    let theirs = std::env::var_os("BERTH_CRI_API_PROTO").unwrap_or_else(|| {
        panic!("set BERTH_CRI_API_PROTO to api.proto of k8s.io/cri-api v0.37 (`cargo xtask test unit` does)")
    });
    let theirs = lines(&compile(Path::new(&theirs)));
    let ours = lines(&compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cri/runtime_v1.proto")));
    let missing: Vec<_> = theirs.difference(&ours).collect();
    let extra: Vec<_> = ours.difference(&theirs).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing: {missing:#?}\nextra: {extra:#?}");
    assert!(theirs.iter().filter(|l| l.starts_with("rpc ")).count() == 43, "cri-api 0.37 has 43 calls");
}
