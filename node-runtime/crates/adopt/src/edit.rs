//! Changes of text that belongs to others: a kubelet's configuration, environment files, units. What is not meant stays as it is, byte for
//! byte where the format lets it, and every result is parsed again and compared with what was meant.
//!
//! Owns: those edits. Must not: read or write files. Fuzz target: `kubelet_config`.
use crate::kubelet::{API_VERSION, ENDPOINT, ENDPOINT_FLAG, GATES, KIND, STATS_GATE};
use crate::yaml;
use serde_json::{Map, Value, json};

/// What a configuration is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// The runtime's endpoint, if this is where it is said.
    pub endpoint: Option<String>,
    /// A feature to switch on.
    pub gate: Option<&'static str>,
}

impl Wish {
    fn apply(&self, fields: &mut Map<String, Value>) {
        if let Some(endpoint) = &self.endpoint {
            fields.insert(ENDPOINT.to_owned(), endpoint.as_str().into());
        }
        if let Some(gate) = self.gate {
            match fields.get_mut(GATES) {
                Some(Value::Object(gates)) => {
                    gates.insert(gate.to_owned(), true.into());
                }
                _ => {
                    fields.insert(GATES.to_owned(), json!({gate: true}));
                }
            }
        }
    }
}

/// A drop-in with only what is wished for.
pub fn drop_in(wish: &Wish) -> String {
    let mut text =
        format!("# Written by berth adopt; berth adopt return removes it.\napiVersion: {API_VERSION}\nkind: {KIND}\n");
    if let Some(endpoint) = &wish.endpoint {
        text.push_str(&format!("{ENDPOINT}: {}\n", quoted(endpoint)));
    }
    if let Some(gate) = wish.gate {
        text.push_str(&format!("{GATES}:\n  {gate}: true\n"));
    }
    text
}

/// A configuration file with its fields changed. Comments and order of YAML stay; JSON is written anew. Errors: where the text is written
/// in a way that this does not change safely.
pub fn configuration(text: &str, wish: &Wish) -> Result<String, String> {
    let before = yaml::fields(text)?;
    let mut meant = before.clone();
    wish.apply(&mut meant);
    if meant == before {
        return Ok(text.to_owned());
    }
    if text.trim_start().starts_with('{') {
        let mut json = serde_json::to_string_pretty(&meant).map_err(|e| e.to_string())?;
        json.push('\n');
        return checked(json, &meant);
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if let Some(endpoint) = &wish.endpoint {
        set_line(&mut lines, ENDPOINT, &format!("{ENDPOINT}: {}", quoted(endpoint)))?;
    }
    if let Some(gate) = wish.gate {
        set_gate(&mut lines, gate)?;
    }
    checked(lines.join("\n") + "\n", &meant)
}

fn checked(text: String, meant: &Map<String, Value>) -> Result<String, String> {
    match yaml::fields(&text) {
        Ok(fields) if fields == *meant => Ok(text),
        _ => Err("is written in a way that cannot be changed safely".to_owned()),
    }
}

/// As a YAML string whatever is in it: what does not begin as an endpoint could be a number or a word of YAML's.
fn quoted(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-".contains(&b);
    let is_plain = text.starts_with("unix:/") && text.bytes().all(plain) && !text.ends_with(':');
    if is_plain { text.to_owned() } else { Value::from(text).to_string() }
}

/// Replaces the line of a top-level field, or adds it.
fn set_line(lines: &mut Vec<String>, field: &str, line: &str) -> Result<(), String> {
    let places: Vec<usize> = (0..lines.len()).filter(|i| rest_of(&lines[*i], field).is_some()).collect();
    match places[..] {
        [] => lines.insert(end(lines), line.to_owned()),
        [one] => lines[one] = line.to_owned(),
        _ => return Err(format!("has {field} more than once")),
    }
    Ok(())
}

/// What follows a top-level key.
fn rest_of<'a>(line: &'a str, field: &str) -> Option<&'a str> {
    let bare = line.strip_prefix(field);
    let quoted = || line.strip_prefix('"')?.strip_prefix(field)?.strip_prefix('"');
    bare.or_else(quoted)?.trim_start().strip_prefix(':')
}

