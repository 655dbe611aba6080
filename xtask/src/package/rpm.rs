//! The rpm, by `rpmbuild`. Owns: filling in `packaging/rpm.spec`. Must not: decide what is in it, or compile anything.
use super::About;
use super::tree::{Role, Tree};
use crate::{Result, install, run, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes it, and says where it is.
pub fn build(tree: &Tree, about: &About) -> Result<PathBuf> {
    install::packages(&[("rpm", "rpmbuild")])?;
    let work = about.out.join(format!(".rpm-{}", std::process::id()));
    fs::create_dir_all(&work).map_err(|e| format!("{}: {e}", work.display()))?;
    let made = build_in(tree, about, &work);
    let _ = fs::remove_dir_all(&work);
    made
}

/// An rpm with its libraries and its configuration in `dir`, for a machine of another distribution.
pub fn tool(dir: &Path) -> Result {
    install::packages(&[("rpm", "rpm")])?;
    let lib = dir.join("lib");
    fs::create_dir_all(&lib).map_err(|e| format!("{}: {e}", lib.display()))?;
    let copy = |from: &str, to: &Path| run::plain(Command::new("cp").args(["-rL", from]).arg(to));
    copy("/usr/bin/rpm", &dir.join("rpm"))?;
    copy("/usr/lib/rpm", &dir.join("config"))?;
    let text = run::captured(Command::new("ldd").arg("/usr/bin/rpm"))?;
    let libraries = text.lines().filter_map(|line| line.split_once(" => ")?.1.split(' ').next());
    // The C library is the machine's own: it must fit its loader.
    let own = |path: &&str| {
        !["/libc.so", "/libm.so", "/libdl.so", "/libpthread.so", "/librt.so"].iter().any(|l| path.contains(l))
    };
    libraries.filter(own).try_for_each(|library| copy(library, &lib))
}

fn build_in(tree: &Tree, about: &About, work: &Path) -> Result<PathBuf> {
    let template = workspace::root().join("packaging").join(about.subject.spec);
    let text = fs::read_to_string(&template).map_err(|e| format!("{}: {e}", template.display()))?;
    let spec = work.join("berth.spec");
    fs::write(&spec, filled(&text, tree, about)).map_err(|e| format!("{}: {e}", spec.display()))?;
    let mut rpmbuild = Command::new("rpmbuild");
    rpmbuild.arg("-bb").arg("--quiet");
    // Times and host as the same commit always has them; the payload as every rpm of the last ten years reads it.
    for (name, value) in [
        ("_topdir", work.display().to_string()),
        ("_rpmdir", about.out.display().to_string()),
        ("_rpmfilename", "%{NAME}-%{VERSION}-%{RELEASE}.%{ARCH}.rpm".to_owned()),
        ("_buildhost", "berth".to_owned()),
        ("use_source_date_epoch_as_buildtime", "1".to_owned()),
        ("clamp_mtime_to_source_date_epoch", "1".to_owned()),
        ("_binary_payload", if about.effort.fast { "w0.xzdio" } else { "w6.xzdio" }.to_owned()),
    ] {
        rpmbuild.arg("--define").arg(format!("{name} {value}"));
    }
    run::captured(rpmbuild.env("SOURCE_DATE_EPOCH", about.time.to_string()).arg(&spec))?;
    let name =
        format!("{}-{}-{}.{}.rpm", about.subject.name, about.version, about.effort.release, std::env::consts::ARCH);
    let path = about.out.join(name);
    if path.is_file() { Ok(path) } else { Err(format!("rpmbuild made no {}", path.display())) }
}

fn filled(template: &str, tree: &Tree, about: &About) -> String {
    let lines = about.subject.directories.iter().map(|dir| format!("%dir {dir}"));
    let files = tree.files.iter().map(|(place, role)| match role {
        Role::Plain => format!("/{place}"),
        Role::Configuration => format!("%config(noreplace) /{place}"),
        Role::Documentation => format!("%doc /{place}"),
    });
    let files: Vec<String> = lines.chain(files).map(|line| format!("%attr(-, root, root) {line}")).collect();
    let values = [
        ("@VERSION@", about.version.clone()),
        ("@RELEASE@", about.effort.release.to_string()),
        ("@SUMMARY@", about.subject.summary.to_owned()),
        ("@DESCRIPTION@", about.subject.description.lines().map(str::trim).collect::<Vec<_>>().join("\n")),
        ("@ARCH@", std::env::consts::ARCH.to_owned()),
        ("@TREE@", tree.root.display().to_string()),
        ("@FILES@", files.join("\n")),
    ];
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::Effort;

    #[test]
    fn nothing_of_the_template_is_left() {
        let files =
            vec![("etc/berth/a.yaml".to_owned(), Role::Configuration), ("usr/bin/berth".to_owned(), Role::Plain)];
        let tree = Tree { root: "/tree".into(), files };
        let about = About {
            subject: &crate::package::BERTH,
            version: "1.2.3".into(),
            effort: Effort { release: 4, fast: true },
            time: 0,
            glibc: None,
            out: PathBuf::new(),
        };
        let filled = |about: &About| {
            let template = workspace::root().join("packaging").join(about.subject.spec);
            filled(&fs::read_to_string(template).unwrap(), &tree, about)
        };
        let spec = filled(&about);
        let plugin = filled(&About { subject: &crate::package::PLUGIN, ..about });
        assert!(plugin.contains("Name: kubectl-berth\nVersion: 1.2.3\n") && !plugin.contains("@FILES@"), "{plugin}");
        let left = spec.lines().filter(|line| !line.starts_with('#')).any(|line| line.contains('@'));
        assert!(!left && spec.contains("%config(noreplace) /etc/berth/a.yaml"), "{spec}");
        assert!(spec.contains("\nVersion: 1.2.3\nRelease: 4\n") && spec.contains("cp -a /tree/. "), "{spec}");
    }
}
