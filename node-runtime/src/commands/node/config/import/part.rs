//! What both formats have in common: one registry as it was read, what of it has no place here, and values of any type.
//!
//! Total: whatever stands in a file is carried over, or told by its name. Must not: read files. Fuzz target: `registry_imports`.
use berth_settings::{RegistryHost, RegistryMirror, RegistryTls, check_registries};
use std::collections::BTreeMap;
use toml::{Table, Value};

/// Longest text of a file in bytes.
pub const MAX_TEXT: usize = 1 << 20;
/// Most mirrors of a registry (crds/src/registry.rs).
const MAX_MIRRORS: usize = 16;

/// A registry, and what was said of it and could not be carried over: sentences that begin with the field.
#[derive(Debug, Default)]
pub struct Imported {
    pub registries: Vec<RegistryHost>,
    pub left: Vec<String>,
}

/// Names fields of one place in a file, and notes what is left behind.
pub struct Notes<'a> {
    /// Before each field: the place.
    pub at: String,
    pub left: &'a mut Vec<String>,
}

impl Notes<'_> {
    pub fn left(&mut self, field: &str, why: impl std::fmt::Display) {
        let dot = if self.at.is_empty() || field.is_empty() { "" } else { "." };
        self.left.push(format!("{}{dot}{field}: {why}", self.at));
    }

    /// A value taken out of a table; one of another type is told.
    pub fn text(&mut self, table: &mut Table, field: &str) -> Option<String> {
        match table.remove(field)? {
            Value::String(text) => Some(text),
            _ => self.other(field, "a text"),
        }
    }

    pub fn flag(&mut self, table: &mut Table, field: &str) -> bool {
        match table.remove(field) {
            None => false,
            Some(Value::Boolean(on)) => on,
            Some(_) => self.other(field, "true or false").unwrap_or(false),
        }
    }

    /// One text, or a list of them.
    pub fn texts(&mut self, table: &mut Table, field: &str) -> Option<Vec<String>> {
        let value = table.remove(field)?;
        texts(&value).or_else(|| self.other(field, "a text or a list of texts"))
    }

    pub fn tables(&mut self, table: &mut Table, field: &str) -> Vec<Table> {
        let all = match table.remove(field) {
            None => return Vec::new(),
            Some(Value::Array(all)) => all,
            Some(_) => return self.other(field, "a list of tables").unwrap_or_default(),
        };
        let tables = all.into_iter().filter_map(|value| match value {
            Value::Table(table) => Some(table),
            _ => self.other(field, "a list of tables"),
        });
        tables.collect()
    }

    /// What nobody has asked for.
    pub fn rest(&mut self, table: &Table) {
        for field in table.keys() {
            self.left(field, "is not known here");
        }
    }

    fn other<T>(&mut self, field: &str, wanted: &str) -> Option<T> {
        self.left(field, format_args!("is not {wanted}"));
        None
    }
}

pub fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(all) => all.iter().map(|v| v.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// A file as a table. Errors: it is too long, or no TOML, with line and column.
pub fn table(text: &str) -> Result<Table, String> {
    if text.len() > MAX_TEXT {
        return Err(format!("is longer than {} KiB", MAX_TEXT >> 10));
    }
    text.parse().map_err(|e: toml::de::Error| {
        let before = text.get(..e.span().map_or(0, |span| span.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", e.message())
    })
}

/// Adds mirrors as far as a registry may have them, each once.
pub fn add_mirror(registry: &mut RegistryHost, mirror: RegistryMirror, notes: &mut Notes<'_>) {
    if registry.mirrors.iter().any(|other| other.url == mirror.url) {
        return notes.left("", format_args!("{} stands twice", mirror.url));
    }
    if registry.mirrors.len() == MAX_MIRRORS {
        return notes.left("", format_args!("is one more than the {MAX_MIRRORS} mirrors that a registry may have"));
    }
    let alone = RegistryHost { host: "x".into(), mirrors: vec![mirror.clone()], ..RegistryHost::default() };
    match check_registries(&[alone]) {
        Ok(()) => registry.mirrors.push(mirror),
        Err(e) => notes.left("", e.message().replace("spec.registries[0].mirrors[0].", "")),
    }
}

/// Keeps what a document may say: a registry that is refused as a whole is told and left out.
pub fn keep(registry: RegistryHost, at: &str, imported: &mut Imported) {
    match check_registries(std::slice::from_ref(&registry)) {
        Ok(()) => imported.registries.push(registry),
        Err(e) => imported.left.push(format!("{at}: all of it: {}", e.message().replace("spec.registries[0].", ""))),
    }
}

/// The headers that documents may have.
pub fn headers(all: Vec<(String, String)>, notes: &mut Notes<'_>) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for (name, value) in all {
        let one = BTreeMap::from([(name.clone(), value.clone())]);
        let alone = RegistryHost { host: "x".into(), headers: one, ..RegistryHost::default() };
        // What stands in a header may be secret.
        match check_registries(&[alone]) {
            Ok(()) if kept.len() < 32 => drop(kept.insert(name, value)),
            Ok(()) => notes.left(&format!("header.{name}"), "is one more than 32"),
            Err(_) => notes.left(&format!("header.{name}"), "documents hold no secrets: use `berth login`"),
        }
    }
    kept
}

/// Certificates and keys of a server. `insecure` stands alone: who does not verify needs no authority.
pub fn tls(ca: Vec<String>, client: Option<(String, String)>, insecure: bool, notes: &mut Notes<'_>) -> RegistryTls {
    let (cert, key) = client.unzip();
    let mut tls = RegistryTls { client_cert_file: cert, client_key_file: key, insecure, ..RegistryTls::default() };
    let mut files = ca.into_iter();
    match files.next() {
        Some(_) if insecure => notes.left("ca", "counts for nothing beside skip_verify"),
        first => tls.ca_file = first,
    }
    for more in files {
        notes.left("ca", format_args!("{more}: only the first file is taken; put all certificates into it"));
    }
    tls
}