/// Where the document ends: before a marker that is not its first line.
fn end(lines: &[String]) -> usize {
    let marker = |line: &String| line.trim_end() == "---" || line.trim_end() == "...";
    let begun = lines.iter().position(|line| !line.trim().is_empty() && !line.starts_with('#') && !marker(line));
    let begun = begun.unwrap_or(lines.len());
    lines[begun..].iter().position(marker).map_or(lines.len(), |i| begun + i)
}

fn set_gate(lines: &mut Vec<String>, gate: &str) -> Result<(), String> {
    let Some(place) = lines.iter().position(|line| rest_of(line, GATES).is_some()) else {
        let at = end(lines);
        lines.splice(at..at, [format!("{GATES}:"), format!("  {gate}: true")]);
        return Ok(());
    };
    let rest = rest_of(&lines[place], GATES).unwrap_or_default().trim().to_owned();
    if let Some(inner) = rest.strip_prefix('{') {
        let comma = if inner.trim_start().starts_with('}') { "" } else { ", " };
        lines[place] = format!("{GATES}: {{{gate}: true{comma}{inner}");
        return Ok(());
    }
    if !rest.is_empty() && !rest.starts_with('#') {
        return Err(format!("has {GATES} in a form that cannot be changed safely"));
    }
    let blank = |line: &String| line.trim().is_empty() || line.trim_start().starts_with('#');
    let first = lines[place + 1..].iter().position(|line| !blank(line)).map(|i| place + 1 + i);
    let indent = first.map_or(0, |i| lines[i].len() - lines[i].trim_start_matches(' ').len());
    let inside = |line: &String| blank(line) || line.starts_with(' ');
    let stop = lines[place + 1..].iter().position(|line| !inside(line)).map_or(lines.len(), |i| place + 1 + i);
    let indent = " ".repeat(if indent == 0 { 2 } else { indent });
    let own = |line: &&mut String| {
        line.trim_start().strip_prefix(gate).is_some_and(|rest| rest.trim_start().starts_with(':'))
    };
    match lines[place + 1..stop].iter_mut().find(own) {
        Some(line) => *line = format!("{indent}{gate}: true"),
        None => lines.insert(place + 1, format!("{indent}{gate}: true")),
    }
    Ok(())
}

/// What a configuration said before it was switched, where the switch changed it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Former {
    /// The endpoint that was written, and what stood there before, if anything.
    pub endpoint: Option<(String, Option<String>)>,
    /// The gate that was switched on, and how it was switched before, if it was.
    pub gate: Option<(String, Option<bool>)>,
    /// Whether there were gates at all.
    pub gates: bool,
}

impl Former {
    /// From the text before and the fields afterwards. Errors: the text is no configuration.
    pub fn between(before: &str, after: &Map<String, Value>) -> Result<Self, String> {
        let before = yaml::fields(before)?;
        let text = |fields: &Map<String, Value>| fields.get(ENDPOINT).and_then(Value::as_str).map(str::to_owned);
        let gate = |fields: &Map<String, Value>| fields.get(GATES).and_then(|gates| gates.get(STATS_GATE)?.as_bool());
        let endpoint = text(after).filter(|now| Some(now) != text(&before).as_ref());
        let switched = gate(after) == Some(true) && gate(&before) != Some(true);
        Ok(Self {
            endpoint: endpoint.map(|now| (now, text(&before))),
            gate: switched.then(|| (STATS_GATE.to_owned(), gate(&before))),
            gates: before.contains_key(GATES),
        })
    }

