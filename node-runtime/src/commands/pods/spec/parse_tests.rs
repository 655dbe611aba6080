//! Pods that are taken, and the fields that are refused.
use super::super::*;
use super::*;

const WEB: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  containers:
  - name: web
    image: registry.example/web:1
    ports: [{containerPort: 80}]
    resources: {limits: {memory: 128Mi, cpu: 500m}}
";

fn one(text: &str) -> Pod {
    pods("pod.yaml", text).unwrap().remove(0)
}

#[test]
fn the_well_known_example_is_taken() {
    let pod = one(WEB);
    assert_eq!((pod.name.as_str(), pod.namespace.as_str(), pod.host_users), ("web", "default", true));
    assert_eq!(pod.termination_grace_period, 30);
    let web = &pod.containers[0];
    let wanted = resources::Requirements {
        cpu_request: Some(500),
        cpu_limit: Some(500),
        memory_request: Some(128 << 20),
        memory_limit: Some(128 << 20),
    };
    assert_eq!(web.resources, wanted);
    assert_eq!(web.ports[0], Port { container_port: 80, ..Port::default() });
}

#[test]
fn every_honoured_field_is_read() {
    let text = "
apiVersion: v1
kind: Pod
metadata: {name: a.b, namespace: ns, labels: {l: v}, annotations: {n: w}}
spec:
  hostname: host
  hostNetwork: false
  hostPID: false
  hostIPC: true
  shareProcessNamespace: true
  restartPolicy: Never
  terminationGracePeriodSeconds: 0
  dnsPolicy: None
  dnsConfig: {nameservers: [9.9.9.9], searches: [x.y], options: [{name: ndots, value: '2'}, {name: edns0}]}
  securityContext:
    runAsUser: 1000
    supplementalGroups: [7, 8]
    supplementalGroupsPolicy: Strict
    sysctls: [{name: net.core.somaxconn, value: '99'}]
    seccompProfile: {type: Localhost, localhostProfile: p/x.json}
  volumes:
  - {name: data, hostPath: {path: /data, type: Directory}}
  - {name: tmp, emptyDir: {}}
  containers:
  - name: one
    image: i
    imagePullPolicy: Never
    command: [sh]
    args: [-c, 'true']
    workingDir: /w
    env: [{name: A, value: '1'}, {name: B}]
    ports: [{name: dns, containerPort: 53, hostPort: 5353, hostIP: 127.0.0.1, protocol: UDP}]
    resources: {requests: {cpu: 0.25, memory: 1e6}, limits: {memory: 2M}}
    volumeMounts:
    - {name: data, mountPath: /d, readOnly: true, recursiveReadOnly: IfPossible}
    - {name: tmp, mountPath: /t, mountPropagation: HostToContainer}
    securityContext:
      runAsGroup: 5
      runAsNonRoot: true
      privileged: false
      readOnlyRootFilesystem: true
      allowPrivilegeEscalation: false
      capabilities: {add: [NET_ADMIN], drop: [ALL]}
    tty: true
    stdin: true
    stdinOnce: true
";
    let pod = one(text);
    assert_eq!(pod.dns.options, ["ndots:2", "edns0"]);
    assert!(pod.dns.nothing_else && pod.share_process_namespace && pod.host_ipc);
    assert_eq!(pod.termination_grace_period, 0);
    assert_eq!(pod.security.supplemental_groups, [7, 8]);
    assert!(pod.security.strict_groups);
    assert_eq!(pod.security.common.seccomp, Some(Seccomp::Localhost("p/x.json".into())));
    assert_eq!(pod.security.sysctls["net.core.somaxconn"], "99");
    let c = &pod.containers[0];
    assert_eq!((c.pull, c.tty, c.stdin, c.stdin_once), (Some(PullPolicy::Never), true, true, true));
    assert_eq!(c.env, [("A".into(), "1".into()), ("B".into(), String::new())]);
    assert_eq!((c.resources.cpu_request, c.resources.memory_request), (Some(250), Some(1_000_000)));
    assert_eq!((c.resources.cpu_limit, c.resources.memory_limit), (None, Some(2_000_000)));
    let port = Port { container_port: 53, host_port: Some(5353), host_ip: "127.0.0.1".into(), protocol: Protocol::Udp };
    assert_eq!(c.ports, [port]);
    assert_eq!((c.mounts[0].volume, c.mounts[0].recursive), (0, RecursiveReadOnly::IfPossible));
    assert_eq!((c.mounts[1].volume, c.mounts[1].propagation), (1, Propagation::HostToContainer));
    assert_eq!(c.security.allow_privilege_escalation, Some(false));
    assert_eq!((c.security.add.len(), c.security.drop.len()), (1, 1));
}

