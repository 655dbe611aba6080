//! `berth config import-hosts`: what another runtime's files say of registries, as a RuntimeConfig.
//!
//! Owns: finding the files, and the document. Must not: write anywhere but to standard output; understand a format (`hosts`,
//! `registries_conf`).
mod hosts;
mod part;
mod registries_conf;

use crate::accept;
use crate::commands::{output, yaml};
use crate::node_files::exact;
use anyhow::{Context, Result, anyhow, bail};
use berth_settings::{RegistryHost, RegistryTls, from_texts};
use part::Imported;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Most directories and files of one call.
const MAX_ENTRIES: usize = 1024;

/// Which files.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth config import-hosts /etc/containerd/certs.d > /etc/berth/40-registries.yaml
  berth config import-hosts /etc/containers/registries.conf

Reads containerd's directory of registries (HOST/hosts.toml, or HOST/*.crt, *.cert and *.key), or registries.conf of CRI-O and podman,
and writes one RuntimeConfig. What cannot be carried over is named on standard error and in comments at the top. Needs no daemon; nothing
is changed.

Exit code: 0 when all was carried over, 3 when something was not, 1 when nothing could be read.")]
pub struct Options {
    /// Directory with one directory for each registry, or a file
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// Name of the document
    #[arg(long, value_name = "NAME", default_value = "imported-registries")]
    name: String,
}

/// Exit code where something was left behind.
const LEFT: u8 = 3;

/// Reads them and writes the document; the exit code.
pub fn run(options: &Options) -> Result<u8> {
    let mut all = Imported::default();
    let mut read = 0;
    for path in &options.paths {
        for (file, found) in files(path)? {
            read += 1;
            let title = file.display();
            let found = found.map_err(|problem| anyhow!("{title}: {problem}"))?;
            all.left.extend(found.left.into_iter().map(|left| format!("{title}: {left}")));
            for registry in found.registries {
                match all.registries.iter().any(|other| other.host == registry.host) {
                    true => all.left.push(format!("{title}: {} was read before; this one is left out", registry.host)),
                    false => all.registries.push(registry),
                }
            }
        }
    }
    if read == 0 {
        bail!("there is neither HOST/hosts.toml nor registries.conf in what was given");
    }
    let text = document(&options.name, &all)?;
    check(&text)?;
    for left in &all.left {
        output::error_bytes(format!("not carried over: {}\n", one_line(left)).as_bytes())?;
    }
    output::bytes(text.as_bytes())?;
    Ok(if all.left.is_empty() { 0 } else { LEFT })
}

/// As the daemon would judge it.
fn check(text: &str) -> Result<()> {
    let judged = from_texts(&[("imported.yaml".into(), text.to_owned())]).and_then(|s| accept::everywhere(&s));
    judged.map_err(|e| anyhow!("what was read makes no good document: {}", e.message()))
}

/// The document, with what it lacks in comments at its top.
fn document(name: &str, all: &Imported) -> Result<String> {
    let registries: Vec<Value> = all.registries.iter().map(shown).collect::<Result<_>>()?;
    let document = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "RuntimeConfig", "metadata": { "name": name },
        "spec": { "registries": registries },
    });
    let comments: String = all.left.iter().map(|left| format!("# not carried over: {}\n", one_line(left))).collect();
    Ok(comments + &yaml::text(&document)?)
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A registry without what is as it would be anyway.
fn shown(registry: &RegistryHost) -> Result<Value> {
    let mut value = serde_json::to_value(registry).context("registry")?;
    prune(&mut value);
    Ok(value)
}

fn prune(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.values_mut().for_each(prune);
            map.retain(|_, v| *v != json!(false) && *v != json!({}));
        }
        Value::Array(all) => all.iter_mut().for_each(prune),
        _ => {}
    }
}

type Read = Vec<(PathBuf, Result<Imported, String>)>;

/// What a path holds: each file with what it says.
fn files(path: &Path) -> Result<Read> {
    let path = std::path::absolute(path).with_context(|| path.display().to_string())?;
    let kind = std::fs::metadata(&path).with_context(|| path.display().to_string())?;
    if !kind.is_dir() {
        let name = path.file_name().unwrap_or_default();
        let directory = path.parent().unwrap_or(&path);
        let found = if name == "hosts.toml" { hosts_file(directory, &path) } else { conf_file(&path) };
        return Ok(vec![(path, found)]);
    }
    if let Some(found) = registry(&path) {
        return Ok(vec![found]);
    }
    let mut read = Vec::new();
    for entry in sorted(&path)? {
        if entry.is_dir() {
            read.extend(registry(&entry));
        } else if entry.extension().is_some_and(|e| e == "conf") {
            read.push((entry.clone(), conf_file(&entry)));
        }
    }
    Ok(read)
}

