//! A network configuration as a document has it (`spec.network.cni.confList`), with what the node is told put in. Pure.
//!
//! The template is a configuration list in JSON before and after. A string in it may hold `$(podCIDR)` (the node's first pod CIDR),
//! `$(podCIDR4)` and `$(podCIDR6)`; a string that is nothing but `$(podCIDRRanges)` becomes the list that host-local calls `ranges`, and
//! one that is nothing but `$(podCIDRRoutes)` the default routes of the families that there are.
//! Must not: read or write files (`written` does). Fuzz target: `cni_template`.
use super::config::{Form, MAX_CONFIG, NetworkConfig};
use berth_model::{Error, Result};
use ipnet::IpNet;
use serde_json::{Map, Value, json};

/// The field that holds it.
pub const FIELD: &str = "spec.network.cni.confList";
/// Says in a file who wrote it, and that changes are lost.
pub const MARK: &str = "berth.dev/written-from";

/// What may stand in `$(…)`.
const NAMES: [&str; 5] = ["podCIDR", "podCIDR4", "podCIDR6", "podCIDRRanges", "podCIDRRoutes"];

/// Whether pods can get a network of it, on a node with pod CIDRs of both families. Errors: `InvalidArgument` naming the field.
pub fn check_template(template: &str) -> Result<()> {
    let sample = [IpNet::V4(ipnet::Ipv4Net::default()), IpNet::V6(ipnet::Ipv6Net::default())];
    match render(template, &sample)? {
        Some(_) => Ok(()),
        None => Err(Error::internal("a configuration of known pod CIDRs waits for them")),
    }
}

/// The configuration's text; `None` while it needs pod CIDRs and there are none. Errors: `InvalidArgument` naming field and place, also
/// for a family that the node's pod CIDRs do not have.
pub fn render(template: &str, cidrs: &[IpNet]) -> Result<Option<String>> {
    if template.len() > MAX_CONFIG {
        return Err(Error::invalid(FIELD, format!("is longer than {} KiB", MAX_CONFIG >> 10)));
    }
    // What the parser says has the place, and not the text.
    let value = serde_json::from_str(template).map_err(|e| Error::invalid(FIELD, format!("is not JSON: {e}")))?;
    let Value::Object(map) = value else { return Err(Error::invalid(FIELD, "is not a JSON object")) };
    let node = Node { cidrs };
    let Some(mut map) = node.object(map, FIELD)? else { return Ok(None) };
    map.insert(MARK.to_owned(), json!(format!("{FIELD}; changes here are lost")));
    let mut text = serde_json::to_string_pretty(&map).map_err(|e| Error::internal(format!("{FIELD}: {e}")))?;
    text.push('\n');
    let parsed = NetworkConfig::parse(text.as_bytes(), Form::List);
    let network = parsed.map_err(|e| Error::new(e.kind(), format!("{FIELD}: {}", e.message())))?;
    if network.plugins.is_empty() {
        return Err(Error::invalid(FIELD, "plugins: must be a list of at least one plugin"));
    }
    Ok(Some(text))
}

struct Node<'a> {
    cidrs: &'a [IpNet],
}

