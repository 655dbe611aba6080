//! Words for kubectl's own completion, which runs a plugin `kubectl-NAME` under the name `kubectl_complete-NAME`, with what was typed: pure.
//! The form is cobra's (its `__complete`): a word a line, after a tab what it is, and a number that says what the shell may add.
//!
//! Must not: ask a cluster; who types waits for it.
use clap::Command;
use std::path::Path;

/// The name under which it is run.
const NAME: &str = "kubectl_complete-berth";
/// The shell adds no files (cobra's `ShellCompDirectiveNoFileComp`).
const NO_FILES: &str = ":4";

/// The answer, if this program runs under that name.
pub fn answer(command: Command, mut words: impl Iterator<Item = String>) -> Option<String> {
    let program = words.next()?;
    (Path::new(&program).file_name()?.to_str()? == NAME).then(|| {
        let typed: Vec<String> = words.collect();
        candidates(command, &typed).into_iter().map(|line| line + "\n").collect::<String>() + NO_FILES + "\n"
    })
}

/// What may stand in the place of the last word.
fn candidates(mut command: Command, typed: &[String]) -> Vec<String> {
    // Options of all commands reach those below.
    command.build();
    let (last, before) = typed.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    let at = before.iter().fold(&command, |at, word| at.find_subcommand(word).unwrap_or(at));
    let option = before.last().and_then(|word| {
        at.get_arguments().find(|a| {
            let short = a.get_short().map(|short| format!("-{short}"));
            a.get_long().map(|long| format!("--{long}")).as_ref() == Some(word) || short.as_ref() == Some(word)
        })
    });
    let values = option.filter(|a| a.get_action().takes_values());
    let words: Vec<(String, String)> = if let Some(option) = values {
        let described = |value: &clap::builder::PossibleValue| value.get_help().map(ToString::to_string);
        option
            .get_possible_values()
            .iter()
            .map(|v| (v.get_name().to_owned(), described(v).unwrap_or_default()))
            .collect()
    } else if last.starts_with('-') {
        let told = |a: &clap::Arg| a.get_help().map(ToString::to_string).unwrap_or_default();
        at.get_arguments().filter_map(|a| Some((format!("--{}", a.get_long()?), told(a)))).collect()
    } else {
        let told = |c: &Command| c.get_about().map(ToString::to_string).unwrap_or_default();
        at.get_subcommands().filter(|c| !c.is_hide_set()).map(|c| (c.get_name().to_owned(), told(c))).collect()
    };
    let fitting = words.into_iter().filter(|(word, _)| word.starts_with(last));
    fitting.map(|(word, told)| format!("{word}\t{}", told.lines().next().unwrap_or_default())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn after(words: &[&str]) -> Vec<String> {
        let typed: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let lines = candidates(crate::Args::command(), &typed);
        lines.iter().map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn words_are_completed_where_they_stand() {
        assert_eq!(after(&["sta"]), ["status"]);
        assert!(["pause", "resume", "undo"].iter().all(|word| after(&["rollout", ""]).contains(&(*word).to_owned())));
        assert_eq!(after(&["rollout", "pa"]), ["pause"]);
        assert_eq!(after(&["nodes", "--out"]), ["--output"]);
        assert_eq!(after(&["nodes", "--kubec"]), ["--kubeconfig"], "an option of all commands");
        assert_eq!(after(&["nodes", "-o", "j"]), ["json"]);
        assert_eq!(after(&["explain", "node", "n"]), [""; 0]);
        assert!(after(&[]).contains(&"explain".to_owned()));
    }

    #[test]
    fn it_answers_under_kubectls_name_alone() {
        let words = |program: &str| answer(crate::Args::command(), [program, "sta"].map(str::to_owned).into_iter());
        assert_eq!(words("/usr/bin/kubectl-berth"), None);
        let told = words("/usr/bin/kubectl_complete-berth").unwrap_or_default();
        assert!(told.starts_with("status\tRuntimeConfigs") && told.ends_with("\n:4\n"), "{told}");
    }
}
