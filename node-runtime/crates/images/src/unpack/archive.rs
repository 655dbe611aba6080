//! Reads a tar archive member by member: ustar, GNU and PAX headers (POSIX.1-2017 pax, "ustar Interchange Format"; GNU tar
//! manual, "Basic Tar Format"; Go archive/tar for what images in the field contain).
//!
//! Owns: turning blocks into members. Must not: touch a file system. Extension headers are bounded, PAX records are taken by
//! their length so that binary values survive, and what two parsers could read differently is refused.
use crate::refused;
use berth_model::{Error, Result};
use std::io::{self, BufRead, Read};

const BLOCK: usize = 512;
/// Longest PAX header in bytes. A file's extended attributes are at most 64 KiB each.
const MAX_PAX: u64 = 1 << 20;
/// Longest path or link target in bytes (PATH_MAX).
pub const MAX_PATH: usize = 4096;
/// What an octal size field holds at most; writers put it there when the size is in a PAX record.
const MAX_OCTAL_SIZE: u64 = 0o777_7777_7777;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its bytes follow.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A further name of an earlier member.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// A member's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Path as written, not cleaned.
    pub path: Vec<u8>,
    /// Target of a link, as written.
    pub link: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Permission bits, set-uid, set-gid and sticky included.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time: seconds since 1970 and nanoseconds.
    pub mtime: (i64, u32),
    /// Bytes that follow; zero for all but files.
    pub size: u64,
    /// Extended attributes (`SCHILY.xattr.`), in order.
    pub xattrs: Vec<(String, Vec<u8>)>,
}

/// The extension headers before a member.
#[derive(Default)]
struct Extensions {
    pax: Option<Pax>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

#[derive(Default)]
struct Pax {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
}

/// An archive being read.
pub struct Archive<R> {
    input: R,
    /// Bytes of the current member that were not read yet.
    remaining: u64,
    /// Bytes to the next block after them.
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// Starts at the first header.
    pub fn new(input: R) -> Self {
        Self { input, remaining: 0, padding: 0 }
    }

    /// The next member, or `None` at the end: two blocks of zeros, or the end of input between members. Errors:
    /// `FailedPrecondition` for what is no archive.
    pub fn next_member(&mut self) -> Result<Option<Member>> {
        self.skip(self.remaining + self.padding)?;
        (self.remaining, self.padding) = (0, 0);
        let mut extensions = Extensions::default();
        let mut seen = false;
        loop {
            let Some(header) = self.header()? else {
                return if seen { Err(malformed("extension header without a member")) } else { Ok(None) };
            };
            let size = number(&header[124..136], "size")?;
            match header[156] {
                b'x' if extensions.pax.is_none() => extensions.pax = Some(parse_pax(&self.body(size, MAX_PAX)?)?),
                b'L' if extensions.long_name.is_none() => extensions.long_name = Some(self.long_text(size)?),
                b'K' if extensions.long_link.is_none() => extensions.long_link = Some(self.long_text(size)?),
                b'x' | b'L' | b'K' => return Err(malformed("two extension headers of a kind before one member")),
                // Global records are comments in practice (git archive); Go's reader does not apply them either.
                b'g' => drop(self.body(size, MAX_PAX)?),
                flag => {
                    let member = member(&header, flag, size, extensions)?;
                    self.remaining = member.size;
                    self.padding = padding(member.size);
                    return Ok(Some(member));
                }
            }
            seen = true;
        }
    }

