//! Header blocks: names and values, compressed over the whole life of a connection.
//!
//! Source: SPDY Protocol, Draft 3.1, section 2.6.10. Each direction is one zlib stream with the draft's dictionary, flushed after
//! each block, so every block must pass through here, in the order of the wire, also one that nobody wants. After an error the
//! connection cannot go on. Must not: do I/O.
//! Fuzz target: `spdy_frame`.
use super::dictionary::dictionary;
use berth_model::{Error, Result};
use flate2::{Decompress, FlushDecompress, Status};

/// Names (lower-case) with values, in the order of the block. A name with several values stands there several times.
pub type Headers = Vec<(String, String)>;

/// Longest block in bytes, decompressed.
pub const MAX_BLOCK: usize = 64 * 1024;
/// Most values in a block.
pub const MAX_HEADERS: usize = 100;
/// RFC 1950 section 2.2: deflate with a window of 32 KiB, a preset dictionary, and which.
const ZLIB_HEAD: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
const SEPARATOR: char = '\0';

fn wrong(problem: impl std::fmt::Display) -> Error {
    Error::invalid("SPDY header block", problem)
}

/// Of what a peer sends.
#[derive(Debug)]
pub struct Decoder {
    zlib: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { zlib: Decompress::new(true) }
    }
}

impl Decoder {
    /// One block. Errors: more than [`MAX_BLOCK`] bytes or [`MAX_HEADERS`] values, what does not inflate, text that is not UTF-8.
    pub fn decode(&mut self, block: &[u8]) -> Result<Headers> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut input: &[u8]) -> Result<Vec<u8>> {
        let mut plain = Vec::with_capacity(1024);
        loop {
            let (before, had) = (self.zlib.total_in(), plain.len());
            let done = self.zlib.decompress_vec(input, &mut plain, FlushDecompress::Sync);
            // What was taken is at most what was given.
            input = input.get((self.zlib.total_in() - before) as usize..).unwrap_or_default();
            match done {
                Ok(Status::StreamEnd) => return Err(wrong("the compressed stream ended")),
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    self.zlib.set_dictionary(&dictionary()).map_err(|_| wrong("compressed with another dictionary"))?;
                    continue;
                }
                Err(e) => return Err(wrong(e)),
            }
            if plain.len() > MAX_BLOCK {
                return Err(wrong(format!("more than {MAX_BLOCK} bytes, decompressed")));
            }
            if plain.len() == plain.capacity() {
                plain.reserve(plain.len());
            } else if input.is_empty() {
                return Ok(plain);
            } else if plain.len() == had && self.zlib.total_in() == before {
                return Err(wrong("it does not inflate to its end"));
            }
        }
    }
}

struct Plain<'a>(&'a [u8]);

impl<'a> Plain<'a> {
    fn number(&mut self) -> Result<usize> {
        let (number, rest) = self.0.split_first_chunk().ok_or_else(|| wrong("it ends within a length"))?;
        self.0 = rest;
        Ok(u32::from_be_bytes(*number) as usize)
    }

    fn text(&mut self) -> Result<&'a str> {
        let length = self.number()?;
        let (text, rest) = self.0.split_at_checked(length).ok_or_else(|| wrong("a length beyond its end"))?;
        self.0 = rest;
        std::str::from_utf8(text).map_err(|_| wrong("text that is not UTF-8"))
    }
}

fn parse(plain: &[u8]) -> Result<Headers> {
    let mut plain = Plain(plain);
    let count = plain.number()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = plain.text()?.to_ascii_lowercase();
        if name.is_empty() {
            return Err(wrong("a name without a letter"));
        }
        for value in plain.text()?.split(SEPARATOR) {
            if headers.len() == MAX_HEADERS {
                return Err(wrong(format!("more than {MAX_HEADERS} values")));
            }
            headers.push((name.clone(), value.to_owned()));
        }
    }
    if plain.0.is_empty() { Ok(headers) } else { Err(wrong(format!("{} bytes after its end", plain.0.len()))) }
}

/// Of what we send. Stored, not compressed: we say little (answers have no header at all), and a compressor would cost each connection
/// a quarter of a MiB.
#[derive(Debug, Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// One block. Errors: beyond the limits of [`Decoder::decode`]; a name that is not lower-case, or stands there twice (its
    /// values belong together, which callers of ours never need).
    pub fn encode(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>> {
        let plain = plain(headers)?;
        let mut block = Vec::with_capacity(plain.len() + 32);
        if !self.begun {
            block.extend_from_slice(&ZLIB_HEAD);
            self.begun = true;
        }
        for part in plain.chunks(usize::from(u16::MAX)) {
            stored(&mut block, part);
        }
        // What a flush ends with. Go's inflater hands out what it has only then.
        stored(&mut block, &[]);
        Ok(block)
    }
}

