//! Who may depend on whom: the direction of ARCHITECTURE.md as a table. What is not in it is forbidden.
use crate::workspace::Package;

/// Each crate of the workspace and the crates of the workspace that it may use, itself aside.
const ALLOWED: &[(&str, &[&str])] = &[
    // The words.
    ("berth-model", &[]),
    // Foundations: the kernel, formats, records.
    ("berth-sys", &["berth-model"]),
    ("berth-monitor-api", &["berth-model"]),
    ("berth-monitor-client", &["berth-model", "berth-sys", "berth-monitor-api"]),
    ("berth-crds", &["berth-model"]),
    ("berth-seccomp", &["berth-model", "berth-sys", "berth-monitor-api"]),
    ("berth-cgroups", &["berth-model", "berth-sys", "berth-monitor-api"]),
    ("berth-registry", &["berth-model", "berth-sys"]),
    ("berth-store", &["berth-model", "berth-sys"]),
    ("berth-settings", &["berth-model", "berth-sys", "berth-crds"]),
    ("berth-adopt", &[]),
    // What daemon, agent and operator answer probes and scrapes with.
    ("berth-endpoint", &[]),
    // Capabilities: none of them uses another.
    ("berth-images", FOUNDATIONS),
    ("berth-trust", FOUNDATIONS),
    ("berth-network", FOUNDATIONS),
    ("berth-oci", FOUNDATIONS),
    ("berth-stats", FOUNDATIONS),
    // Use cases.
    ("berth-engine", CAPABILITIES),
    // Edges: they and their clients alone know gRPC. They drive the engine, and encode the values of what is below it.
    ("berth-proto", &["berth-model"]),
    ("berth-cri", EDGES),
    ("berth-node-api", EDGES),
    // The helpers that outlive the daemon see as little as they can.
    ("berth-monitor", &["berth-model", "berth-sys", "berth-monitor-api"]),
    ("berth-init", &["berth-model", "berth-sys", "berth-monitor-api"]),
    ("berth-streaming", &["berth-model", "berth-sys", "berth-monitor-api", "berth-monitor-client"]),
    // Wiring may name everything.
    ("berth", NODE),
    // The one process of a node that knows the API server. It reaches the daemon by its socket and `berth adopt` by its words.
    ("berth-agent", &["berth-model", "berth-endpoint", "berth-crds", "berth-proto"]),
    // The cluster half. Of the node half it links what decides about images, which is pure: it must know what nodes will say.
    ("berth-operator", &["berth-model", "berth-endpoint", "berth-crds", "berth-trust"]),
    // A person's view of it. It reads what the operator says, and decides nothing.
    ("kubectl-berth", &["berth-crds"]),
    // Tests and tools. The leak counter and xtask share nothing with what they judge.
    ("berth-leaks", &[]),
    ("xtask", &[]),
    ("berth-web", &[]),
    ("berth-test-registry", &["berth-model"]),
    ("berth-test-images", &["berth-test-registry"]),
    ("berth-quickstart", &["berth-leaks", "berth-test-registry", "berth-model", "berth-proto", "berth-crds"]),
    ("berth-node-tests", TESTS),
    // Knows the product by its programs and their clients only; of the agent it has nodes simulated, by its own code.
    ("berth-cluster-tests", &["berth-leaks", "berth-test-registry", "berth-agent", "berth-crds"]),
];

/// What capabilities may use.
const FOUNDATIONS: &[&str] = &[
    "berth-model",
    "berth-sys",
    "berth-monitor-api",
    "berth-monitor-client",
    "berth-crds",
    "berth-seccomp",
    "berth-cgroups",
    "berth-registry",
    "berth-store",
    "berth-settings",
];

/// What the engine may use.
const CAPABILITIES: &[&str] = &[
    "berth-model",
    "berth-sys",
    "berth-monitor-api",
    "berth-monitor-client",
    "berth-crds",
    "berth-seccomp",
    "berth-cgroups",
    "berth-registry",
    "berth-store",
    "berth-settings",
    "berth-images",
    "berth-trust",
    "berth-network",
    "berth-oci",
    "berth-stats",
];

/// What the gRPC edges may use.
const EDGES: &[&str] = &[
    "berth-model",
    "berth-sys",
    "berth-monitor-api",
    "berth-monitor-client",
    "berth-crds",
    "berth-seccomp",
    "berth-cgroups",
    "berth-registry",
    "berth-store",
    "berth-settings",
    "berth-images",
    "berth-trust",
    "berth-network",
    "berth-oci",
    "berth-stats",
    "berth-engine",
    "berth-proto",
];