    /// More bytes of the current file, or none at its end. [`Archive::consume`] says how many were used.
    pub fn data(&mut self) -> io::Result<&[u8]> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf()?;
        if buffer.is_empty() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends within a file"));
        }
        let take = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..take])
    }

    /// Marks bytes of [`Archive::data`] as used.
    pub fn consume(&mut self, bytes: usize) {
        self.remaining -= bytes as u64;
        self.input.consume(bytes);
    }

    /// What follows the end of the archive, as far as so many bytes.
    pub fn end(self, most: u64) -> io::Take<R> {
        self.input.take(most)
    }

    /// Reads what follows the end of the archive, so that all of the stream was seen.
    pub fn drain(mut self) -> io::Result<R> {
        loop {
            let seen = self.input.fill_buf()?.len();
            if seen == 0 {
                return Ok(self.input);
            }
            self.input.consume(seen);
        }
    }

    /// A header block with a right checksum, or `None` at the end.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>> {
        for zeros in 0..2 {
            let Some(block) = self.block()? else { return Ok(None) };
            if block.iter().any(|b| *b != 0) {
                if zeros > 0 {
                    return Err(malformed("a single block of zeros between members"));
                }
                check_sum(&block)?;
                return Ok(Some(block));
            }
        }
        Ok(None)
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]).map_err(stream_error)? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(malformed("archive ends within a header")),
                n => filled += n,
            }
        }
        Ok(Some(block))
    }

    fn body(&mut self, size: u64, max: u64) -> Result<Vec<u8>> {
        if size > max {
            return Err(malformed(format!("extension header of {size} bytes is longer than {max}")));
        }
        let mut bytes = Vec::new();
        self.input.by_ref().take(size).read_to_end(&mut bytes).map_err(stream_error)?;
        if bytes.len() as u64 != size {
            return Err(malformed("archive ends within an extension header"));
        }
        self.skip(padding(size))?;
        Ok(bytes)
    }

    fn long_text(&mut self, size: u64) -> Result<Vec<u8>> {
        let bytes = self.body(size, MAX_PATH as u64 + 1)?;
        Ok(text(&bytes).to_vec())
    }

    fn skip(&mut self, mut bytes: u64) -> Result<()> {
        while bytes > 0 {
            let here = self.input.fill_buf().map_err(stream_error)?.len();
            if here == 0 {
                return Err(malformed("archive ends within a member"));
            }
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(here);
            self.input.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }
}

fn member(header: &[u8; BLOCK], flag: u8, header_size: u64, extensions: Extensions) -> Result<Member> {
    let pax = extensions.pax.unwrap_or_default();
    let path = pax.path.or(extensions.long_name).unwrap_or_else(|| header_path(header));
    let link = pax.link.or(extensions.long_link).unwrap_or_else(|| text(&header[157..257]).to_vec());
    let name = String::from_utf8_lossy(&path).into_owned();
    let kind = match flag {
        // Before ustar a directory was a file whose name ends with a slash.
        b'0' | 0 | b'7' if flag != b'7' && path.ends_with(b"/") => Kind::Directory,
        b'0' | 0 | b'7' => Kind::File,
        b'1' => Kind::HardLink,
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Directory,
        b'6' => Kind::Fifo,
        b'S' => return Err(malformed(format!("{name:?} is a GNU sparse file, which layers do not have"))),
        other => return Err(malformed(format!("{name:?} has type {:?}, which layers do not have", char::from(other)))),
    };
    let size = match (kind, pax.size) {
        // Only files have data, whatever the field says: hard links carry their target's size in some writers.
        (Kind::File, Some(size)) if [0, size, MAX_OCTAL_SIZE].contains(&header_size) => size,
        (Kind::File, Some(size)) => {
            return Err(malformed(format!("{name:?} has two sizes, {header_size} and {size}")));
        }
        (Kind::File, None) => header_size,
        _ => 0,
    };
    let mode = u32::try_from(number(&header[100..108], "mode")? & 0o7777).unwrap_or(0);
    let mtime = match pax.mtime {
        Some(mtime) => mtime,
        None => (signed(&header[136..148], "mtime")?, 0),
    };
    let owner = |pax: Option<u64>, field: &[u8], what| id(pax.map_or_else(|| number(field, what), Ok)?, what, &name);
    Ok(Member {
        uid: owner(pax.uid, &header[108..116], "uid")?,
        gid: owner(pax.gid, &header[116..124], "gid")?,
        path,
        link,
        kind,
        mode,
        mtime,
        size,
        xattrs: pax.xattrs,
    })
}

