//! containerd's `certs.d/HOST/hosts.toml` as entries of `spec.registries`. The format is that of containerd's docs/hosts.md (2.x).
//!
//! Must not: read files. Fuzz target: `registry_imports`.
use super::part::{Imported, Notes, add_mirror, headers, keep, table, texts, tls};
use berth_settings::{Capability, Fallback, RegistryHost, RegistryMirror, RegistryTls};
use std::collections::BTreeMap;
use std::path::Path;
use toml::{Table, Value};

/// The registry that a directory's name stands for: `_default` is all others, and `HOST_PORT_` is how file systems without colons have
/// `HOST:PORT`.
pub fn host_of(directory: &str) -> String {
    let port = directory.strip_suffix('_').and_then(|rest| rest.rsplit_once('_'));
    match port {
        _ if directory == "_default" => "*".to_owned(),
        Some((host, port)) if !host.is_empty() && !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()) => {
            format!("{host}:{port}")
        }
        _ => directory.to_owned(),
    }
}

/// Reads one. Files that it names are meant from `directory`, where it lies. Errors: it is no TOML, or too long.
pub fn hosts_toml(host: &str, directory: &Path, text: &str) -> Result<Imported, String> {
    let mut table = table(text)?;
    let mut imported = Imported::default();
    let left = &mut imported.left;
    let mut notes = Notes { at: String::new(), left };
    let server = notes.text(&mut table, "server").filter(|server| !server.is_empty());
    let hosts = match table.remove("host") {
        None => Table::new(),
        Some(Value::Table(hosts)) => hosts,
        Some(_) => {
            notes.left("host", "is not a table of hosts");
            Table::new()
        }
    };
    let own = Part::read(table, directory, &mut notes);
    let mut registry = RegistryHost { host: host.to_owned(), ..RegistryHost::default() };
    for (url, part) in hosts {
        let mut notes = Notes { at: format!("host.{url:?}"), left: &mut *notes.left };
        match part {
            Value::Table(part) => {
                let part = Part::read(part, directory, &mut notes);
                part.into_mirror(&url, &mut registry, &mut notes);
            }
            _ => notes.left("", "is not a table"),
        }
    }
    own.into_server(server.as_deref(), &mut registry, &mut notes);
    keep(registry, "server", &mut imported);
    Ok(imported)
}

/// What stands at the top for the server, and in each `[host."…"]`.
struct Part {
    pull: bool,
    resolve: bool,
    tls: RegistryTls,
    headers: BTreeMap<String, String>,
    override_path: bool,
}

impl Part {
    fn read(mut table: Table, directory: &Path, notes: &mut Notes<'_>) -> Self {
        let capabilities = notes.texts(&mut table, "capabilities").filter(|all| !all.is_empty());
        for other in capabilities.iter().flatten().filter(|c| !["pull", "resolve", "push"].contains(&c.as_str())) {
            notes.left("capabilities", format_args!("{other:?} is not known here"));
        }
        let has = |name: &str| capabilities.as_ref().is_none_or(|all| all.iter().any(|c| c == name));
        let (pull, resolve) = (has("pull"), has("resolve"));
        let path = |file: String| directory.join(file).to_string_lossy().into_owned();
        let ca = notes.texts(&mut table, "ca").unwrap_or_default().into_iter().map(path).collect();
        let client = client(&mut table, notes).map(|(cert, key)| (path(cert), path(key)));
        let insecure = notes.flag(&mut table, "skip_verify");
        let tls = tls(ca, client, insecure, notes);
        let headers = headers(header(&mut table, notes), notes);
        let override_path = notes.flag(&mut table, "override_path");
        if table.remove("dial_timeout").is_some() {
            notes.left("dial_timeout", "connections have ten seconds, and what failed is left alone for a while");
        }
        notes.rest(&table);
        Self { pull, resolve, tls, headers, override_path }
    }

    fn into_mirror(self, url: &str, registry: &mut RegistryHost, notes: &mut Notes<'_>) {
        let capabilities = match (self.pull, self.resolve) {
            (true, true) => None,
            (true, false) => Some(vec![Capability::Pull]),
            (false, true) => Some(vec![Capability::Resolve]),
            (false, false) => {
                return notes.left("capabilities", "a host to push to alone: pushes go to the registry itself");
            }
        };
        match root(url, self.override_path) {
            Ok(url) => {
                let (tls, headers) = (self.tls, self.headers);
                add_mirror(registry, RegistryMirror { url, capabilities, tls, headers, credentials: None }, notes);
            }
            Err(why) => notes.left("", why),
        }
    }

