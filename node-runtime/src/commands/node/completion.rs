//! `berth completion`.
use crate::commands::output;
use anyhow::Result;
use clap::CommandFactory;
use clap_complete::{Shell, generate};

/// For which shell.
#[derive(clap::Args)]
#[command(after_long_help = "Examples:
  source <(berth completion bash)
  berth completion zsh > \"${fpath[1]}/_berth\"
  berth completion fish > ~/.config/fish/completions/berth.fish")]
pub struct Options {
    /// Shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script.
pub fn run(options: &Options) -> Result<()> {
    let mut script = Vec::new();
    generate(options.shell, &mut crate::cli::Cli::command(), "berth", &mut script);
    output::bytes(&script)
}