/// Name with ustar's prefix. GNU headers keep times where the prefix would be.
fn header_path(header: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&header[..100]);
    let prefix = text(&header[345..500]);
    if &header[257..265] == b"ustar\x0000" && !prefix.is_empty() {
        [prefix, b"/", name].concat()
    } else {
        name.to_vec()
    }
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or_default()
}

fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

/// The sum over the header with its checksum field as spaces; old writers summed signed bytes.
fn check_sum(header: &[u8; BLOCK]) -> Result<()> {
    let field = 148..156;
    let bytes = || header.iter().enumerate().map(|(i, b)| if field.contains(&i) { b' ' } else { *b });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let old: i64 = bytes().map(|b| i64::from(b.cast_signed())).sum();
    let wrong = || malformed("header checksum is wrong: not a tar archive, or torn");
    let written = signed(&header[field.clone()], "checksum").map_err(|_| wrong())?;
    if written == unsigned || written == old { Ok(()) } else { Err(wrong()) }
}

fn number(field: &[u8], what: &str) -> Result<u64> {
    u64::try_from(signed(field, what)?).map_err(|_| malformed(format!("{what} is negative")))
}

/// Octal text, or base 256 with the top bit of the first byte set (GNU).
fn signed(field: &[u8], what: &str) -> Result<i64> {
    let bad = || malformed(format!("{what} is not a number of at most 63 bits"));
    if field[0] & 0x80 != 0 {
        let negative = field[0] & 0x40 != 0;
        let first = i128::from(field[0] & 0x3f) - if negative { 0x40 } else { 0 };
        let value = field[1..].iter().try_fold(first, |v, b| v.checked_mul(256).map(|v| v + i128::from(*b)));
        return value.and_then(|v| i64::try_from(v).ok()).ok_or_else(bad);
    }
    let digits = field.trim_ascii().split(|b| *b == 0 || *b == b' ').next().unwrap_or_default();
    digits.iter().try_fold(0i64, |value, b| match b {
        b'0'..=b'7' => value.checked_mul(8).map(|v| v + i64::from(b - b'0')).ok_or_else(bad),
        _ => Err(bad()),
    })
}

fn id(value: u64, what: &str, path: &str) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if id != u32::MAX => Ok(id),
        // 2^32-1 means "leave" to chown(2), so it must never come through (compare CVE-2024-40635).
        _ => Err(malformed(format!("{path:?} has {what} {value}, more than {}", u32::MAX - 1))),
    }
}

/// Records `<length> <key>=<value>\n`. The length alone says where one ends.
fn parse_pax(mut rest: &[u8]) -> Result<Pax> {
    let mut pax = Pax::default();
    while !rest.is_empty() {
        let space =
            rest.iter().take(10).position(|b| *b == b' ').ok_or_else(|| malformed("PAX record without a length"))?;
        let length = std::str::from_utf8(&rest[..space]).ok().and_then(|n| n.parse::<usize>().ok());
        let (record, tail) = length
            .filter(|n| *n > space + 1)
            .and_then(|n| rest.split_at_checked(n))
            .ok_or_else(|| malformed("PAX record with a wrong length"))?;
        let record =
            record[space + 1..].strip_suffix(b"\n").ok_or_else(|| malformed("PAX record without its newline"))?;
        let equals = record.iter().position(|b| *b == b'=').ok_or_else(|| malformed("PAX record without ="))?;
        let key = std::str::from_utf8(&record[..equals]).map_err(|_| malformed("PAX key is not UTF-8"))?;
        pax.set(key, &record[equals + 1..])?;
        rest = tail;
    }
    Ok(pax)
}

