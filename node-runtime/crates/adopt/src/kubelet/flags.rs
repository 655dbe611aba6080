//! The kubelet's command line, as its library (pflag) reads it: `--name=value` or `--name value`, and the last one wins.

/// Flags without a value of their own: `--name` alone means true.
const SWITCHES: [&str; 1] = ["fail-swap-on"];

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
