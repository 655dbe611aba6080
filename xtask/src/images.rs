//! `cargo xtask images`: the images of operator and agent, as OCI layouts of static programs. Owns: what lies where in them, and their
//! configuration. Must not: differ between two runs on the same programs and the same commit.
//!
//! Layers are written by tar(1) and hashed by sha256sum(1), so that xtask stays small.
use crate::{Result, install, package, programs, run, workspace};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the agent puts onto nodes.
const RUNTIME: [&str; 3] = ["berth", "berth-monitor", "berth-init"];
/// The images.
const OPERATOR: &str = "berth-operator";
const AGENT: &str = "berth-agent";
/// Who the operator is: nobody who owns a file (`runAsUser` of the chart).
const OPERATOR_USER: &str = "65532:65532";
const PACKAGES: [install::Package; 3] = [("tar", "tar"), ("gzip", "gzip"), ("coreutils", "sha256sum")];
const HELP: &str = "\
cargo xtask images [--out DIR] [--bin DIR | --dev] [--fast]

  OCI layouts of the images that charts/berth installs, DIR/berth-operator and DIR/berth-agent, tagged with the version; by default in
  target/images. --bin takes programs that are built already (berth-operator, berth-agent, berth, berth-monitor, berth-init; all
  static) instead of building them for release; --dev builds them as the tests have them; --fast leaves the layers uncompressed.
  Then, for example: skopeo copy oci:target/images/berth-agent:VERSION docker://REGISTRY/berth-agent:VERSION
";

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Options {
    out: PathBuf,
    bin: Option<PathBuf>,
    dev: bool,
    fast: bool,
}

/// How they are written.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// Version of the programs, and tag.
    pub version: String,
    /// Layers stay uncompressed: for tests.
    pub fast: bool,
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
        None if options.dev => dev_programs()?,
        None => programs::release_static()?,
    };
    let recipe = Recipe { version: package::version()?, fast: options.fast };
    for layout in write(&bin, &options.out, &recipe)? {
        println!("{}", layout.display());
    }
    Ok(())
}

/// As the tests have them.
pub fn dev_programs() -> Result<PathBuf> {
    let dir = workspace::target_dir().join("berth-bin-static");
    programs::test_static(&dir).map(|()| dir)
}

/// The agent's image with the next version of the runtime (feature `next-version`), which a test's cluster is upgraded to. `now` has the
/// programs of [`dev_programs`]: the agent itself is theirs.
pub fn next_agent(now: &Path, out: &Path, version: &str) -> Result {
    let dir = programs::build_next()?;
    programs::place(&now.join(AGENT), &dir)?;
    write_some(&[AGENT], &dir, out, &Recipe { version: next_version(version)?, fast: true }).map(drop)
}

/// What a build of the next version says that it is (`VERSION` of the engine).
fn next_version(version: &str) -> Result<String> {
    let mut numbers = version.split('.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(format!("{major}.{minor}.99")),
        _ => Err(format!("{version:?} is no version")),
    }
}

fn parse(args: &[String]) -> Result<Options> {
    let mut options = Options { out: workspace::target_dir().join("images"), bin: None, dev: false, fast: false };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word}: a value is needed\n\n{HELP}"));
        match word.as_str() {
            "--out" => options.out = value()?.into(),
            "--bin" => options.bin = Some(value()?.into()),
            "--dev" => options.dev = true,
            "--fast" => options.fast = true,
            other => return Err(format!("what is {other:?}?\n\n{HELP}")),
        }
    }
    Ok(options)
}

/// Writes the layouts of both images into `out`, in the place of those that are there.
pub fn write(bin: &Path, out: &Path, recipe: &Recipe) -> Result<Vec<PathBuf>> {
    write_some(&[OPERATOR, AGENT], bin, out, recipe)
}

fn write_some(names: &[&'static str], bin: &Path, out: &Path, recipe: &Recipe) -> Result<Vec<PathBuf>> {
    install::packages(&PACKAGES)?;
    let work = out.join(format!(".work-{}", std::process::id()));
    let _ = fs::remove_dir_all(&work);
    let made = names.iter().copied().map(|name| {
        let root = work.join(name).join("root");
        place(&bin.join(name), &root, 0o755)?;
        if name == AGENT {
            runtime(bin, &root.join("runtime").join(&recipe.version))?;
        }
        let image = Image { name, work: work.join(name), recipe };
        let layout = image.layout(&root)?;
        let to = out.join(name);
        let _ = fs::remove_dir_all(&to);
        fs::rename(&layout, &to).map_err(|e| format!("{}: {e}", to.display()))?;
        Ok(to)
    });
    let made = made.collect();
    let _ = fs::remove_dir_all(&work);
    made
}

/// The programs of one version, and their sums (docs/formats/staged-programs.md).
fn runtime(bin: &Path, dir: &Path) -> Result {
    for name in RUNTIME {
        place(&bin.join(name), dir, 0o755)?;
    }
    let sums = run::captured(Command::new("sha256sum").current_dir(dir).args(RUNTIME))?;
    let list = dir.join("SHA256SUMS");
    fs::write(&list, sums).map_err(|e| format!("{}: {e}", list.display()))
}

/// A program that needs nothing beside it: the image has nothing else.
fn place(program: &Path, dir: &Path, mode: u32) -> Result {
    fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let header = run::captured(Command::new("readelf").args(["--wide", "--program-headers"]).arg(program))?;
    if header.contains(" INTERP ") {
        return Err(format!("{}: is not static", program.display()));
    }
    let to = dir.join(program.file_name().unwrap_or_default());
    let copied = fs::copy(program, &to).and_then(|_| fs::set_permissions(&to, PermissionsExt::from_mode(mode)));
    copied.map_err(|e| format!("{} to {}: {e}", program.display(), to.display()))
}

/// One image.
struct Image<'a> {
    name: &'static str,
    work: PathBuf,
    recipe: &'a Recipe,
}