    /// The server behind all hosts: the registry itself, or another one in its place.
    fn into_server(self, server: Option<&str>, registry: &mut RegistryHost, notes: &mut Notes<'_>) {
        let url = server.map(with_scheme);
        let elsewhere = url.as_deref().filter(|url| registry.host == "*" || !is_own(&registry.host, url));
        if let Some(url) = elsewhere {
            self.into_mirror(url, registry, notes);
        } else {
            if let Some(url) = &url {
                registry.plain_http = url.starts_with("http://");
                let path = url.splitn(4, '/').nth(3).unwrap_or_default().trim_end_matches('/');
                if !path.is_empty() && path != "v2" {
                    notes.left("server", format_args!("its path {path:?}; a registry's API is at /v2"));
                }
            }
            if registry.plain_http && self.tls != RegistryTls::default() {
                notes.left("server", "certificates and skip_verify count for nothing with plain HTTP");
            } else {
                registry.tls = self.tls;
            }
            registry.headers = self.headers;
            if server.is_none() || (self.pull && self.resolve) {
                return;
            }
            if self.pull || self.resolve {
                return notes
                    .left("capabilities", "the registry itself is asked for all, or with fallback: Never for nothing");
            }
        }
        match registry.mirrors.is_empty() {
            true => notes.left("server", "there is nobody left to pull from; the registry itself is asked"),
            false => registry.fallback = Some(Fallback::Never),
        }
    }
}

/// A certificate and its key: in one file, in two, or the first of several such pairs.
fn client(table: &mut Table, notes: &mut Notes<'_>) -> Option<(String, String)> {
    let pair = |files: &[String]| match files {
        [both] => Some((both.clone(), both.clone())),
        [cert, key] if key.is_empty() => Some((cert.clone(), cert.clone())),
        [cert, key] => Some((cert.clone(), key.clone())),
        _ => None,
    };
    let value = table.remove("client")?;
    let all: Option<Vec<_>> = match &value {
        Value::String(both) => Some(vec![pair(std::slice::from_ref(both))?]),
        // A list of texts is one of files that hold both.
        Value::Array(all) => all.iter().map(|entry| pair(&texts(entry)?)).collect(),
        _ => None,
    };
    let Some(all) = all else {
        notes.left("client", "is not a file, a list of files, or a list of [certificate, key]");
        return None;
    };
    if all.len() > 1 {
        notes.left("client", format_args!("{} pairs: only the first is taken", all.len()));
    }
    all.into_iter().next()
}

fn header(table: &mut Table, notes: &mut Notes<'_>) -> Vec<(String, String)> {
    let all = match table.remove("header") {
        None => return Vec::new(),
        Some(Value::Table(all)) => all,
        Some(_) => {
            notes.left("header", "is not a table");
            return Vec::new();
        }
    };
    let mut found = Vec::new();
    for (name, value) in all {
        match texts(&value).as_deref() {
            Some([one]) => found.push((name, one.clone())),
            _ => notes.left(&format!("header.{name}"), "is not one text"),
        }
    }
    found
}

fn with_scheme(url: &str) -> String {
    if url.contains("://") { url.to_owned() } else { format!("https://{url}") }
}

fn is_own(host: &str, url: &str) -> bool {
    let server = url.split('/').nth(2).unwrap_or_default();
    let default = if url.starts_with("http://") { ":80" } else { ":443" };
    let bare = |name: &str| name.strip_suffix(default).unwrap_or(name).to_owned();
    let hub = ["docker.io", "registry-1.docker.io", "index.docker.io"];
    bare(server) == bare(host) || (host == "docker.io" && hub.contains(&bare(server).as_str()))
}

