//! What plugins print: a result, an error, or the versions that they know (CNI specification 1.1, section 5).
//!
//! Total: any bytes give a value or an error that names the field. A result is handed to the next plugin as it was printed.
//! Must not: run anything. Fuzz target: `cni_result`.
use berth_model::{Error, Result};
use ipnet::IpNet;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::net::IpAddr;

/// Longest output of a plugin in bytes.
pub const MAX_OUTPUT: usize = 1 << 20;
/// Most interfaces, and most addresses.
const MAX_ENTRIES: usize = 256;
/// Most characters of a plugin's text that are passed on.
const MAX_TEXT: usize = 800;

/// A result of ADD.
#[derive(Debug, Clone, PartialEq)]
pub struct AddResult {
    /// As printed.
    pub raw: Map<String, Value>,
    interfaces: Vec<Interface>,
    ips: Vec<Ip>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
struct Interface {
    name: String,
    mac: Option<String>,
    sandbox: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
struct Ip {
    interface: Option<usize>,
    address: IpNet,
    gateway: Option<IpAddr>,
}

/// What a pod got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// Hardware address of its interface; empty where no plugin says.
    pub mac: String,
    /// The interface on the node's side; empty where no plugin says.
    pub host_interface: String,
    /// Its addresses in the order of the result, at least one.
    pub addresses: Vec<IpNet>,
    /// Gateway of the first address that has one.
    pub gateway: Option<IpAddr>,
}

impl AddResult {
    /// Reads one. Errors: `Internal` naming the field.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() > MAX_OUTPUT {
            return Err(Error::internal(format!("the result is longer than {} KiB", MAX_OUTPUT >> 10)));
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Error::internal("it printed no result"));
        }
        let raw = match serde_json::from_slice(bytes) {
            Ok(Value::Object(raw)) => raw,
            Ok(_) => return Err(Error::internal("the result is not a JSON object")),
            Err(e) => return Err(Error::internal(format!("the result is not JSON: {e}"))),
        };
        let mut interfaces = Vec::new();
        for (i, value) in entries(&raw, "interfaces")?.iter().enumerate() {
            let read = Interface::deserialize(value);
            interfaces.push(read.map_err(|e| bad(&format!("interfaces[{i}]"), &e.to_string()))?);
        }
        let mut ips = Vec::new();
        for (i, value) in entries(&raw, "ips")?.iter().enumerate() {
            ips.push(ip(i, value, interfaces.len())?);
        }
        Ok(Self { raw, interfaces, ips })
    }

    /// What the pod got on its interface of this name. Errors: `Internal` when that is no address.
    pub fn assigned(&self, name: &str) -> Result<Assigned> {
        let inside = |i: &Interface| i.sandbox.as_ref().is_some_and(|s| !s.is_empty());
        let own = |index: Option<usize>| {
            let Some(interface) = index.and_then(|i| self.interfaces.get(i)) else { return true };
            inside(interface) && interface.name == name
        };
        let ips: Vec<&Ip> = self.ips.iter().filter(|ip| own(ip.interface)).collect();
        if ips.is_empty() {
            let problem = format!("the result has no address for {name}: a pod cannot be reached without one");
            return Err(Error::internal(problem));
        }
        let interface = self.interfaces.iter().find(|i| inside(i) && i.name == name);
        // Plugins list the bridge, then the node's end of the pair, then the pod's.
        let outside = self.interfaces.iter().rfind(|i| !inside(i));
        Ok(Assigned {
            mac: interface.and_then(|i| i.mac.clone()).unwrap_or_default(),
            host_interface: outside.map(|i| i.name.clone()).unwrap_or_default(),
            addresses: ips.iter().map(|ip| ip.address).collect(),
            gateway: ips.iter().find_map(|ip| ip.gateway),
        })
    }
}

fn bad(field: &str, problem: &str) -> Error {
    Error::internal(format!("result: {field}: {}", tidy(problem)))
}

