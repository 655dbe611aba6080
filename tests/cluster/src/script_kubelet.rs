//! A kubelet that two scripts of the node start and stop, as a node without systemd has it: whoever takes the node over calls them.
//!
//! Owns: the scripts, the file with its process id. Must not: know on which runtime the kubelet is.
use crate::cgroups;
use crate::kubelet::{self, Options};
use crate::space::NodeSpace;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Writes both scripts, with what the kubelet is started with.
pub fn prepare(space: &NodeSpace, endpoint: &str, options: &Options) {
    let (base, group) = (space.base().display(), format!("{}/kubelet", space.group()));
    cgroups::create(&group).unwrap();
    fs::create_dir_all(directory(space)).unwrap();
    let drop_ins = space.base().join("kubelet.d");
    fs::create_dir_all(&drop_ins).unwrap();
    let recipe = kubelet::recipe(space, endpoint, options).flag("config-dir", drop_ins.display());
    let words: Vec<_> = recipe.args.iter().map(|word| word.to_str().unwrap()).collect();
    fs::write(space.base().join("kubelet.line"), format!("{} {}\n", recipe.program.display(), words.join(" ")))
        .unwrap();
    let directories = cgroups::directories(&group);
    let groups: String = directories.iter().map(|dir| format!("echo $$ > {}/cgroup.procs\n", dir.display())).collect();
    let start = format!(
        "#!/bin/sh\nset -e\n{groups}read -r line < {base}/kubelet.line\nsetsid $line >> {base}/logs/kubelet.log 2>&1 < /dev/null &\n\
         echo $! > {base}/pid/kubelet\n"
    );
    let stop = format!(
        "#!/bin/sh\npid=$(cat {base}/pid/kubelet)\nkill $pid\nwhile kill -0 $pid 2>/dev/null; do sleep 0.02; done\n"
    );
    for (name, text) in [("start-kubelet", start), ("stop-kubelet", stop)] {
        let path = space.base().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    space.watch_log("kubelet", space.base().join("logs/kubelet.log"));
}

/// Has both scripts do as a service manager does, whoever calls them: one after the other, no second kubelet beside one that runs, and
/// [`revive`] none where it was stopped.
pub fn keep(space: &NodeSpace) {
    let pid = directory(space).join("kubelet").display().to_string();
    let running = format!("grep -qs kubelet /proc/$(cat {pid})/cmdline && exit 0\n");
    let start = format!("[ \"$1\" = again ] && [ -e {pid}.stopped ] && exit 0\nrm -f {pid}.stopped\n{running}");
    let stop = format!("touch {pid}.stopped\n");
    for (word, first) in [("start", start), ("stop", stop)] {
        let (path, bare) = (script(space, word), script(space, &format!("bare-{word}")));
        fs::rename(&path, &bare).unwrap();
        // What it starts must not keep the lock.
        let text = format!("#!/bin/sh\nexec 9> {pid}.lock\nflock 9\n{first}{} 9>&-\n", bare.display());
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

/// Starts one again that was killed, if nobody has stopped it; after [`keep`].
///
/// # Panics
/// Where the script fails.
pub fn revive(space: &NodeSpace) {
    let status = space.command("tools", script(space, "start")).arg("again").status().unwrap();
    assert!(status.success(), "start: {status}");
}

/// Directory of the file `kubelet`, with its process id.
pub fn directory(space: &NodeSpace) -> PathBuf {
    space.base().join("pid")
}

/// The command that does `start` or `stop`.
pub fn script(space: &NodeSpace, word: &str) -> PathBuf {
    space.base().join(format!("{word}-kubelet"))
}

/// Starts or stops it.
///
/// # Panics
/// Where the script fails.
pub fn run(space: &NodeSpace, word: &str) {
    let status = space.command("tools", script(space, word)).status().unwrap();
    assert!(status.success(), "{word}: {status}");
}
