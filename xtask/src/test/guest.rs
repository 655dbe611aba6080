//! Tier `guest`: a machine with systemd as pid 1 and pure cgroup v2, as most nodes are, booted in seconds as a
//! user-mode-linux program. Its kernel and root are made from Debian's packages, once; the scripts are in `xtask/guest`.
//! It has no network to the host: a job is a directory that both sees, with a program `run` in it.
use super::Tier;
use super::again::Choice;
use super::binaries::{self, TestBinary};
use super::node::{self, GUEST_PREFIX};
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

/// The tests that need the other of the two large security modules: a boot has one.
const SELINUX_TESTS: &str = "guest_selinux";
/// The tests that take the whole machine over: kubelet, runtime and units are the system's own.
const ADOPT_TESTS: &str = "guest_adopt";
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
    tier.check("boots with systemd and cgroup v2", || guest.run("check", GUEST_CHECK, &mut |_| ()));
    let built = tier.prepare("compile the programs and the node tests", node::built);
    let kubernetes = tier.prepare("Kubernetes", tools::kubernetes);
    let peers = tier.prepare("containerd and runc", tools::peers);
    let (Some((list, mut environment)), Some(kubernetes), Some(peers)) = (built, kubernetes, peers) else { return };
    environment.extend([("BERTH_KUBERNETES", kubernetes), ("BERTH_PEERS", peers)]);
    let Some(packages) = tier.prepare("packages", || packages(&environment)) else { return };
    tier.check("packages are the same, byte for byte, when they are made again", || {
        package::same_again(&packages, node::programs_dir(&environment)?)
    });
    environment.push(("BERTH_PACKAGES", packages));
    tier.check("the quickstart in the guest", || {
        let dir = node::programs_dir(&environment)?.display();
        let script = format!("{}exec '{dir}/{}' --bin '{dir}'\n", prelude(&environment), programs::QUICKSTART);
        guest.run("quickstart", &script, &mut |_| ())
    });
    let (labelled, others): (Vec<_>, Vec<_>) =
        list.into_iter().partition(|binary| binary.name.ends_with(SELINUX_TESTS));
    let (adopting, others): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|binary| binary.name.ends_with(ADOPT_TESTS));
    tier.tests("node tests in the guest", false, |choice| {
        let script = tests_script(&others, &environment, choice);
        binaries::outcome(|line| guest.run("tests", &script, line))
    });
    for name in tier.prepare("list the tests of a takeover", || listed(&adopting)).unwrap_or_default() {
        let first = [name];
        tier.tests(&format!("in a guest of its own: {}", first[0]), false, |choice| {
            let choice = if choice == Choice::All { Choice::Named(&first) } else { choice };
            let script = tests_script(&adopting, &environment, choice);
            binaries::outcome(|line| guest.run("adopt", &script, line))
        });
    }
    tier.tests("node tests in the guest with SELinux", false, |choice| {
        let script = labelled_script(&labelled, &environment, choice);
        binaries::outcome(|line| guest.boot("selinux", &script, &SELINUX_BOOT, line))
    });
}

/// Runs the test programs that bear one of these names, in one boot: for who works on them.
pub fn only(names: &[String]) -> Result {
    let guest = Guest::made()?;
    let mut choice = node::CHOICE.to_vec();
    choice.extend(names.iter().flat_map(|name| ["--test", name]));
    let (list, mut environment) = node::built_of(&choice)?;
    environment.extend([("BERTH_KUBERNETES", tools::kubernetes()?), ("BERTH_PEERS", tools::peers()?)]);
    environment.push(("BERTH_PACKAGES", packages(&environment)?));
    let selinux = list.iter().all(|binary| binary.name.ends_with(SELINUX_TESTS));
    if selinux {
        return guest.boot("only", &labelled_script(&list, &environment, Choice::All), &SELINUX_BOOT, &mut |_| ());
    }
    guest.run("only", &tests_script(&list, &environment, Choice::All), &mut |_| ())
}

/// Names of the tests in these programs: each that fails leaves a machine that the next one cannot use.
fn listed(list: &[TestBinary]) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for binary in list {
        let said = run::captured(Command::new(&binary.path).args([GUEST_PREFIX, "--list", "--format=terse"]))?;
        names.extend(said.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned));
    }
    if names.is_empty() { Err("no test takes a node over".into()) } else { Ok(names) }
}

