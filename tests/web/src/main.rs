//! A static web server: the payload of the sample image, and of tests, which find a few small programs in it.
//!
//! Owns: its command line. Must not: need anything in its image; it runs alone in an empty root.
#![forbid(unsafe_code)]

mod commands;
mod server;
mod signals;

use std::process::ExitCode;

const USAGE: &str = "usage: berth-web [COMMAND]
  serve                web server on $PORT (80): /, /healthz, /env; the default
  sleep [SECONDS]      waits, for ever or so long; SIGTERM ends it with 0
  stubborn             waits and ignores SIGTERM
  exit CODE            ends with this code
  spew BYTES LINELEN   writes lines to stdout
  alloc MIB            takes and touches memory, then waits
  fork-bomb [MAX]      starts processes until it cannot (at most MAX, 2000), then waits
  env | id | fds       shows the environment; ids and capabilities; open descriptors
  echo | err TEXT...   writes to stdout; to stderr
  cat [PATH] | ls PATH shows a file or stdin; a directory
  write PATH TEXT      writes a file";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args_os().skip(1).map(|a| a.to_string_lossy().into_owned()).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            eprintln!("berth-web: {e}");
            ExitCode::from(1)
        }
    }
}

fn run(words: &[&str]) -> std::io::Result<u8> {
    match words {
        [] | ["serve"] => server::serve(),
        ["sleep"] => signals::sleep(None),
        ["sleep", seconds] => signals::sleep(Some(number(seconds)?)),
        ["stubborn"] => commands::stubborn(),
        ["exit", code] => u8::try_from(number(code)?).map_err(std::io::Error::other),
        ["spew", bytes, line] => commands::spew(number(bytes)?, number(line)?),
        ["alloc", mib] => commands::alloc(number(mib)?),
        ["fork-bomb"] => commands::fork_bomb(2000),
        ["fork-bomb", most] => commands::fork_bomb(number(most)?),
        ["env"] => commands::env(),
        ["id"] => commands::id(),
        ["fds"] => commands::fds(),
        ["echo", rest @ ..] => commands::echo(rest),
        ["err", rest @ ..] => {
            eprintln!("{}", rest.join(" "));
            Ok(0)
        }
        ["cat"] => commands::copy(&mut std::io::stdin()),
        ["cat", path] => commands::copy(&mut std::fs::File::open(path)?),
        ["ls", path] => commands::ls(path),
        ["write", path, text] => std::fs::write(path, text).map(|()| 0),
        _ => {
            eprintln!("{USAGE}");
            Ok(2)
        }
    }
}

fn number(text: &str) -> std::io::Result<u64> {
    text.parse().map_err(|e| std::io::Error::other(format!("{text:?}: {e}")))
}
