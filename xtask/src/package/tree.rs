//! What a package holds, laid out as on a node. Owns: places and modes. Must not: know a package format.
use crate::{Result, programs, run, workspace};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where the programs lie: `berth` finds its siblings beside itself, whatever name it was called by.
pub const PROGRAMS: &str = "usr/libexec/berth";
/// Where kubectl looks for its plugin.
pub const PLUGIN: &str = "usr/bin/kubectl-berth";
const DOC: &str = "usr/share/doc/berth";
const MANUAL: &str = "usr/share/man/man1";
const UNIT: &str = "usr/lib/systemd/system/berth.service";
/// How the unit of a host install names the program.
const UNIT_PROGRAM: &str = "/opt/berth/current/berth";
const BINARIES: [&str; 3] = ["berth", "berth-monitor", "berth-init"];

/// What kind of file, as far as package managers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Replaced by an upgrade.
    Plain,
    /// A user's changes are kept.
    Configuration,
    /// Left out where documentation is not wanted.
    Documentation,
}

/// The staged files.
pub struct Tree {
    /// Where `/` of the node is.
    pub root: PathBuf,
    /// Files and links, by their places below it.
    pub files: Vec<(String, Role)>,
}

/// Lays everything out in `root`.
pub fn make(root: &Path, bin: &Path) -> Result<Tree> {
    let mut tree = Tree { root: root.to_owned(), files: Vec::new() };
    for name in BINARIES {
        let place = format!("{PROGRAMS}/{name}");
        tree.copy(&bin.join(name), &place, 0o755, Role::Plain)?;
        run::plain(Command::new("strip").arg("--strip-unneeded").arg(root.join(&place)))?;
    }
    tree.link("usr/bin/berth", "../libexec/berth/berth")?;
    let own = |name: &str| workspace::root().join("packaging").join(name);
    tree.copy(&own("uninstall"), &format!("{PROGRAMS}/uninstall"), 0o755, Role::Plain)?;
    tree.copy(&own("selinux"), &format!("{PROGRAMS}/selinux"), 0o755, Role::Plain)?;
    tree.copy(&own("berth.cil"), &format!("{PROGRAMS}/berth.cil"), 0o644, Role::Plain)?;
    tree.copy(&own("50-node.yaml"), "etc/berth/50-node.yaml", 0o644, Role::Configuration)?;
    tree.copy(&own("berth.tmpfiles"), "usr/lib/tmpfiles.d/berth.conf", 0o644, Role::Plain)?;
    tree.write(UNIT, &unit()?, Role::Plain)?;
    for example in ["crictl.yaml", "kubelet.yaml"] {
        tree.copy(&own(example), &format!("{DOC}/examples/{example}"), 0o644, Role::Documentation)?;
    }
    for sample in ["imagepolicy.yaml", "runtimeconfig.yaml"] {
        let from = workspace::root().join("manifests/samples").join(sample);
        tree.copy(&from, &format!("{DOC}/examples/{sample}"), 0o644, Role::Documentation)?;
    }
    tree.copy(&own("copyright"), &format!("{DOC}/copyright"), 0o644, Role::Documentation)?;
    tree.copy(&workspace::root().join("LICENSE"), &format!("{DOC}/LICENSE"), 0o644, Role::Documentation)?;
    tree.write(&format!("{DOC}/third-party.txt"), &third_party(&BINARIES)?, Role::Documentation)?;
    tree.compress(&workspace::root().join("CHANGELOG.md"), &format!("{DOC}/changelog.gz"))?;
    tree.completions(&format!("{PROGRAMS}/berth"), "berth")?;
    tree.manual()?;
    Ok(tree)
}

/// Lays out kubectl's plugin.
pub fn plugin(root: &Path, bin: &Path) -> Result<Tree> {
    let mut tree = Tree { root: root.to_owned(), files: Vec::new() };
    tree.copy(&bin.join(programs::PLUGIN), PLUGIN, 0o755, Role::Plain)?;
    run::plain(Command::new("strip").arg("--strip-unneeded").arg(root.join(PLUGIN)))?;
    // By this name kubectl asks for a plugin's words.
    tree.link("usr/bin/kubectl_complete-berth", programs::PLUGIN)?;
    tree.completions(PLUGIN, programs::PLUGIN)?;
    let own = |name: &str| workspace::root().join("packaging").join(name);
    let doc = "usr/share/doc/kubectl-berth";
    tree.copy(&own("copyright"), &format!("{doc}/copyright"), 0o644, Role::Documentation)?;
    tree.copy(&workspace::root().join("LICENSE"), &format!("{doc}/LICENSE"), 0o644, Role::Documentation)?;
    tree.write(&format!("{doc}/third-party.txt"), &third_party(&[programs::PLUGIN])?, Role::Documentation)?;
    Ok(tree)
}

