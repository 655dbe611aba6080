//! Header blocks: names and values, compressed over the whole life of a connection.
//!
//! Source: SPDY Protocol, Draft 3.1, section 2.6.10. Each direction is one zlib stream with the draft's dictionary, flushed after
//! each block, so every block must pass through here, in the order of the wire, also one that nobody wants. After an error the
//! connection cannot go on. Must not: do I/O.
//! Fuzz target: `spdy_frame`.
use super::dictionary::dictionary;
use berth_model::{Error, Result};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

/// Names (lower-case) with values, in the order of the block. A name with several values stands there several times.
pub type Headers = Vec<(String, String)>;

/// Longest block in bytes, decompressed.
pub const MAX_BLOCK: usize = 64 * 1024;
/// Most values in a block.
pub const MAX_HEADERS: usize = 100;
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

/// Of what we send.
#[derive(Debug)]
pub struct Encoder {
    zlib: Compress,
}

impl Encoder {
    /// Errors: the compressor does not take the dictionary.
    pub fn new() -> Result<Self> {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).map_err(|e| Error::internal(format!("SPDY dictionary: {e}")))?;
        Ok(Self { zlib })
    }

    /// One block. Errors: beyond the limits of [`Decoder::decode`]; a name that is not lower-case, or stands there twice (its
    /// values belong together, which callers of ours never need).
    pub fn encode(&mut self, headers: &[(String, String)]) -> Result<Vec<u8>> {
        let plain = plain(headers)?;
        let mut block = Vec::with_capacity(plain.len() + 64);
        let mut input = &plain[..];
        loop {
            let before = self.zlib.total_in();
            self.zlib.compress_vec(input, &mut block, FlushCompress::Sync).map_err(wrong)?;
            input = input.get((self.zlib.total_in() - before) as usize..).unwrap_or_default();
            // Room left over says that the flush is complete.
            if input.is_empty() && block.len() < block.capacity() {
                return Ok(block);
            }
            block.reserve(block.len().max(64));
        }
    }
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
        let (mut encoder, mut decoder) = (Encoder::new().unwrap(), Decoder::default());
        let headers = vec![pair("streamtype", "stdin"), pair("port", "8080")];
        let blocks: Vec<_> = (0..50).map(|_| encoder.encode(&headers).unwrap()).collect();
        assert!(blocks[1].len() < blocks[0].len(), "the second repeats the first");
        // CM 8, a preset dictionary, and its Adler-32.
        assert_eq!((blocks[0][0] & 15, blocks[0][1] & 32, &blocks[0][2..6]), (8, 32, &[0xe3, 0xc6, 0xa7, 0xc2][..]));
        for block in blocks {
            assert_eq!(decoder.decode(&block).unwrap(), headers);
        }
        let empty = encoder.encode(&[]).unwrap();
        assert_eq!(decoder.decode(&empty).unwrap(), vec![]);
    }

    #[test]
    fn names_become_lower_case_and_values_are_parted() {
        let plain = b"\0\0\0\x01\0\0\0\x02Ab\0\0\0\x03x\0Y";
        let block = compressed(&mut with_dictionary(), plain);
        assert_eq!(Decoder::default().decode(&block).unwrap(), vec![pair("ab", "x"), pair("ab", "Y")]);
    }

    #[test]
    fn bombs_are_refused() {
        let bomb = compressed(&mut with_dictionary(), &vec![b'a'; 64 << 20]);
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
        assert!(Encoder::new().unwrap().encode(&[pair("Upper", "")]).is_err());
        assert!(Encoder::new().unwrap().encode(&[pair("a", ""), pair("a", "")]).is_err());
    }

    proptest! {
        #[test]
        fn any_block_gives_headers_or_an_error(bytes: Vec<u8>, plain: Vec<u8>) {
            let _ = Decoder::default().decode(&bytes);
            let _ = Decoder::default().decode(&compressed(&mut with_dictionary(), &plain));
        }
    }
}
