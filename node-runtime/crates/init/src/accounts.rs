//! Users and groups of a container: the two files are opened in its own root, whatever links and mounts it has.
//!
//! Owns: opening them under limits. Must not: parse them; that is `berth_model::account`, which the daemon uses too.
use crate::failure::{Explain, Failure, Result};
use crate::root::Root;
use berth_model::account::{Account, Lines, MAX_ACCOUNT_FILE, User};
use berth_sys::openat::{self, Access, Kind};
use std::io::{self, BufReader, Read};
use std::os::fd::AsFd;
use std::path::Path;

/// Resolves a user in a container's files.
pub fn resolve(root: &Root, user: &User) -> Result<Account> {
    user.resolve(|path| open(root, path))
}

fn open(root: &Root, path: &str) -> Result<Lines> {
    let what = || format!("open {path} in the container");
    let file = match root.open(Path::new(path), Access::Read) {
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        other => other.explain(what)?,
    };
    let facts = openat::facts(file.as_fd()).explain(what)?;
    if facts.kind != Kind::File {
        return Err(Failure::refused(format!("{path} in the container is not a regular file")));
    }
    if facts.size > MAX_ACCOUNT_FILE {
        return Err(Failure::refused(format!("{path} in the container is longer than {MAX_ACCOUNT_FILE} bytes")));
    }
    // The size above may lie (a file system in user space); this does not.
    Ok(Some(Box::new(BufReader::new(std::fs::File::from(file).take(MAX_ACCOUNT_FILE)))))
}