    fn apply(&self, fields: &mut Map<String, Value>) {
        if let Some((ours, former)) = &self.endpoint
            && fields.get(ENDPOINT).and_then(Value::as_str) == Some(ours)
        {
            match former {
                Some(former) => drop(fields.insert(ENDPOINT.to_owned(), former.as_str().into())),
                None => drop(fields.remove(ENDPOINT)),
            }
        }
        let Some((gate, former)) = &self.gate else { return };
        let Some(Value::Object(gates)) = fields.get_mut(GATES) else { return };
        if gates.get(gate) == Some(&Value::Bool(true)) {
            match former {
                Some(former) => drop(gates.insert(gate.clone(), (*former).into())),
                None => drop(gates.remove(gate)),
            }
        }
        if gates.is_empty() && !self.gates {
            fields.remove(GATES);
        }
    }
}

/// A configuration file that was switched, and changed by others since, with what it said before. Comments and order of YAML stay; JSON is
/// written anew. Errors: as [`configuration`].
pub fn configuration_back(text: &str, former: &Former) -> Result<String, String> {
    let before = yaml::fields(text)?;
    let mut meant = before.clone();
    former.apply(&mut meant);
    if meant == before {
        return Ok(text.to_owned());
    }
    if text.trim_start().starts_with('{') {
        let json = serde_json::to_string_pretty(&meant).map_err(|e| e.to_string())?;
        return checked(json + "\n", &meant);
    }
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if before.get(ENDPOINT) != meant.get(ENDPOINT) {
        match meant.get(ENDPOINT).and_then(Value::as_str) {
            Some(endpoint) => set_line(&mut lines, ENDPOINT, &format!("{ENDPOINT}: {}", quoted(endpoint)))?,
            None => lines.retain(|line| rest_of(line, ENDPOINT).is_none()),
        }
    }
    if let Some((gate, value)) = former.gate.as_ref().filter(|_| before.get(GATES) != meant.get(GATES)) {
        let own = |line: &str| line.starts_with(' ') && rest_of(line.trim_start(), gate).is_some();
        match value {
            Some(value) => lines.iter_mut().filter(|line| own(line)).for_each(|line| {
                let indent = line.len() - line.trim_start().len();
                *line = format!("{}{gate}: {value}", " ".repeat(indent));
            }),
            None => lines.retain(|line| !own(line)),
        }
        if !meant.contains_key(GATES) {
            lines.retain(|line| rest_of(line, GATES).is_none());
        }
    }
    checked(lines.join("\n") + "\n", &meant)
}

/// The line around the first `--container-runtime-endpoint` in it: before, the flag as it is written, behind. The kubelet takes `_` in a name
/// for `-`.
fn around_flag(line: &str) -> Option<(&str, &str, &str)> {
    let name = format!("--{ENDPOINT_FLAG}");
    // As long as the line, so that places in it are places in the line.
    let at = line.replace('_', "-").find(&name)?;
    let (before, from) = line.split_at_checked(at)?;
    let (flag, behind) = from.split_at_checked(name.len())?;
    Some((before, flag, behind))
}

/// The values of each `--container-runtime-endpoint` in a text, lines of comments left out.
pub fn flag_values(text: &str) -> Vec<String> {
    let mut values = Vec::new();
    for mut rest in text.lines().filter(|line| !line.trim_start().starts_with(['#', ';'])) {
        while let Some((.., behind)) = around_flag(rest) {
            rest = behind;
            let spaced = || behind.starts_with([' ', '\t']).then(|| behind.trim_start());
            let Some(value) = behind.strip_prefix('=').or_else(spaced) else { continue };
            let stop = value.find(|c: char| c.is_whitespace() || ['"', '\'', '\\'].contains(&c));
            values.push(value[..stop.unwrap_or(value.len())].to_owned());
        }
    }
    values
}

