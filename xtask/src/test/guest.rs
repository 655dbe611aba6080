//! Tier `guest`: a machine with systemd as pid 1 and pure cgroup v2, as most nodes are, booted in seconds as a
//! user-mode-linux program. Its kernel and root are made from Debian's packages, once; the scripts are in `xtask/guest`.
//! It has no network to the host: a job is a directory that both sees, with a program `run` in it.
use super::Tier;
use super::again::{Again, Choice};
use super::binaries::{self, Part};
use super::lanes::{Job, Tests};
use super::node;
use crate::cache::Key;
use crate::package::{self, Effort, Kind};
use crate::{Result, cache, install, programs, run, tools, workspace};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNEL_PACKAGES: [install::Package; 8] = [
    ("gcc", "gcc"),
    ("libc6-dev", "/usr/include/features.h"),
    ("make", "make"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("xz-utils", "xz"),
    ("binutils", "strip"),
];
const ROOT_PACKAGES: [install::Package; 1] = [("mmdebstrap", "mmdebstrap")];

/// The program with the tests.
const PROGRAM: [&str; 1] = ["guest"];
/// The tests that need the other of the two large security modules: a boot has one.
const SELINUX_TESTS: &str = "guest_selinux";
/// The tests that take the whole machine over: kubelet, runtime and units are the system's own.
const ADOPT_TESTS: [&str; 2] = [": guest_adopt", ": guest_agent"];
/// Those that also switch it off in their middle: its disk is there when it is booted again, and nothing else.
const REBOOT_TESTS: &str = ": guest_reboot";
/// Size of that disk, of which only what is written takes room.
const DISK: &str = "4G";
/// The tests with a kubelet, on its own or with an API server.
const CLUSTER_TESTS: [&str; 2] = [": guest_kubelet", ": guest_guide"];
/// Permissive at first: a test that wants to see denials turns them on.
const SELINUX_BOOT: [&str; 3] = ["security=selinux", "selinux=1", "enforcing=0"];

/// What every job may rely on; a guest that lacks one of it would test something else than it says.
const GUEST_CHECK: &str = r#"#!/bin/sh -eu
[ "$(cat /proc/1/comm)" = systemd ]
state=$(systemctl is-system-running || true)
[ "$state" = running ] || { systemctl list-units --failed --no-legend; echo "systemd says: $state"; exit 1; }
[ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ]
for controller in cpuset cpu io memory pids; do
  grep -qw "$controller" /sys/fs/cgroup/cgroup.controllers || { echo "no controller $controller"; exit 1; }
done
nft add table inet check && nft delete table inet check
ip link add check type bridge && ip link delete check
busctl status org.freedesktop.systemd1 >/dev/null
echo "Linux $(uname -r), $(systemctl --version | head -n 1), up $(cut -d' ' -f1 /proc/uptime) s"
"#;

pub fn tier(tier: &mut Tier) {
    let Some(guest) = tier.prepare("the guest's kernel and root", Guest::made) else { return };
    tier.check("boots with systemd and cgroup v2", || guest.run("check", GUEST_CHECK));
    let built = tier.prepare("compile the programs and the tests for the guest", || node::built(&PROGRAM));
    let Some((list, mut environment)) = built else { return };
    let Some(packages) = tier.prepare("packages", || packages(&environment)) else { return };
    tier.check("packages are the same, byte for byte, when they are made again", || {
        package::same_again(&packages, node::programs_dir(&environment)?)
    });
    environment.push(("BERTH_PACKAGES", packages));
    tier.check("the quickstart in the guest", || {
        let dir = node::programs_dir(&environment)?.display();
        let script = format!("{}exec '{dir}/{}' --bin '{dir}'\n", prelude(&environment), programs::QUICKSTART);
        guest.run("quickstart", &script)
    });
    let Some(parts) = tier.prepare("list the tests", || binaries::parts(list)) else { return };
    tier.side_by_side(&jobs(&guest, &environment, parts));
}

/// The boots. Those that need nothing of others come first: on an empty cache Kubernetes is built beside them.
fn jobs<'a>(guest: &'a Guest, environment: &'a node::Environment, parts: Vec<Part>) -> Vec<Job<'a>> {
    let called = |part: &Part, names: &[&str]| names.iter().any(|name| part.name.ends_with(name));
    let (labelled, others): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| called(part, &[SELINUX_TESTS]));
    let (adopting, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|part| called(part, &ADOPT_TESTS));
    let (rebooting, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|part| called(part, &[REBOOT_TESTS]));
    let (clusters, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|part| called(part, &CLUSTER_TESTS));
    let mut jobs = vec![
        job("node tests in the guest", move |choice| {
            guest.boot("tests", &tests_script(&others, environment, choice), &[])
        }),
        job("node tests in the guest with SELinux", move |choice| {
            guest.boot("selinux", &labelled_script(&labelled, environment, choice), &SELINUX_BOOT)
        }),
        job("node tests in the guest with Kubernetes", move |choice| {
            guest.boot("kubernetes", &tests_script(&clusters, &with_others(environment)?, choice), &[])
        }),
    ];
    jobs.extend(adopting.iter().flat_map(|part| one_each(guest, environment, part, None)));
    jobs.extend(rebooting.iter().flat_map(|part| one_each(guest, environment, part, Some(DISK))));
    jobs
}