/// The unit, with the program where a package has it.
fn unit() -> Result<String> {
    let path = workspace::root().join("manifests/systemd/berth.service");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    if !text.contains(UNIT_PROGRAM) {
        return Err(format!("{}: does not start {UNIT_PROGRAM}", path.display()));
    }
    Ok(text.replace(UNIT_PROGRAM, "/usr/bin/berth"))
}

/// The libraries that are linked into the programs, with versions and licences.
fn third_party(packages: &[&str]) -> Result<String> {
    let mut names = workspace::cargo();
    names.args(["tree", "--locked", "--edges=normal", "--prefix=none", "--format={p} {l}"]);
    names.args(packages.iter().map(|package| format!("--package={package}")));
    let text = run::captured(&mut names)?;
    // Our own are those with a path.
    let mut lines: Vec<&str> =
        text.lines().map(|line| line.trim_end_matches(" (*)")).filter(|l| !l.contains(" (/")).collect();
    lines.retain(|line| !line.trim().is_empty());
    lines.sort_unstable();
    lines.dedup();
    Ok(lines.join("\n") + "\n")
}

impl Tree {
    fn place(&mut self, place: &str, role: Role) -> Result<PathBuf> {
        let path = self.root.join(place);
        let parent = path.parent().unwrap_or(&self.root);
        fs::create_dir_all(parent).map_err(|e| format!("{}: {e}", parent.display()))?;
        self.files.push((place.to_owned(), role));
        Ok(path)
    }

    fn copy(&mut self, from: &Path, place: &str, mode: u32, role: Role) -> Result {
        let to = self.place(place, role)?;
        let copied = fs::copy(from, &to).and_then(|_| fs::set_permissions(&to, PermissionsExt::from_mode(mode)));
        copied.map_err(|e| format!("{} to {}: {e}", from.display(), to.display()))
    }

    fn write(&mut self, place: &str, text: &str, role: Role) -> Result {
        let to = self.place(place, role)?;
        let written = fs::write(&to, text).and_then(|()| fs::set_permissions(&to, PermissionsExt::from_mode(0o644)));
        written.map_err(|e| format!("{}: {e}", to.display()))
    }

    fn link(&mut self, place: &str, target: &str) -> Result {
        let to = self.place(place, Role::Plain)?;
        symlink(target, &to).map_err(|e| format!("{}: {e}", to.display()))
    }

    /// Without name and time in its header, so that the bytes depend on the content alone.
    fn compress(&mut self, from: &Path, place: &str) -> Result {
        let to = self.place(place, Role::Documentation)?;
        let file = fs::File::create(&to).map_err(|e| format!("{}: {e}", to.display()))?;
        run::plain(Command::new("gzip").args(["-9", "-n", "-c"]).arg(from).stdout(file))?;
        fs::set_permissions(&to, PermissionsExt::from_mode(0o644)).map_err(|e| format!("{}: {e}", to.display()))
    }

    /// The program writes them itself.
    fn completions(&mut self, program: &str, name: &str) -> Result {
        let program = self.root.join(program);
        for (shell, place) in [
            ("bash", format!("usr/share/bash-completion/completions/{name}")),
            ("zsh", format!("usr/share/zsh/vendor-completions/_{name}")),
            ("fish", format!("usr/share/fish/vendor_completions.d/{name}.fish")),
        ] {
            let text = run::captured(Command::new(&program).args(["completion", shell]))?;
            self.write(&place, &text, Role::Plain)?;
        }
        Ok(())
    }

    /// Pages of all commands, written by the program itself, in the order of their names.
    fn manual(&mut self) -> Result {
        let pages = self.root.with_extension("man");
        let program = self.root.join(PROGRAMS).join("berth");
        let packed = run::captured(Command::new(program).arg("man").arg(&pages)).and_then(|_| {
            let listed = fs::read_dir(&pages).map_err(|e| format!("{}: {e}", pages.display()))?;
            let mut paths: Vec<PathBuf> = listed.flatten().map(|entry| entry.path()).collect();
            paths.sort_unstable();
            paths.iter().try_for_each(|page| {
                let name = page.file_name().unwrap_or_default().to_string_lossy();
                self.compress(page, &format!("{MANUAL}/{name}.gz"))
            })
        });
        let _ = fs::remove_dir_all(&pages);
        packed
    }

    /// Gives every file and directory this time.
    pub fn set_times(&self, time: u64) -> Result {
        let mut find = Command::new("find");
        find.arg(&self.root)
            .args(["-exec", "touch", "--no-dereference"])
            .arg(format!("--date=@{time}"))
            .args(["{}", "+"]);
        run::plain(&mut find)
    }
}