/// The text with each `--container-runtime-endpoint` in it naming another one. Lines of comments stay. `None` where there is none.
pub fn endpoint_flag(text: &str, endpoint: &str) -> Option<String> {
    let mut found = false;
    let lines = text.split_inclusive('\n').map(|line| {
        if line.trim_start().starts_with(['#', ';']) {
            return line.to_owned();
        }
        let (line, changed) = flag_in_line(line, endpoint);
        found |= changed;
        line
    });
    let text: String = lines.collect();
    found.then_some(text)
}

fn flag_in_line(line: &str, endpoint: &str) -> (String, bool) {
    let (mut done, mut rest, mut changed) = (String::new(), line, false);
    while let Some((before, flag, after)) = around_flag(rest) {
        done.push_str(before);
        done.push_str(flag);
        let separators = after.len() - after.trim_start_matches([' ', '\t']).len();
        let (separator, value) = match after.strip_prefix('=') {
            Some(value) => ("=", value),
            None if separators > 0 => after.split_at(separators),
            None => {
                rest = after;
                continue;
            }
        };
        let stop = value.find(|c: char| c.is_whitespace() || ['"', '\'', '\\'].contains(&c)).unwrap_or(value.len());
        done.push_str(separator);
        done.push_str(endpoint);
        (rest, changed) = (&value[stop..], true);
    }
    done.push_str(rest);
    (done, changed)
}

/// The command that counts of a unit and its drop-ins, in systemd's order. Continued lines are joined.
fn command(units: &[&str]) -> Option<String> {
    let mut command = None;
    for unit in units {
        let joined = unit.replace("\\\n", " ");
        for value in joined.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")) {
            command = (!value.trim().is_empty()).then(|| value.trim().to_owned());
        }
    }
    command
}

/// A systemd drop-in that starts the kubelet as the unit's files do, with another endpoint. `units` are the texts of the unit and its
/// drop-ins, in systemd's order. `None` where the command that counts does not have the flag.
pub fn unit_override(units: &[&str], endpoint: &str) -> Option<String> {
    let (command, changed) = flag_in_line(&command(units)?, endpoint);
    changed.then(|| {
        format!(
            "# Written by berth adopt; berth adopt return removes it.\n[Service]\nExecStart=\nExecStart={command}\n"
        )
    })
}

