//! registries.conf of CRI-O, podman and skopeo (containers-registries.conf(5), version 2) as entries of `spec.registries`.
//!
//! Must not: read files. Fuzz target: `registry_imports`.
use super::part::{Imported, Notes, add_mirror, keep, table};
use berth_settings::{Capability, Fallback, RegistryHost, RegistryMirror, RegistryTls};
use toml::Table;

/// What the whole file says and no document can.
const ELSEWHERE: [(&str, &str); 5] = [
    ("unqualified-search-registries", "a name without a registry is docker.io's"),
    ("short-name-mode", "a name without a registry is docker.io's"),
    ("aliases", "a name without a registry is docker.io's"),
    (
        "credential-helpers",
        "name them as credHelpers or credsStore in config.json (`berth login`, spec.credentials.dockerConfigFile)",
    ),
    ("registries", "is the format of version 1; write it as [[registry]] first"),
];

/// Reads one. Errors: it is no TOML, or too long.
pub fn registries_conf(text: &str) -> Result<Imported, String> {
    let mut table = table(text)?;
    let mut imported = Imported::default();
    let mut notes = Notes { at: String::new(), left: &mut imported.left };
    for (field, why) in ELSEWHERE {
        if table.remove(field).is_some() {
            notes.left(field, why);
        }
    }
    let registries = notes.tables(&mut table, "registry");
    notes.rest(&table);
    for (number, registry) in registries.into_iter().enumerate() {
        self::registry(registry, number, &mut imported);
    }
    Ok(imported)
}

fn registry(mut table: Table, number: usize, imported: &mut Imported) {
    let mut notes = Notes { at: format!("registry[{number}]"), left: &mut imported.left };
    let location = notes.text(&mut table, "location").filter(|text| !text.is_empty());
    let Some(prefix) = notes.text(&mut table, "prefix").filter(|text| !text.is_empty()).or(location.clone()) else {
        return notes.left("", "has neither prefix nor location");
    };
    notes.at = format!("registry {prefix}");
    let insecure = notes.flag(&mut table, "insecure");
    let blocked = notes.flag(&mut table, "blocked");
    let digest_only = notes.flag(&mut table, "mirror-by-digest-only");
    let mirrors = notes.tables(&mut table, "mirror");
    notes.rest(&table);
    if blocked {
        return notes.left("blocked", "write an ImagePolicy with registries.deny");
    }
    if prefix.contains('/') {
        return notes.left("prefix", "settings are for whole registries; a part of one has none of its own");
    }
    let mut registry = RegistryHost { host: prefix.clone(), digest_only, ..RegistryHost::default() };
    for mut mirror in mirrors {
        self::mirror(&mut mirror, &mut registry, &mut notes);
    }
    match location {
        Some(location) if location != prefix => {
            add(&location, insecure, None, &mut registry, &mut notes);
            if !registry.mirrors.is_empty() {
                registry.fallback = Some(Fallback::Never);
            }
        }
        _ if insecure => {
            registry.tls.insecure = true;
            notes.left(
                "insecure",
                "the certificate is not verified; for plain HTTP write plainHttp: true in place of tls",
            );
        }
        _ => {}
    }
    keep(registry, &format!("registry {prefix}"), imported);
}

fn mirror(table: &mut Table, registry: &mut RegistryHost, notes: &mut Notes<'_>) {
    let Some(location) = notes.text(table, "location") else { return notes.left("mirror", "has no location") };
    let insecure = notes.flag(table, "insecure");
    let from = notes.text(table, "pull-from-mirror").unwrap_or_default();
    notes.rest(table);
    let capabilities = match from.as_str() {
        "" | "all" => None,
        "digest-only" => Some(vec![Capability::Pull]),
        other => {
            return notes.left("mirror", format_args!("{location}: pull-from-mirror = {other:?} has no match here"));
        }
    };
    add(&location, insecure, capabilities, registry, notes);
}

/// A location is a host with a path that goes before the repository's name.
fn add(
    location: &str,
    insecure: bool,
    capabilities: Option<Vec<Capability>>,
    registry: &mut RegistryHost,
    notes: &mut Notes<'_>,
) {
    if location.split('/').skip(1).any(|segment| segment == "v2") {
        return notes
            .left("location", format_args!("{location}: a path with a segment v2 is the root of the API here"));
    }
    let tls = RegistryTls { insecure, ..RegistryTls::default() };
    let url = format!("https://{location}");
    if insecure {
        notes.left(
            "insecure",
            format_args!("{url}: the certificate is not verified; for plain HTTP write http:// in the URL"),
        );
    }
    add_mirror(registry, RegistryMirror { url, capabilities, tls, ..RegistryMirror::default() }, notes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_locations_and_what_is_left_behind() {
        let imported = registries_conf(
            r#"
unqualified-search-registries = ["docker.io", "quay.io"]
[[registry]]
prefix = "docker.io"
location = "internal.example/hub"
mirror-by-digest-only = true
[[registry.mirror]]
location = "mirror.example:5000"
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "lab.example"
insecure = true
[[registry.mirror]]
location = "tags.example"
pull-from-mirror = "tag-only"
[[registry]]
location = "*.corp.example"
insecure = true
[[registry]]
location = "evil.example"
blocked = true
[[registry]]
prefix = "quay.io/team"
location = "x.example"
colour = "blue"
[[registry]]
insecure = true
[aliases]
x = "y"
"#,
        )
        .unwrap();
        let hosts: Vec<&str> = imported.registries.iter().map(|r| r.host.as_str()).collect();
        assert_eq!(hosts, ["docker.io", "*.corp.example"]);
        let hub = &imported.registries[0];
        let urls: Vec<&str> = hub.mirrors.iter().map(|m| m.url.as_str()).collect();
        assert_eq!(urls, ["https://mirror.example:5000", "https://lab.example", "https://internal.example/hub"]);
        assert!(hub.digest_only && hub.fallback == Some(Fallback::Never) && hub.mirrors[1].tls.insecure);
        assert!(imported.registries[1].tls.insecure);
        let all = imported.left.join("\n");
        let words = [
            "unqualified-search-registries: a name",
            "aliases: a name",
            "registry docker.io.mirror: tags.example: pull-from-mirror = \"tag-only\"",
            "registry *.corp.example.insecure: the certificate",
            "registry evil.example.blocked: write an ImagePolicy",
            "registry quay.io/team.prefix: settings are for whole",
            "registry quay.io/team.colour: is not known",
            "registry[4]: has neither",
        ];
        for word in words {
            assert!(all.contains(word), "{word}\n--\n{all}");
        }
        assert!(registries_conf("[[registry]\n").unwrap_err().starts_with("line 1: "));
    }
}
