//! A network configuration: the JSON of a `.conflist`, `.conf` or `.json` file, checked (CNI specification 1.1, section 1).
//!
//! Total: any bytes give a configuration or an error that names the field. What plugins are told is passed on as it stands.
//! Must not: read files, know which plugins exist. Fuzz target: `cni_config`.
use super::version::{SPOKEN, Version};
use berth_model::{Error, Result};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// Longest file in bytes.
pub const MAX_CONFIG: usize = 256 << 10;
/// Most plugins of a list.
pub const MAX_PLUGINS: usize = 32;
/// Longest name of a network or a plugin.
const MAX_NAME: usize = 128;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// `.conflist`: a list of plugins.
    List,
    /// `.conf` and `.json`: one plugin, its keys beside the network's.
    Single,
}

/// A network: what each pod is attached to, by one plugin after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkConfig {
    /// Its name, unique on the node.
    pub name: String,
    /// Version of the specification that plugins are spoken to in.
    pub version: Version,
    /// Do not CHECK.
    pub disable_check: bool,
    /// Do not GC.
    pub disable_gc: bool,
    /// Plugins of the directory `NAME/` beside the file do not belong to it.
    pub only_inlined: bool,
    /// Plugins, in the order of ADD.
    pub plugins: Vec<PluginConfig>,
}

/// One plugin of a network.
#[derive(Debug, Clone, PartialEq)]
pub struct PluginConfig {
    /// Name of its program: the field `type`.
    pub kind: String,
    /// Capabilities that it declares: what of `runtimeConfig` it wants.
    pub capabilities: BTreeSet<String>,
    /// Everything that stands there.
    pub raw: Map<String, Value>,
}

impl NetworkConfig {
    /// Reads one. A list without the key `plugins` is taken: its plugins may lie in files of their own.
    /// Errors: `InvalidArgument` naming the field.
    pub fn parse(bytes: &[u8], form: Form) -> Result<Self> {
        let raw = object(bytes)?;
        let name = network_name(text(&raw, "name")?.unwrap_or_default())?;
        let version = version(&raw)?;
        let mut config = Self {
            name,
            version,
            disable_check: flag(&raw, "disableCheck")?,
            disable_gc: flag(&raw, "disableGC")?,
            only_inlined: form == Form::Single || flag(&raw, "loadOnlyInlinedPlugins")?,
            plugins: Vec::new(),
        };
        match (form, raw.get("plugins")) {
            (Form::Single, None) => config.plugins.push(PluginConfig::new("", raw)?),
            (Form::Single, Some(_)) => return Err(Error::invalid("plugins", "a list belongs into a file *.conflist")),
            (Form::List, Some(Value::Array(plugins))) if !plugins.is_empty() => {
                for plugin in plugins {
                    config.push(plugin)?;
                }
            }
            (Form::List, Some(_)) => return Err(Error::invalid("plugins", "must be a list of at least one plugin")),
            (Form::List, None) if raw.contains_key("type") => {
                return Err(Error::invalid("plugins", "is missing; a single plugin belongs into a file *.conf"));
            }
            (Form::List, None) if config.only_inlined => {
                return Err(Error::invalid("plugins", "is missing, and loadOnlyInlinedPlugins is true"));
            }
            (Form::List, None) => {}
        }
        Ok(config)
    }

    fn push(&mut self, plugin: &Value) -> Result<()> {
        let at = format!("plugins[{}]", self.plugins.len());
        let Value::Object(raw) = plugin else { return Err(Error::invalid(at, "must be an object")) };
        self.add(PluginConfig::new(&format!("{at}."), raw.clone())?)
    }

    /// Adds a plugin at the end. Errors: one too many.
    pub fn add(&mut self, plugin: PluginConfig) -> Result<()> {
        if self.plugins.len() == MAX_PLUGINS {
            return Err(Error::invalid("plugins", format!("are more than {MAX_PLUGINS}")));
        }
        self.plugins.push(plugin);
        Ok(())
    }

