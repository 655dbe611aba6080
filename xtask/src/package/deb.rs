//! The deb, by `dpkg-deb`. Owns: its control files (deb-control(5), Debian policy 5 to 7). Must not: decide what is in it.
use super::About;
use super::tree::{Role, Tree};
use crate::{Result, install, run, workspace};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes it, and says where it is.
pub fn build(tree: &Tree, about: &About) -> Result<PathBuf> {
    install::packages(&[("dpkg", "dpkg-deb")])?;
    let dir = tree.root.join("DEBIAN");
    let made = control_files(tree, about, &dir).and_then(|name| {
        tree.set_times(about.time)?;
        let path = about.out.join(name);
        let level = if about.effort.fast { "-z0" } else { "-z9" };
        let mut dpkg = Command::new("dpkg-deb");
        // One thread: how xz cuts its blocks depends on their number.
        dpkg.args(["--root-owner-group", "--threads-max=1", "-Zxz", level, "--build"]).arg(&tree.root).arg(&path);
        run::captured(dpkg.env("SOURCE_DATE_EPOCH", about.time.to_string()))?;
        Ok(path)
    });
    let _ = fs::remove_dir_all(&dir);
    made
}

fn control_files(tree: &Tree, about: &About, dir: &Path) -> Result<String> {
    let at = |e: std::io::Error| format!("{}: {e}", dir.display());
    fs::create_dir_all(dir).map_err(at)?;
    fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).map_err(at)?;
    let architecture = architecture()?;
    let version = format!("{}-{}", about.version, about.effort.release);
    fs::write(dir.join("control"), control(about, &version, architecture, installed_kib(&tree.root)?)).map_err(at)?;
    let configuration = tree.files.iter().filter(|(_, role)| *role == Role::Configuration);
    let conffiles: String = configuration.map(|(place, _)| format!("/{place}\n")).collect();
    fs::write(dir.join("conffiles"), conffiles).map_err(at)?;
    fs::write(dir.join("md5sums"), checksums(tree)?).map_err(at)?;
    for script in SCRIPTS.iter().filter(|_| about.subject.scripts) {
        let to = dir.join(script);
        fs::copy(workspace::root().join("packaging/scripts").join(script), &to).map_err(at)?;
        fs::set_permissions(&to, PermissionsExt::from_mode(0o755)).map_err(at)?;
    }
    if tree.files.iter().all(|(_, role)| *role != Role::Configuration) {
        fs::remove_file(dir.join("conffiles")).map_err(at)?;
    }
    for file in ["control", "conffiles", "md5sums"].iter().filter(|file| dir.join(file).exists()) {
        fs::set_permissions(dir.join(file), PermissionsExt::from_mode(0o644)).map_err(at)?;
    }
    Ok(format!("{}_{version}_{architecture}.deb", about.subject.name))
}

fn control(about: &About, version: &str, architecture: &str, kib: u64) -> String {
    let depends = about.glibc.as_ref().map(|v| format!("Depends: libc6 (>= {v})\n")).unwrap_or_default();
    // A long description's lines begin with a space.
    let subject = about.subject;
    let description = subject.description.lines().map(|line| format!(" {}\n", line.trim())).collect::<String>();
    format!(
        "Package: {}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The Berth authors <berth@berth.dev>\n\
         Section: admin\nPriority: optional\nInstalled-Size: {kib}\n{depends}{}Description: {}\n{description}",
        subject.name, subject.relations, subject.summary
    )
}

/// Debian's word for this machine's kind.
fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => Err(format!("no deb is made for {other}")),
    }
}

fn installed_kib(root: &Path) -> Result<u64> {
    let text = run::captured(Command::new("du").args(["--summarize", "--apparent-size", "--block-size=1K"]).arg(root))?;
    text.split_whitespace().next().and_then(|n| n.parse().ok()).ok_or_else(|| format!("du says {text:?}"))
}

/// `md5sum PLACE` of every file that is no configuration, as dpkg -V reads it.
fn checksums(tree: &Tree) -> Result<String> {
    let mut places: Vec<&str> = Vec::new();
    for (place, role) in &tree.files {
        if *role != Role::Configuration && !tree.root.join(place).is_symlink() {
            places.push(place);
        }
    }
    places.sort_unstable();
    run::captured(Command::new("md5sum").current_dir(&tree.root).args(places))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Effort;

    #[test]
    fn the_control_file_has_what_dpkg_needs() {
        let effort = Effort { release: 4, fast: true };
        let about = About {
            subject: &crate::package::BERTH,
            version: "1.2.3".into(),
            effort,
            time: 0,
            glibc: Some("2.34".into()),
            out: PathBuf::new(),
        };
        let text = control(&about, "1.2.3-4", "amd64", 7);
        for line in ["Package: berth", "Version: 1.2.3-4", "Depends: libc6 (>= 2.34)", "Installed-Size: 7"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in {text}");
        }
        let long = text.split_once("Description: ").unwrap().1.lines().skip(1);
        assert!(long.clone().count() >= 2 && long.into_iter().all(|l| l.starts_with(' ') && l.len() > 2), "{text}");
    }
}
