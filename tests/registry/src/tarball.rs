//! Writes tar streams (POSIX.1-2001 `pax`): headers, extension records, bodies.
//!
//! Owns: the bytes of an archive. Must not: look at what an entry means. A crate's writer would refuse hostile paths, so the
//! 512-byte header is built here.
use crate::entry::{Entry, Kind};
use std::io::{self, Write};

const BLOCK: usize = 512;
/// Largest number that seven, or eleven, octal digits hold.
const OCTAL_7: u64 = 0o7_777_777;
const OCTAL_11: u64 = 0o77_777_777_777;

/// Writes all entries and the two closing zero blocks.
pub fn write_all<W: Write>(out: &mut W, entries: &[Entry]) -> io::Result<()> {
    for entry in entries {
        write_entry(out, entry)?;
    }
    out.write_all(&[0; 2 * BLOCK])
}

fn write_entry<W: Write>(out: &mut W, entry: &Entry) -> io::Result<()> {
    let mut path = entry.path.clone();
    if entry.kind == Kind::Dir && path.last() != Some(&b'/') {
        path.push(b'/');
    }
    let link: &[u8] = match &entry.kind {
        Kind::Symlink(target) | Kind::HardLink(target) => target.as_bytes(),
        _ => b"",
    };
    let body_size = match &entry.kind {
        Kind::File(bytes) | Kind::Raw(_, bytes) => bytes.len() as u64,
        Kind::Zeros(size) => *size,
        _ => 0,
    };
    let size = entry.declared_size.unwrap_or(body_size);
    let records = pax_records(entry, &path, link, size);
    if !records.is_empty() {
        let header = Header { path: b"PaxHeaders/entry", link: b"", flag: b'x', size: records.len() as u64, entry };
        out.write_all(&header.encode())?;
        write_padded(out, &records)?;
    }
    let header = Header { path: &path, link, flag: type_flag(&entry.kind), size, entry };
    out.write_all(&header.encode())?;
    match &entry.kind {
        Kind::File(bytes) | Kind::Raw(_, bytes) => write_padded(out, bytes),
        Kind::Zeros(size) => write_zeros(out, size.next_multiple_of(BLOCK as u64)),
        _ => Ok(()),
    }
}

fn type_flag(kind: &Kind) -> u8 {
    match kind {
        Kind::File(_) | Kind::Zeros(_) => b'0',
        Kind::HardLink(_) => b'1',
        Kind::Symlink(_) => b'2',
        Kind::CharDevice { .. } => b'3',
        Kind::BlockDevice { .. } => b'4',
        Kind::Dir => b'5',
        Kind::Fifo => b'6',
        Kind::Raw(flag, _) => *flag,
    }
}

/// Extension records for what the fixed header cannot hold.
fn pax_records(entry: &Entry, path: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = Vec::new();
    if path.len() > 100 {
        pax_record(&mut records, "path", path);
    }
    if link.len() > 100 {
        pax_record(&mut records, "linkpath", link);
    }
    if size > OCTAL_11 {
        pax_record(&mut records, "size", size.to_string().as_bytes());
    }
    if entry.uid > OCTAL_7 {
        pax_record(&mut records, "uid", entry.uid.to_string().as_bytes());
    }
    if entry.gid > OCTAL_7 {
        pax_record(&mut records, "gid", entry.gid.to_string().as_bytes());
    }
    for (name, value) in &entry.xattrs {
        pax_record(&mut records, &format!("SCHILY.xattr.{name}"), value);
    }
    records
}

/// `"<length> <key>=<value>\n"`, where the length counts its own digits.
fn pax_record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

struct Header<'a> {
    path: &'a [u8],
    link: &'a [u8],
    flag: u8,
    size: u64,
    entry: &'a Entry,
}

impl Header<'_> {
    fn encode(&self) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let (major, minor) = match self.entry.kind {
            Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => (major, minor),
            _ => (0, 0),
        };
        copy(&mut block[..100], self.path);
        octal(&mut block[100..108], u64::from(self.entry.mode));
        octal(&mut block[108..116], self.entry.uid.min(OCTAL_7));
        octal(&mut block[116..124], self.entry.gid.min(OCTAL_7));
        octal(&mut block[124..136], self.size.min(OCTAL_11));
        octal(&mut block[136..148], self.entry.mtime.min(OCTAL_11));
        block[148..156].fill(b' ');
        block[156] = self.flag;
        copy(&mut block[157..257], self.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], u64::from(major));
        octal(&mut block[337..345], u64::from(minor));
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }
}

fn copy(field: &mut [u8], value: &[u8]) {
    let length = value.len().min(field.len());
    field[..length].copy_from_slice(&value[..length]);
}

/// Zero-padded octal digits and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    copy(field, format!("{value:0digits$o}\0").as_bytes());
}

fn write_padded<W: Write>(out: &mut W, bytes: &[u8]) -> io::Result<()> {
    out.write_all(bytes)?;
    write_zeros(out, (bytes.len().next_multiple_of(BLOCK) - bytes.len()) as u64)
}

fn write_zeros<W: Write>(out: &mut W, mut count: u64) -> io::Result<()> {
    let zeros = [0; 64 * 1024];
    while count > 0 {
        let step = count.min(zeros.len() as u64);
        out.write_all(&zeros[..step as usize])?;
        count -= step;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pax_lengths_count_their_own_digits() {
        for size in [1, 5, 80, 90, 91, 92, 93, 990, 9990] {
            let mut record = Vec::new();
            pax_record(&mut record, "k", &vec![b'v'; size]);
            let text = String::from_utf8(record.clone()).unwrap();
            assert_eq!(text.split_once(' ').unwrap().0.parse::<usize>().unwrap(), record.len());
        }
    }

    #[test]
    fn blocks_are_whole_and_sums_are_right() {
        let mut out = Vec::new();
        write_all(&mut out, &[Entry::file("../a", *b"x").xattr("user.a", *b"1"), Entry::dir("d")]).unwrap();
        assert_eq!(out.len() % BLOCK, 0);
        // header + record, header + body, directory, two closing blocks
        assert_eq!(out.len() / BLOCK, 7);
        let header = &out[2 * BLOCK..3 * BLOCK];
        assert_eq!(&header[..5], b"../a\0");
        let sum: u32 =
            header.iter().enumerate().map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) }).sum();
        assert_eq!(&header[148..154], format!("{sum:06o}").as_bytes());
    }
}
