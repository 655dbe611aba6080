//! `berth doctor`: options, and findings for people and scripts. 0: nothing found; 1: findings; 2: the doctor itself failed.
use crate::commands::output::{self, Document, Format};
use crate::doctor::finding::{Finding, Severity, checks};
use crate::doctor::{checks as judge, gather};
use crate::layout::Layout;
use anyhow::{Result, bail};
use serde::Serialize;

/// Exit code of a doctor that could not look.
pub const FAILED: u8 = 2;
/// Exit code where something was found that is more than worth knowing.
const FOUND: u8 = 1;

/// What to look at.
#[derive(clap::Args)]
#[command(after_long_help = "Checks:
  daemon documents image-pulls starts disk memory pids files addresses network kernel cgroups kubelet leftovers

Examples:
  berth doctor                     all of them
  berth doctor disk network        these two
  berth doctor --fix-hints         only the commands that mend
  berth doctor -o json | jq -r '.findings[].id'

Exit codes: 0 nothing is wrong, 1 there are findings (warnings or errors), 2 the doctor itself failed.
It works without a running daemon, and changes nothing.

Fields of -o json and -o yaml:
  checks findings
  findings: id check severity (error warning info) what why fix")]
pub struct Options {
    /// Checks to run; all, if none is named
    #[arg(value_name = "CHECK")]
    checks: Vec<String>,
    /// Show only what to do, one line for each finding
    #[arg(long)]
    fix_hints: bool,
    /// Look at the kubelet with this process id only
    #[arg(long, value_name = "PID")]
    kubelet: Option<u32>,
    /// How to show it
    #[arg(short, long, value_enum, value_name = "FORMAT", default_value_t)]
    output: Format,
}

#[derive(Serialize)]
struct Report {
    checks: Vec<String>,
    findings: Vec<Finding>,
}

/// Looks, judges, tells. Gives the exit code.
pub async fn run(layout: &Layout, options: &Options) -> Result<u8> {
    let known = checks();
    if let Some(unknown) = options.checks.iter().find(|c| !known.contains(&c.as_str())) {
        bail!("{unknown:?} is not a check; known are {}", known.join(" "));
    }
    if let Some(pid) = options.kubelet
        && !std::path::Path::new(&format!("/proc/{pid}")).exists()
    {
        bail!("--kubelet {pid}: there is no such process");
    }
    let facts = gather::gather(layout, options.kubelet).await;
    let findings = judge::run(&facts, &options.checks);
    let ran = if options.checks.is_empty() {
        known.iter().map(|c| (*c).to_owned()).collect()
    } else {
        options.checks.clone()
    };
    let code = if findings.iter().any(|f| f.severity > Severity::Info) { FOUND } else { 0 };
    let report = Report { checks: ran, findings };
    match options.output {
        Format::Json => output::document(&report, Document::Json)?,
        Format::Yaml => output::document(&report, Document::Yaml)?,
        Format::Table | Format::Wide if options.fix_hints => output::bytes(hints(&report).as_bytes())?,
        Format::Table | Format::Wide => output::bytes(text(&report, output::colours()).as_bytes())?,
    }
    Ok(code)
}

fn text(report: &Report, colours: bool) -> String {
    let mut text = String::new();
    for f in &report.findings {
        let word = format!("{:<8}", f.severity.as_str());
        let word = match f.severity {
            Severity::Error if colours => format!("\u{1b}[31m{word}\u{1b}[0m"),
            Severity::Warning if colours => format!("\u{1b}[33m{word}\u{1b}[0m"),
            _ => word,
        };
        let (what, fix) = (one_line(&f.what), one_line(&f.fix));
        text.push_str(&format!("{word} {}: {what}\n         why: {}\n         do:  {fix}\n", f.id, f.why));
    }
    let count = |severity| report.findings.iter().filter(|f| f.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    text.push_str(&match (errors, warnings) {
        (0, 0) => format!("Nothing is wrong ({} checks).\n", report.checks.len()),
        _ => format!("{errors} errors, {warnings} warnings ({} checks).\n", report.checks.len()),
    });
    text
}

fn hints(report: &Report) -> String {
    let worth = report.findings.iter().filter(|f| f.severity > Severity::Info);
    worth.map(|f| format!("{}: {}\n", f.id, one_line(&f.fix))).collect()
}

/// What comes from outside must not forge lines or drive the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::{DISK_FULL, LSM_INFO};

    #[test]
    fn findings_are_told_with_why_and_what_to_do() {
        let findings = vec![DISK_FULL.found("/x\n\u{1b}[2J is full", "df -h"), LSM_INFO.found("apparmor", "nothing")];
        let report = Report { checks: vec!["disk".into()], findings };
        let plain = text(&report, false);
        assert!(plain.starts_with("error    disk-full: /x  [2J is full\n         why: pulls"), "{plain}");
        assert!(plain.ends_with("1 errors, 0 warnings (1 checks).\n"), "{plain}");
        assert!(text(&report, true).contains("\u{1b}[31merror"));
        assert_eq!(hints(&report), "disk-full: df -h\n");
        let fine = Report { checks: vec!["disk".into()], findings: Vec::new() };
        assert_eq!(text(&fine, false), "Nothing is wrong (1 checks).\n");
    }

    #[test]
    fn the_help_names_all_checks() {
        let mut help = <Options as clap::Args>::augment_args(clap::Command::new("doctor"));
        let help = help.render_long_help().to_string();
        for check in checks() {
            assert!(help.contains(check), "{check} is not in the help");
        }
    }
}
