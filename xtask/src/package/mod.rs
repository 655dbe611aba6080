//! `cargo xtask package`: a deb and an rpm of the node half, and of kubectl's plugin. Owns: what is in them and where it lies ([`tree`]), and their names and
//! versions. Must not: differ between two runs on the same programs and the same commit.
//!
//! The tools are the distributions' own, by package name: `dpkg-deb` and `rpmbuild` know their formats, and xtask stays small.
mod deb;
mod rpm;
mod tree;

pub use rpm::tool as rpm_tool;

use crate::{Result, install, programs, quickstart, run, workspace};
use std::path::{Path, PathBuf};
use std::process::Command;
use tree::Tree;

/// What is packaged, as both kinds of package say it.
pub struct Subject {
    /// Name of the package.
    pub name: &'static str,
    summary: &'static str,
    description: &'static str,
    /// Further lines of a deb's control file.
    relations: &'static str,
    /// Below `packaging`.
    spec: &'static str,
    /// Whether something is to be done when it is installed and removed (`packaging/scripts`).
    scripts: bool,
    /// Directories that are this package's alone.
    directories: &'static [&'static str],
    /// Its program that asks for the newest glibc, by its place.
    program: &'static str,
    /// Lays it out.
    make: fn(&Path, &Path) -> Result<Tree>,
}

const BERTH: Subject = Subject {
    name: "berth",
    summary: "container runtime for Kubernetes nodes",
    description: DESCRIPTION,
    relations: "Recommends: apparmor, ca-certificates\nSuggests: containernetworking-plugins\n",
    spec: "rpm.spec",
    scripts: true,
    directories: &["/etc/berth", "/usr/libexec/berth", "/usr/share/doc/berth"],
    program: "usr/libexec/berth/berth",
    make: tree::make,
};
/// For those who look after a cluster; a node has no use for it.
const PLUGIN: Subject = Subject {
    name: programs::PLUGIN,
    summary: "plugin of kubectl for clusters that run on Berth",
    description: "kubectl berth tells how far RuntimeConfigs and ImagePolicies are on which nodes and what is wrong, pauses, resumes and undoes\n\
        rollouts, and explains where the fields in force on a node come from. kubectl completes its words.",
    relations: "Enhances: kubectl\n",
    spec: "kubectl-berth.spec",
    scripts: false,
    directories: &["/usr/share/doc/kubectl-berth"],
    program: tree::PLUGIN,
    make: tree::plugin,
};
const DESCRIPTION: &str = "Berth is the program behind a kubelet's CRI socket: it pulls and checks images, runs pods, executes commands in them and\n\
    exports metrics. Pods go on while the daemon is replaced. The command `berth` looks after a node without a cluster, too.";
const HELP: &str = "\
cargo xtask package [deb] [rpm] [--bin DIR] [--release N] [--out DIR] [--fast]

  Both kinds by default, of Berth and of kubectl's plugin, in target/package. --bin takes programs that are built already (berth,
  berth-monitor, berth-init, kubectl-berth)
  instead of building them for release; --release is the package's own number behind the version, 1 by default; --fast compresses
  as little as may be.
";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    kinds: Vec<Kind>,
    bin: Option<PathBuf>,
    effort: Effort,
    out: PathBuf,
}

/// A kind of package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// For dpkg.
    Deb,
    /// For rpm.
    Rpm,
}

/// What differs between packages of the same programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Effort {
    /// The package's number behind the version.
    pub release: u32,
    /// Compressed as little as may be: for tests.
    pub fast: bool,
}

/// What both kinds say of themselves.
pub struct About {
    /// What it is.
    pub subject: &'static Subject,
    /// The workspace's version.
    pub version: String,
    /// How it is to be made.
    pub effort: Effort,
    /// Seconds since 1970 that every file bears: the commit's.
    pub time: u64,
    /// The lowest glibc that the programs run with, such as `2.34`.
    pub glibc: Option<String>,
    /// Where the package is put.
    pub out: PathBuf,
}

/// Builds what the arguments ask for, and prints where it is.
pub fn main(args: &[String]) -> Result {
    if args.iter().any(|a| a == "-h" || a == "--help") {
        print!("{HELP}");
        return Ok(());
    }
    let options = parse(args)?;
    let bin = match &options.bin {
        Some(dir) => dir.clone(),
        None => with_plugin(quickstart::build()?)?,
    };
    for package in build(&options.kinds, &bin, options.effort, &options.out)? {
        println!("{}", package.display());
    }
    Ok(())
}

/// The plugin too, of release quality.
fn with_plugin(bin: PathBuf) -> Result<PathBuf> {
    run::plain(workspace::cargo().args(["build", "--release", "--package", PLUGIN.name]))?;
    programs::place(&workspace::target_dir().join("release").join(PLUGIN.name), &bin)?;
    Ok(bin)
}