impl Node<'_> {
    /// `None` at the first place that waits for a pod CIDR; what is wrong elsewhere is told first.
    fn value(&self, value: Value, at: &str) -> Result<Option<Value>> {
        Ok(match value {
            Value::String(text) => self.text(&text, at)?,
            Value::Object(map) => self.object(map, at)?.map(Value::Object),
            Value::Array(all) => {
                let parts = all.into_iter().enumerate().map(|(i, part)| self.value(part, &format!("{at}[{i}]")));
                parts.collect::<Result<Vec<_>>>()?.into_iter().collect::<Option<Vec<_>>>().map(Value::Array)
            }
            other => Some(other),
        })
    }

    fn object(&self, map: Map<String, Value>, at: &str) -> Result<Option<Map<String, Value>>> {
        let mut parts = Vec::with_capacity(map.len());
        for (name, value) in map {
            let part = self.value(value, &format!("{at}.{name}"))?;
            parts.push(part.map(|part| (name, part)));
        }
        Ok(parts.into_iter().collect())
    }

    fn text(&self, text: &str, at: &str) -> Result<Option<Value>> {
        let lists = match text {
            "$(podCIDRRanges)" => Some(self.cidrs.iter().map(|net| json!([{ "subnet": net.to_string() }])).collect()),
            "$(podCIDRRoutes)" => Some(self.cidrs.iter().map(|net| json!({ "dst": default_route(net) })).collect()),
            _ => None,
        };
        if let Some(list) = lists {
            return Ok((!self.cidrs.is_empty()).then_some(Value::Array(list)));
        }
        let (mut out, mut rest) = (String::new(), text);
        let mut waits = false;
        while let Some((before, name, after)) = variable(rest) {
            out += before;
            match self.cidr(name, at)? {
                Some(net) => out += &net.to_string(),
                None => waits = true,
            }
            rest = after;
        }
        out += rest;
        Ok((!waits).then_some(Value::String(out)))
    }

    /// The subnet that a name stands for; `None` while nothing is known.
    fn cidr(&self, name: &str, at: &str) -> Result<Option<&IpNet>> {
        let (found, family) = match name {
            "podCIDR" => (self.cidrs.first(), ""),
            "podCIDR4" => (self.cidrs.iter().find(|net| matches!(net, IpNet::V4(_))), " of IPv4"),
            "podCIDR6" => (self.cidrs.iter().find(|net| matches!(net, IpNet::V6(_))), " of IPv6"),
            "podCIDRRanges" | "podCIDRRoutes" => {
                return Err(Error::invalid(at, format!("$({name}) must be all of a string: a list takes its place")));
            }
            _ => {
                let known = NAMES.map(|n| format!("$({n})")).join(", ");
                return Err(Error::invalid(at, format!("$({name}) is not known; there are {known}")));
            }
        };
        match found {
            None if !self.cidrs.is_empty() => Err(Error::invalid(at, format!("the node has no pod CIDR{family}"))),
            found => Ok(found),
        }
    }
}

/// The first `$(NAME)` of a text: what is before it, its name, what is after it.
fn variable(text: &str) -> Option<(&str, &str, &str)> {
    let (before, rest) = text.split_once("$(")?;
    let (name, after) = rest.split_once(')')?;
    Some((before, name, after))
}

fn default_route(net: &IpNet) -> &'static str {
    match net {
        IpNet::V4(_) => "0.0.0.0/0",
        IpNet::V6(_) => "::/0",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "note": "of $(podCIDR)!",
        "ipam": {"type": "host-local", "ranges": "$(podCIDRRanges)", "routes": "$(podCIDRRoutes)"}}]}"#;

    fn nets(all: &[&str]) -> Vec<IpNet> {
        all.iter().map(|net| net.parse().unwrap()).collect()
    }

    #[test]
    fn pod_cidrs_are_put_in() {
        assert_eq!(render(LIST, &[]).unwrap(), None, "the kubelet has not told them yet");
        let text = render(LIST, &nets(&["10.1.0.0/24", "fd01::/64"])).unwrap().unwrap();
        let list: Value = serde_json::from_str(&text).unwrap();
        let plugin = &list["plugins"][0];
        assert_eq!(plugin["note"], "of 10.1.0.0/24!");
        assert_eq!(plugin["ipam"]["ranges"], json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "fd01::/64"}]]));
        assert_eq!(plugin["ipam"]["routes"], json!([{"dst": "0.0.0.0/0"}, {"dst": "::/0"}]));
        assert!(list[MARK].as_str().unwrap().contains(FIELD));
        let plain = r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "x"}]}"#;
        assert!(render(plain, &[]).unwrap().is_some(), "one without variables waits for nobody");
    }

    #[test]
    fn what_is_wrong_is_named_by_its_place() {
        let with = |text: &str| LIST.replace("of $(podCIDR)!", text);
        let problem = |template: &str, cidrs: &[IpNet]| render(template, cidrs).unwrap_err().message().to_owned();
        let six = problem(&with("$(podCIDR6)"), &nets(&["10.1.0.0/24"]));
        assert!(six.contains("confList.plugins[0].note: the node has no pod CIDR of IPv6"), "{six}");
        assert!(problem(&with("$(podCidr)"), &[]).contains("$(podCidr) is not known; there are $(podCIDR),"));
        assert!(problem(&with("x$(podCIDRRanges)"), &[]).contains("must be all of a string"));
        assert!(problem("{", &[]).contains("is not JSON") && problem("[]", &[]).contains("not a JSON object"));
        for (bad, word) in [("\"type\": \"bridge\"", "plugins[0].type"), ("\"name\": \"pods\"", "name")] {
            let template = LIST.replace(bad, &format!("{}: \"a/b\"", bad.split(':').next().unwrap()));
            let told = check_template(&template).unwrap_err();
            assert!(told.message().starts_with(FIELD) && told.message().contains(word), "{told}");
        }
        check_template(LIST).unwrap();
    }
}