impl Pax {
    fn set(&mut self, key: &str, value: &[u8]) -> Result<()> {
        let number = || {
            let parsed = std::str::from_utf8(value).ok().and_then(|v| v.parse::<u64>().ok());
            parsed
                .filter(|v| *v <= i64::MAX.unsigned_abs())
                .ok_or_else(|| malformed(format!("PAX {key} is not a number")))
        };
        match key {
            // An empty value means "as if there were no record".
            _ if value.is_empty() && !key.starts_with("SCHILY.xattr.") => {}
            "path" | "linkpath" if value.contains(&0) => {
                return Err(malformed(format!("PAX {key} contains a zero byte")));
            }
            "path" => self.path = Some(value.to_vec()),
            "linkpath" => self.link = Some(value.to_vec()),
            "size" => self.size = Some(number()?),
            "uid" => self.uid = Some(number()?),
            "gid" => self.gid = Some(number()?),
            "mtime" => self.mtime = Some(parse_time(value)?),
            _ if key.starts_with("GNU.sparse.") => return Err(malformed("sparse file, which layers do not have")),
            _ => {
                if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                    self.xattrs.push((name.to_owned(), value.to_vec()));
                }
            }
        }
        Ok(())
    }
}

/// Seconds with an optional fraction, possibly negative.
fn parse_time(value: &[u8]) -> Result<(i64, u32)> {
    let bad = || malformed("PAX mtime is not a time");
    let value = std::str::from_utf8(value).map_err(|_| bad())?;
    let (whole, fraction) = value.split_once('.').unwrap_or((value, ""));
    let seconds: i64 = whole.parse().map_err(|_| bad())?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad());
    }
    let nanos: u32 = format!("{fraction:0<9.9}").parse().map_err(|_| bad())?;
    match (value.starts_with('-'), nanos) {
        (true, 1..) => Ok((seconds.checked_sub(1).ok_or_else(bad)?, 1_000_000_000 - nanos)),
        _ => Ok((seconds, nanos)),
    }
}

fn malformed(problem: impl std::fmt::Display) -> Error {
    refused("layer archive", problem)
}

