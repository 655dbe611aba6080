//! The process's own memory.
//!
//! Owns: what can be said to the allocator. Must not: allocate for others.

/// Has all threads allocate from one arena (`M_ARENA_MAX`, mallopt(3)), so that [`give_back`] reaches everything: glibc's allocator has one for
/// each of up to eight threads per core, and keeps the free end of each but the first. Call it before there are threads. Other allocators have
/// no such arenas, and nothing is done there.
pub fn one_arena() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it sets a number of the allocator's, under the allocator's own lock.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Gives pages back to the kernel that are free and that the allocator keeps (`malloc_trim(3)`): glibc's keeps up to 64 MiB. Takes some
/// milliseconds, in which others that allocate wait. Other allocators give back by themselves, and nothing is done there.
pub fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
