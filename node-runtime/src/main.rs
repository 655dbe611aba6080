//! `berth`: the daemon (`berth serve`) and the node's command line. Parses, then hands over.
#![forbid(unsafe_code)]

mod accept;
mod adopt;
mod apart;
mod atomic_file;
mod cli;
mod commands;
mod doctor;
mod image_places;
mod kubelets;
mod layout;
mod node_files;
mod registries;
mod serve;
mod streaming;
mod supervise;

use clap::Parser;

fn main() -> std::process::ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => cli::run(cli),
        Err(e) => cli::refuse(&e),
    }
}
