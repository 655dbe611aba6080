//! The kubelet's command line, as its library (pflag) reads it: `--name=value` or `--name value`, and the last one wins.
//!
//! Owns: which flag sets which field (tests compare it with the kubelet's own code), and reading flags. Must not: know files.
use serde_json::Value;

/// Flags without a value of their own: `--name` alone means true.
const SWITCHES: [&str; 1] = ["fail-swap-on"];

/// Fields that Berth may set whose flags have other names than theirs (Kubernetes 1.37, cmd/kubelet/app/options/options.go).
const OTHER_NAMES: [(&str, &str); 9] = [
    ("contentType", "kube-api-content-type"),
    ("eventRecordQPS", "event-qps"),
    ("imageGCHighThresholdPercent", "image-gc-high-threshold"),
    ("imageGCLowThresholdPercent", "image-gc-low-threshold"),
    ("imageMinimumGCAge", "minimum-image-ttl-duration"),
    ("kubeAPIQPS", "kube-api-qps"),
    ("makeIPTablesUtilChains", "make-iptables-util-chains"),
    ("podPidsLimit", "pod-max-pids"),
    ("registryPullQPS", "registry-qps"),
];

/// Parts of fields that have flags of their own, where the field has none: the field, its part as a JSON pointer (RFC 6901), the flag
/// (Kubernetes 1.37, component-base/logs/api/v1/options.go).
const PARTS: [(&str, &str, &str); 8] = [
    ("logging", "/flushFrequency", "log-flush-frequency"),
    ("logging", "/format", "logging-format"),
    ("logging", "/options/json/infoBufferSize", "log-json-info-buffer-size"),
    ("logging", "/options/json/splitStream", "log-json-split-stream"),
    ("logging", "/options/text/infoBufferSize", "log-text-info-buffer-size"),
    ("logging", "/options/text/splitStream", "log-text-split-stream"),
    ("logging", "/verbosity", "v"),
    ("logging", "/vmodule", "vmodule"),
];

/// The flags that say what a field with this value says too: the field's own, or those of the parts that the value has.
pub(super) fn names_for(field: &str, value: &Value) -> Vec<String> {
    if !PARTS.iter().any(|(of, ..)| *of == field) {
        return vec![name_for(field)];
    }
    let said = PARTS.iter().filter(|(of, part, _)| *of == field && value.pointer(part).is_some());
    said.map(|(.., name)| (*name).to_owned()).collect()
}

/// The flag for a field that has one as a whole: by the rule, but for those that have another name.
fn name_for(field: &str) -> String {
    let other = OTHER_NAMES.iter().find(|(of, _)| *of == field);
    other.map_or_else(|| by_rule(field), |(_, name)| (*name).to_owned())
}

/// The rule: a field's words with hyphens.
fn by_rule(field: &str) -> String {
    let letters: Vec<char> = field.chars().collect();
    let mut name = String::new();
    for (i, letter) in letters.iter().enumerate() {
        let before = i.checked_sub(1).and_then(|i| letters.get(i));
        let after = letters.get(i + 1);
        let begins = letter.is_uppercase()
            && before.is_some_and(|b| !b.is_uppercase() || after.is_some_and(|a| a.is_lowercase()));
        if begins {
            name.push('-');
        }
        name.push(letter.to_ascii_lowercase());
    }
    name
}

/// Whether a flag that is given is the one of that name: the kubelet takes `_` in a name for `-` (component-base/cli/flag/flags.go,
/// `WordSepNormalizeFunc`).
fn is_named(given: &str, name: &str) -> bool {
    given == name || given.replace('_', "-") == name
}

/// Whether a flag is given, whatever it says. A name of one letter stands behind one hyphen too, with or without its value: `-v4`.
pub(super) fn is_given(arguments: &[String], name: &str) -> bool {
    let mut words = arguments.iter().skip(1).take_while(|word| *word != "--");
    words.any(|word| match word.strip_prefix("--") {
        Some(long) => is_named(long.split('=').next().unwrap_or_default(), name),
        None => name.len() == 1 && word.strip_prefix('-').is_some_and(|short| short.starts_with(name)),
    })
}

/// The value of a flag; the last one that is given counts.
pub fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    values(arguments, name).last().copied()
}

/// Switches of features: `--feature-gates A=true,B=false`, each time it is given added to the ones before.
pub fn gates(arguments: &[String]) -> Vec<(String, bool)> {
    let lists = values(arguments, "feature-gates");
    let pairs = lists.iter().flat_map(|list| list.split(',')).filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(name, on)| Some((name.trim().to_owned(), on.trim().to_ascii_lowercase().parse().ok()?)))
        .collect()
}

/// The values of a flag, in order.
pub fn values<'a>(arguments: &'a [String], name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut words = arguments.iter().map(String::as_str).skip(1);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(rest) = word.strip_prefix("--") else { continue };
        match rest.split_once('=') {
            Some((given, value)) if is_named(given, name) => found.push(value),
            None if is_named(rest, name) && SWITCHES.contains(&name) => found.push("true"),
            None if is_named(rest, name) => found.extend(words.next()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests;
