//! `berth __complete`: what could follow on a command line, for the scripts of `berth completion`. Commands, options and their
//! values come from the command line's own definition; names of pods, containers and images from the daemon.
use crate::commands::listing;
use crate::commands::{connect, output};
use crate::doctor::finding::checks;
use crate::layout::Layout;
use anyhow::Result;
use berth_proto::cri as wire;
use berth_settings::descriptions;
use clap::{Arg, Command};
use std::path::PathBuf;
use std::time::Duration;

/// A daemon that does not answer must not hold up a shell.
const LIMIT: Duration = Duration::from_secs(2);
/// Names that are offered at most.
const MAX_NAMES: usize = 1000;

/// The words so far.
#[derive(clap::Args)]
pub struct Options {
    /// All words after `berth`, the one that is being typed last
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// What is to be offered.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// These, with what they are.
    Words(Vec<(String, String)>),
    /// Names of pods and containers.
    Names { pods: bool, containers: bool },
    /// Names of containers in their pods.
    Inside,
    /// One end of a copy: a container with a colon, or a path.
    Ends,
    /// References of images.
    Images,
    /// Paths: the shell knows them.
    Files,
}

/// Prints candidates, one a line, each with a tab and what it is; a line `:files` asks the shell for paths.
pub async fn run(options: &Options, command: &Command) -> Result<()> {
    let (typed, before) = options.words.split_last().map_or(("", [].as_slice()), |(last, rest)| (last.as_str(), rest));
    let root = root_of(before);
    match wanted(command, before, typed) {
        Wanted::Files => output::line(":files"),
        Wanted::Words(words) => {
            let fits = words.into_iter().filter(|(word, _)| word.starts_with(typed));
            fits.into_iter().try_for_each(|(word, what)| output::line(format_args!("{word}\t{what}")))
        }
        Wanted::Names { pods, containers } => {
            let found = tokio::time::timeout(LIMIT, names(root, pods, containers)).await;
            offer(typed, found.ok().and_then(Result::ok).unwrap_or_default())
        }
        Wanted::Inside => {
            let found = tokio::time::timeout(LIMIT, names(root, false, true)).await;
            let found = found.ok().and_then(Result::ok).unwrap_or_default().into_iter();
            let inside = found.filter_map(|(name, what)| Some((name.rsplit_once('/')?.1.to_owned(), what)));
            offer(typed, inside.collect())
        }
        Wanted::Ends => {
            let found = tokio::time::timeout(LIMIT, names(root, true, true)).await;
            let found = found.ok().and_then(Result::ok).unwrap_or_default().into_iter();
            offer(typed, found.map(|(name, what)| (format!("{name}:"), what)).collect())?;
            output::line(":files")
        }
        Wanted::Images => {
            let found = tokio::time::timeout(LIMIT, images(root)).await;
            offer(typed, found.ok().and_then(Result::ok).unwrap_or_default())
        }
    }
}

fn offer(typed: &str, mut names: Vec<(String, String)>) -> Result<()> {
    names.sort();
    names.dedup_by(|a, b| a.0 == b.0);
    let fits = names.iter().filter(|(name, _)| name.starts_with(typed)).take(MAX_NAMES);
    fits.into_iter().try_for_each(|(name, what)| output::line(format_args!("{name}\t{what}")))
}

/// `--root DIR` of the line that is typed.
fn root_of(words: &[String]) -> Option<PathBuf> {
    let at = words.iter().position(|word| word == "--root" || word.starts_with("--root="))?;
    let value = words[at].strip_prefix("--root=").or_else(|| words.get(at + 1).map(String::as_str));
    value.map(PathBuf::from)
}

/// Decides by the words before the one that is typed. Pure.
fn wanted(command: &Command, before: &[String], typed: &str) -> Wanted {
    let mut at = command;
    let (mut positional, mut value_of, mut free) = (0, None::<&Arg>, false);
    for word in before {
        if value_of.take().is_some() || free {
            positional += usize::from(free);
            continue;
        }
        match word.as_str() {
            "--" => free = true,
            word if word.starts_with('-') && word.len() > 1 => value_of = option(at, command, word),
            word => match at.find_subcommand(word).filter(|_| positional == 0) {
                Some(found) => at = found,
                None => positional += 1,
            },
        }
    }
    if let Some(arg) = value_of {
        return value(arg, typed);
    }
    if typed.starts_with('-') && !free {
        let options = at.get_arguments().chain(command.get_arguments().filter(|a| a.is_global_set()));
        let long = |a: &Arg| Some((format!("--{}", a.get_long().filter(|_| !a.is_hide_set())?), help(a.get_help())));
        return Wanted::Words(options.filter_map(long).collect());
    }
    if at.has_subcommands() {
        let shown = at.get_subcommands().filter(|c| !c.is_hide_set());
        return Wanted::Words(shown.map(|c| (c.get_name().to_owned(), help(c.get_about()))).collect());
    }
    let mut positionals = at.get_positionals();
    let last = at.get_positionals().last();
    match positionals.nth(positional).or(last.filter(|a| a.get_num_args().is_some_and(|n| n.max_values() > 1))) {
        Some(arg) => value(arg, typed),
        None => Wanted::Files,
    }
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(|t| t.to_string().lines().next().unwrap_or_default().to_owned()).unwrap_or_default()
}

