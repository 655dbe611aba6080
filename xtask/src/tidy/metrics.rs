//! Dashboards and alert rules name metrics: each must be one that the sources register, or a panel stays empty and an alert never fires. Each alert has a section in
//! `docs/alerts.md`, and a test in which it fires and one in which it does not.
//! Must not: judge a query; Prometheus and promtool do.
use std::collections::BTreeSet;

const RULES: &str = "charts/berth/files/alerts.yaml";
const RUNBOOK: &str = "docs/alerts.md";
const DASHBOARDS: &str = "docs/dashboards/";
const TESTS: &str = "tests/alerts/";
/// Where metrics are registered.
const SOURCES: [&str; 2] = ["operator/src/", "node-runtime/"];

/// Checks all of that.
pub fn check(files: &[(String, String)]) -> Vec<String> {
    let of = |prefix: &'static str, suffix: &'static str| {
        files.iter().filter(move |(path, _)| path.starts_with(prefix) && path.ends_with(suffix))
    };
    let registered: BTreeSet<&str> =
        SOURCES.into_iter().flat_map(|prefix| of(prefix, ".rs")).flat_map(|(_, text)| quoted(text)).collect();
    let mut problems = Vec::new();
    for (path, text) in of(DASHBOARDS, ".json").chain(of(RULES, "")) {
        let missing: BTreeSet<&str> =
            named(text).filter(|name| !registered.contains(plain(name)) && !registered.contains(name)).collect();
        problems.extend(missing.into_iter().map(|name| format!("{path}: no source registers the metric {name}")));
    }
    let tests: String = of(TESTS, ".yaml").map(|(_, text)| text.as_str()).collect();
    let runbook: String = of(RUNBOOK, "").map(|(_, text)| text.as_str()).collect();
    for alert in
        of(RULES, "").flat_map(|(_, text)| text.lines()).filter_map(|line| line.trim().strip_prefix("- alert: "))
    {
        if !runbook.lines().any(|line| line.strip_prefix("### ") == Some(alert)) {
            problems.push(format!("{RUNBOOK}: no section ### {alert}"));
        }
        let fires = tests.contains(&format!("alertname: {alert}\n"));
        let rests = tests.contains(&format!("alertname: {alert}}}\n"));
        if !(fires && rests) {
            problems.push(format!("{TESTS}: {alert} needs a test in which it fires and one in which it does not"));
        }
    }
    problems
}

/// String literals that name a metric of ours.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('"').filter(|word| word.starts_with("berth_") && word.bytes().all(is_name))
}

/// Metrics of ours in queries. Recorded series have colons, and are not meant.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| !(c == ':' || c.is_ascii() && is_name(c as u8)));
    words.filter(|word| word.starts_with("berth_") && !word.contains(':'))
}

fn is_name(byte: u8) -> bool {
    byte == b'_' || byte.is_ascii_alphanumeric()
}

/// Of a histogram's series, the histogram.
fn plain(name: &str) -> &str {
    ["_bucket", "_sum", "_count"].into_iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_registers_tests_or_explains_is_told() {
        let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
        let rules = "- record: berth:x:y\n  expr: berth_x\n- alert: Known\n  expr: rate(berth_t_bucket[1m]) > berth:x:y\n- alert: New\n  expr: berth_gone > 0\n";
        let files = [
            file("operator/src/m.rs", "gauge(\"berth_x\"), histogram(\"berth_t\")"),
            file("tests/node/m.rs", "\"berth_gone\""),
            file(RULES, rules),
            file("docs/dashboards/d.json", "{\"expr\": \"sum(berth_x) / sum(berth_y_total)\"}"),
            file(RUNBOOK, "### Known\n### Newer\n"),
            file("tests/alerts/a.yaml", "alertname: Known\n{eval_time: 1m, alertname: Known}\nalertname: New\n"),
        ];
        let problems = check(&files);
        assert_eq!(problems.len(), 4, "{problems:?}");
        for (problem, word) in problems.iter().zip(["berth_y_total", "berth_gone", "### New", "New needs a test"]) {
            assert!(problem.contains(word), "{problem}: {word}");
        }
    }
}
