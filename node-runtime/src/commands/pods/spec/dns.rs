//! `dnsPolicy` and `dnsConfig`, and what the node's own resolv.conf adds (resolv.conf(5)). Pure: the file comes in as text.
use std::collections::BTreeSet;

/// What a Pod says of name resolution.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// `dnsPolicy: None`: only what is written here.
    pub nothing_else: bool,
    pub nameservers: Vec<String>,
    pub searches: Vec<String>,
    /// `name` or `name:value`.
    pub options: Vec<String>,
}

/// Servers, search domains and options, as the CRI takes them; all empty is "the node's own".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolved {
    pub servers: Vec<String>,
    pub searches: Vec<String>,
    pub options: Vec<String>,
}

impl Dns {
    /// Combines with the node's file, in the kubelet's order: the node's first; an option of the Pod replaces the node's.
    pub fn resolve(&self, node: &str) -> Resolved {
        let nothing = self.nameservers.is_empty() && self.searches.is_empty() && self.options.is_empty();
        if nothing && !self.nothing_else {
            return Resolved::default();
        }
        let node = if self.nothing_else { Resolved::default() } else { parse(node) };
        let overridden: BTreeSet<&str> = self.options.iter().map(|o| option_name(o)).collect();
        let kept = node.options.into_iter().filter(|o| !overridden.contains(option_name(o)));
        Resolved {
            servers: distinct(node.servers.into_iter().chain(self.nameservers.iter().cloned())),
            searches: distinct(node.searches.into_iter().chain(self.searches.iter().cloned())),
            options: kept.chain(self.options.iter().cloned()).collect(),
        }
    }
}

fn option_name(option: &str) -> &str {
    option.split(':').next().unwrap_or_default()
}

fn distinct(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    values.filter(|v| seen.insert(v.clone())).collect()
}

/// The last `search` line wins; `nameserver` lines add up.
fn parse(text: &str) -> Resolved {
    let mut resolved = Resolved::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let rest = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect::<Vec<_>>();
        match words.next() {
            Some("nameserver") => resolved.servers.extend(words.next().map(str::to_owned)),
            Some("search") => resolved.searches = rest(words),
            Some("options") => resolved.options.extend(rest(words)),
            _ => {}
        }
    }
    resolved
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str =
        "# c\nnameserver 10.0.0.1\nnameserver 10.0.0.2 x\nsearch old\nsearch a.b c\noptions ndots:5 edns0\nbogus\n";

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn the_node_comes_first_and_options_are_replaced() {
        let dns = Dns {
            nothing_else: false,
            nameservers: texts(&["10.0.0.2", "9.9.9.9"]),
            searches: texts(&["c", "d"]),
            options: texts(&["ndots:1"]),
        };
        let wanted = Resolved {
            servers: texts(&["10.0.0.1", "10.0.0.2", "9.9.9.9"]),
            searches: texts(&["a.b", "c", "d"]),
            options: texts(&["edns0", "ndots:1"]),
        };
        assert_eq!(dns.resolve(NODE), wanted);
        assert_eq!(Dns::default().resolve(NODE), Resolved::default());
        let alone = Dns { nothing_else: true, nameservers: texts(&["9.9.9.9"]), ..Dns::default() };
        assert_eq!(alone.resolve(NODE), Resolved { servers: texts(&["9.9.9.9"]), ..Resolved::default() });
    }
}
