//! Programs of others that steps run: with a time limit, and their last words where they fail.
use crate::adopt::record::directory;
use crate::layout::Layout;
use crate::node_files;
use anyhow::{Context, Result, anyhow, bail};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How often it is looked whether it has ended.
const PAUSE: Duration = Duration::from_millis(10);
/// Most of its words that are told.
const WORDS: usize = 600;
/// Most that is read of what it has written.
const MAX_OUTPUT: u64 = 1 << 20;

/// Runs it, and waits until it has ended. Its output goes to a file, which what it starts may keep. Errors: it cannot be run, fails, or takes
/// too long.
pub(super) async fn run(layout: &Layout, words: &[String], limit: Duration) -> Result<()> {
    let (program, arguments) = words.split_first().ok_or_else(|| anyhow!("no command is given"))?;
    let shown = words.join(" ");
    let output = directory(layout).join("command.out");
    let file = File::create(&output).with_context(|| output.display().to_string())?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).process_group(0);
    let mut child = command.spawn().with_context(|| shown.clone())?;
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().with_context(|| shown.clone())? {
            if status.success() {
                return Ok(());
            }
            let said = node_files::contents(&output, MAX_OUTPUT).unwrap_or_default();
            let said: String = said.chars().rev().take(WORDS).collect::<Vec<_>>().into_iter().rev().collect();
            bail!("{shown}: {status}: {}", said.trim());
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{shown}: has not ended after {} s", limit.as_secs());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The same for words in place.
pub(super) async fn systemctl(layout: &Layout, arguments: &[&str]) -> Result<()> {
    let words: Vec<String> = std::iter::once("systemctl").chain(arguments.iter().copied()).map(str::to_owned).collect();
    run(layout, &words, Duration::from_secs(90)).await
}