/// An error of the stream below keeps its own kind where it has one.
pub fn stream_error(e: io::Error) -> Error {
    match e.downcast::<Error>() {
        Ok(inner) => inner,
        // What a decompressor says about bytes that it does not like.
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput
            ) =>
        {
            malformed(e)
        }
        Err(e) => e.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(name: &[u8], flag: u8, size: &[u8]) -> Vec<u8> {
        let mut b = vec![0; BLOCK];
        b[..name.len()].copy_from_slice(name);
        b[100..107].copy_from_slice(b"0004755");
        b[124..124 + size.len()].copy_from_slice(size);
        b[156] = flag;
        b[257..265].copy_from_slice(b"ustar\x0000");
        seal(b)
    }

    fn seal(mut b: Vec<u8>) -> Vec<u8> {
        b[148..156].copy_from_slice(b"        ");
        let sum: u32 = b.iter().map(|b| u32::from(*b)).sum();
        b[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        b
    }

    fn padded(bytes: &[u8]) -> Vec<u8> {
        let mut v = bytes.to_vec();
        v.resize(bytes.len().next_multiple_of(BLOCK), 0);
        v
    }

    fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
        let mut body = Vec::new();
        for (key, value) in records {
            let plain = key.len() + value.len() + 3;
            let mut length = plain + 1;
            while length != plain + length.to_string().len() {
                length = plain + length.to_string().len();
            }
            body.extend_from_slice(format!("{length} {key}=").as_bytes());
            body.extend_from_slice(value);
            body.push(b'\n');
        }
        [block(b"pax", b'x', format!("{:011o}", body.len()).as_bytes()), padded(&body)].concat()
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>> {
        let mut archive = Archive::new(bytes);
        let mut all = Vec::new();
        while let Some(member) = archive.next_member()? {
            let mut body = Vec::new();
            loop {
                let step = archive.data().map_err(stream_error)?.to_vec();
                if step.is_empty() {
                    break;
                }
                archive.consume(step.len());
                body.extend(step);
            }
            all.push((member, body));
        }
        Ok(all)
    }

    #[test]
    fn members_with_every_kind_of_header_are_read() {
        let long = vec![b'n'; 300];
        let archive = [
            block(b"dir/", b'0', b"0"),
            block(b"a", b'0', b"00000000003"),
            padded(b"abc"),
            pax(&[
                ("path", b"p/\xff".as_slice()),
                ("size", b"4"),
                ("uid", b"70000"),
                ("mtime", b"-1.5"),
                ("SCHILY.xattr.security.capability", b"\x01\n\x00="),
                ("comment", b""),
            ]),
            block(b"x", b'0', b"0"),
            padded(b"wxyz"),
            block(b"././@LongLink", b'L', format!("{:o}", long.len() + 1).as_bytes()),
            padded(&[long.as_slice(), b"\0"].concat()),
            block(b"short", b'2', b""),
            vec![0; 1024],
            b"whatever follows".to_vec(),
        ]
        .concat();
        let all = read(&archive).unwrap();
        assert_eq!(all.len(), 4);
        assert_eq!(all[0].0.kind, Kind::Directory);
        assert_eq!((all[1].0.mode, all[1].1.as_slice()), (0o4755, b"abc".as_slice()));
        let third = &all[2].0;
        assert_eq!(
            (third.path.as_slice(), third.uid, third.mtime, third.size),
            (b"p/\xff".as_slice(), 70000, (-2, 500_000_000), 4)
        );
        assert_eq!(third.xattrs, [("security.capability".to_owned(), b"\x01\n\x00=".to_vec())]);
        assert_eq!((all[3].0.path.as_slice(), all[3].0.kind), (long.as_slice(), Kind::Symlink));
    }

    #[test]
    fn what_parsers_disagree_on_is_refused() {
        let two_sizes = [pax(&[("size", b"4")]), block(b"x", b'0', b"00000000003"), padded(b"abcd")].concat();
        let cases: [(&str, Vec<u8>); 10] = [
            ("two sizes", two_sizes),
            ("two extension headers", [pax(&[]), pax(&[]), block(b"x", b'0', b"0")].concat()),
            ("without a member", pax(&[("path", b"a")])),
            ("checksum", vec![b'z'; 512]),
            ("within a header", block(b"x", b'0', b"0")[..100].to_vec()),
            ("longer than", block(b"x", b'x', b"77777777777")),
            ("single block of zeros", [vec![0; 512], block(b"x", b'0', b"0")].concat()),
            ("sparse", block(b"x", b'S', b"0")),
            ("not a number", seal([&block(b"x", b'0', b"0")[..124], b"9x", &[0; 386]].concat())),
            ("uid", [pax(&[("uid", b"4294967295")]), block(b"x", b'0', b"0")].concat()),
        ];
        for (problem, bytes) in cases {
            let error = read(&bytes).unwrap_err();
            assert!(error.message().contains(problem), "{problem}: {error}");
        }
    }

    #[test]
    fn sizes_beyond_eight_gibibytes_are_read() {
        let mut size = [0u8; 12];
        size[0] = 0x80;
        size[4..].copy_from_slice(&(9u64 << 30).to_be_bytes());
        let mut archive = Archive::new(std::io::Cursor::new(block(b"big", b'0', &size)));
        assert_eq!(archive.next_member().unwrap().unwrap().size, 9 << 30);
    }

    proptest! {
        #[test]
        fn any_bytes_are_members_or_an_error(mut bytes in proptest::collection::vec(any::<u8>(), 0..3000), fix in any::<bool>()) {
            if fix && bytes.len() >= BLOCK {
                let sealed = seal(bytes[..BLOCK].to_vec());
                bytes[..BLOCK].copy_from_slice(&sealed);
            }
            let _ = read(&bytes);
        }
    }
}
