//! Members of a layer's archive: any bytes give members or an error. Nothing is read beyond what a member says it has, and
//! names keep their limit. The parser's file is taken in by path: its crate would bring a registry client and its TLS.
#![no_main]
#![allow(dead_code)] // Only the parser is called.
use berth_model::{Error, ErrorKind};

#[path = "../../crates/images/src/unpack/archive.rs"]
mod archive;

/// As in the crate that the parser belongs to.
fn refused(what: impl std::fmt::Display, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::FailedPrecondition, format!("{what}: {problem}"))
}

/// Gives every block that may be a header the checksum that it needs: no mutation would find it.
fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(512).filter(|block| block[0] != 0) {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
        block[154] = 0;
    }
    bytes
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let bytes = with_checksums(bytes);
    let mut archive = archive::Archive::new(&bytes[..]);
    let mut data = 0;
    while let Ok(Some(_member)) = archive.next_member() {
        loop {
            let read = match archive.data() {
                Ok([]) | Err(_) => break,
                Ok(chunk) => chunk.len(),
            };
            data += read;
            archive.consume(read);
        }
        assert!(data <= bytes.len(), "more data than the archive has");
    }
});
