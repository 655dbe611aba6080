//! The quickstart: one pod, for real, on this machine. Every step shows what the product's programs say, and checks it
//! against what the kernel and the network show. Owns: the order of the steps. Must not: link anything of the daemon, or
//! leave anything behind.
#![forbid(unsafe_code)]

mod args;
mod console;
mod http;
mod interrupt;
mod limits;
mod node;
mod preflight;
mod process;
mod reading;
mod sample;
mod stage;
mod steps;

use std::process::ExitCode;
use std::time::Instant;

/// Result of a step: the error is a sentence for people.
pub type Result<T = ()> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let options = match args::parse(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{}", args::HELP);
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("quickstart: {message}\n\n{}", args::HELP);
            return ExitCode::from(2);
        }
    };
    let start = Instant::now();
    match run(&options) {
        Ok(()) => {
            println!("\nquickstart: everything worked, {:.1} s", start.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("\nquickstart: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &args::Options) -> Result {
    console::heading("What this machine has");
    let missing = preflight::missing();
    if !missing.is_empty() {
        return Err(preflight::told(&missing));
    }
    println!("   root; Linux 5.15 or later with namespaces, user namespaces, overlayfs, bridges, veth and nf_tables;");
    println!("   the control group controllers memory, cpu and pids");
    interrupt::watch()?;
    let mut stage = stage::Stage::set_up(options)?;
    let outcome = steps::all(&mut stage, options);
    stage.end(outcome, options.keep)
}