/// A guest for each test of the part, with a disk of this size if it is to have one.
fn one_each<'a>(
    guest: &'a Guest,
    environment: &'a node::Environment,
    part: &Part,
    disk: Option<&'static str>,
) -> Vec<Job<'a>> {
    let of = |name: &String| {
        let (part, name) = (part.clone(), name.clone());
        job(&format!("in a guest of its own: {name}"), move |choice| {
            let one = [name.clone()];
            let choice = if choice == Choice::All { Choice::Named(&one) } else { choice };
            let directory = name.rsplit("::").next().unwrap_or(&name);
            let script = tests_script(std::slice::from_ref(&part), &with_others(environment)?, choice);
            let mut boot = guest.boot(directory, &script, &[])?;
            boot.envs(disk.map(|size| ("DISK", size)));
            Ok(boot)
        })
    };
    part.tests.iter().map(of).collect()
}

/// The environment with what is built of others.
fn with_others(environment: &node::Environment) -> Result<node::Environment> {
    let others =
        [("BERTH_KUBERNETES", tools::kubernetes()?), ("BERTH_PEERS", tools::peers()?), ("BERTH_ETCD", tools::etcd()?)];
    Ok(environment.iter().cloned().chain(others).collect())
}

fn job<'a>(name: &str, command: impl Fn(Choice<'_>) -> Result<Command> + Send + Sync + 'a) -> Job<'a> {
    Job { name: name.to_owned(), tests: Tests::Told, again: Again::Alone, command: Box::new(command) }
}

/// Runs the tests of these modules, in one boot: for who works on them.
pub fn only(names: &[String]) -> Result {
    let guest = Guest::made()?;
    let (list, mut environment) = node::built(&PROGRAM)?;
    let mut parts = binaries::parts(list)?;
    parts.retain(|part| names.iter().any(|name| part.name.ends_with(&format!(": {name}"))));
    if parts.is_empty() {
        return Err(format!("no tests for the guest are called {}", names.join(" or ")));
    }
    environment = with_others(&environment)?;
    environment.push(("BERTH_PACKAGES", packages(&environment)?));
    if parts.iter().all(|part| part.name.ends_with(SELINUX_TESTS)) {
        let script = labelled_script(&parts, &environment, Choice::All);
        return run::plain(&mut guest.boot("only", &script, &SELINUX_BOOT)?);
    }
    let (rebooting, parts): (Vec<_>, Vec<_>) = parts.into_iter().partition(|part| part.name.ends_with(REBOOT_TESTS));
    for job in rebooting.iter().flat_map(|part| one_each(&guest, &environment, part, Some(DISK))) {
        run::plain(&mut (job.command)(Choice::All)?)?;
    }
    if parts.is_empty() { Ok(()) } else { guest.run("only", &tests_script(&parts, &environment, Choice::All)) }
}

