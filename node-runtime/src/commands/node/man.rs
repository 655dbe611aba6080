//! `berth man DIR`: manual pages of all commands, made of the command line's own definition (man(7), groff_man(7)).
//!
//! Must not: know what a command does. What a page says is what `--help` says.
use anyhow::{Context, Result};
use clap::{Arg, Command};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// Where to.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  berth man /usr/share/man/man1     berth.1, berth-ps.1, berth-exec.1 ...")]
pub struct Options {
    /// Directory; made if missing
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

/// Writes them.
pub fn run(options: &Options, command: &Command) -> Result<()> {
    std::fs::create_dir_all(&options.directory).with_context(|| options.directory.display().to_string())?;
    write(command, "berth", None, &options.directory)
}

fn write(command: &Command, name: &str, parent: Option<&str>, directory: &Path) -> Result<()> {
    let path = directory.join(format!("{name}.1"));
    std::fs::write(&path, page(command, name, parent)).with_context(|| path.display().to_string())?;
    for sub in command.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        write(sub, &format!("{name}-{}", sub.get_name()), Some(name), directory)?;
    }
    Ok(())
}

/// One page.
fn page(command: &Command, name: &str, parent: Option<&str>) -> String {
    let mut out = String::new();
    let version = env!("CARGO_PKG_VERSION");
    let _ = writeln!(out, ".TH {} 1 \"\" \"berth {version}\" \"Berth\"", quoted(&name.to_uppercase()));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(out, ".SH NAME\n{} \\- {}", escaped(name), escaped(about.trim_end_matches('.')));
    let usage =
        command.clone().bin_name(name.replacen('-', " ", usize::from(parent.is_some()))).render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let _ = writeln!(out, ".SH SYNOPSIS\n.nf\n{}\n.fi", escaped(usage));
    if let Some(long) = command.get_long_about() {
        let _ = writeln!(out, ".SH DESCRIPTION\n{}", escaped(&long.to_string()));
    }
    let shown = |a: &&Arg| !a.is_hide_set();
    let arguments: Vec<&Arg> = command.get_positionals().filter(shown).collect();
    let options: Vec<&Arg> =
        command.get_opts().chain(command.get_arguments().filter(|a| flag(a))).filter(shown).collect();
    section(&mut out, "ARGUMENTS", &arguments);
    section(&mut out, "OPTIONS", &options);
    let subs: Vec<&Command> = command.get_subcommands().filter(|c| !c.is_hide_set()).collect();
    if !subs.is_empty() {
        out.push_str(".SH COMMANDS\n");
        for sub in subs {
            let about = sub.get_about().map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(
                out,
                ".TP\n\\fB{}\\fR(1)\n{}",
                escaped(&format!("{name}-{}", sub.get_name())),
                escaped(&about)
            );
        }
    }
    if let Some(text) = command.get_after_long_help() {
        let _ = writeln!(out, ".SH NOTES\n.nf\n{}\n.fi", escaped(&text.to_string()));
    }
    if let Some(parent) = parent {
        let _ = writeln!(out, ".SH SEE ALSO\n\\fB{}\\fR(1)", escaped(parent));
    }
    out
}

fn flag(arg: &Arg) -> bool {
    !arg.is_positional() && !arg.get_action().takes_values()
}

fn section(out: &mut String, title: &str, args: &[&Arg]) {
    if args.is_empty() {
        return;
    }
    let _ = writeln!(out, ".SH {title}");
    for arg in args {
        let mut names: Vec<String> = Vec::new();
        names.extend(arg.get_short().map(|c| format!("\\fB\\-{c}\\fR")));
        names.extend(arg.get_long().map(|l| format!("\\fB\\-\\-{}\\fR", escaped(l))));
        let values = arg.get_value_names().unwrap_or_default().join(" ");
        let values = if flag(arg) { String::new() } else { format!(" \\fI{}\\fR", escaped(&values)) };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let _ = writeln!(out, ".TP\n{}{values}\n{}", names.join(", "), escaped(&help));
        let possible: Vec<String> = arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect();
        if !possible.is_empty() && !flag(arg) {
            let _ = writeln!(out, "(one of: {})", escaped(&possible.join(", ")));
        }
    }
}

/// Text that roff takes for text: backslashes, dashes, and dots and quotes at the beginning of a line.
fn escaped(text: &str) -> String {
    let line = |line: &str| {
        let line = line.replace('\\', "\\e").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn every_command_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = crate::cli::Cli::command();
        command.build();
        let options = Options { directory: dir.path().join("man1") };
        run(&options, &command).unwrap();
        let page = |name: &str| std::fs::read_to_string(options.directory.join(name)).unwrap();
        let ps = page("berth-ps.1");
        assert!(
            ps.contains(".SH SYNOPSIS\n.nf\nberth ps") && ps.contains("\\fB\\-\\-filter\\fR \\fIKEY=VALUE\\fR"),
            "{ps}"
        );
        assert!(page("berth.1").contains("\\fBberth\\-exec\\fR(1)"));
        assert!(!options.directory.join("berth-streaming.1").exists());
        // Nothing is taken for a request that is none of ours.
        let known = [".TH", ".SH", ".TP", ".nf", ".fi"];
        for line in ps.lines().filter(|l| l.starts_with('.')) {
            assert!(known.iter().any(|k| line.starts_with(k)), "{line}");
        }
    }

    #[test]
    fn text_stays_text() {
        assert_eq!(escaped(".x\n'y\na\\b --c"), "\\&.x\n\\&'y\na\\eb \\-\\-c");
    }
}