/// The example with more in its spec, and more in its container.
fn with(spec: &str, container: &str) -> String {
    format!("{WEB}    {}\n  {}\n", container.replace('\n', "\n    "), spec.replace('\n', "\n  "))
}

fn refusal(text: &str) -> String {
    format!("{:#}", pods("pod.yaml", text).unwrap_err())
}

#[test]
fn what_is_not_honoured_in_a_pods_spec_is_refused_by_name() {
    let table = [
        ("initContainers: []", "spec.initContainers: berth run does not support it"),
        ("nodeName: a", "spec.nodeName: berth run does not support it"),
        ("serviceAccountName: a", "spec.serviceAccountName: berth run does not support it"),
        ("restartPolicy: Always", "spec.restartPolicy: \"Always\" is not supported by berth run; it can be Never"),
        ("dnsPolicy: ClusterFirst", "spec.dnsPolicy: \"ClusterFirst\" is not supported"),
        ("dnsPolicy: None", "spec.dnsConfig.nameservers: is required"),
        ("hostNetwok: true", "spec.hostNetwok: is no field of a Pod"),
        ("hostPID: 'yes'", "spec.hostPID: must be true or false"),
        ("hostUsers: false\nhostPID: true", "spec.hostPID: is not possible together with hostUsers: false"),
        ("hostPID: true\nshareProcessNamespace: true", "spec.shareProcessNamespace: is not possible together"),
        ("hostname: a.b", "spec.hostname: must be"),
        ("terminationGracePeriodSeconds: -1", "spec.terminationGracePeriodSeconds: must be from 0"),
        ("securityContext: {fsGroup: 1}", "spec.securityContext.fsGroup: berth run does not support it"),
        ("securityContext: {runAsUser: 4294967296}", "spec.securityContext.runAsUser: must be from 0"),
        ("securityContext: {seccompProfile: {}}", "spec.securityContext.seccompProfile.type: is required"),
        ("securityContext: {supplementalGroups: [-1]}", "spec.securityContext.supplementalGroups: must be a list"),
        ("volumes: [{name: v, secret: {secretName: s}}]", "spec.volumes[0].secret: berth run does not support it"),
        ("volumes: [{name: v}]", "spec.volumes[0].hostPath: or emptyDir is required"),
        ("volumes: [{name: v, emptyDir: {medium: Memory}}]", "spec.volumes[0].emptyDir.medium: \"Memory\" is not"),
        ("volumes: [{name: v, emptyDir: {sizeLimit: 1Gi}}]", "spec.volumes[0].emptyDir.sizeLimit: berth run does not"),
        ("volumes: [{name: v, hostPath: {path: a}}]", "spec.volumes[0].hostPath.path: must be absolute"),
        ("volumes: [{name: v, emptyDir: {}}, {name: v, emptyDir: {}}]", "spec.volumes: \"v\" is there twice"),
        ("containers: []", "duplicate entry"),
    ];
    for (spec, told) in table {
        let error = refusal(&with(spec, "tty: false"));
        assert!(error.contains(told), "{spec}: {error}");
        assert!(error.starts_with("pod.yaml: "), "{error}");
    }
}