fn sorted(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(directory).with_context(|| directory.display().to_string())?;
    let mut found: Vec<PathBuf> =
        entries.take(MAX_ENTRIES + 1).map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    if found.len() > MAX_ENTRIES {
        bail!("{} holds more than {MAX_ENTRIES} entries", directory.display());
    }
    found.sort();
    Ok(found)
}

/// A registry's directory: hosts.toml, else certificates by their names as Docker has them. `None` where there is neither.
fn registry(directory: &Path) -> Option<(PathBuf, Result<Imported, String>)> {
    let file = directory.join("hosts.toml");
    if file.exists() {
        let found = hosts_file(directory, &file);
        return Some((file, found));
    }
    let mut entries = sorted(directory).ok()?;
    entries.retain(|e| e.extension().is_some_and(|e| e == "crt" || e == "cert" || e == "key"));
    (!entries.is_empty()).then(|| (directory.to_owned(), Ok(certificates(directory, &entries))))
}

fn hosts_file(directory: &Path, file: &Path) -> Result<Imported, String> {
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    hosts::hosts_toml(&hosts::host_of(&name), directory, &text(file)?)
}

fn conf_file(file: &Path) -> Result<Imported, String> {
    registries_conf::registries_conf(&text(file)?)
}

fn text(file: &Path) -> Result<String, String> {
    exact(file, part::MAX_TEXT as u64).map_err(|e| e.to_string())
}

/// `*.crt` are authorities, `NAME.cert` and `NAME.key` the node's own.
fn certificates(directory: &Path, files: &[PathBuf]) -> Imported {
    let mut imported = Imported::default();
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let mut tls = RegistryTls::default();
    let shown = |path: &Path| Some(path.to_string_lossy().into_owned());
    for file in files {
        let extension = file.extension().unwrap_or_default();
        let key = file.with_extension("key");
        if extension == "crt" && tls.ca_file.is_none() {
            tls.ca_file = shown(file);
        } else if extension == "cert" && key.exists() && tls.client_cert_file.is_none() {
            (tls.client_cert_file, tls.client_key_file) = (shown(file), shown(&key));
        } else if extension != "key" || !file.with_extension("cert").exists() {
            let why = "one authority file, and one certificate with its key, are taken";
            imported.left.push(format!("{}: {why}", file.file_name().unwrap_or_default().to_string_lossy()));
        }
    }
    let registry = RegistryHost { host: hosts::host_of(&name), tls, ..RegistryHost::default() };
    part::keep(registry, "certificates", &mut imported);
    imported
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_directory_becomes_a_good_document() {
        let dir = tempfile::tempdir().unwrap();
        let put = |file: &str, text: &str| {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("docker.io/hosts.toml", "server = \"https://registry-1.docker.io\"\n[host.\"https://m.example\"]\n");
        put(
            "_default/hosts.toml",
            "[host.\"https://all.example\"]\ncapabilities = [\"pull\"]\ndial_timeout = \"1s\"\n",
        );
        put("lab.example_5000_/ca.crt", "");
        put("lab.example_5000_/node.cert", "");
        put("lab.example_5000_/node.key", "");
        put("lab.example_5000_/other.crt", "");
        put("empty/README", "");
        let mut all = Imported::default();
        for (_, found) in files(dir.path()).unwrap() {
            let found = found.unwrap();
            all.left.extend(found.left);
            all.registries.extend(found.registries);
        }
        let text = document("imported", &all).unwrap();
        check(&text).unwrap();
        let comments: Vec<&str> = text.lines().filter(|l| l.starts_with("# not carried over: ")).collect();
        assert!(
            comments.len() == 2 && comments[0].contains("dial_timeout") && comments[1].contains("other.crt"),
            "{text}"
        );
        let settings = from_texts(&[("x.yaml".into(), text.clone())]).unwrap();
        let hosts: Vec<&str> = settings.registries.iter().map(|r| r.host.as_str()).collect();
        assert_eq!(hosts, ["*", "docker.io", "lab.example:5000"]);
        assert!(settings.registries[2].tls.client_key_file.as_ref().unwrap().ends_with("node.key"));
        assert!(!text.contains("false") && !text.contains("{}"), "{text}");
        assert!(files(&dir.path().join("empty")).unwrap().is_empty());
        assert_eq!(files(&dir.path().join("docker.io")).unwrap().len(), 1);
    }
}