/// What the wiring may use.
const NODE: &[&str] = &[
    "berth-adopt",
    "berth-endpoint",
    "berth-model",
    "berth-sys",
    "berth-monitor-api",
    "berth-monitor-client",
    "berth-crds",
    "berth-seccomp",
    "berth-cgroups",
    "berth-registry",
    "berth-store",
    "berth-settings",
    "berth-images",
    "berth-trust",
    "berth-network",
    "berth-oci",
    "berth-stats",
    "berth-engine",
    "berth-proto",
    "berth-cri",
    "berth-node-api",
    "berth-streaming",
];

/// What the tests on a real kernel may use: each crate that they test, and the tests' own.
const TESTS: &[&str] = &[
    "berth-model",
    "berth-sys",
    "berth-monitor-api",
    "berth-monitor-client",
    "berth-crds",
    "berth-seccomp",
    "berth-cgroups",
    "berth-registry",
    "berth-store",
    "berth-settings",
    "berth-images",
    "berth-trust",
    "berth-network",
    "berth-oci",
    "berth-stats",
    "berth-engine",
    "berth-proto",
    "berth-cri",
    "berth-node-api",
    "berth-leaks",
    "berth-test-registry",
    "berth-web",
];

/// Crates of others that only some of ours may link, and who.
const RESERVED: &[(&str, &[&str])] = &[
    ("tonic", GRPC),
    ("prost", GRPC),
    ("tonic-prost", GRPC),
    ("tonic-prost-build", &["berth-proto"]),
    ("protox", &["berth-proto"]),
    ("kube", &["berth-crds", "berth-agent", "berth-operator", "kubectl-berth"]),
    (
        "serde_yaml",
        &[
            "berth-crds",
            "berth-adopt",
            "berth",
            "kubectl-berth",
            "berth-quickstart",
            "berth-node-tests",
            "berth-cluster-tests",
        ],
    ),
    ("libc", &["berth-sys", "berth-monitor", "berth-init"]),
];

const GRPC: &[&str] =
    &["berth-proto", "berth-cri", "berth-node-api", "berth", "berth-agent", "berth-quickstart", "berth-node-tests"];

/// Edges that the tables do not allow.
pub fn check(packages: &[Package]) -> Vec<String> {
    let ours = |name: &str| packages.iter().any(|p| p.name == name);
    let mut problems = Vec::new();
    for package in packages {
        let name = &package.name;
        let Some((_, allowed)) = ALLOWED.iter().find(|(n, _)| n == name) else {
            problems.push(format!("{name}: not in the table of crates in xtask/src/tidy/edges.rs"));
            continue;
        };
        for dependency in &package.dependencies {
            if ours(dependency) && !allowed.contains(&dependency.as_str()) {
                problems.push(format!("{name} depends on {dependency}: ARCHITECTURE.md's direction does not allow it"));
            }
            if let Some((_, users)) = RESERVED.iter().find(|(n, _)| n == dependency)
                && !users.contains(&name.as_str())
            {
                problems.push(format!("{name} depends on {dependency}, which only these may: {}", users.join(" ")));
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, dependencies: &[&str]) -> Package {
        let dependencies = dependencies.iter().map(|d| (*d).to_owned()).collect();
        Package { name: name.into(), dir: "/".into(), dependencies }
    }

    #[test]
    fn edges_against_the_direction_are_told() {
        let good = [package("berth-engine", &["berth-images", "serde"]), package("berth-images", &["berth-model"])];
        assert_eq!(check(&good), [""; 0]);
        let all = [
            package("berth-model", &["berth-sys"]),
            package("berth-sys", &[]),
            package("berth-images", &["berth-network", "tonic"]),
            package("berth-network", &[]),
            package("berth-surprise", &[]),
        ];
        let problems = check(&all).join("\n");
        assert_eq!(problems.lines().count(), 4, "{problems}");
        for words in
            ["berth-model depends on berth-sys", "berth-images depends on berth-network", "on tonic", "berth-surprise"]
        {
            assert!(problems.contains(words), "{words} is missing in {problems}");
        }
    }

    #[test]
    fn the_table_has_no_cycle() {
        // Lower crates stand above higher ones: every name is listed before it is allowed to anyone.
        for (i, (name, allowed)) in ALLOWED.iter().enumerate() {
            for lower in *allowed {
                let place = ALLOWED.iter().position(|(n, _)| n == lower);
                assert!(place.is_some_and(|p| p < i), "{name} may use {lower}, which does not stand above it");
            }
        }
    }
}
