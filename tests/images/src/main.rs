//! `berth-test-images`: writes the images that tests with a real kubelet run, as OCI layouts. What they are made of comes as
//! files, and equal files give equal digests. Owns: what lies where in the images. Must not: fetch or compile.
#![forbid(unsafe_code)]

mod users;

use berth_test_registry::{Entry, ImageBuilder, Layer};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "berth-test-images USERLAND KUBERNETES OUT

USERLAND    directory with `busybox`, its `applets` (one a line) and `bash`, all static
KUBERNETES  directory with `agnhost`, static, and the `localhost.crt` and `localhost.key` that it serves with
OUT         directory that gets the layouts `busybox` and `agnhost`";

const TAG: &str = "v1";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const CURL: &str = include_str!("curl");
/// Static glibc looks names up in this order; pods have their own names in `/etc/hosts`.
const NSSWITCH: &str = "hosts: files dns\n";

type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let args: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let outcome = match args.as_slice() {
        [userland, kubernetes, out] => write(userland, kubernetes, out),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("berth-test-images: {message}");
            ExitCode::FAILURE
        }
    }
}

fn write(userland: &Path, kubernetes: &Path, out: &Path) -> Result {
    let base = base_layer(userland)?;
    let busybox = ImageBuilder::new("busybox", TAG).layer(base.clone()).env([PATH]).cmd(["sh"]);
    let agnhost = ImageBuilder::new("agnhost", TAG)
        .layer(base)
        .layer(agnhost_layer(userland, kubernetes)?)
        .env([PATH])
        .entrypoint(["/agnhost"])
        .cmd(["pause"]);
    for (name, image) in [("busybox", busybox), ("agnhost", agnhost)] {
        let dir = out.join(name);
        let built = image.build().and_then(|built| built.write_layout(&dir, TAG).map(|()| built));
        let built = built.map_err(|e| format!("{}: {e}", dir.display()))?;
        println!("{name}:{TAG}@{}", built.digest);
    }
    Ok(())
}

/// BusyBox under all its names. They are hard links, not symbolic ones: a mount over `/bin/ls` shall hide that name alone.
fn base_layer(userland: &Path) -> Result<Layer> {
    let applets = String::from_utf8(read(&userland.join("applets"))?).map_err(|e| format!("applets: {e}"))?;
    let names = applets.lines().filter(|name| !name.is_empty() && *name != "busybox");
    Ok(Layer::new()
        .dir("bin")
        .file("bin/busybox", 0o755, read(&userland.join("busybox"))?)
        .entries(names.map(|name| Entry::hard_link(format!("bin/{name}"), "bin/busybox").mode(0o755)))
        .dir("etc")
        .file("etc/passwd", 0o644, users::PASSWD)
        .file("etc/group", 0o644, users::GROUP)
        .file("etc/nsswitch.conf", 0o644, NSSWITCH)
        .entry(Entry::dir("root").mode(0o700))
        .entry(Entry::dir("tmp").mode(0o1777))
        .dir("var")
        .dir("var/run")
        .dir("var/www"))
}

/// What Kubernetes' image of this name has beyond a shell and its tools (`test/images/agnhost/Dockerfile`).
fn agnhost_layer(userland: &Path, kubernetes: &Path) -> Result<Layer> {
    let own = |name: &str| Entry::dir(name).owner(1000, 1000);
    Ok(Layer::new()
        .file("bin/bash", 0o755, read(&userland.join("bash"))?)
        .file("bin/curl", 0o755, CURL)
        .file("agnhost", 0o755, read(&kubernetes.join("agnhost"))?)
        .symlink("agnhost-2", "agnhost")
        .file("localhost.crt", 0o644, read(&kubernetes.join("localhost.crt"))?)
        .file("localhost.key", 0o644, read(&kubernetes.join("localhost.key"))?)
        .file("etc/passwd", 0o644, format!("{}{}", users::PASSWD, users::AGNHOST_PASSWD))
        .file("etc/group", 0o644, format!("{}{}", users::GROUP, users::AGNHOST_GROUP))
        .dir("home")
        .entry(own("home/user-defined-in-image"))
        .dir("uploads"))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}
