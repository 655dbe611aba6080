//! Ids of the calling process. One thread only: the raw calls do not reach other threads.
//!
//! Owns: the calls. Must not: read passwd or group files.
use rustix::fs::{Gid, Uid};
use std::io;

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> io::Result<()> {
    let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
    Ok(rustix::thread::set_thread_groups(&groups)?)
}

/// Sets real, effective and saved group id.
pub fn set_gid(gid: u32) -> io::Result<()> {
    let gid = Gid::from_raw(gid);
    Ok(rustix::thread::set_thread_res_gid(gid, gid, gid)?)
}

/// Sets real, effective and saved user id.
pub fn set_uid(uid: u32) -> io::Result<()> {
    let uid = Uid::from_raw(uid);
    Ok(rustix::thread::set_thread_res_uid(uid, uid, uid)?)
}

/// Becomes root of the user namespace that was just joined, with no other group.
pub fn become_root() -> io::Result<()> {
    set_gid(0)?;
    set_uid(0)?;
    set_groups(&[])
}
