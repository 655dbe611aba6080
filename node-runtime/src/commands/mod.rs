//! The node's command line: everything of `berth` but the daemon. Talks to a running daemon over its two sockets.
//!
//! Must not: do what the daemon does. What is left to it is reading files for people: Pods, and containers' logs.
pub mod connect;
pub mod containers;
pub mod images;
pub mod listing;
pub mod names;
pub mod node;
pub mod output;
mod phases;
pub mod pods;
pub mod table;
pub mod terminal;
pub mod time;
pub mod yaml;

pub use containers::session::NOT_RUN;
use containers::{attach, cp, exec, kill, logs, ps, restart, rm, stats, stop, top, update, wait};
use images::{login, pull};
use node::{complete, completion, config, doctor, events, explain, info, inspect, man, version};
use pods::run;

use crate::layout::Layout;
use anyhow::{Context, Result};
use clap::Subcommand;
use std::path::Path;
use std::process::ExitCode;

/// Exit code where the reader of our output has gone: that of a program that SIGPIPE ends.
const READER_GONE: u8 = 128 + 13;

/// What a person can ask of a node.
#[derive(Subcommand)]
pub enum Command {
    /// Run an image, or Pods from YAML files
    Run(Box<run::Options>),
    /// List containers
    Ps(ps::Options),
    /// List pods
    Pods(pods::list::Options),
    /// List images
    Images(images::list::Options),
    /// Pull an image
    Pull(pull::Options),
    /// Log in to a registry
    Login(login::Options),
    /// Log out of a registry
    Logout(login::Logout),
    /// Push an image
    Push(images::push::Options),
    /// Handle images: import and export, names, history
    #[command(subcommand)]
    Image(images::image::Command),
    /// Remove names of images, and images with their last one
    Rmi(images::rmi::Options),
    /// Give an image a further name
    Tag(images::rmi::TagOptions),
    /// Show how an image came to be
    History(images::history::Options),
    /// Take in the images of an archive, as `image import`
    Load(images::archive::ImportOptions),
    /// Write images into an archive, as `image export`
    Save(images::archive::ExportOptions),
    /// Show what takes the disk
    Df(images::df::Options),
    /// Remove images that nobody uses
    Prune(images::prune::Options),
    /// Show what a container has written
    Logs(logs::Options),
    /// Run a command in a container
    Exec(exec::Options),
    /// Connect to the first process of a container
    Attach(attach::Options),
    /// Wait until containers have ended, and print their exit codes
    Wait(wait::Options),
    /// Start containers that do not run
    Start(restart::Start),
    /// Stop containers and start them again
    Restart(restart::Restart),
    /// Send a signal to containers
    Kill(kill::Options),
    /// Change limits of running containers
    Update(update::Options),
    /// Copy files between a container and the node
    Cp(cp::Options),
    /// Forward ports of the node to a pod
    PortForward(pods::port_forward::Options),
    /// Show what containers use
    Stats(stats::Options),
    /// Show processes of a pod or a container
    Top(top::Options),
    /// Show what happens on the node
    Events(events::Options),
    /// Stop pods and containers
    Stop(stop::Options),
    /// Remove pods and containers
    Rm(rm::Options),
    /// Show all that is known of a pod, a container or an image
    Inspect(inspect::Options),
    /// Show, explain, compare and check the settings
    Config(config::Options),
    /// Show the daemon's facts and figures
    Info(info::Options),
    /// Look for what is wrong with this node, and say what to do
    Doctor(doctor::Options),
    /// Show where the time of a start went
    Explain(explain::Options),
    /// Show versions
    Version(version::Options),
    /// Write a completion script for a shell
    Completion(completion::Options),
    /// Write manual pages
    Man(man::Options),
    /// What could follow on a command line
    #[command(name = "__complete", hide = true)]
    Complete(complete::Options),
}