fn parse(args: &[String]) -> Result<Options> {
    let out = workspace::target_dir().join("package");
    let mut options = Options { kinds: Vec::new(), bin: None, effort: Effort { release: 1, fast: false }, out };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is needed\n\n{HELP}"));
        match word.as_str() {
            "deb" => options.kinds.push(Kind::Deb),
            "rpm" => options.kinds.push(Kind::Rpm),
            "--bin" => options.bin = Some(value()?.into()),
            "--out" => options.out = value()?.into(),
            "--fast" => options.effort.fast = true,
            "--release" => options.effort.release = value()?.parse().map_err(|e| format!("--release: {e}"))?,
            other => return Err(format!("what is {other:?}?\n\n{HELP}")),
        }
    }
    if options.kinds.is_empty() {
        options.kinds = vec![Kind::Deb, Kind::Rpm];
    }
    Ok(options)
}

/// Makes packages of the programs in `bin`: of each kind one of Berth and one of kubectl's plugin.
pub fn build(kinds: &[Kind], bin: &Path, effort: Effort, out: &Path) -> Result<Vec<PathBuf>> {
    install::packages(&[("binutils", "strip")])?;
    // rpmbuild has a working directory of its own.
    let absolute = std::fs::create_dir_all(out).and_then(|()| out.canonicalize());
    let out = absolute.map_err(|e| format!("{}: {e}", out.display()))?;
    let work = out.join(format!(".tree-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&work);
    let made = [&BERTH, &PLUGIN].into_iter().map(|subject| {
        let tree = (subject.make)(&work, bin)?;
        let about = About {
            subject,
            version: version()?,
            effort,
            time: commit_time()?,
            glibc: glibc(&tree.root.join(subject.program))?,
            out: out.clone(),
        };
        tree.set_times(about.time)?;
        let one = |kind: &Kind| match kind {
            Kind::Deb => deb::build(&tree, &about),
            Kind::Rpm => rpm::build(&tree, &about),
        };
        let packages = kinds.iter().map(one).collect::<Result<Vec<_>>>();
        let _ = std::fs::remove_dir_all(&work);
        packages
    });
    let made: Result<Vec<_>> = made.collect();
    let _ = std::fs::remove_dir_all(&work);
    Ok(made?.concat())
}

/// Makes the first release's deb and rpm in `dir` a second time, elsewhere. Error: their bytes differ.
pub fn same_again(dir: &Path, bin: &Path) -> Result {
    let again = dir.join("again");
    let made = build(&[Kind::Deb, Kind::Rpm], bin, Effort { release: 1, fast: true }, &again)?;
    for path in &made {
        let first = dir.join(path.file_name().unwrap_or_default());
        let read = |path: &Path| std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()));
        if read(&first)? != read(path)? {
            return Err(format!("{} and {} differ", first.display(), path.display()));
        }
    }
    std::fs::remove_dir_all(&again).map_err(|e| format!("{}: {e}", again.display()))
}

/// The workspace's version.
pub fn version() -> Result<String> {
    let path = workspace::root().join("Cargo.toml");
    let text = std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let section = text.split("[workspace.package]").nth(1).unwrap_or_default();
    let found = section.lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    found.map(str::to_owned).ok_or_else(|| format!("{}: no [workspace.package] version", path.display()))
}

/// As <https://reproducible-builds.org/specs/source-date-epoch/> has it: from the environment, else the commit's.
pub fn commit_time() -> Result<u64> {
    let text = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            run::captured(Command::new("git").current_dir(workspace::root()).args(["log", "-1", "--format=%ct"]))?
        }
    };
    text.trim().parse().map_err(|e| format!("time of the commit {text:?}: {e}"))
}

/// The highest version of glibc's symbols that the program asks for; `None` for a static one.
fn glibc(program: &Path) -> Result<Option<String>> {
    Ok(highest_glibc(&run::captured(Command::new("readelf").args(["--wide", "--version-info"]).arg(program))?))
}

fn highest_glibc(text: &str) -> Option<String> {
    let versions = text.split_whitespace().filter_map(|word| word.strip_prefix("GLIBC_"));
    let numbers = versions.filter_map(|v| v.split('.').map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>());
    let highest = numbers.max()?;
    Some(highest.iter().map(u32::to_string).collect::<Vec<_>>().join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let options = parse(&words("rpm --bin /b --release 3")).unwrap();
        assert_eq!((options.kinds, options.bin, options.effort.release), (vec![Kind::Rpm], Some("/b".into()), 3));
        assert_eq!(parse(&[]).unwrap().kinds, [Kind::Deb, Kind::Rpm]);
        assert!(parse(&words("--release")).is_err() && parse(&words("snap")).is_err());
    }

    #[test]
    fn the_highest_glibc_is_found_by_number() {
        let text = "0x0010:   Name: GLIBC_2.9  Flags: none\n 0x0020:   Name: GLIBC_2.34\n Name: GLIBC_2.4 Name: GCC_3.0 GLIBC_PRIVATE";
        assert_eq!(highest_glibc(text).as_deref(), Some("2.34"));
        assert_eq!(highest_glibc("No version information found"), None);
        assert!(version().unwrap().split('.').count() == 3);
    }
}