/// RFC 1951 section 3.2.4: not the last block, of type 0; the length, and its complement.
fn stored(block: &mut Vec<u8>, part: &[u8]) {
    let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
    block.push(0);
    block.extend_from_slice(&length.to_le_bytes());
    block.extend_from_slice(&(!length).to_le_bytes());
    block.extend_from_slice(part);
}

fn plain(headers: &[(String, String)]) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    let put = |plain: &mut Vec<u8>, number: usize| {
        plain.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_be_bytes());
    };
    put(&mut plain, headers.len());
    for (index, (name, value)) in headers.iter().enumerate() {
        if name.is_empty() || name.bytes().any(|b| b.is_ascii_uppercase()) || value.contains(SEPARATOR) {
            return Err(wrong(format!("{name:?}: names are lower-case, and values without NUL")));
        }
        if headers[..index].iter().any(|(other, _)| other == name) {
            return Err(wrong(format!("{name:?} stands there twice")));
        }
        for text in [name, value] {
            put(&mut plain, text.len());
            plain.extend_from_slice(text.as_bytes());
        }
    }
    if headers.len() > MAX_HEADERS || plain.len() > MAX_BLOCK {
        return Err(wrong(format!("more than {MAX_HEADERS} values, or {MAX_BLOCK} bytes")));
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};
    use proptest::prelude::*;

    fn pair(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    /// A block as a peer may make it, with any content.
    fn compressed(zlib: &mut Compress, plain: &[u8]) -> Vec<u8> {
        let mut block = Vec::with_capacity(plain.len() + 1024);
        zlib.compress_vec(plain, &mut block, FlushCompress::Sync).unwrap();
        block
    }

    fn with_dictionary() -> Compress {
        let mut zlib = Compress::new(Compression::best(), true);
        zlib.set_dictionary(&dictionary()).unwrap();
        zlib
    }

    #[test]
    fn blocks_of_one_connection_follow_one_another() {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let headers = vec![pair("streamtype", "stdin"), pair("port", "8080")];
        let blocks: Vec<_> = (0..50).map(|_| encoder.encode(&headers).unwrap()).collect();
        assert!(blocks[1..].iter().all(|block| blocks[0][ZLIB_HEAD.len()..] == block[..]));
        for block in blocks {
            assert_eq!(decoder.decode(&block).unwrap(), headers);
        }
        let empty = encoder.encode(&[]).unwrap();
        assert_eq!(decoder.decode(&empty).unwrap(), vec![]);
        let long = vec![pair("long", &"x".repeat(65_520))];
        assert_eq!(decoder.decode(&encoder.encode(&long).unwrap()).unwrap(), long);
        assert!(encoder.encode(&[pair("long", &"x".repeat(65_521))]).is_err());
    }

    #[test]
    fn names_become_lower_case_and_values_are_parted() {
        let plain = b"\0\0\0\x01\0\0\0\x02Ab\0\0\0\x03x\0Y";
        let block = compressed(&mut with_dictionary(), plain);
        assert_eq!(Decoder::default().decode(&block).unwrap(), vec![pair("ab", "x"), pair("ab", "Y")]);
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = compressed(&mut with_dictionary(), &vec![b'a'; 8 << 20]);
        let bomb = &bomb[..bomb.len().min(64 * 1024)];
        assert!(Decoder::default().decode(bomb).unwrap_err().message().contains("65536"));
        let many = [&200u32.to_be_bytes()[..], &[0, 0, 0, 1, b'a', 0, 0, 0, 0].repeat(200)].concat();
        let refused = Decoder::default().decode(&compressed(&mut with_dictionary(), &many)).unwrap_err();
        assert!(refused.message().contains("more than 100"), "{refused}");
        let values = [&b"\0\0\0\x01\0\0\0\x01a\0\0\x10\0"[..], &[0; 4096]].concat();
        assert!(Decoder::default().decode(&compressed(&mut with_dictionary(), &values)).is_err());
        // A count that would be four thousand million pairs, of which none follows.
        assert!(Decoder::default().decode(&compressed(&mut with_dictionary(), &[0xff; 4])).is_err());
    }

    #[test]
    fn what_is_no_block_is_refused() {
        assert!(Decoder::default().decode(b"").is_err());
        assert!(Decoder::default().decode(&[0x78, 0xbb, 1, 2, 3, 4, 5]).is_err(), "another dictionary");
        let mut ended = Vec::with_capacity(64);
        with_dictionary().compress_vec(&[0; 4], &mut ended, FlushCompress::Finish).unwrap();
        assert!(Decoder::default().decode(&ended).is_err());
        assert!(Encoder::default().encode(&[pair("Upper", "")]).is_err());
        assert!(Encoder::default().encode(&[pair("a", ""), pair("a", "")]).is_err());
    }

    proptest! {
        #[test]
        fn any_block_gives_headers_or_an_error(bytes: Vec<u8>, plain: Vec<u8>) {
            let _ = Decoder::default().decode(&bytes);
            let _ = Decoder::default().decode(&compressed(&mut with_dictionary(), &plain));
        }
    }
}