    /// As a list that [`Self::parse`] reads again.
    pub fn to_value(&self) -> Value {
        let plugins: Vec<Value> = self.plugins.iter().map(|p| Value::Object(p.raw.clone())).collect();
        serde_json::json!({
            "cniVersion": self.version.to_string(), "name": self.name, "disableCheck": self.disable_check,
            "disableGC": self.disable_gc, "loadOnlyInlinedPlugins": true, "plugins": plugins,
        })
    }

    /// Whether a plugin asks for this capability.
    pub fn wants(&self, capability: &str) -> bool {
        self.plugins.iter().any(|p| p.capabilities.contains(capability))
    }
}

impl PluginConfig {
    /// A file with one plugin, of the directory beside a list.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        Self::new("", object(bytes)?)
    }

    fn new(at: &str, raw: Map<String, Value>) -> Result<Self> {
        let field = |name: &str| format!("{at}{name}");
        let kind = text(&raw, "type").map_err(|e| e.context(at.trim_end_matches('.')))?.unwrap_or_default();
        let kind = program_name(&field("type"), kind)?;
        if let Some(Value::Object(ipam)) = raw.get("ipam")
            && let Some(Value::String(kind)) = ipam.get("type")
            && !kind.is_empty()
        {
            program_name(&field("ipam.type"), kind)?;
        }
        let capabilities = match raw.get("capabilities") {
            None | Some(Value::Null) => BTreeSet::new(),
            Some(Value::Object(all)) => {
                all.iter().filter(|(_, on)| **on == Value::Bool(true)).map(|(name, _)| name.clone()).collect()
            }
            Some(_) => return Err(Error::invalid(field("capabilities"), "must be an object of true and false")),
        };
        Ok(Self { kind, capabilities, raw })
    }
}

fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    if bytes.len() > MAX_CONFIG {
        return Err(Error::invalid("file", format!("is longer than {} KiB", MAX_CONFIG >> 10)));
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Error::invalid("file", "is not a JSON object")),
        // What the parser says has the place, and not the text.
        Err(e) => Err(Error::invalid("file", format!("is not JSON: {e}"))),
    }
}

fn text<'a>(map: &'a Map<String, Value>, field: &str) -> Result<Option<&'a str>> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Error::invalid(field, "must be a string")),
    }
}

/// A boolean, also as the text that older tools write.
fn flag(map: &Map<String, Value>, field: &str) -> Result<bool> {
    match map.get(field) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(true),
        Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(false),
        Some(_) => Err(Error::invalid(field, "must be true or false")),
    }
}

/// The highest version that we speak of `cniVersion` and `cniVersions` (1.1).
fn version(map: &Map<String, Value>) -> Result<Version> {
    let mut named: Vec<&str> = text(map, "cniVersion")?.into_iter().collect();
    match map.get("cniVersions") {
        None | Some(Value::Null) => {}
        Some(Value::Array(all)) if all.len() <= 64 => {
            for (i, entry) in all.iter().enumerate() {
                let Value::String(text) = entry else {
                    return Err(Error::invalid(format!("cniVersions[{i}]"), "must be a string"));
                };
                named.push(text);
            }
        }
        Some(_) => return Err(Error::invalid("cniVersions", "must be a list of at most 64 versions")),
    }
    let best = named.iter().filter_map(|text| Version::parse(text)).filter(|v| v.is_spoken()).max();
    best.ok_or_else(|| {
        let spoken = SPOKEN.map(|v| v.to_string()).join(", ");
        let said =
            if named.is_empty() { "is missing".to_owned() } else { format!("is {:?}", short(&named.join(", "))) };
        Error::invalid("cniVersion", format!("{said}; this node speaks {spoken}"))
    })
}

/// Begins with a letter or digit, then also `_`, `.` and `-` (specification, section 1: `name`).
fn network_name(name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::invalid("name", "is missing"));
    }
    plain("name", name)
}

/// The name of a program in one of the directories: never a path.
fn program_name(field: &str, name: &str) -> Result<String> {
    if name.is_empty() {
        return Err(Error::invalid(field, "is missing"));
    }
    plain(field, name)
}

