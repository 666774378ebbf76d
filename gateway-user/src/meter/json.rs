//! Finds `usage` in a JSON document that passes by in pieces, without holding the document.

use super::usage::Usage;

/// Reads one JSON document in pieces of any size and keeps the `usage` object of its top level, or of the `response` that
/// its top level holds: the first is where answers have it, the second the last event of a responses stream.
///
/// Takes time in proportion to the bytes and keeps none of them but the object's own, of at most [`USAGE_BYTES`]. Where the
/// document is no JSON, what is found means nothing, but nothing goes wrong. Of several objects the last usable one counts.
#[derive(Debug, Default)]
pub struct UsageScanner {
    mode: Mode,
    /// How many containers are open.
    depth: u32,
    /// The depth of the innermost open container that is the document's own object or the `response` in it. At this depth
    /// keys matter; anywhere deeper only what opens and closes does.
    level: u32,
    /// Whether a string at `level` is a key.
    at_key: bool,
    /// What the last key at `level` names.
    member: Member,
    key: Key,
    capture: Capture,
    found: Option<Usage>,
}

impl UsageScanner {
    /// A scanner at the start of a document.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next bytes of the document.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while let Some((&first, after)) = rest.split_first() {
            // What cannot change the state is skipped in one stride.
            let stride = match self.mode {
                Mode::Outside if self.depth > self.level => position(rest, Class::is_bracket_or_quote),
                Mode::Outside => position(rest, Class::is_structural),
                Mode::Text => memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len()),
                Mode::TextEscape | Mode::Key | Mode::KeyEscape | Mode::KeyUnicode { .. } => 0,
            };
            if stride > 0 {
                let (skipped, after) = rest.split_at(stride);
                self.capture.extend(skipped);
                rest = after;
            } else {
                self.step(first);
                rest = after;
            }
        }
    }

    /// What was found so far.
    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.found
    }

    fn step(&mut self, byte: u8) {
        self.capture.extend(&[byte]);
        match self.mode {
            Mode::Outside => self.structure(byte),
            Mode::Text => match byte {
                b'"' => self.mode = Mode::Outside,
                b'\\' => self.mode = Mode::TextEscape,
                _ => {}
            },
            // Of `\u0022` only the `u` needs skipping: the digits are no quotes.
            Mode::TextEscape => self.mode = Mode::Text,
            Mode::Key => match byte {
                b'"' => {
                    self.member = self.key.member();
                    self.mode = Mode::Outside;
                }
                b'\\' => self.mode = Mode::KeyEscape,
                _ => self.mode = self.key.push(byte),
            },
            Mode::KeyEscape => {
                self.mode = match byte {
                    b'u' => Mode::KeyUnicode { digits: 0, value: 0 },
                    // No other escape stands for a letter.
                    _ => Mode::Text,
                };
            }
            Mode::KeyUnicode { digits, value } => self.mode = self.key.push_digit(digits, value, byte),
        }
    }

    fn structure(&mut self, byte: u8) {
        let inside = self.level > 0 && self.depth == self.level;
        match byte {
            b'"' if inside && self.at_key => {
                self.key = Key::default();
                self.member = Member::Other;
                self.mode = Mode::Key;
            }
            b'"' => self.mode = Mode::Text,
            b',' if inside => self.at_key = true,
            b':' if inside => self.at_key = false,
            b'{' | b'[' => self.open(byte == b'{', inside && !self.at_key),
            b'}' | b']' => self.close(),
            _ => {}
        }
    }

    fn open(&mut self, is_object: bool, is_value: bool) {
        let enters = match self.member {
            Member::Response => is_value && self.level == 1,
            Member::Usage | Member::Other => self.depth == 0,
        };
        if is_object && is_value && self.member == Member::Usage {
            self.capture.start(self.depth);
        }
        self.depth = self.depth.saturating_add(1);
        if is_object && enters {
            self.level = self.depth;
            self.at_key = true;
            self.member = Member::Other;
        }
    }

    fn close(&mut self) {
        if self.depth == self.level {
            self.level = self.level.saturating_sub(1);
            // Back in the outer object, behind the value that was `response`.
            self.at_key = false;
            self.member = Member::Other;
        }
        self.depth = self.depth.saturating_sub(1);
        if let Some(usage) = self.capture.end(self.depth).and_then(Usage::parse) {
            self.found = Some(usage);
        }
    }
}

