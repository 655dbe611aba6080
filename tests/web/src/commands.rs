//! Small programs for tests of containers.
//!
//! Owns: one function per command, its exit code as the result. Must not: be of use without a test that calls it.
use crate::signals;
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, BufWriter, Read, Write};
use std::process::{Command, Stdio};

/// Waits for ever and ignores SIGTERM: only SIGKILL ends it.
pub fn stubborn() -> io::Result<u8> {
    let mut term = SigSet::empty();
    term.add(Signal::SIGTERM);
    term.thread_block()?;
    println!("ignoring SIGTERM");
    loop {
        std::thread::park();
    }
}

/// Writes `bytes` bytes in lines of `line` characters and a newline. Letters change from line to line, so that a lost one shows.
pub fn spew(bytes: u64, line: u64) -> io::Result<u8> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let (mut left, mut letter) = (bytes, b'a');
    let width = usize::try_from(line).map_err(io::Error::other)?;
    while left > 0 {
        let mut text = vec![letter; width];
        text.push(b'\n');
        text.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        out.write_all(&text)?;
        left -= text.len() as u64;
        letter = if letter == b'z' { b'a' } else { letter + 1 };
    }
    out.flush()?;
    Ok(0)
}

/// Takes memory in steps of one MiB, touches every page, says how far it is, and keeps it.
pub fn alloc(mib: u64) -> io::Result<u8> {
    // Before the first word: whoever reads it may send the signal at once.
    signals::block()?;
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for step in 1..=mib {
        // Not zero: the kernel gives zeroed pages without taking memory.
        kept.push(std::hint::black_box(vec![step as u8 | 1; 1 << 20]));
        if step % 16 == 0 || step == mib {
            println!("{step} MiB");
        }
    }
    let code = signals::wait();
    drop(std::hint::black_box(kept));
    code
}

/// Starts sleeping copies of itself until the system refuses or `most` run; says how many, and waits.
pub fn fork_bomb(most: u64) -> io::Result<u8> {
    signals::block()?;
    let mut children = Vec::new();
    let end = loop {
        if children.len() as u64 >= most {
            break format!("the limit of {most} was mine");
        }
        match Command::new("/proc/self/exe").arg("sleep").stdin(Stdio::null()).spawn() {
            Ok(child) => children.push(child),
            Err(e) => break e.to_string(),
        }
    };
    println!("started {} processes: {end}", children.len());
    let code = signals::wait();
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
    code
}

/// The environment, one `KEY=value` a line.
pub fn env() -> io::Result<u8> {
    let mut out = io::stdout().lock();
    for (key, value) in std::env::vars_os() {
        writeln!(out, "{}={}", key.to_string_lossy(), value.to_string_lossy())?;
    }
    Ok(0)
}

/// Ids, groups, capabilities, no_new_privs and seccomp as the kernel shows them.
pub fn id() -> io::Result<u8> {
    const SHOWN: [&str; 8] = ["Uid:", "Gid:", "Groups:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"];
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut out = io::stdout().lock();
    for line in status.lines() {
        if SHOWN.iter().chain(&["NoNewPrivs:", "Seccomp:"]).any(|name| line.starts_with(name)) {
            writeln!(out, "{line}")?;
        }
    }
    Ok(0)
}

/// Open descriptors and what they are, without the one that reads the directory.
pub fn fds() -> io::Result<u8> {
    let own = format!("/proc/{}/fd", std::process::id());
    let mut open = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path()).unwrap_or_default().display().to_string();
        if let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
            && target != own
        {
            open.insert(fd, target);
        }
    }
    let lines: Vec<String> = open.iter().map(|(fd, target)| format!("{fd} {target}")).collect();
    echo(&[&lines.join("\n")])
}

/// The words and a newline.
pub fn echo(words: &[&str]) -> io::Result<u8> {
    writeln!(io::stdout().lock(), "{}", words.join(" "))?;
    Ok(0)
}

/// Everything from `from` to stdout.
pub fn copy(from: &mut dyn Read) -> io::Result<u8> {
    let mut out = io::stdout().lock();
    io::copy(from, &mut out)?;
    out.flush()?;
    Ok(0)
}

/// Names in a directory, sorted.
pub fn ls(path: &str) -> io::Result<u8> {
    let entries = std::fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    let mut names: Vec<String> = entries.iter().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    echo(&[&names.join("\n")])
}
