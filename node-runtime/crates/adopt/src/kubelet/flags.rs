//! The kubelet's command line, as its library (pflag) reads it: `--name=value` or `--name value`, and the last one wins.

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

/// The flag for a field: its words with hyphens, but for those that have another name.
pub(super) fn name_for(field: &str) -> String {
    if let Some((_, name)) = OTHER_NAMES.iter().find(|(other, _)| *other == field) {
        return (*name).to_owned();
    }
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

/// Whether a flag is given, whatever it says.
pub(super) fn is_given(arguments: &[String], name: &str) -> bool {
    let words = arguments.iter().skip(1).take_while(|word| *word != "--");
    let mut names = words.filter_map(|word| Some(word.strip_prefix("--")?.split('=').next().unwrap_or_default()));
    names.any(|given| given == name)
}

/// The value of a flag; the last one that is given counts.
pub fn flag<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    all(arguments, name).last().copied()
}

/// Switches of features: `--feature-gates A=true,B=false`, each time it is given added to the ones before.
pub fn gates(arguments: &[String]) -> Vec<(String, bool)> {
    let lists = all(arguments, "feature-gates");
    let pairs = lists.iter().flat_map(|list| list.split(',')).filter_map(|pair| pair.split_once('='));
    pairs
        .filter_map(|(name, on)| Some((name.trim().to_owned(), on.trim().to_ascii_lowercase().parse().ok()?)))
        .collect()
}

fn all<'a>(arguments: &'a [String], name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    let mut words = arguments.iter().map(String::as_str).skip(1);
    while let Some(word) = words.next() {
        if word == "--" {
            break;
        }
        let Some(rest) = word.strip_prefix("--") else { continue };
        match rest.split_once('=') {
            Some((given, value)) if given == name => found.push(value),
            None if rest == name && SWITCHES.contains(&name) => found.push("true"),
            None if rest == name => found.extend(words.next()),
            _ => {}
        }
    }
    found
}
