//! What the quickstart makes on the machine, and its end: whatever happens in between, it is removed, and what is left over is
//! counted against the snapshot that was taken before anything existed.
use crate::args::Options;
use crate::node::Node;
use crate::{Result, console, interrupt, preflight, reading, sample};
use berth_leaks::{Scope, Snapshot};
use berth_test_registry::Registry;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the kernel gets to take apart what was removed.
const SETTLE: Duration = Duration::from_secs(10);

/// Everything that exists because of this run.
pub struct Stage {
    /// The programs.
    pub bin: PathBuf,
    /// The run's own directory; the daemon's root lies in it.
    pub base: PathBuf,
    /// The registry.
    pub registry: Registry,
    /// The daemon, once it runs.
    pub node: Option<Node>,
    scope: Scope,
    before: Snapshot,
    shared: bool,
}

impl Stage {
    /// Looks at the machine, then makes the directory and the registry.
    pub fn set_up(options: &Options) -> Result<Self> {
        let bin = options.bin.canonicalize().map_err(|e| format!("{}: {e}", options.bin.display()))?;
        for program in ["berth", "berth-monitor", "berth-init", "berth-web"] {
            if !bin.join(program).is_file() {
                return Err(format!(
                    "{} is missing; --bin names the directory of the programs",
                    bin.join(program).display()
                ));
            }
        }
        let base = preflight::overlay_parent()?.join(format!("berth-quickstart-{}", std::process::id()));
        let scope = Scope { roots: vec![base.clone()], words: Vec::new() };
        let before = Snapshot::take(&scope).map_err(|e| format!("looking at the machine: {e}"))?;
        let registry = sample::serve(&bin)?;
        fs::DirBuilder::new().mode(0o700).create(&base).map_err(|e| format!("{}: {e}", base.display()))?;
        Ok(Self { bin, base, registry, node: None, scope, before, shared: options.shared })
    }

    /// The daemon's root.
    pub fn root(&self) -> PathBuf {
        self.base.join("root")
    }

    /// Starts the daemon.
    pub fn start_node(&mut self) -> Result<&mut Node> {
        let node = Node::start(&self.bin, &self.root(), &self.base.join("berth.log"))?;
        Ok(self.node.insert(node))
    }

    /// The daemon. Error: it was not started.
    pub fn node(&self) -> Result<&Node> {
        self.node.as_ref().ok_or_else(|| "the daemon does not run".to_owned())
    }

    /// The end, after a success and after a failure.
    pub fn end(mut self, outcome: Result, keep: bool) -> Result {
        if let (Err(why), Some(node)) = (&outcome, &self.node) {
            println!("\n   failed: {why}\n   {}", node.log_tail());
        }
        if keep && outcome.is_ok() {
            return self.left_running();
        }
        interrupt::ending();
        console::heading("Removing everything");
        let leaks = self.remove().and_then(|()| self.count());
        match (outcome, leaks) {
            (outcome, Ok(())) => outcome,
            (Ok(()), leaks) => leaks,
            (Err(why), Err(leaks)) => Err(format!("{why}\nand: {leaks}")),
        }
    }

    fn remove(&mut self) -> Result {
        let pods = self.remove_pods();
        if let Some(node) = &mut self.node {
            node.stop()?;
            println!("   berth serve ended");
        }
        // What does not go by request is left where it is, and counted: removing it by force could hide a leak.
        if let Err(why) = pods {
            println!("   pods could not be removed: {why}");
        }
        let mounts = mounts_below(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default(), &self.base);
        if !mounts.is_empty() {
            println!("   {} stays: there are mounts in it", self.base.display());
            return Ok(());
        }
        fs::remove_dir_all(&self.base).map_err(|e| format!("{}: {e}", self.base.display()))?;
        println!("   {} removed", self.base.display());
        Ok(())
    }

    /// Removes the pods that there are. A daemon that ended by itself is started again for that.
    fn remove_pods(&mut self) -> Result {
        let Some(node) = &mut self.node else { return Ok(()) };
        if !node.answers() {
            println!("   berth serve does not answer any more; it is started again to remove what it made");
            node.stop()?;
            self.start_node()?;
        }
        let node = self.node()?;
        if self.shared {
            // The daemon's bridge carries the hash that all its names have.
            let info = node.json(&["info"])?;
            let hash = info["bridge"].as_str().unwrap_or_default().trim_start_matches("berth").to_owned();
            let base = self.base.display().to_string();
            self.scope.words = [base, hash].into_iter().filter(|word| !word.is_empty()).collect();
        }
        let node = self.node()?;
        for id in reading::pod_ids(&node.json(&["pods", "--all"])?) {
            node.show(&["rm", "--force", &id])?;
        }
        Ok(())
    }

    fn count(&self) -> Result {
        console::heading("What is left over");
        println!(
            "   processes, namespaces, mounts, control groups, network links, nftables tables and files, as the kernel"
        );
        println!("   shows them, compared with what was there before:");
        let leaks = berth_leaks::settle(&self.scope, &self.before, SETTLE).map_err(|e| format!("counting: {e}"))?;
        if leaks.is_empty() {
            println!("   left over: nothing");
            return Ok(());
        }
        for leak in &leaks {
            println!("   left over: {leak}");
        }
        Err(format!("{} things are left over", leaks.len()))
    }

    fn left_running(self) -> Result {
        console::heading("It runs on (--keep)");
        let node = self.node()?;
        let socket = node.socket();
        let info = node.json(&["info"])?;
        let driver = info["cgroupDriver"].as_str().unwrap_or("cgroupfs");
        println!("   crictl --runtime-endpoint unix://{} ps", socket.display());
        println!("   crictl --runtime-endpoint unix://{} exec --sync CONTAINER COMMAND", socket.display());
        println!("\n   A kubelet's configuration (KubeletConfiguration) uses it with");
        println!("   containerRuntimeEndpoint: unix://{}", socket.display());
        println!("   cgroupDriver: {driver}");
        println!("\n   Its log is {}. To end it:", self.base.join("berth.log").display());
        println!("   {} rm --force web", node.command_line());
        println!("   kill {}", node.pid());
        println!("   rm -r {}", self.base.display());
        Ok(())
    }
}

/// Mount points in `base`, where removing would reach into what is mounted.
fn mounts_below(mountinfo: &str, base: &Path) -> Vec<String> {
    let points = mountinfo.lines().filter_map(|line| line.split(' ').nth(4));
    points.filter(|point| Path::new(point).starts_with(base)).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_in_the_directory_are_seen() {
        let text = "1 0 0:1 / /tmp/q-1 rw - tmpfs t rw\n2 0 0:2 / /tmp/q-12/x rw - tmpfs t rw\n";
        assert_eq!(mounts_below(text, Path::new("/tmp/q-12")), ["/tmp/q-12/x"]);
        assert_eq!(mounts_below(text, Path::new("/tmp/q-1")), ["/tmp/q-1"]);
        assert!(mounts_below(text, Path::new("/tmp/q")).is_empty());
    }
}
