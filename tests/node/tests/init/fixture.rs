//! A directory with an image of static busybox, and specs on it.
use super::{DEFAULT_CAPS, caps, mount, no_cgroup, shell};
use berth_model::Propagation;
use berth_monitor_api::spec::{
    ContainerSpec, InitSpec, JoinNamespaces, MountKind, PidNamespace, Process, Rootfs, SandboxSpec,
};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

const APPLETS: &str = "sh cat ls id mount umount grep sleep stat touch mkdir tty stty readlink hostname kill ps head wc \
    env dd echo rm ln ip sysctl pwd find chmod sort cut tr true false mknod df od cp nsenter unshare chown";

/// The sealed program, made once per test binary.
pub fn program() -> OwnedFd {
    static PROGRAM: OnceLock<OwnedFd> = OnceLock::new();
    let sealed = PROGRAM.get_or_init(|| {
        let beside = || std::env::current_exe().unwrap().parent().unwrap().parent().unwrap().to_owned();
        let dir = std::env::var_os("BERTH_BIN_DIR").map_or_else(beside, PathBuf::from);
        let path = dir.join("berth-init");
        let mut file = fs::File::open(&path)
            .unwrap_or_else(|e| panic!("{}: {e}; build it with `cargo build -p berth-init`", path.display()));
        berth_sys::memfd::sealed_program("berth-init", &mut file).unwrap()
    });
    sealed.as_fd().try_clone_to_owned().unwrap()
}

/// A directory of one test's own.
pub struct Fixture {
    pub dir: PathBuf,
}

impl Fixture {
    /// Makes the image: layer `lower`, empty `upper`, `work`, `mnt`.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        assert!(Path::new("/bin/busybox").exists(), "/bin/busybox is missing: install busybox-static");
        let unique = format!("berth-init-{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let dir = std::env::temp_dir().join(unique);
        for it in ["lower/bin", "lower/etc", "lower/tmp", "lower/data", "upper", "work", "mnt"] {
            fs::create_dir_all(dir.join(it)).unwrap();
        }
        // Others than root pass, as they do through /var/lib/berth of no node: tests of user namespaces set it to 0700.
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(dir.join("lower/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        let busybox = dir.join("lower/bin/busybox");
        fs::copy("/bin/busybox", &busybox).unwrap();
        fs::set_permissions(&busybox, fs::Permissions::from_mode(0o755)).unwrap();
        for applet in APPLETS.split_whitespace() {
            symlink("busybox", dir.join("lower/bin").join(applet)).unwrap();
        }
        let it = Self { dir };
        it.file("lower/etc/passwd", "root:x:0:0::/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n");
        it.file("lower/etc/group", "root:x:0:\nstaff:x:50:app\napp:x:1001:\nwheel:x:10:root\n");
        it
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }

    pub fn file(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    pub fn dir(&self, below: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// A container in namespaces of the host but for mount and pid, with the usual mounts.
    pub fn spec(&self, process: Process) -> ContainerSpec {
        ContainerSpec {
            namespaces: JoinNamespaces {
                net: None,
                ipc: None,
                uts: None,
                user: None,
                pid: PidNamespace::New,
                new_cgroup: true,
            },
            cgroup: no_cgroup(),
            rootfs: Rootfs {
                lower: vec![self.path("lower")],
                upper: self.path("upper"),
                work: self.path("work"),
                idmapped: false,
                owner: None,
                readonly: false,
                mountpoint: self.path("mnt"),
            },
            mounts: vec![
                mount("/proc", MountKind::Proc),
                mount("/dev", MountKind::Dev),
                mount("/sys", MountKind::Sysfs { readonly: true }),
            ],
            devices: Vec::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
            process,
            mount_label: None,
            rootfs_propagation: Propagation::Private,
        }
    }

    /// As [`Fixture::spec`], running a shell script.
    pub fn script(&self, script: &str) -> ContainerSpec {
        self.spec(shell(script))
    }

    /// A container that stays until its standard input ends, after it wrote `up`.
    pub fn idle(&self) -> ContainerSpec {
        let mut spec = self.script("echo up; cat >/dev/null");
        spec.process.capabilities = caps(DEFAULT_CAPS);
        spec
    }

    /// A sandbox with net, ipc and uts of its own, pinned below `ns/`.
    pub fn sandbox(&self) -> SandboxSpec {
        let file = |name: &str| Some(self.file(&format!("ns/{name}"), ""));
        SandboxSpec {
            net: file("net"),
            ipc: file("ipc"),
            uts: file("uts"),
            hostname: "pod-name".into(),
            ..SandboxSpec::default()
        }
    }

    pub fn joined(&self, mut spec: ContainerSpec) -> ContainerSpec {
        let pinned = |name: &str| Some(self.path(&format!("ns/{name}")));
        (spec.namespaces.net, spec.namespaces.ipc, spec.namespaces.uts) = (pinned("net"), pinned("ipc"), pinned("uts"));
        spec
    }

    /// Mount points below the fixture, as the test's own mount namespace has them.
    pub fn mounts(&self) -> Vec<String> {
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = self.dir.display().to_string();
        table.lines().filter_map(|l| l.split(' ').nth(4)).filter(|p| p.starts_with(&ours)).map(String::from).collect()
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        for place in self.mounts().iter().rev() {
            let _ = berth_sys::mount::detach(Path::new(place));
        }
        let left = self.mounts();
        let removed = fs::remove_dir_all(&self.dir);
        if !std::thread::panicking() {
            assert!(left.is_empty(), "mounts are left over: {left:?}");
            removed.unwrap();
        }
    }
}

pub fn container(spec: ContainerSpec) -> InitSpec {
    InitSpec::Container(Box::new(spec))
}
