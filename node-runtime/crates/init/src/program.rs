//! Finding the program and becoming it.
//!
//! Owns: the PATH look-up, with the rights of the container's user, and the exit codes of its failures. Must not: allocate
//! between the seccomp filter and `execve`.
use crate::failure::{Failure, Result};
use berth_sys::openat::{self, Access, Kind};
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// PATH where the environment has none: what execvp(3) users expect.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// C strings of arguments or environment; a zero byte inside is refused.
pub fn strings<'a>(kind: &str, items: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<CString>> {
    items
        .into_iter()
        .map(|item| CString::new(item).map_err(|_| Failure::refused(format!("{kind}: an entry has a zero byte"))))
        .collect()
}

/// Adds HOME if it is missing.
pub fn with_home(mut environment: Vec<CString>, home: &[u8]) -> Vec<CString> {
    let missing = !environment.iter().any(|entry| entry.as_bytes().starts_with(b"HOME="));
    if missing && let Ok(entry) = CString::new([b"HOME=", home].concat()) {
        environment.push(entry);
    }
    environment
}

/// The path to execute: as it is with a slash in it, else the first executable file in PATH.
pub fn find(name: &str, environment: &[CString]) -> Result<CString> {
    let path = environment.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let mut error = io::Error::from_raw_os_error(2);
    let candidates: Vec<Vec<u8>> = if name.contains('/') {
        vec![name.as_bytes().to_vec()]
    } else if name.is_empty() {
        vec![]
    } else {
        let join = |dir: &[u8]| [if dir.is_empty() { b"." } else { dir }, b"/", name.as_bytes()].concat();
        path.unwrap_or(DEFAULT_PATH).split(|b| *b == b':').map(join).collect()
    };
    for candidate in candidates {
        match executable(Path::new(OsStr::from_bytes(&candidate))) {
            Ok(()) => return CString::new(candidate).map_err(|_| Failure::refused("the program has a zero byte")),
            // A file that may not be executed is a better answer than the next directory's lack of one.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => error = e,
            Err(e) if error.kind() != io::ErrorKind::PermissionDenied => error = e,
            Err(_) => {}
        }
    }
    let place = if name.contains('/') { "in the container" } else { "in the container's PATH" };
    Err(failure(name, place, &error))
}

fn executable(path: &Path) -> io::Result<()> {
    let file = openat::open_host(path, Access::Path)?;
    if openat::facts(file.as_fd())?.kind != Kind::File {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    openat::may_execute(file.as_fd())
}

/// A failed start, with the exit code that shells give it: 127 for a program that is not there, 126 for one that cannot be
/// executed.
pub fn failure(name: &str, place: &str, error: &io::Error) -> Failure {
    let missing = matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    let exit = if missing { 127 } else { 126 };
    let errno = error.raw_os_error().unwrap_or(if missing { 2 } else { 13 });
    Failure { errno, detail: format!("exec {name:?} {place}: {error} (exit code {exit})"), exit }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_is_searched_like_a_shell_does() {
        let env = |path: &str| strings("env", [format!("PATH={path}").as_bytes()]).unwrap();
        assert_eq!(find("sh", &env("/nowhere:/bin")).unwrap().as_bytes(), b"/bin/sh");
        assert_eq!(find("/bin/sh", &env("")).unwrap().as_bytes(), b"/bin/sh");
        assert!(find("sh", &[]).unwrap().as_bytes().ends_with(b"/sh"));
        let missing = find("no-such-program", &env("/bin:/etc")).unwrap_err();
        assert_eq!((missing.errno, missing.exit), (2, 127));
        let denied = find("passwd", &env("/etc:/nowhere")).unwrap_err();
        assert_eq!((denied.errno, denied.exit), (13, 126));
        assert_eq!(find("/etc", &env("")).unwrap_err().exit, 126);
        assert_eq!(find("", &env("/bin")).unwrap_err().exit, 127);
    }

    #[test]
    fn home_is_added_once() {
        let env = with_home(strings("env", [&b"A=1"[..]]).unwrap(), b"/root");
        assert_eq!(env[1].as_bytes(), b"HOME=/root");
        assert_eq!(with_home(env, b"/other").len(), 2);
    }
}