/// Where in the text of the document the next byte is.
#[derive(Debug, Default, Clone, Copy)]
enum Mode {
    /// In no string.
    #[default]
    Outside,
    /// In a string that is not a key that matters, or no longer.
    Text,
    /// Behind a backslash in it.
    TextEscape,
    /// In a key that may still turn out to matter.
    Key,
    /// Behind a backslash in it.
    KeyEscape,
    /// Behind `\u` and some hexadecimal digits in it.
    KeyUnicode { digits: u8, value: u16 },
}

/// What a key names.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Member {
    Usage,
    Response,
    #[default]
    Other,
}

/// The first characters of a key, unescaped.
#[derive(Debug, Default, Clone, Copy)]
struct Key {
    bytes: [u8; LONGEST_KEY],
    length: usize,
}

impl Key {
    /// Adds a character, and says how to go on: as a key, or, when it is too long to matter, as any text.
    fn push(&mut self, byte: u8) -> Mode {
        match self.bytes.get_mut(self.length) {
            Some(place) => {
                *place = byte;
                self.length += 1;
                Mode::Key
            }
            None => Mode::Text,
        }
    }

    fn push_digit(&mut self, digits: u8, value: u16, byte: u8) -> Mode {
        let Some(digit) = char::from(byte).to_digit(16).and_then(|digit| u16::try_from(digit).ok()) else {
            return Mode::Text;
        };
        let value = value << 4 | digit;
        if digits < 3 {
            return Mode::KeyUnicode { digits: digits + 1, value };
        }
        // Beyond ASCII there is no key that matters.
        u8::try_from(value).map_or(Mode::Text, |byte| self.push(byte))
    }

    fn member(&self) -> Member {
        match self.bytes.get(..self.length) {
            Some(b"usage") => Member::Usage,
            Some(b"response") => Member::Response,
            _ => Member::Other,
        }
    }
}

/// The bytes of the object that is being kept.
#[derive(Debug, Default)]
struct Capture {
    bytes: Vec<u8>,
    /// The depth to which the object closes, while one is open.
    until: Option<u32>,
}

impl Capture {
    fn start(&mut self, depth: u32) {
        self.bytes.clear();
        self.bytes.push(b'{');
        self.until = Some(depth);
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.until.is_none() {
            return;
        }
        if self.bytes.len() + bytes.len() > USAGE_BYTES {
            self.until = None;
        } else {
            self.bytes.extend_from_slice(bytes);
        }
    }

    /// The whole object, when it closes to `depth`.
    fn end(&mut self, depth: u32) -> Option<&[u8]> {
        self.until.take_if(|until| *until >= depth).map(|_| self.bytes.as_slice())
    }
}

/// What a byte outside of strings can do.
struct Class;

impl Class {
    const fn is_bracket_or_quote(byte: u8) -> bool {
        matches!(byte, b'"' | b'{' | b'}' | b'[' | b']')
    }

    const fn is_structural(byte: u8) -> bool {
        Self::is_bracket_or_quote(byte) || matches!(byte, b',' | b':')
    }
}

fn position(bytes: &[u8], is_wanted: impl Fn(u8) -> bool) -> usize {
    bytes.iter().position(|byte| is_wanted(*byte)).unwrap_or(bytes.len())
}

/// The largest `usage` object that is kept; ten times what upstream sends today.
const USAGE_BYTES: usize = 4096;
/// The length of `response`.
const LONGEST_KEY: usize = 8;

#[cfg(test)]
mod tests;