/// Whether a drop-in of [`unit_override`] starts the kubelet as these texts do now, but for the endpoint; how they are broken into lines does
/// not count.
pub fn is_override_of(drop_in: &str, units: &[&str], endpoint: &str) -> bool {
    let words = |command: String| command.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let now = command(units).map(|command| flag_in_line(&command, endpoint).0);
    now.map(words) == command(&[drop_in]).map(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish() -> Wish {
        Wish { endpoint: Some("unix:///run/berth/berth.sock".into()), gate: Some(STATS_GATE) }
    }

    #[test]
    fn whatever_is_written_is_read_as_text() {
        for text in ["-0", "12", "true", "null", "~", "0x1f", "1e3", "a: b", "- x", "unix:///run/a.sock", "unix:/a:"] {
            let written = drop_in(&Wish { endpoint: Some(text.to_owned()), gate: None });
            assert_eq!(yaml::fields(&written).unwrap()[ENDPOINT], text, "{written}");
        }
    }

    #[test]
    fn yaml_keeps_what_is_not_meant() {
        let text = "# node\napiVersion: v1\ncontainerRuntimeEndpoint: \"unix:///a\" # old\nfeatureGates:\n    # mine\n    A: false\nmaxPods: 5\n";
        let changed = configuration(text, &wish()).unwrap();
        assert_eq!(
            changed,
            "# node\napiVersion: v1\ncontainerRuntimeEndpoint: unix:///run/berth/berth.sock\nfeatureGates:\n    \
             PodAndContainerStatsFromCRI: true\n    # mine\n    A: false\nmaxPods: 5\n"
        );
        assert_eq!(configuration(&changed, &wish()).unwrap(), changed, "what is so already stays");
    }

    #[test]
    fn every_form_is_changed_or_refused() {
        for text in [
            "a: 1",
            "---\na: 1\n---\n",
            "a: 1\nfeatureGates: {}\n",
            "featureGates: {A: true} # x\na: 1\n",
            "featureGates:\n  PodAndContainerStatsFromCRI: false\n  B: true\n",
            "featureGates:\na: 1\n",
            "{\"a\": 1}",
            "{a: 1}\n",
        ] {
            let changed = configuration(text, &wish()).unwrap_or_else(|e| panic!("{text:?}: {e}"));
            let fields = yaml::fields(&changed).unwrap();
            assert_eq!(fields[ENDPOINT], "unix:///run/berth/berth.sock", "{changed}");
            assert_eq!(fields[GATES][STATS_GATE], true, "{changed}");
        }
        for bad in ["featureGates: &x\n  A: true\n", "? containerRuntimeEndpoint\n: unix:///a\n", "[]", ""] {
            assert!(configuration(bad, &wish()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn drop_ins_say_what_is_wished_for() {
        let fields = yaml::fields(&drop_in(&wish())).unwrap();
        let meant = json!({"apiVersion": API_VERSION, "kind": KIND, ENDPOINT: "unix:///run/berth/berth.sock", GATES: {STATS_GATE: true}});
        assert_eq!(Value::from(fields), meant);
    }

    #[test]
    fn flags_of_environment_files_are_changed_in_place() {
        let text =
            "# --container-runtime-endpoint=x\nKUBELET_KUBEADM_ARGS=\"--container-runtime-endpoint=unix:///a --v 2\"\n";
        let meant = text.replace("unix:///a", "unix:///b");
        assert_eq!(endpoint_flag(text, "unix:///b"), Some(meant));
        assert_eq!(
            endpoint_flag("A='--container-runtime-endpoint unix:///a'", "u").unwrap(),
            "A='--container-runtime-endpoint u'"
        );
        assert_eq!(endpoint_flag("A=--container-runtime-endpoint-x=1\n", "u"), None);
        assert_eq!(endpoint_flag("A=1\n", "u"), None);
    }

    #[test]
    fn the_command_that_counts_is_taken_over() {
        let unit = "[Service]\nExecStart=/usr/bin/kubelet \\\n  --container-runtime-endpoint=unix:///a \\\n  --v=2\n";
        let text = unit_override(&[unit, "[Unit]\nA=b\n"], "unix:///b").unwrap();
        assert!(
            text.ends_with(
                "ExecStart=\nExecStart=/usr/bin/kubelet    --container-runtime-endpoint=unix:///b    --v=2\n"
            ),
            "{text}"
        );
        assert_eq!(
            unit_override(&[unit, "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet $ARGS\n"], "unix:///b"),
            None
        );
    }

    #[test]
    fn an_override_of_another_command_is_known() {
        let unit = "[Service]\nExecStart=/usr/bin/kubelet --container-runtime-endpoint=unix:///a --v=2\n";
        let ours = unit_override(&[unit], "unix:///b").unwrap();
        let still = |units: &[&str]| is_override_of(&ours, units, "unix:///b");
        assert!(still(&[unit]) && still(&[&unit.replace(" --v", " \\\n    --v"), "[Unit]\nA=b\n"]));
        assert!(still(&[&unit.replace("unix:///a", "unix:///c")]), "the endpoint is ours to say");
        for other in ["--v=3", "--v=2 --config-dir=/etc/k.d", ""] {
            assert!(!still(&[&unit.replace("--v=2", other)]), "{other}");
        }
        assert!(!still(&[&unit.replace("/usr/bin/", "/opt/")]));
        assert!(!still(&[unit, "[Service]\nExecStart=\nExecStart=/usr/bin/kubelet $ARGS\n"]));
        assert!(!still(&["[Service]\n"]));
    }

    #[test]
    fn what_others_have_changed_since_gets_its_former_runtime() {
        let before = "containerRuntimeEndpoint: unix:///a\nmaxPods: 5\n";
        let ours = configuration(before, &wish()).unwrap();
        let former = Former::between(before, &yaml::fields(&ours).unwrap()).unwrap();
        assert_eq!(configuration_back(&ours, &former).unwrap(), before);
        let since = ours.replace("maxPods: 5", "# mine\nmaxPods: 9");
        assert_eq!(configuration_back(&since, &former).unwrap(), before.replace("maxPods: 5", "# mine\nmaxPods: 9"));
        // Written anew by somebody who does not know us, and one whose gates are others too.
        assert_eq!(configuration_back("maxPods: 7 # new\n", &former).unwrap(), "maxPods: 7 # new\n");
        let more = ours.replace("featureGates:\n", "featureGates:\n  A: true\n");
        assert!(configuration_back(&more, &former).unwrap().ends_with("featureGates:\n  A: true\n"));
        let json = "{\"containerRuntimeEndpoint\": \"unix:///run/berth/berth.sock\", \"a\": 1}";
        assert_eq!(yaml::fields(&configuration_back(json, &former).unwrap()).unwrap()[ENDPOINT], "unix:///a");

        let before = "featureGates:\n  PodAndContainerStatsFromCRI: false\n";
        let ours = configuration(before, &wish()).unwrap();
        let former = Former::between(before, &yaml::fields(&ours).unwrap()).unwrap();
        assert_eq!(configuration_back(&ours, &former).unwrap(), before);
        assert!(
            configuration_back(
                &ours.replace("featureGates:\n  ", "featureGates: {").replace(": true\n", ": true}\n"),
                &former
            )
            .is_err()
        );
    }

    #[test]
    fn flags_are_read_where_they_are_changed() {
        let text = "# --container-runtime-endpoint=x\nA=\"--container-runtime-endpoint=unix:///a --v 2\"\n--container-runtime-endpoint  unix:///b\n--container-runtime-endpoint-x=1";
        assert_eq!(flag_values(text), ["unix:///a", "unix:///b"]);
        let other = "A_B=\"--container_runtime_endpoint=unix:///a --container-runtime_endpoint unix:///b é\"\n";
        assert_eq!(flag_values(other), ["unix:///a", "unix:///b"]);
        let expected = "A_B=\"--container_runtime_endpoint=u --container-runtime_endpoint u é\"\n";
        assert_eq!(endpoint_flag(other, "u").as_deref(), Some(expected));
    }

    proptest! {
        #[test]
        fn any_text_comes_back_as_meant_or_is_refused(text in "[a-cA: {}#\\[\\]\"'\n-]{0,40}(featureGates:|containerRuntimeEndpoint:)?[ {}a:\n#-]{0,30}") {
            if let Ok(ours) = configuration(&text, &wish()) {
                let former = Former::between(&text, &yaml::fields(&ours).unwrap()).unwrap();
                if let Ok(back) = configuration_back(&ours, &former) {
                    let (back, before) = (yaml::fields(&back).unwrap(), yaml::fields(&text).unwrap());
                    prop_assert_eq!(back.get("a"), before.get("a"));
                    prop_assert!(back.get(ENDPOINT).is_none_or(|now| Some(now) == before.get(ENDPOINT)));
                }
            }
        }

        #[test]
        fn any_text_is_changed_as_meant_or_refused(text in "[a-cA: {}#\\[\\]\"'\n-]{0,40}(featureGates:|containerRuntimeEndpoint:)?[ {}a:\n#-]{0,30}") {
            if let Ok(changed) = configuration(&text, &wish()) {
                let fields = yaml::fields(&changed).unwrap();
                prop_assert_eq!(&fields[ENDPOINT], "unix:///run/berth/berth.sock");
                let mut before = yaml::fields(&text).unwrap();
                wish().apply(&mut before);
                prop_assert_eq!(fields, before);
            }
        }
    }
}