/// A directory with two releases of both packages, and an rpm that runs in the guest.
fn packages(environment: &node::Environment) -> Result<PathBuf> {
    let (bin, out) = (node::programs_dir(environment)?, workspace::target_dir().join("package-tests"));
    let _ = fs::remove_dir_all(&out);
    programs::one(programs::PLUGIN, bin)?;
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
fn tests_script(list: &[TestBinary], environment: &node::Environment, choice: Choice<'_>) -> String {
    prelude(environment) + &tests(list, choice)
}

/// The same on a machine whose files have labels, as they have where SELinux was on when they were made: hostfs has none. (The tools'
/// own recursion stops at files that only hostfs has, as at another file system.) pid 1 and its bus begin anew, in their domains, and
/// the tests have an administrator's.
fn labelled_script(list: &[TestBinary], environment: &node::Environment, choice: Choice<'_>) -> String {
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

fn tests(list: &[TestBinary], choice: Choice<'_>) -> String {
    let chosen = binaries::chosen(choice, &[GUEST_PREFIX]).join(" ");
    let mut script = "rc=0\n".to_owned();
    for TestBinary { name, path, dir } in list {
        let (path, dir) = (path.display(), dir.display());
        script += &format!("echo '-- {name}'\ncd '{dir}'\ntimeout 1500 '{path}' {chosen} || rc=1\n");
    }
    script + "exit $rc\n"
}

/// A kernel and a root filesystem.
struct Guest {
    kernel: PathBuf,
    root: PathBuf,
}

fn scripts() -> PathBuf {
    workspace::root().join("xtask/guest")
}

impl Guest {
    /// From the cache, or built: the kernel takes 10 minutes, the root two.
    fn made() -> Result<Self> {
        install::need_root("the guest tier")?;
        let key =
            |names: &[&str]| names.iter().try_fold(Key::default(), |key, name| key.with_file(&scripts().join(name)));
        let kernel_key = key(&["build-kernel", "kernel-options.list", "suite-sources"])?;
        let kernel = cache::entry("guest-kernel", &kernel_key, |dir| {
            install::packages(&KERNEL_PACKAGES)?;
            run::plain(Command::new(scripts().join("build-kernel")).arg(dir))
        })?;
        let root_key = key(&["build-root", "guest-init", "run-job", "job.service", "suite-sources"])?;
        let root = cache::entry("guest-root", &root_key, |dir| {
            install::packages(&ROOT_PACKAGES)?;
            run::plain(Command::new(scripts().join("build-root")).arg(dir.join("root")))
        })?;
        Ok(Self { kernel: kernel.join("linux"), root: root.join("root") })
    }

    /// Boots, runs the script, and powers off. Each line of its output is printed and given to `line`.
    fn run(&self, name: &str, script: &str, line: &mut dyn FnMut(&str)) -> Result {
        self.boot(name, script, &[], line)
    }

    /// The same with arguments for the kernel; the last of a name counts.
    fn boot(&self, name: &str, script: &str, arguments: &[&str], line: &mut dyn FnMut(&str)) -> Result {
        let job = workspace::target_dir().join("guest").join(name);
        let file = job.join("run");
        let at = |e: std::io::Error| format!("{}: {e}", file.display());
        fs::create_dir_all(&job).map_err(at)?;
        fs::write(&file, script).map_err(at)?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).map_err(at)?;
        let mut boot = Command::new(scripts().join("boot"));
        run::watched(boot.arg(&self.kernel).arg(&self.root).arg(&job).args(arguments), line)
            .map_err(|e| format!("{e}; console: {}", job.join("out/console").display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_mounts_the_host_once_and_runs_every_program() {
        let root = workspace::root();
        let binary =
            |n: &str| TestBinary { name: n.into(), path: root.join("t").join(n), dir: root.join("tests/node") };
        let environment = vec![("BERTH_CRICTL", PathBuf::from("/cache/cri-tools/1/crictl"))];
        let script = tests_script(&[binary("a"), binary("b")], &environment, Choice::All);
        assert_eq!(script.matches(&format!("hostfs -r -o '{}'", root.display())).count(), 1);
        assert!(script.contains("hostfs -r -o '/cache/cri-tools/1'") && script.contains("export BERTH_CRICTL="));
        assert_eq!(script.matches(" guest_ || rc=1").count(), 2);
        assert!(script.ends_with("exit $rc\n"));
    }
}
