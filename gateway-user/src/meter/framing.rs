//! Where the lines and events of an event stream end, whatever pieces it arrives in (WHATWG HTML, 9.2.5).
//!
//! A line ends with a line feed, a carriage return, or both in that order; an empty line ends an event. A carriage
//! return ends its line at once: a line feed that comes next, be it in the next piece, belongs to it and ends nothing.

use memchr::memchr2;

/// How far a stream has come.
#[derive(Debug, Clone, Copy)]
pub(super) struct Framing {
    /// Behind some bytes of a line.
    inside_line: bool,
    /// Behind a carriage return.
    after_cr: bool,
    at_boundary: bool,
}

/// A line's bytes, as far as they are there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Without the line's end.
    pub(super) text: &'a [u8],
    /// Whether the line ends behind them.
    pub(super) ended: bool,
    /// What comes behind the line.
    pub(super) rest: &'a [u8],
}

impl Framing {
    /// A stream before its first byte.
    pub(super) const fn new() -> Self {
        Self { inside_line: false, after_cr: false, at_boundary: true }
    }

    /// Whether all bytes so far are whole events, so that another may follow.
    pub(super) const fn at_boundary(&self) -> bool {
        self.at_boundary
    }

    /// Takes the next line, or the part of it that is there.
    pub(super) fn next_line<'a>(&mut self, bytes: &'a [u8]) -> Option<Line<'a>> {
        let bytes = self.without_line_feed(bytes);
        if bytes.is_empty() {
            return None;
        }
        let Some(end) = memchr2(b'\n', b'\r', bytes) else {
            self.inside_line = true;
            self.at_boundary = false;
            return Some(Line { text: bytes, ended: false, rest: &[] });
        };
        let (text, rest) = bytes.split_at(end);
        self.after_cr = rest.starts_with(b"\r");
        self.at_boundary = text.is_empty() && !self.inside_line;
        self.inside_line = false;
        Some(Line { text, ended: true, rest: rest.get(1..).unwrap_or_default() })
    }

    /// Takes the bytes up to where the event under way ends, and tells how many those are; all of them, where it does not
    /// end in them.
    pub(super) fn next_event(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut rest = bytes;
        while let Some(line) = self.next_line(rest) {
            rest = line.rest;
            if self.at_boundary {
                rest = self.without_line_feed(rest);
                return Some(bytes.len() - rest.len());
            }
        }
        None
    }

    /// Takes a line feed that belongs to the carriage return before it.
    pub(super) fn without_line_feed<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        if bytes.is_empty() || !std::mem::take(&mut self.after_cr) {
            return bytes;
        }
        bytes.strip_prefix(b"\n").unwrap_or(bytes)
    }
}

impl Default for Framing {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lengths of the events in `stream`, cut at `cut`; a lone line feed that belongs to the event before counts to it.
    fn events(stream: &[u8], cut: usize) -> Vec<usize> {
        let mut framing = Framing::new();
        let mut lengths = Vec::new();
        let mut begun = 0;
        for mut piece in [&stream[..cut], &stream[cut..]] {
            if begun == 0 {
                let late = piece.len() - framing.without_line_feed(piece).len();
                piece = &piece[late..];
                if late > 0 {
                    *lengths.last_mut().unwrap() += late;
                }
            }
            while let Some(length) = framing.next_event(piece) {
                lengths.push(begun + length);
                begun = 0;
                piece = &piece[length..];
            }
            begun += piece.len();
        }
        assert_eq!(framing.at_boundary(), begun == 0);
        lengths
    }

    #[test]
    fn every_mixture_of_line_ends_is_cut_alike_at_any_split() {
        for (stream, expected) in [
            (&b"a\n\nb: c\n\n"[..], &[3, 6][..]),
            (b"a\r\rb: c\r\r", &[3, 6]),
            (b"a\r\n\r\nb: c\r\n\r\n", &[5, 8]),
            (b"a\n\rb\r\n\n", &[3, 4]),
            (b"a\r\n\rb\n\r\n", &[4, 4]),
            (b"\r\n\n\ra", &[2, 1, 1]),
        ] {
            for cut in 0..=stream.len() {
                assert_eq!(events(stream, cut), expected, "{stream:?} at {cut}");
            }
        }
    }
}