/// A directory with two releases of both packages, and an rpm that runs in the guest.
fn packages(environment: &node::Environment) -> Result<PathBuf> {
    let (bin, out) = (node::programs_dir(environment)?, workspace::target_dir().join("package-tests"));
    let _ = fs::remove_dir_all(&out);
    programs::from_everything(&[programs::PLUGIN], bin)?;
    for release in [1, 2] {
        package::build(&[Kind::Deb, Kind::Rpm], bin, Effort { release, fast: true }, &out)?;
    }
    package::rpm_tool(&out.join("rpm-tool"))?;
    Ok(out)
}

/// Directories of the host that a job sees.
fn mounted(environment: &node::Environment) -> BTreeSet<PathBuf> {
    let mut host: BTreeSet<PathBuf> = [workspace::root(), workspace::target_dir()].into();
    host.extend(environment.iter().filter_map(|(_, path)| path.parent().map(Path::to_owned)));
    let all = host.clone();
    host.retain(|dir| !all.iter().any(|other| other != dir && dir.starts_with(other)));
    host
}

/// How a job begins. What it needs of the host is mounted at its own path, read-only, so that every path means the same on
/// both sides.
fn prelude(environment: &node::Environment) -> String {
    let mut script = String::from("#!/bin/sh\nset -eu\n");
    for dir in mounted(environment) {
        let dir = dir.display();
        // busybox's mount: util-linux hands the path over in a way that hostfs does not take.
        script += &format!("mkdir -p '{dir}'\n/bin/busybox mount -t hostfs -r -o '{dir}' none '{dir}'\n");
    }
    script + &exports(environment)
}

fn exports(environment: &node::Environment) -> String {
    let of = |(name, value): &(_, PathBuf)| format!("export {name}='{}'\n", value.display());
    // The guest's root is an overlay, which cannot be the upper of another one; /tmp is not.
    environment.iter().map(of).collect::<String>() + "export TMPDIR=/tmp RUST_BACKTRACE=1\n"
}

/// The job that runs the tests for the guest.
fn tests_script(list: &[Part], environment: &node::Environment, choice: Choice<'_>) -> String {
    prelude(environment) + &tests(list, choice)
}

/// The same on a machine whose files have labels, as they have where SELinux was on when they were made: hostfs has none. (The tools'
/// own recursion stops at files that only hostfs has, as at another file system.) pid 1 and its bus begin anew, in their domains, and
/// the tests have an administrator's.
fn labelled_script(list: &[Part], environment: &node::Environment, choice: Choice<'_>) -> String {
    let kernel = ["/proc", "/sys", "/dev", "/run", "/tmp", "/job", "/lower"].map(PathBuf::from);
    let left_out = kernel.into_iter().chain(mounted(environment)).map(|dir| format!("-path '{}'", dir.display()));
    let left_out: Vec<String> = left_out.collect();
    prelude(environment)
        + &format!("find / \\( {} \\) -prune -o -print | restorecon -F -f - || true\n", left_out.join(" -o "))
        + "systemctl daemon-reexec\nsystemctl restart dbus.socket dbus.service\n"
        + &format!("cat >/run/tests <<'END'\nset -eu\n{}{}END\n", exports(environment), tests(list, choice))
        + "exec systemd-run --quiet --wait --pipe --collect --property=Delegate=yes \
           --property=SELinuxContext=unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023 /bin/sh /run/tests\n"
}