fn entries<'a>(raw: &'a Map<String, Value>, field: &str) -> Result<&'a [Value]> {
    match raw.get(field) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(all)) if all.len() <= MAX_ENTRIES => Ok(all),
        Some(Value::Array(all)) => Err(bad(field, &format!("{} entries, the limit is {MAX_ENTRIES}", all.len()))),
        Some(_) => Err(bad(field, "must be a list")),
    }
}

fn ip(number: usize, value: &Value, interfaces: usize) -> Result<Ip> {
    let field = |name: &str| format!("ips[{number}].{name}");
    let address = value.get("address").and_then(Value::as_str).unwrap_or_default();
    let address = address.parse().map_err(|_| bad(&field("address"), &format!("{address:?} is not ADDRESS/PREFIX")))?;
    let gateway = match value.get("gateway") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => {
            Some(text.parse().map_err(|_| bad(&field("gateway"), &format!("{text:?} is not an address")))?)
        }
        Some(_) => return Err(bad(&field("gateway"), "must be a string")),
    };
    let interface = match value.get("interface") {
        None | Some(Value::Null) => None,
        Some(index) => {
            let index = index.as_u64().and_then(|i| usize::try_from(i).ok()).filter(|i| *i < interfaces);
            Some(index.ok_or_else(|| bad(&field("interface"), &format!("must be an index below {interfaces}")))?)
        }
    };
    Ok(Ip { interface, address, gateway })
}

/// An error as a plugin prints it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PluginError {
    /// Number of the specification's table, or the plugin's own from 100 on.
    pub code: u64,
    /// What happened.
    pub msg: String,
    /// More of it.
    pub details: String,
}

impl PluginError {
    /// Reads one; `None` when that is none. Its texts are as long as they are, for secrets to be found in them.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..bytes.len().min(MAX_OUTPUT))?;
        let Ok(Value::Object(map)) = serde_json::from_slice(bytes) else { return None };
        let text = |field: &str| plain(map.get(field).and_then(Value::as_str).unwrap_or_default());
        let error = Self { code: map.get("code")?.as_u64()?, msg: text("msg"), details: text("details") };
        (error.code > 0 || !error.msg.is_empty()).then_some(error)
    }
}

/// The versions that a plugin says it supports; `None` when it does not say.
pub fn supported_versions(bytes: &[u8]) -> Option<Vec<String>> {
    if bytes.len() > MAX_OUTPUT {
        return None;
    }
    let Ok(Value::Object(map)) = serde_json::from_slice(bytes) else { return None };
    let all = map.get("supportedVersions")?.as_array()?;
    Some(all.iter().take(MAX_ENTRIES).filter_map(Value::as_str).map(tidy).collect())
}

/// A text without control characters.
pub fn plain(text: &str) -> String {
    let kept: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    kept.trim().to_owned()
}

/// A plugin's text for a message: without control characters, and not too long.
pub fn tidy(text: &str) -> String {
    let kept = plain(text);
    match kept.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{} (shortened)", kept[..end].trim_end()),
        None => kept,
    }
}