/// The mirror's URL: containerd puts `/v2` behind a path unless the path is the API's root as it stands.
fn root(url: &str, as_it_stands: bool) -> Result<String, String> {
    let url = with_scheme(url);
    let url = url.trim_end_matches('/');
    let path = url.splitn(4, '/').nth(3).unwrap_or_default();
    let has_root = path.split('/').any(|segment| segment == "v2");
    match (as_it_stands, path.is_empty()) {
        (true, _) if has_root => Ok(url.to_owned()),
        (true, _) => Err("override_path: a path without a segment v2 is put before the repository's name here".into()),
        (false, true) => Ok(url.to_owned()),
        (false, false) if path.ends_with("/v2") || path == "v2" => Ok(url.to_owned()),
        (false, false) => Ok(format!("{url}/v2")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(host: &str, text: &str) -> (RegistryHost, Vec<String>) {
        let mut imported = hosts_toml(host, Path::new("/etc/containerd/certs.d/x"), text).unwrap();
        (imported.registries.pop().unwrap(), imported.left)
    }

    #[test]
    fn names_of_directories() {
        for (directory, host) in
            [("docker.io", "docker.io"), ("_default", "*"), ("a.b_5000_", "a.b:5000"), ("x:1", "x:1"), ("a_b_", "a_b_")]
        {
            assert_eq!(host_of(directory), host);
        }
    }

    #[test]
    fn mirrors_keep_their_order_and_all_that_there_is_a_place_for() {
        let (registry, left) = read(
            "docker.io",
            r#"
server = "https://registry-1.docker.io"
skip_verify = false
[host."https://z.example:5000"]
  capabilities = ["pull", "resolve"]
  ca = "ca.pem"
  client = [["/c.pem", "/k.pem"]]
[host."http://a.example/hub"]
  capabilities = ["pull"]
  skip_verify = true
  [host."http://a.example/hub".header]
    X-Team = ["blue"]
[host."https://b.example/v2/proxy"]
  override_path = true
  client = "/both.pem"
"#,
        );
        assert_eq!(left, [""; 0]);
        let urls: Vec<&str> = registry.mirrors.iter().map(|m| m.url.as_str()).collect();
        assert_eq!(urls, ["https://z.example:5000", "http://a.example/hub/v2", "https://b.example/v2/proxy"]);
        let [z, a, b] = registry.mirrors.as_slice() else { panic!("three") };
        assert_eq!(z.tls.ca_file.as_deref(), Some("/etc/containerd/certs.d/x/ca.pem"));
        assert_eq!(z.tls.client_key_file.as_deref(), Some("/k.pem"));
        assert_eq!((a.capabilities.clone(), a.tls.insecure), (Some(vec![Capability::Pull]), true));
        assert_eq!(a.headers["X-Team"], "blue");
        assert_eq!(
            (b.tls.client_cert_file.as_deref(), b.tls.client_key_file.as_deref()),
            (Some("/both.pem"), Some("/both.pem"))
        );
        assert_eq!(registry.fallback, None);
    }

    #[test]
    fn a_server_elsewhere_is_the_last_mirror() {
        let (registry, left) = read("docker.io", "server = \"https://mirror.example\"\nca = [\"/a.pem\"]\n");
        assert_eq!((registry.mirrors.len(), registry.fallback), (1, Some(Fallback::Never)));
        assert_eq!(registry.mirrors[0].tls.ca_file.as_deref(), Some("/a.pem"));
        assert!(left.is_empty(), "{left:?}");
        let (registry, _) = read("x.example:5000", "server = \"http://x.example:5000\"");
        assert!(registry.plain_http && registry.mirrors.is_empty());
        let (registry, _) = read("*", "server = \"https://all.example\"");
        assert_eq!(registry.mirrors[0].url, "https://all.example");
    }

    #[test]
    fn what_is_left_behind_is_named() {
        let (registry, left) = read(
            "q.example",
            r#"
dial_timeout = "3s"
color = "blue"
capabilities = ["push"]
server = "https://q.example"
[host."https://m.example/p"]
  override_path = true
[host."https://push.example"]
  capabilities = ["push"]
[host."https://user:pw@n.example"]
[host."https://o.example"]
  ca = ["/1.pem", "/2.pem"]
  client = [["/a", "/b"], ["/c", "/d"]]
  skip_verify = "yes"
  [host."https://o.example".header]
    Authorization = "Basic c2VjcmV0"
"#,
        );
        let all = left.join("\n");
        let words = [
            "dial_timeout: connections have",
            "color: is not known here",
            "host.\"https://m.example/p\": override_path: a path without",
            "host.\"https://push.example\".capabilities: a host to push to alone",
            "host.\"https://user:pw@n.example\": url: must be",
            "host.\"https://o.example\".ca: /2.pem: only the first",
            "host.\"https://o.example\".client: 2 pairs",
            "host.\"https://o.example\".skip_verify: is not true or false",
            "host.\"https://o.example\".header.Authorization: documents hold no secrets",
        ];
        for word in words {
            assert!(all.contains(word), "{word}\n--\n{all}");
        }
        assert!(!all.contains("c2VjcmV0"), "{all}");
        assert_eq!((registry.mirrors.len(), registry.fallback), (1, Some(Fallback::Never)));
        assert!(hosts_toml("x", Path::new("/"), "server = ").unwrap_err().starts_with("line 1: "));
    }
}
