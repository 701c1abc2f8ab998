//! Lines of bounded length from a stream, in a buffer that never moves and is overwritten at the end: it holds private
//! keys. `std::io::BufRead` offers neither.

use std::io::{self, Read};

use zeroize::Zeroizing;

/// The longest line, in bytes. The protocol's own are below 128.
pub(super) const MAX_LINE: usize = 4096;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line<'a> {
    /// Without its end.
    Text(&'a [u8]),
    /// It was longer than [`MAX_LINE`], and is skipped.
    TooLong,
}

pub(super) struct Lines<R> {
    stream: R,
    buffer: Zeroizing<Vec<u8>>,
    /// What was read and not returned yet: `buffer[start..end]`.
    start: usize,
    end: usize,
    /// Bytes returned since [`Lines::start_over`].
    given: u64,
}

impl<R: Read> Lines<R> {
    pub(super) fn new(stream: R) -> Self {
        // Several lines per read.
        Self { stream, buffer: Zeroizing::new(vec![0; 4 * (MAX_LINE + 1)]), start: 0, end: 0, given: 0 }
    }

    /// The bytes of the lines since the last [`Lines::start_over`].
    pub(super) fn given(&self) -> u64 {
        self.given
    }

    /// Starts to count from 0.
    pub(super) fn start_over(&mut self) {
        self.given = 0;
    }

    /// The next line, or `None` at the end of the stream. An unfinished last line is not returned.
    pub(super) fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        let mut too_long = false;
        // Bytes that are known to hold no end of a line.
        let mut searched = 0;
        loop {
            let waiting = &self.buffer[self.start..self.end];
            if let Some(length) = waiting[searched..].iter().position(|&byte| byte == b'\n').map(|at| searched + at) {
                let line = self.start..self.start + length;
                self.start = line.end + 1;
                self.given += length as u64 + 1;
                let text = if too_long || length > MAX_LINE { Line::TooLong } else { Line::Text(&self.buffer[line]) };
                return Ok(Some(text));
            }
            searched = waiting.len();
            if searched > MAX_LINE {
                too_long = true;
                self.given += searched as u64;
                (self.start, self.end, searched) = (0, 0, 0);
            }
            if self.start > 0 {
                self.buffer.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, self.end - self.start);
            }
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => return Ok(None),
                Ok(length) => self.end += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives `text` out in pieces of at most `piece` bytes.
    struct Pieces<'a>(&'a [u8], usize);

    impl Read for Pieces<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let length = self.1.min(self.0.len()).min(buffer.len());
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    fn all(text: &[u8], piece: usize) -> Vec<Option<Vec<u8>>> {
        let mut lines = Lines::new(Pieces(text, piece));
        let mut all = Vec::new();
        while let Some(line) = lines.next().unwrap() {
            all.push(match line {
                Line::Text(text) => Some(text.to_vec()),
                Line::TooLong => None,
            });
        }
        all
    }

    #[test]
    fn lines_do_not_depend_on_how_they_arrive() {
        let longest = vec![b'x'; MAX_LINE];
        let text = [b"get=1\n\n", &*longest, b"\nrest\nunfinished"].concat();
        let expected = vec![Some(b"get=1".to_vec()), Some(vec![]), Some(longest), Some(b"rest".to_vec())];
        for piece in [1, 2, 7, 4095, 4096, 4097, usize::MAX] {
            assert_eq!(all(&text, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn a_line_that_is_too_long_is_skipped_and_the_next_one_is_complete() {
        for length in [MAX_LINE + 1, 4 * MAX_LINE, 4 * MAX_LINE + 4, 100_000] {
            let text = [b"a\n", &*vec![b'x'; length], b"\nb\n"].concat();
            for piece in [100, 4096, usize::MAX] {
                let expected = vec![Some(b"a".to_vec()), None, Some(b"b".to_vec())];
                assert_eq!(all(&text, piece), expected, "{length} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn returned_bytes_are_counted_until_it_starts_over() {
        let text = [b"four\n", &*vec![b'x'; 10_000], b"\nfour\n"].concat();
        let mut lines = Lines::new(&*text);
        while lines.next().unwrap().is_some() {}
        assert_eq!(lines.given(), 10_011);
        lines.start_over();
        assert_eq!(lines.given(), 0);
    }
}
