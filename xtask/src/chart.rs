//! The Helm chart `charts/berth` and its alert rules, as their own tools see them.
//! Owns: how it is rendered for `manifests/install.yaml`, and what is demanded of it. Must not: install it anywhere.
use crate::{Result, run, tools, workspace};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CHART: &str = "charts/berth";
/// Unit tests of the alert rules.
const ALERT_TESTS: &str = "tests/alerts";
/// Name of the release and its namespace, where nobody chooses them.
const RELEASE: [&str; 3] = ["berth", "--namespace", "berth-system"];
const HEAD: &str = "\
# Berth's cluster half for `kubectl apply --server-side -f`: the chart charts/berth with its defaults, and the namespace. Written by
# `cargo xtask generate`; changes here are lost. docs/cluster.md says how to install, upgrade and remove it.
";

/// The chart with its defaults and its namespace.
pub fn rendered() -> Result<String> {
    version()?;
    let mut helm = helm("template")?;
    // Who applies files removes by file: nothing may say that it is to be kept, and no hook of Helm's asks before.
    let values = ["--set", "namespace.create=true", "--set", "crds.keep=false", "--set", "uninstall.force=true"];
    Ok(format!("{HEAD}{}", run::captured(helm.args(RELEASE).arg(CHART).arg("--skip-tests").args(values))?))
}

/// `helm lint`, and everything rendered, with the defaults and with the values of each file in `ci`.
pub fn lint() -> Result {
    version()?;
    let mut values: Vec<Vec<PathBuf>> = vec![Vec::new()];
    values
        .extend(yaml(&workspace::root().join(CHART).join("ci"))?.into_iter().map(|file| vec!["--values".into(), file]));
    for values in &values {
        run::plain(helm("lint")?.args(["--quiet", "--strict", CHART]).args(values))?;
        run::captured(helm("template")?.args(RELEASE).arg(CHART).args(values))?;
    }
    Ok(())
}

/// promtool's opinion of the alert rules, and their unit tests.
pub fn alerts() -> Result {
    let promtool = tools::prometheus()?.join("promtool");
    let root = workspace::root();
    run::captured(
        Command::new(&promtool)
            .current_dir(&root)
            .args(["check", "rules"])
            .arg(root.join(CHART).join("files/alerts.yaml")),
    )?;
    let tests = yaml(&root.join(ALERT_TESTS))?;
    run::captured(Command::new(&promtool).current_dir(&root).args(["test", "rules"]).args(tests)).map(drop)
}

fn helm(word: &str) -> Result<Command> {
    let mut helm = Command::new(tools::helm()?);
    helm.current_dir(workspace::root()).arg(word);
    Ok(helm)
}

/// Both versions in Chart.yaml must be the workspace's: images are tagged with it.
fn version() -> Result {
    let path = workspace::root().join(CHART).join("Chart.yaml");
    let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
    let wanted = env!("CARGO_PKG_VERSION");
    for field in ["version", "appVersion"] {
        let found = field_of(&text, field).unwrap_or("nothing");
        if found != wanted {
            return Err(format!("{CHART}/Chart.yaml: {field} is {found}, the workspace's version is {wanted}"));
        }
    }
    Ok(())
}

/// A field that starts a line.
fn field_of<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let value = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": "))?;
    Some(value.trim_matches('"'))
}

fn yaml(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    if files.is_empty() { Err(format!("{}: no files", dir.display())) } else { Ok(files) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_those_of_the_chart_and_not_of_what_is_in_it() {
        let text = "version: 0.1.0\nappVersion: \"0.2.0\"\ncrds: |\n  - version: v1\nkubeVersion: x\n";
        assert_eq!((field_of(text, "version"), field_of(text, "appVersion")), (Some("0.1.0"), Some("0.2.0")));
        assert_eq!(field_of(text, "name"), None);
    }

    #[test]
    fn the_chart_has_the_version_of_the_workspace() {
        version().unwrap();
    }
}