/// Does it: 0, 1 for an error, or the exit code of the command that was run in a container.
pub fn run(root: Option<&Path>, command: Command) -> ExitCode {
    // As docker has it where the container's own code is the answer.
    let of_container = match &command {
        Command::Exec(_) | Command::Attach(_) | Command::Wait(_) => true,
        Command::Run(options) => options.of_image(),
        _ => false,
    };
    let failed = match command {
        _ if of_container => NOT_RUN,
        Command::Doctor(_) => doctor::FAILED,
        _ => 1,
    };
    match start(root, command) {
        Ok(code) => ExitCode::from(code),
        Err(e) if e.downcast_ref::<output::ReaderGone>().is_some() => ExitCode::from(READER_GONE),
        Err(e) => {
            eprintln!("berth: {e:#}");
            ExitCode::from(failed)
        }
    }
}

fn start(root: Option<&Path>, command: Command) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("async runtime")?;
    let done = runtime.block_on(dispatch(Layout::existing(root), command));
    // A thread that waits for somebody to type is not waited for.
    runtime.shutdown_background();
    done
}

async fn dispatch(layout: Result<Layout>, command: Command) -> Result<u8> {
    let done = match command {
        Command::Completion(options) => completion::run(&options),
        Command::Man(options) => man::run(&options, &whole()),
        Command::Complete(options) => complete::run(&options, &whole()).await,
        Command::Version(options) => version::run(layout, &options).await,
        Command::Config(options) => return config::run(layout, &options).await,
        Command::Doctor(options) => return doctor::run(&layout?, &options).await,
        Command::Explain(options) => explain::run(&layout?, &options).await,
        Command::Exec(options) => return exec::run(&layout?, options).await,
        Command::Attach(options) => return attach::run(&layout?, &options).await,
        Command::Wait(options) => return wait::run(&layout?, &options).await,
        Command::Start(options) => return restart::start(&layout?, &options).await,
        Command::Restart(options) => return restart::restart(&layout?, &options).await,
        Command::Kill(options) => return kill::run(&layout?, &options).await,
        Command::Update(options) => return update::run(&layout?, &options).await,
        Command::Stats(options) => stats::run(&layout?, &options).await,
        Command::Cp(options) => cp::run(&layout?, &options).await,
        Command::PortForward(options) => pods::port_forward::run(&layout?, &options).await,
        Command::Top(options) => top::run(&layout?, &options).await,
        Command::Events(options) => events::run(&layout?, &options).await,
        Command::Run(options) => return run::run(&layout?, &options).await,
        Command::Ps(options) => ps::run(&layout?, &options).await,
        Command::Pods(options) => pods::list::run(&layout?, &options).await,
        Command::Images(options) => images::list::run(&layout?, &options).await,
        Command::Pull(options) => pull::run(&layout?, &options).await,
        Command::Login(options) => login::login(&layout?, &options).await,
        Command::Logout(options) => login::logout(&layout?, &options).await,
        Command::Push(options) => images::push::run(&layout?, &options).await,
        Command::Image(command) => images::image::run(&layout?, &command).await,
        Command::Rmi(options) => images::rmi::run(&layout?, &options).await,
        Command::Tag(options) => images::rmi::tag(&layout?, &options).await,
        Command::History(options) => images::history::run(&layout?, &options).await,
        Command::Load(options) => images::archive::import(&layout?, &options).await,
        Command::Save(options) => images::archive::export(&layout?, &options).await,
        Command::Df(options) => images::df::run(&layout?, &options).await,
        Command::Prune(options) => images::prune::run(&layout?, &options).await,
        Command::Logs(options) => logs::run(&layout?, &options).await,
        Command::Stop(options) => stop::run(&layout?, &options).await,
        Command::Rm(options) => rm::run(&layout?, &options).await,
        Command::Inspect(options) => inspect::run(&layout?, &options).await,
        Command::Info(options) => info::run(&layout?, &options).await,
    };
    done.map(|()| 0)
}

/// The whole command line, as it is defined.
fn whole() -> clap::Command {
    let mut command = <crate::cli::Cli as clap::CommandFactory>::command();
    command.build();
    command
}