impl Image<'_> {
    /// An OCI image layout (image-layout.md) of one layer, with that root.
    fn layout(&self, root: &Path) -> Result<PathBuf> {
        let dir = self.work.join("layout");
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs).map_err(|e| format!("{}: {e}", blobs.display()))?;
        let (layer, diff_id) = self.layer(root, &blobs)?;
        let config = keep(&blobs, &self.config(&diff_id)?, "application/vnd.oci.image.config.v1+json")?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let mut manifest = keep(&blobs, &manifest, MANIFEST)?;
        manifest["annotations"] = json!({"org.opencontainers.image.ref.name": self.recipe.version});
        manifest["platform"] = json!({"architecture": architecture(), "os": "linux"});
        let index = json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [manifest]});
        for (name, value) in [("index.json", index), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))] {
            let path = dir.join(name);
            fs::write(&path, value.to_string()).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        Ok(dir)
    }

    /// The layer's descriptor, and the digest of its tar. Owners and times are the same whoever makes it.
    fn layer(&self, root: &Path, blobs: &Path) -> Result<(Value, String)> {
        let tar = self.work.join("layer.tar");
        let time = format!("--mtime=@{}", package::commit_time()?);
        let mut command = Command::new("tar");
        command.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", "--mode=u=rwX,go=rX", &time]);
        run::plain(command.arg("--create").arg("--file").arg(&tar).arg("--directory").arg(root).arg("."))?;
        let diff_id = sha256(&tar)?;
        let kind = "application/vnd.oci.image.layer.v1.tar";
        if self.recipe.fast {
            return Ok((take(&tar, blobs, kind)?, diff_id));
        }
        run::plain(Command::new("gzip").args(["--no-name", "--force"]).arg(&tar))?;
        Ok((take(&tar.with_extension("tar.gz"), blobs, &format!("{kind}+gzip"))?, diff_id))
    }

    fn config(&self, diff_id: &str) -> Result<Value> {
        let mut config = json!({"Entrypoint": [format!("/{}", self.name)], "WorkingDir": "/", "Labels": {
            "org.opencontainers.image.title": self.name,
            "org.opencontainers.image.version": self.recipe.version,
            "org.opencontainers.image.licenses": "Apache-2.0",
        }});
        if self.name == OPERATOR {
            config["User"] = OPERATOR_USER.into();
        }
        let date = format!("--date=@{}", package::commit_time()?);
        let created = run::captured(Command::new("date").args(["--utc", &date, "+%Y-%m-%dT%H:%M:%SZ"]))?;
        Ok(json!({"architecture": architecture(), "os": "linux", "created": created.trim(), "config": config,
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{diff_id}")]}}))
    }
}

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Writes a document among the blobs; its descriptor.
fn keep(blobs: &Path, value: &Value, kind: &str) -> Result<Value> {
    let path = blobs.join("document");
    fs::write(&path, value.to_string()).map_err(|e| format!("{}: {e}", path.display()))?;
    take(&path, blobs, kind)
}

/// Moves a file among the blobs; its descriptor.
fn take(file: &Path, blobs: &Path, kind: &str) -> Result<Value> {
    let (sum, at) = (sha256(file)?, |e: std::io::Error| format!("{}: {e}", file.display()));
    let size = fs::metadata(file).map_err(at)?.len();
    fs::rename(file, blobs.join(&sum)).map_err(at)?;
    Ok(json!({"mediaType": kind, "digest": format!("sha256:{sum}"), "size": size}))
}

fn sha256(file: &Path) -> Result<String> {
    let text = run::captured(Command::new("sha256sum").arg("--binary").arg(file))?;
    text.split_whitespace().next().map(str::to_owned).ok_or_else(|| format!("{}: no sum", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let words = |text: &str| text.split(' ').filter(|w| !w.is_empty()).map(str::to_owned).collect::<Vec<_>>();
        let options = parse(&words("--bin /b --out /o --fast")).unwrap();
        assert_eq!(options, Options { out: "/o".into(), bin: Some("/b".into()), dev: false, fast: true });
        assert!(parse(&words("--out")).is_err() && parse(&words("agent")).is_err());
    }

    #[test]
    fn a_program_that_needs_others_is_refused() {
        let dir = std::env::temp_dir().join(format!("xtask-images-{}", std::process::id()));
        let refused = place(Path::new("/bin/true"), &dir, 0o755).unwrap_err();
        fs::remove_dir_all(&dir).unwrap();
        assert!(refused.contains("is not static"), "{refused}");
    }
}
