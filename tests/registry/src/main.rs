//! `berth-test-registry`: serves images that lie in OCI layouts, so that a harness can start a registry in a network
//! namespace of its own. Owns: the command line. Must not: misbehave; faults need the library.
#![forbid(unsafe_code)]

use berth_test_registry::{AuthMode, Options, Registry};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
berth-test-registry [--listen ADDRESS:PORT] [--basic USER:PASSWORD] [--layout NAME[:TAG]=DIR]…

Serves the distribution API over plain HTTP until it is killed.
  --listen   where; 127.0.0.1:5000 if it is not given, port 0 is any free one
  --basic    who may read; without it all may
  --layout   an image: the OCI layout in DIR as NAME. Without TAG it has the tags that the layout's index gives
It prints one line per image, `ADDRESS:PORT/NAME:TAG@DIGEST`, and then `listening on http://ADDRESS:PORT`.";

struct Layout {
    name: String,
    tag: Option<String>,
    dir: PathBuf,
}

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("berth-test-registry: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: impl Iterator<Item = String>) -> Result<(), String> {
    let Wish { listen, auth, layouts } = parse(args)?;
    let options = Options { bind: listen.ip(), port: listen.port(), auth, ..Options::default() };
    let registry = Registry::start_blocking(options).map_err(|e| format!("{listen}: {e}"))?;
    for Layout { name, tag, dir } in &layouts {
        let pushed = registry.push_layout(name, tag.as_deref(), dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        for (tag, digest) in pushed {
            println!("{}", registry.reference(&format!("{name}:{tag}@{digest}")));
        }
    }
    // Last, so that who waits for this line finds every image.
    println!("listening on {}", registry.url());
    loop {
        std::thread::park();
    }
}

struct Wish {
    listen: SocketAddr,
    auth: AuthMode,
    layouts: Vec<Layout>,
}

fn parse(mut args: impl Iterator<Item = String>) -> Result<Wish, String> {
    let mut listen = SocketAddr::from(([127, 0, 0, 1], 5000));
    let (mut auth, mut layouts) = (AuthMode::Open, Vec::new());
    while let Some(arg) = args.next() {
        let value = args.next().ok_or_else(|| format!("{arg} needs a value\n\n{USAGE}"))?;
        match arg.as_str() {
            "--listen" => listen = value.parse().map_err(|e| format!("--listen {value}: {e}"))?,
            "--basic" => {
                let words = value.split_once(':').ok_or("--basic needs USER:PASSWORD")?;
                auth = AuthMode::Basic { username: words.0.to_owned(), password: words.1.to_owned() };
            }
            "--layout" => layouts.push(layout(&value)?),
            _ => return Err(format!("{arg} is not known\n\n{USAGE}")),
        }
    }
    Ok(Wish { listen, auth, layouts })
}

/// `NAME[:TAG]=DIR`.
fn layout(text: &str) -> Result<Layout, String> {
    let parts = text.split_once('=').filter(|(name, dir)| !name.is_empty() && !dir.is_empty());
    let (name, dir) = parts.ok_or_else(|| format!("--layout {text}: not NAME[:TAG]=DIR"))?;
    let (name, tag) = name.split_once(':').map_or((name, None), |(name, tag)| (name, Some(tag.to_owned())));
    Ok(Layout { name: name.to_owned(), tag, dir: dir.into() })
}
