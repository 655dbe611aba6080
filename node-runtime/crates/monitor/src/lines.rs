//! Cuts a stream of bytes into lines and long lines into parts.
//!
//! Owns: the unfinished line of one stream, at most 16 KiB. Must not: know records, files or time.
use memchr::memchr;

/// Longest content of one record in bytes, as the peers have it; a longer line becomes several.
pub const MAX_CONTENT: usize = 16 * 1024;

/// Whether a record ends its line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tag {
    /// The line, or its end (`F`).
    Full,
    /// A part of a line that goes on (`P`).
    Partial,
}

/// The state of one stream.
#[derive(Debug, Default)]
pub struct Lines {
    unfinished: Vec<u8>,
}

impl Lines {
    /// Takes bytes; gives each complete line (without its newline) or part to `emit`, in two pieces to be joined.
    pub fn feed(&mut self, mut input: &[u8], mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        while !input.is_empty() {
            let room = MAX_CONTENT - self.unfinished.len();
            let window = &input[..input.len().min(room + 1)];
            let (tag, end, next) = match memchr(b'\n', window) {
                Some(at) => (Tag::Full, at, at + 1),
                None if window.len() > room => (Tag::Partial, room, room),
                None => {
                    self.unfinished.extend_from_slice(input);
                    return;
                }
            };
            emit(tag, &self.unfinished, &input[..end]);
            self.unfinished.clear();
            input = &input[next..];
        }
        if self.unfinished.capacity() > 1024 {
            self.unfinished = Vec::new();
        }
    }

    /// The stream has ended: what is left is a line.
    pub fn finish(&mut self, mut emit: impl FnMut(Tag, &[u8], &[u8])) {
        if !self.unfinished.is_empty() {
            emit(Tag::Full, &self.unfinished, &[]);
        }
        self.unfinished = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(chunks: &[&[u8]]) -> Vec<(Tag, Vec<u8>)> {
        let (mut lines, mut out) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |tag, a, b| out.push((tag, [a, b].concat())));
        }
        lines.finish(|tag, a, b| out.push((tag, [a, b].concat())));
        out
    }

    fn full(text: &[u8]) -> (Tag, Vec<u8>) {
        (Tag::Full, text.to_vec())
    }

    #[test]
    fn lines_over_several_reads() {
        assert_eq!(cut(&[b"a\nb", b"c", b"\n\nd"]), [full(b"a"), full(b"bc"), full(b""), full(b"d")]);
        assert_eq!(cut(&[b"a\n"]), [full(b"a")]);
        assert_eq!(cut(&[]), []);
    }

    #[test]
    fn the_limit_is_exact() {
        let line = vec![b'x'; MAX_CONTENT];
        assert_eq!(cut(&[&line, b"\n"]), [full(&line)]);
        assert_eq!(cut(&[&line]), [full(&line)]);
        assert_eq!(cut(&[&line, b"y\n"]), [(Tag::Partial, line.clone()), full(b"y")]);
        let long = [&line[..], &line, b"\n"].concat();
        assert_eq!(cut(&[&long]), [(Tag::Partial, line.clone()), full(&line)]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_however_it_is_read(
            lines in proptest::collection::vec(0_usize..40_000, 0..8), sizes in proptest::collection::vec(1_usize..70_000, 1..10)
        ) {
            let text: Vec<u8> = lines.iter().flat_map(|n| [vec![b'a'; *n], vec![b'\n']].concat()).collect();
            let (mut rest, mut chunks) = (&text[..], Vec::new());
            for size in sizes.iter().cycle() {
                if rest.is_empty() { break; }
                let (chunk, tail) = rest.split_at((*size).min(rest.len()));
                chunks.push(chunk);
                rest = tail;
            }
            let mut joined = Vec::new();
            for (tag, content) in cut(&chunks) {
                prop_assert!(content.len() <= MAX_CONTENT);
                joined.extend(content);
                if tag == Tag::Full { joined.push(b'\n'); }
            }
            prop_assert_eq!(joined, text);
        }
    }
}