/// The option that a word is, if its value comes next.
fn option<'c>(at: &'c Command, root: &'c Command, word: &str) -> Option<&'c Arg> {
    let takes = |a: &&Arg| a.get_action().takes_values();
    let mut all = at.get_arguments().chain(root.get_arguments());
    match word.strip_prefix("--") {
        Some(long) if long.contains('=') => None,
        Some(long) => all.find(|a| a.get_long() == Some(long)).filter(takes),
        // Of joined letters the last one may have a value to come.
        None => {
            let last = word.chars().last()?;
            all.find(|a| a.get_short() == Some(last)).filter(takes)
        }
    }
}

fn value(arg: &Arg, typed: &str) -> Wanted {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        return Wanted::Words(possible.iter().map(|v| (v.get_name().to_owned(), help(v.get_help()))).collect());
    }
    let name = arg.get_value_names().and_then(<[_]>::first).map_or("", |n| n.as_str());
    match name {
        "CONTAINER|POD" | "POD|CONTAINER" | "NAME" if arg.is_positional() => {
            Wanted::Names { pods: true, containers: true }
        }
        "NAME" if arg.get_long() == Some("container") => Wanted::Inside,
        "SOURCE" | "DESTINATION" => Wanted::Ends,
        "FIELD" => Wanted::Words(fields(typed)),
        "CHECK" => Wanted::Words(checks().into_iter().map(|c| (c.to_owned(), String::new())).collect()),
        "POD" => Wanted::Names { pods: true, containers: false },
        "IMAGE" | "REFERENCE" | "TARGET" => Wanted::Images,
        _ => Wanted::Files,
    }
}

/// Paths of settings, as they are being typed: with `spec.` or without.
fn fields(typed: &str) -> Vec<(String, String)> {
    let whole = typed.starts_with("spec");
    let path = |path: String| if whole { path } else { path.strip_prefix("spec.").unwrap_or(&path).to_owned() };
    let first = |text: &str| text.split(". ").next().unwrap_or_default().trim_end_matches('.').replace('\n', " ");
    descriptions().into_iter().map(|d| (path(d.path), first(&d.text))).collect()
}

async fn names(root: Option<PathBuf>, pods: bool, containers: bool) -> Result<Vec<(String, String)>> {
    let (mut runtime, _) = connect::cri(&Layout::existing(root.as_deref())?).await?;
    let listed = listing::list(&mut runtime).await?;
    let mut names = Vec::new();
    for pod in listed {
        if pods {
            names.push((pod.name.clone(), format!("pod in {}", pod.namespace)));
        }
        if containers {
            let inside = pod.containers.iter();
            names.extend(
                inside.map(|c| (format!("{}/{}", pod.name, c.name), format!("container, {}", c.state.to_lowercase()))),
            );
        }
    }
    Ok(names)
}

async fn images(root: Option<PathBuf>) -> Result<Vec<(String, String)>> {
    let (_, mut images) = connect::cri(&Layout::existing(root.as_deref())?).await?;
    let listed = images.list_images(wire::ListImagesRequest::default()).await?.into_inner().images;
    Ok(listed.into_iter().flat_map(|image| image.repo_tags).map(|tag| (tag, "image".to_owned())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn offered(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let (typed, before) = words.split_last().unwrap();
        wanted(&crate::cli::Cli::command(), before, typed)
    }

    fn words(line: &str) -> Vec<String> {
        match offered(line) {
            Wanted::Words(words) => words.into_iter().map(|(word, _)| word).collect(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_could_follow_is_known() {
        assert!(words("").contains(&"ps".to_owned()) && !words("").contains(&"__complete".to_owned()));
        assert!(words("ps --").contains(&"--no-trunc".to_owned()));
        assert!(words("ps --").contains(&"--root".to_owned()), "global options");
        assert!(words("ps -o ").contains(&"wide".to_owned()));
        assert!(words("--color ").contains(&"never".to_owned()));
        let both = Wanted::Names { pods: true, containers: true };
        for line in ["exec ", "exec -it ", "exec -e A=1 ", "stop ", "stop a ", "--root /x logs ", "exec -c x "] {
            assert_eq!(offered(line), both, "{line}");
        }
        assert_eq!(offered("exec web "), Wanted::Files);
        assert_eq!(offered("port-forward "), Wanted::Names { pods: true, containers: false });
        assert_eq!(offered("run -f "), Wanted::Files);
        for line in
            ["run -it ", "rmi ", "rmi a ", "image rm ", "push ", "tag a ", "history -q ", "save -o f ", "image export "]
        {
            assert_eq!(offered(line), Wanted::Images, "{line}");
        }
        assert!(words("config explain ").contains(&"runtime.pidsLimit".to_owned()));
        assert!(words("config explain spec.r").contains(&"spec.registries[].mirrors[].url".to_owned()));
        assert!(words("doctor ").contains(&"image-pulls".to_owned()));
        assert_eq!(offered("exec -c "), Wanted::Inside);
        assert_eq!((offered("cp "), offered("cp a ")), (Wanted::Ends, Wanted::Ends));
        assert_eq!(offered("config import-hosts "), Wanted::Files);
        for line in ["inspect ", "wait a ", "stats ", "top ", "attach ", "restart ", "kill -s TERM ", "explain start "]
        {
            assert_eq!(offered(line), both, "{line}");
        }
        assert_eq!(offered("load -i "), Wanted::Files);
        assert!(words("image ").contains(&"import".to_owned()));
        assert_eq!(root_of(&["--root=/x".to_owned()]), Some("/x".into()));
        assert_eq!(root_of(&["ps".to_owned(), "--root".to_owned(), "/y".to_owned()]), Some("/y".into()));
    }
}