fn tests(list: &[Part], choice: Choice<'_>) -> String {
    let mut script = "rc=0\n".to_owned();
    for part in list {
        let (path, dir) = (part.binary.path.display(), part.binary.dir.display());
        let mut arguments = part.arguments(choice);
        if let Choice::Named(_) = choice {
            // A second try names tests of some of the parts; a program without any would say that it ran none.
            arguments.retain(|name| *name == "--exact" || part.tests.iter().any(|test| test == name));
        }
        if arguments.len() > 1 {
            let arguments = arguments.join(" ");
            script += &format!("echo '-- {}'\ncd '{dir}'\ntimeout 1500 '{path}' {arguments} || rc=1\n", part.name);
        }
    }
    script + "exit $rc\n"
}

/// A kernel and a root filesystem.
pub struct Guest {
    kernel: PathBuf,
    root: PathBuf,
}

fn scripts() -> PathBuf {
    workspace::root().join("xtask/guest")
}

/// The key of what these scripts make.
fn key(names: &[&str]) -> Result<Key> {
    names.iter().try_fold(Key::default(), |key, name| key.with_file(&scripts().join(name)))
}

impl Guest {
    /// From the cache, or built: the kernel takes 10 minutes, the root two.
    fn made() -> Result<Self> {
        install::need_root("the guest tier")?;
        Ok(Self { kernel: Self::kernel()?.join("linux"), root: Self::root()?.join("root") })
    }

    /// The directory with the kernel.
    pub fn kernel() -> Result<PathBuf> {
        cache::entry("guest-kernel", &key(&["build-kernel", "kernel-options.list", "suite-sources"])?, |dir| {
            install::packages(&KERNEL_PACKAGES)?;
            run::plain(Command::new(scripts().join("build-kernel")).arg(dir))
        })
    }

    /// The directory with the root.
    pub fn root() -> Result<PathBuf> {
        let inputs = ["build-root", "guest-init", "run-job", "job.service", "suite-sources"];
        cache::entry("guest-root", &key(&inputs)?, |dir| {
            install::packages(&ROOT_PACKAGES)?;
            run::plain(Command::new(scripts().join("build-root")).arg(dir.join("root")))
        })
    }

    /// Boots, runs the script, and powers off.
    fn run(&self, name: &str, script: &str) -> Result {
        run::plain(&mut self.boot(name, script, &[])?)
    }

    /// The command that does so, with arguments for the kernel; the last of a name counts.
    fn boot(&self, name: &str, script: &str, arguments: &[&str]) -> Result<Command> {
        let job = workspace::target_dir().join("guest").join(name);
        let file = job.join("run");
        let at = |e: std::io::Error| format!("{}: {e}", file.display());
        fs::create_dir_all(&job).map_err(at)?;
        fs::write(&file, script).map_err(at)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(at)?;
        let mut boot = Command::new(scripts().join("boot"));
        boot.arg(&self.kernel).arg(&self.root).arg(&job).args(arguments);
        Ok(boot)
    }
}

#[cfg(test)]
mod tests {
    use super::super::binaries::TestBinary;
    use super::*;

    #[test]
    fn a_job_mounts_the_host_once_and_runs_every_program() {
        let root = workspace::root();
        let part = |n: &str| {
            let binary = TestBinary { name: n.into(), path: root.join("t").join(n), dir: root.join("tests/node") };
            Part { name: n.into(), binary, tests: vec![format!("{n}::first"), format!("{n}::second")] }
        };
        let environment = vec![("BERTH_CRICTL", PathBuf::from("/cache/cri-tools/1/crictl"))];
        let script = tests_script(&[part("a"), part("b")], &environment, Choice::All);
        assert_eq!(script.matches(&format!("hostfs -r -o '{}'", root.display())).count(), 1);
        assert!(script.contains("hostfs -r -o '/cache/cri-tools/1'") && script.contains("export BERTH_CRICTL="));
        assert!(script.contains("/t/a' --exact a::first a::second || rc=1") && script.contains("b::first b::second"));
        let second = tests_script(&[part("a"), part("b")], &environment, Choice::Named(&["b::second".to_owned()]));
        assert!(second.contains("/t/b' --exact b::second || rc=1") && !second.contains("/t/a'"));
        assert!(script.ends_with("exit $rc\n"));
    }
}
