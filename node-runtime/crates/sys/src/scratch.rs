//! A large buffer that costs no memory while it is not used.
//!
//! Owns: anonymous pages that can be given back. Must not: grow.
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Zeroed bytes in pages of their own. [`Scratch::release`] gives the pages back; the next use finds zeros again.
#[derive(Debug)]
pub struct Scratch {
    start: NonNull<u8>,
    len: usize,
}

impl Scratch {
    /// Maps `len` bytes; none is backed by memory before it is written to.
    pub fn new(len: usize) -> io::Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh private mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), len, prot, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }

    /// Gives the memory back to the kernel.
    pub fn release(&mut self) {
        // SAFETY: the range is ours alone, and `&mut self` says that nobody borrows its bytes. For a private anonymous mapping
        // MADV_DONTNEED makes them zeros, which are valid bytes.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.len, libc::MADV_DONTNEED) };
    }
}

impl Deref for Scratch {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped readable, `len` bytes long, initialised (zeros), and unmapped only on drop.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for Scratch {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `&mut self` makes the borrow unique.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing borrows it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_bytes_are_zeros_again() {
        let mut scratch = Scratch::new(100_000).unwrap();
        scratch[99_999] = 7;
        assert_eq!(scratch[99_999], 7);
        scratch.release();
        assert_eq!((scratch.len(), scratch[99_999]), (100_000, 0));
    }
}