fn plain(field: &str, name: &str) -> Result<String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    if name.len() > MAX_NAME || !name.as_bytes()[0].is_ascii_alphanumeric() || !name.bytes().all(good) {
        let problem = format!(
            "{:?} must have at most {MAX_NAME} letters, digits, '_', '.' and '-', and begin with a letter or digit",
            short(name)
        );
        return Err(Error::invalid(field, problem));
    }
    Ok(name.to_owned())
}

/// A text for a message: not longer than a line.
fn short(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(text: &str) -> Result<NetworkConfig> {
        NetworkConfig::parse(text.as_bytes(), Form::List)
    }

    fn problem(text: &str) -> String {
        list(text).unwrap_err().to_string()
    }

    #[test]
    fn a_list_is_read_and_written_back_the_same() {
        let text = r#"{"cniVersion": "1.0.0", "name": "pods.net-1", "disableCheck": "TRUE", "plugins": [
            {"type": "bridge", "ipam": {"type": "host-local"}, "unknown": {"kept": [1, 2]}},
            {"type": "portmap", "capabilities": {"portMappings": true, "other": false}}]}"#;
        let config = list(text).unwrap();
        assert_eq!((config.name.as_str(), config.version), ("pods.net-1", Version(1, 0, 0)));
        assert!(config.disable_check && !config.disable_gc);
        assert!(config.wants("portMappings") && !config.wants("other"));
        let again = list(&config.to_value().to_string()).unwrap();
        assert_eq!(again.plugins, config.plugins);
        assert_eq!(again.plugins[0].raw["unknown"]["kept"][1], 2);
    }

    #[test]
    fn a_single_plugin_is_a_list_of_one() {
        let text = r#"{"cniVersion": "0.3.1", "name": "lo", "type": "loopback"}"#;
        let config = NetworkConfig::parse(text.as_bytes(), Form::Single).unwrap();
        assert_eq!(config.plugins.len(), 1);
        assert!(problem(text).contains("*.conf"));
    }

    #[test]
    fn the_highest_spoken_version_counts() {
        let named = |versions: &str| {
            list(&format!(r#"{{{versions} "name": "n", "plugins": [{{"type": "x"}}]}}"#)).map(|c| c.version.to_string())
        };
        assert_eq!(named(r#""cniVersion": "0.4.0", "cniVersions": ["1.1.0", "9.0.0", "1.0.0"],"#).unwrap(), "1.1.0");
        assert_eq!(named(r#""cniVersions": ["1.0.0"],"#).unwrap(), "1.0.0");
        assert!(named(r#""cniVersion": "0.2.0","#).unwrap_err().message().contains("0.2.0"));
        assert!(named("").unwrap_err().message().starts_with("cniVersion: is missing"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |name: &str, plugins: &str| {
            problem(&format!(r#"{{"cniVersion": "1.0.0", "name": {name}, "plugins": {plugins}}}"#))
        };
        assert!(with(r#""../etc""#, r#"[{"type": "x"}]"#).starts_with("name: \"../etc\""));
        assert!(with(r#""n""#, r#"[{"type": "x"}, {"type": "../../bin/sh"}]"#).starts_with("plugins[1].type:"));
        assert!(with(r#""n""#, r#"[{"type": "x", "ipam": {"type": "/bin/sh"}}]"#).starts_with("plugins[0].ipam.type:"));
        assert!(with(r#""n""#, r#"[{"type": ".."}]"#).starts_with("plugins[0].type:"));
        assert!(with(r#""n""#, r#"[{"name": "x"}]"#).starts_with("plugins[0].type: is missing"));
        assert!(with(r#""n""#, "[]").starts_with("plugins:"));
        assert!(with("7", "[]").starts_with("name:"));
        assert!(problem("[1]").contains("not a JSON object"));
        assert!(problem("{").contains("line 1"));
        assert!(problem(&" ".repeat(MAX_CONFIG + 1)).contains("256 KiB"));
        assert!(problem(&"[".repeat(100_000)).contains("not JSON"));
        let many = format!("[{}]", vec![r#"{"type": "x"}"#; MAX_PLUGINS + 1].join(","));
        assert!(with(r#""n""#, &many).contains("more than 32"));
    }
}