#[test]
fn what_is_not_honoured_in_a_container_is_refused_by_name() {
    let at = "spec.containers[0]";
    let table = [
        ("livenessProbe: {}", "livenessProbe: berth run does not support it"),
        ("lifecycle: {preStop: {}}", "lifecycle: berth run does not support it"),
        ("envFrom: [{}]", "envFrom: berth run does not support it"),
        ("env: [{name: A, valueFrom: {}}]", "env[0].valueFrom: berth run does not support it"),
        ("env: [{name: A, value: 1}]", "env[0].value: must be a string"),
        ("env: [{value: a}]", "env[0].name: is required"),
        ("comand: [sh]", "comand: is no field of a Pod"),
        ("command: sh", "command: must be a list of strings"),
        (
            "imagePullPolicy: Sometimes",
            "imagePullPolicy: \"Sometimes\" is not supported by berth run; it can be Always",
        ),
        ("volumeMounts: [{name: v, mountPath: /a}]", "volumeMounts[0].name: \"v\" is no usable volume"),
        (
            "volumeMounts: [{name: v, mountPath: /a, subPath: b}]",
            "volumeMounts[0].subPath: berth run does not support it",
        ),
        ("securityContext: {procMount: Unmasked}", "securityContext.procMount: berth run does not support it"),
        ("securityContext: {seLinuxOptions: {}}", "securityContext.seLinuxOptions: berth run does not support it"),
        (
            "securityContext: {privileged: true, allowPrivilegeEscalation: false}",
            "securityContext.allowPrivilegeEscalation: cannot be false",
        ),
        (
            "securityContext: {seccompProfile: {type: Localhost, localhostProfile: ../x}}",
            "securityContext.seccompProfile.localhostProfile: must be a path below",
        ),
    ];
    for (container, told) in table {
        let error = refusal(&with("hostPID: false", container));
        let told = format!("{at}.{told}");
        assert!(error.contains(&told), "{container}: {error}");
    }
    let replaced = [
        ("containerPort: 80", "containerPort: 65536", "ports[0].containerPort: must be from 1 to 65535"),
        ("containerPort: 80", "hostPort: 80", "ports[0].containerPort: is required"),
        (
            "memory: 128Mi",
            "ephemeral-storage: 1Gi",
            "resources.limits.ephemeral-storage: berth run does not support it",
        ),
        ("memory: 128Mi", "hugepages-2Mi: 1Gi", "resources.limits.hugepages-2Mi: is no field of a Pod"),
        ("memory: 128Mi", "memory: 1K", "resources.limits.memory: \"1K\" is not a quantity"),
        ("{limits", "{requests: {cpu: 1}, limits", "resources.requests.cpu: must not be above the limit"),
    ];
    for (from, to, told) in replaced {
        let error = refusal(&WEB.replace(from, to));
        assert!(error.contains(&format!("{at}.{told}")), "{to}: {error}");
    }
}

#[test]
fn all_problems_are_told_at_once() {
    let error = refusal(&with("nodeName: a\npriority: 1", "livenessProbe: {}\nbogus: 1"));
    assert_eq!(error.lines().count(), 4, "{error}");
}

#[test]
fn other_documents_are_refused() {
    let table = [
        ("", "pod.yaml: has no document"),
        ("[]", "must be an object"),
        ("apiVersion: apps/v1\nkind: Deployment", "is apps/v1 Deployment; berth run takes v1 Pod"),
        ("kind: Pod", "apiVersion: is required"),
        ("apiVersion: v1\nkind: Pod\nstatus: {}", "status: berth run does not support it"),
        ("apiVersion: v1\nkind: Pod\nmetadata: {uid: a, name: A}", "metadata.name: must be lower-case"),
        ("a: [", "pod.yaml"),
    ];
    for (text, told) in table {
        let error = refusal(text);
        assert!(error.contains(told), "{text:?}: {error}");
    }
    assert!(refusal(&"#".repeat(MAX_BYTES + 1)).contains("is larger than"));
    let two = format!("{WEB}---\n{}", WEB.replace("name: web", "name: two"));
    let names: Vec<_> = pods("-", &two).unwrap().into_iter().map(|p| p.name).collect();
    assert_eq!(names, ["web", "two"]);
}
