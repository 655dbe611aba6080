//! The command line: what there is to say to `berth`.
use crate::commands::output::{self, Colour};
use crate::layout::Layout;
use crate::{adopt, commands, serve, streaming, supervise};
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// Container runtime of a Kubernetes node: daemon and command line.
#[derive(Parser)]
#[command(name = "berth", version, max_term_width = 100)]
pub struct Cli {
    /// Keep everything under DIR instead of /etc/berth, /var/lib/berth and /run/berth; names the daemon to talk to.
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,

    /// When words have colours
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t)]
    pub color: Colour,

    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Run the daemon: CRI on berth.sock, the node API on node.sock, metrics over HTTP.
    Serve(serve::Options),
    /// Serve the sessions of a daemon; it starts this by itself.
    #[command(hide = true)]
    Streaming(streaming::Options),
    /// Keep the daemon running on a node without a service manager.
    Supervise(supervise::Options),
    /// Take this node over from another container runtime, or give it back.
    Adopt(adopt::Options),
    #[command(flatten)]
    Node(commands::Command),
}

/// Does it.
pub fn run(cli: Cli) -> ExitCode {
    output::set_colour(cli.color);
    let root = cli.root.as_deref();
    let done = match cli.command {
        Command::Serve(options) => Layout::new(root).and_then(|layout| serve::run(&layout, &options)),
        Command::Streaming(options) => streaming::run(options),
        Command::Supervise(options) => Layout::new(root).and_then(|layout| supervise::run(&layout, &options)),
        Command::Adopt(options) => match Layout::new(root).and_then(|layout| adopt::run(&layout, options)) {
            Ok(code) => return ExitCode::from(code),
            Err(e) => Err(e),
        },
        Command::Node(command) => return commands::run(root, command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("berth: {e:#}");
            ExitCode::FAILURE
        }
    }
}

/// Says what is wrong with the command line. Where the exit code of a container is the answer, 125 is Berth's own, as docker has
/// it; else it is 2.
pub fn refuse(error: &clap::Error) -> ExitCode {
    let _ = error.print();
    if !error.use_stderr() {
        return ExitCode::SUCCESS;
    }
    let of_container = |word: &str| matches!(word, "exec" | "run" | "attach" | "wait");
    let command = std::env::args().skip(1).find(|word| !word.starts_with('-'));
    if command.is_some_and(|word| of_container(&word)) { ExitCode::from(commands::NOT_RUN) } else { ExitCode::from(2) }
}
