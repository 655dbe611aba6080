//! `kubectl berth`: what Berth is doing in a cluster, and steering its rollouts. Owns: the command line.
//! Must not: decide anything that the operator decides. It reads its statuses, and writes what a person could write.
#![forbid(unsafe_code)]

mod cluster;
mod complete;
mod explain;
mod nodes;
mod output;
mod rollout;
mod status;

use anyhow::Result;
use clap::{CommandFactory, Parser, Subcommand};
use cluster::Cluster;
use output::Format;
use std::path::PathBuf;
use std::process::ExitCode;

/// What Berth is doing in a cluster, and steering its rollouts.
#[derive(Debug, Parser)]
#[command(name = "kubectl berth", bin_name = "kubectl berth", version, propagate_version = true)]
struct Args {
    /// Context of the kubeconfig
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,
    /// Path of the kubeconfig
    #[arg(long, global = true, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// RuntimeConfigs and ImagePolicies: how far each is, and what is wrong
    Status(Output),
    /// Nodes: what each is to have, what it has, and what its agent is at
    Nodes(Output),
    /// Looks at a rollout and steers it
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Where what is in force on a node comes from
    #[command(subcommand)]
    Explain(Explain),
    /// Writes the completion of a shell
    #[command(
        after_long_help = "kubectl completes `kubectl berth` itself where a link named kubectl_complete-berth leads to this program;
for the program itself: kubectl berth completion bash > /etc/bash_completion.d/kubectl-berth"
    )]
    Completion {
        /// Which
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Subcommand)]
enum Explain {
    /// Each effective field of a node, with its value and the RuntimeConfig that it comes from
    Node {
        /// Name of the node
        name: String,
        /// Only what a RuntimeConfig says, without defaults
        #[arg(long)]
        set: bool,
        #[command(flatten)]
        output: Output,
    },
}

/// How the answer is written.
#[derive(Debug, Clone, Copy, clap::Args)]
struct Output {
    /// As a document for programs
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
}

fn main() -> ExitCode {
    if let Some(words) = complete::answer(Args::command(), std::env::args()) {
        output::text(&words);
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    // Of all that is linked, only this provider is meant; it is there already where somebody else was first.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(args))) {
        Ok(code) => code,
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<ExitCode> {
    if let Command::Completion { shell } = args.command {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut Args::command(), "kubectl-berth", &mut text);
        output::text(&String::from_utf8_lossy(&text));
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = Cluster::of(args.kubeconfig.as_deref(), args.context).await?;
    match args.command {
        Command::Status(Output { output }) => status::run(&cluster, output).await?,
        Command::Nodes(Output { output }) => nodes::run(&cluster, output).await?,
        Command::Rollout(command) => return rollout::run(&cluster, command).await,
        Command::Explain(Explain::Node { name, set, output }) => {
            explain::run(&cluster, &name, set, output.output).await?
        }
        Command::Completion { .. } => {}
    }
    Ok(ExitCode::SUCCESS)
}