/// The same for what a plugin wrote on stderr: its last words are those that tell why.
pub fn tidy_end(text: &str) -> String {
    let kept = plain(text);
    match kept.char_indices().rev().nth(MAX_TEXT) {
        Some((before, c)) => format!("(shortened) {}", kept[before + c.len_utf8()..].trim_start()),
        None => kept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<AddResult> {
        AddResult::parse(text.as_bytes())
    }

    #[test]
    fn the_pods_own_addresses_are_taken_in_their_order() {
        let result = parse(
            r#"{"cniVersion": "1.0.0", "interfaces": [{"name": "br0", "mac": "aa:aa:aa:aa:aa:aa"}, {"name": "veth1"},
            {"name": "eth0", "mac": "00:11:22:33:44:55", "sandbox": "/run/ns"}, {"name": "net1", "sandbox": "/run/ns"}],
            "ips": [{"address": "fd00::5/64", "interface": 2}, {"address": "10.1.0.5/16", "gateway": "10.1.0.1", "interface": 2},
            {"address": "10.9.0.5/16", "interface": 3}], "dns": {}}"#,
        )
        .unwrap();
        let assigned = result.assigned("eth0").unwrap();
        assert_eq!(assigned.addresses, ["fd00::5/64".parse().unwrap(), "10.1.0.5/16".parse::<IpNet>().unwrap()]);
        assert_eq!(assigned.gateway, Some("10.1.0.1".parse().unwrap()));
        assert_eq!((assigned.mac.as_str(), assigned.host_interface.as_str()), ("00:11:22:33:44:55", "veth1"));
        assert!(result.assigned("eth7").unwrap_err().message().contains("no address for eth7"));
    }

    #[test]
    fn the_form_of_0_3_is_read_too() {
        let text = r#"{"cniVersion": "0.3.1", "ips": [{"version": "4", "address": "10.1.0.5/16"}]}"#;
        assert_eq!(parse(text).unwrap().assigned("eth0").unwrap().addresses, ["10.1.0.5/16".parse().unwrap()]);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases = [
            ("", "printed no result"),
            (" \n", "printed no result"),
            ("hello", "not JSON"),
            ("[]", "not a JSON object"),
            (r#"{"ips": {}}"#, "ips: must be a list"),
            (r#"{"ips": [{"address": "10.0.0.1"}]}"#, "ips[0].address"),
            (r#"{"ips": ["x"]}"#, "ips[0].address"),
            (r#"{"ips": [{"address": "10.0.0.1/8", "gateway": "x"}]}"#, "ips[0].gateway"),
            (r#"{"ips": [{"address": "10.0.0.1/8", "interface": 0}]}"#, "ips[0].interface"),
            (r#"{"ips": [{"address": "10.0.0.1/8", "interface": -1}]}"#, "ips[0].interface"),
            (r#"{"interfaces": [7]}"#, "interfaces[0]"),
        ];
        for (text, expected) in cases {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.contains(expected), "{text}: {message}");
        }
        let many = vec![r#"{"address": "10.0.0.1/8"}"#; MAX_ENTRIES + 1].join(",");
        assert!(parse(&format!(r#"{{"ips": [{many}]}}"#)).unwrap_err().message().contains("limit is 256"));
        assert!(AddResult::parse(&vec![b' '; MAX_OUTPUT + 1]).is_err());
    }

    #[test]
    fn errors_and_versions_of_plugins() {
        let text = br#"{"cniVersion": "1.0.0", "code": 11, "msg": "no\nagent", "details": "try later"}"#;
        let error = PluginError::parse(text).unwrap();
        assert_eq!((error.code, error.msg.as_str(), error.details.as_str()), (11, "no agent", "try later"));
        assert_eq!(PluginError::parse(b"{}"), None);
        assert_eq!(PluginError::parse(b"panic: runtime error"), None);
        assert_eq!(tidy(&"x".repeat(5000)).len(), MAX_TEXT + " (shortened)".len());
        let long = format!("{}end\n", "\u{e4}".repeat(5000));
        let end = tidy_end(&long);
        assert!(end.starts_with("(shortened) \u{e4}") && end.ends_with("end"), "{end}");
        assert_eq!(end.chars().count(), MAX_TEXT + "(shortened) ".len());
        assert_eq!((tidy_end(" a\nb "), tidy_end(&"x".repeat(MAX_TEXT))), ("a b".to_owned(), "x".repeat(MAX_TEXT)));
        let versions = supported_versions(br#"{"cniVersion": "1.0.0", "supportedVersions": ["0.4.0", 3, "1.0.0"]}"#);
        assert_eq!(versions.unwrap(), ["0.4.0", "1.0.0"]);
        assert_eq!(supported_versions(b"{}"), None);
    }
}
