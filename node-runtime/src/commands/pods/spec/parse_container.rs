//! The containers of a Pod.
use super::parse::{duplicate, label};
use super::reader::Object;
use super::resources::Requirements;
use super::{
    Container, Port, Propagation, Protocol, PullPolicy, RecursiveReadOnly, Volume, VolumeMount, known, parse_security,
};

/// Reads one; `volumes` are the Pod's.
pub(super) fn read(mut o: Object<'_>, volumes: &[Volume]) -> Container {
    let name = o.required("name");
    if !name.is_empty() && !label(&name) {
        o.refuse("name", "must be lower-case letters, digits and '-', at most 63");
    }
    let policies =
        [("Always", PullPolicy::Always), ("IfNotPresent", PullPolicy::IfNotPresent), ("Never", PullPolicy::Never)];
    let container = Container {
        name,
        image: o.required("image"),
        pull: o.word("imagePullPolicy", &policies),
        command: o.strings("command"),
        args: o.strings("args"),
        working_dir: o.string("workingDir").unwrap_or_default(),
        env: o.objects("env", known::ENV, variable),
        ports: o.objects("ports", &[], port),
        resources: o.object("resources", known::RESOURCES).map(resources).unwrap_or_default(),
        mounts: o
            .objects("volumeMounts", known::VOLUME_MOUNT, |mount| self::mount(mount, volumes))
            .into_iter()
            .flatten()
            .collect(),
        security: o
            .object("securityContext", known::CONTAINER_SECURITY)
            .map(parse_security::container)
            .unwrap_or_default(),
        tty: o.boolean("tty").unwrap_or(false),
        stdin: o.boolean("stdin").unwrap_or(false),
        stdin_once: o.boolean("stdinOnce").unwrap_or(false),
    };
    if let Some(path) = duplicate(container.mounts.iter().map(|m| m.path.as_str())) {
        o.refuse("volumeMounts", format!("the mountPath {path:?} is there twice"));
    }
    let bidirectional = container.mounts.iter().any(|m| m.propagation == Propagation::Bidirectional);
    if bidirectional && !container.security.privileged {
        o.refuse("volumeMounts", "mountPropagation Bidirectional needs a privileged container");
    }
    o.finish();
    container
}

fn variable(mut o: Object<'_>) -> (String, String) {
    let (name, value) = (o.required("name"), o.string("value").unwrap_or_default());
    if name.contains('=') || name.contains('\0') {
        o.refuse("name", "must not have '='");
    }
    o.finish();
    (name, value)
}

fn port(mut o: Object<'_>) -> Port {
    let number = |value: i64| u16::try_from(value).unwrap_or_default();
    let container_port = o.integer("containerPort", 1, 65_535);
    if container_port.is_none() && o.take("containerPort").is_none() {
        o.refuse("containerPort", "is required");
    }
    // 0 is "none" for the API server.
    let host_port = o.integer("hostPort", 0, 65_535).filter(|p| *p != 0).map(number);
    let host_ip = o.string("hostIP").unwrap_or_default();
    if !host_ip.is_empty() && host_ip.parse::<std::net::IpAddr>().is_err() {
        o.refuse("hostIP", "must be an address");
    }
    let name = o.string("name").unwrap_or_default();
    if name.len() > 15 || (!name.is_empty() && !label(&name)) {
        o.refuse("name", "must be lower-case letters, digits and '-', at most 15");
    }
    let protocols = [("TCP", Protocol::Tcp), ("UDP", Protocol::Udp), ("SCTP", Protocol::Sctp)];
    let protocol = o.word("protocol", &protocols).unwrap_or_default();
    o.finish();
    Port { container_port: container_port.map(number).unwrap_or_default(), host_port, host_ip, protocol }
}

fn resources(mut o: Object<'_>) -> Requirements {
    let mut read = |name: &'static str| {
        let Some(mut list) = o.object(name, &["ephemeral-storage"]) else { return (None, None) };
        let (cpu, memory) = (list.quantity("cpu"), list.quantity("memory"));
        let cpu = cpu.and_then(|q| q.milli().map_err(|e| list.refuse("cpu", e)).ok());
        let memory = memory.and_then(|q| q.value().map_err(|e| list.refuse("memory", e)).ok());
        list.finish();
        (cpu, memory)
    };
    let ((cpu_request, memory_request), (cpu_limit, memory_limit)) = (read("requests"), read("limits"));
    let above = |request: Option<i64>, limit: Option<i64>| matches!((request, limit), (Some(r), Some(l)) if r > l);
    for (name, over) in [("cpu", above(cpu_request, cpu_limit)), ("memory", above(memory_request, memory_limit))] {
        if over {
            o.refuse(&format!("requests.{name}"), "must not be above the limit");
        }
    }
    o.finish();
    Requirements { cpu_request, cpu_limit, memory_request, memory_limit }.with_defaults()
}

fn mount(mut o: Object<'_>, volumes: &[Volume]) -> Option<VolumeMount> {
    let name = o.required("name");
    let volume = volumes.iter().position(|v| v.name == name);
    if volume.is_none() && !name.is_empty() {
        o.refuse("name", format!("{name:?} is no usable volume of this Pod"));
    }
    let path = o.required("mountPath");
    if !path.is_empty() && (!path.starts_with('/') || path.contains(':')) {
        o.refuse("mountPath", "must be absolute, without ':'");
    }
    let read_only = o.boolean("readOnly").unwrap_or(false);
    let propagations = [
        ("None", Propagation::None),
        ("HostToContainer", Propagation::HostToContainer),
        ("Bidirectional", Propagation::Bidirectional),
    ];
    let propagation = o.word("mountPropagation", &propagations).unwrap_or_default();
    let recursive = [
        ("Disabled", RecursiveReadOnly::Disabled),
        ("IfPossible", RecursiveReadOnly::IfPossible),
        ("Enabled", RecursiveReadOnly::Enabled),
    ];
    let recursive = o.word("recursiveReadOnly", &recursive).unwrap_or_default();
    if recursive != RecursiveReadOnly::Disabled && (!read_only || propagation != Propagation::None) {
        o.refuse("recursiveReadOnly", "needs readOnly: true and no mountPropagation");
    }
    o.finish();
    Some(VolumeMount { volume: volume?, path, read_only, recursive, propagation })
}
