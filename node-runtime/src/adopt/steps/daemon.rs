//! Berth's daemon beside the old runtime: a unit of systemd, or `berth supervise`.
use super::Node;
use super::command::systemctl;
use crate::adopt::record::sync_directory;
use crate::adopt::runtime::Peer;
use crate::layout::Layout;
use crate::{atomic_file, supervise};
use anyhow::{Context, Result, bail};
use berth_adopt::Plan;
use berth_adopt::plan::Profile;
use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const UNIT: &str = "berth.service";
const UNITS: &str = "/etc/systemd/system";
/// Where links lie of what its `[Install]` names.
const WANTS: &str = "multi-user.target.wants";
const UNIT_FILE: &str = "/etc/systemd/system/berth.service";
/// The unit as it is for a host install.
const UNIT_TEXT: &str = include_str!("../../../../manifests/systemd/berth.service");
/// The unit of kubelets that it comes before.
const KUBELET: &str = "kubelet.service";
/// The directory that it names.
const UNIT_PREFIX: &str = "/opt/berth/";
/// How long the daemon may take to answer.
const LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(50);

/// Starts it and waits until it answers. One that answers is left as it is.
pub(super) async fn start(node: &Node<'_>) -> Result<()> {
    let socket = node.layout.cri_socket();
    if answers(&socket).await.is_ok() {
        return Ok(());
    }
    if node.plan.install.systemd {
        if !node.plan.install.unit_before {
            let text = unit_text(node.plan);
            // Synced: after a power cut this unit is what walks back.
            atomic_file::replace(Path::new(UNIT_FILE), text.as_bytes(), 0o644).context(UNIT_FILE)?;
            systemctl(node.layout, &["daemon-reload"]).await?;
        }
        systemctl(node.layout, &["enable", "--now", UNIT]).await?;
        sync_links(Path::new(UNITS))?;
    } else {
        spawn(node)?;
    }
    let end = Instant::now() + LIMIT;
    loop {
        match answers(&socket).await {
            Ok(()) => return Ok(()),
            Err(e) if Instant::now() > end => {
                return Err(e.context(format!("the daemon does not answer after {} s", LIMIT.as_secs())));
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}

/// What `systemctl enable` and `disable` have made of the unit's links survives a power cut after this: they sync nothing themselves.
fn sync_links(units: &Path) -> Result<()> {
    for directory in [units.join(WANTS), units.to_owned()] {
        if directory.exists() {
            sync_directory(&directory)?;
        }
    }
    Ok(())
}

/// The unit's text for this node: it comes before the unit that the kubelet is in, whatever its name is.
fn unit_text(plan: &Plan) -> String {
    let text = UNIT_TEXT.replace(UNIT_PREFIX, &format!("{}/", plan.install.prefix.display()));
    let unit = plan.commands.start.last().filter(|unit| plan.profile != Profile::Command && *unit != KUBELET);
    let before = |name: &str| format!("Before={name}\n");
    match unit {
        Some(unit) => text.replace(&before(KUBELET), &before(&format!("{KUBELET} {unit}"))),
        None => text,
    }
}

async fn answers(socket: &Path) -> Result<()> {
    Peer::connect(socket).await?.who(socket).await.map(drop)
}

/// A supervisor that outlives this process.
fn spawn(node: &Node<'_>) -> Result<()> {
    let program = node.plan.install.prefix.join("current/berth");
    let mut command = Command::new(&program);
    if !node.layout.is_system() {
        command.arg("--root").arg(&node.layout.root);
    }
    let null = || File::options().read(true).write(true).open("/dev/null");
    // Whatever init the node has knows nothing of it.
    command.args(["supervise", "--followed", "--program"]).arg(&program);
    command.stdin(Stdio::null()).stdout(null()?).stderr(null()?).current_dir("/");
    command.spawn().with_context(|| program.display().to_string()).map(drop)
}

/// Ends it, unless it ran before. Its pods must be gone.
pub(super) async fn stop(node: &Node<'_>) -> Result<()> {
    let install = &node.plan.install;
    if install.daemon_before {
        return Ok(());
    }
    if !install.systemd {
        return supervise::end(node.layout, LIMIT).await;
    }
    let known = Path::new(UNIT_FILE).exists() || install.unit_before;
    match (known, install.unit_enabled_before, node.at_start) {
        // The unit is being started, and this is a part of that: it is ended when all else is done.
        (true, false, true) => systemctl(node.layout, &["disable", UNIT]).await?,
        (true, false, false) => systemctl(node.layout, &["disable", "--now", UNIT]).await?,
        (true, true, false) => systemctl(node.layout, &["stop", UNIT]).await?,
        (true, true, true) | (false, ..) => {}
    }
    sync_links(Path::new(UNITS))?;
    if install.unit_before {
        return Ok(());
    }
    match std::fs::remove_file(UNIT_FILE) {
        Err(e) if e.kind() != ErrorKind::NotFound => bail!("{UNIT_FILE}: {e}"),
        _ => sync_directory(Path::new(UNITS))?,
    }
    systemctl(node.layout, &["daemon-reload"]).await
}

/// Has a unit not be started that is just being started, after what that does first has found that it is not wanted. systemd then ends what it
/// has started for that, which may be the program that asks it to before this one: how that ended says nothing.
pub(in crate::adopt) async fn do_not_start(layout: &Layout) {
    let _ = systemctl(layout, &["--no-block", "stop", UNIT]).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn systemd_never_gives_the_daemon_up() {
        let unit = UNIT_TEXT.split("[Service]").next().unwrap_or_default();
        assert!(unit.lines().any(|line| line == "StartLimitIntervalSec=0"), "systemd.unit(5): a setting of [Unit]");
        assert!(UNIT_TEXT.lines().any(|line| line == "Restart=always"));
    }

    #[test]
    fn links_are_where_the_unit_says_and_need_not_be_there() {
        let install = UNIT_TEXT.split("[Install]").nth(1).unwrap_or_default();
        let wants = install.lines().find_map(|line| line.strip_prefix("WantedBy="));
        assert_eq!(wants.map(|target| format!("{target}.wants")).as_deref(), Some(WANTS));
        let dir = tempfile::tempdir().unwrap();
        sync_links(&dir.path().join("none")).unwrap();
        sync_links(dir.path()).unwrap();
        std::fs::create_dir(dir.path().join(WANTS)).unwrap();
        sync_links(dir.path()).unwrap();
    }

    #[test]
    fn the_daemon_comes_before_the_kubelets_unit_whatever_its_name() {
        let runtime = json!({"socket": "/run/x.sock", "name": "x", "version": "1", "cgroupDriver": null});
        let before = |profile: &str, last: &str| {
            let plan = serde_json::from_value(json!({
                "id": "op", "direction": "adopt", "profile": profile, "bootId": "b", "deadline": 0, "permission": "person",
                "from": runtime, "to": runtime, "commands": {"stop": [], "start": ["x", last]}, "healthz": null,
                "files": [], "images": [], "pods": [], "steps": [], "notes": [],
                "install": {"prefix": "/srv/x", "from": "/x", "version": "1", "currentBefore": null, "stagedBefore": true,
                    "prefixBefore": true, "daemonBefore": false, "systemd": true, "unitBefore": false},
            }));
            let text = unit_text(&plan.unwrap());
            assert!(text.contains("/srv/x/current/berth serve") && !text.contains(UNIT_PREFIX));
            text.lines().find(|line| line.starts_with("Before=")).unwrap().to_owned()
        };
        assert_eq!(before("kubeadm", "kubelet.service"), "Before=kubelet.service");
        assert_eq!(before("systemd", "node@a.service"), "Before=kubelet.service node@a.service");
        assert_eq!(before("command", "--now"), "Before=kubelet.service");
    }
}
