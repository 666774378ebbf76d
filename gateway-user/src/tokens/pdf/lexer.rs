//! The words of a PDF (ISO 32000-1, 7.2 and 7.3): of a file, and of the contents of its pages alike.

/// One word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word<'a> {
    /// `/Name`, with `#20` and the like replaced.
    Name(Vec<u8>),
    /// `(text)` or `<74657874>`, as the bytes that it stands for; with what it is written in.
    Text(Vec<u8>, &'a [u8]),
    /// A number, without its fraction.
    Number(i64),
    /// `<<`
    Open,
    /// `>>`
    Close,
    /// `[`
    List,
    /// `]`
    EndOfList,
    /// `obj`, `R`, `stream`, `Tj`, and everything else.
    Other(&'a [u8]),
    /// `% up to the end of the line`
    Comment(&'a [u8]),
}

/// Reads one word after the other.
#[derive(Debug, Clone)]
pub(super) struct Lexer<'a> {
    bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Lexer<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take_while(&mut self, belongs: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| !belongs(*byte)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn name(&mut self) -> Word<'a> {
        self.at += 1;
        let written = self.take_while(is_regular);
        let mut name = Vec::with_capacity(written.len());
        let mut rest = written;
        while let [byte, after @ ..] = rest {
            rest = after;
            if let (b'#', [high, low, after @ ..]) = (*byte, after)
                && let (Some(high), Some(low)) = (hex(*high), hex(*low))
            {
                name.push(high << 4 | low);
                rest = after;
            } else {
                name.push(*byte);
            }
        }
        Word::Name(name)
    }

    /// In parentheses, which may stand within it where they come in pairs.
    fn text(&mut self) -> Word<'a> {
        let start = self.at;
        self.at += 1;
        let mut text = Vec::new();
        let mut depth = 1_u32;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b'\\' => {
                    self.escape(&mut text);
                    continue;
                }
                _ => {}
            }
            if depth == 0 {
                break;
            }
            text.push(byte);
        }
        Word::Text(text, self.bytes.get(start..self.at).unwrap_or_default())
    }

    fn escape(&mut self, text: &mut Vec<u8>) {
        let Some(byte) = self.peek() else { return };
        self.at += 1;
        match byte {
            b'n' => text.push(b'\n'),
            b'r' => text.push(b'\r'),
            b't' => text.push(b'\t'),
            b'b' | b'f' => text.push(b' '),
            // A line that goes on.
            b'\r' | b'\n' => {}
            b'0'..=b'7' => {
                let mut code = u32::from(byte - b'0');
                for _ in 0..2 {
                    let Some(digit @ b'0'..=b'7') = self.peek() else { break };
                    code = code << 3 | u32::from(digit - b'0');
                    self.at += 1;
                }
                text.push((code & 0xff).to_le_bytes()[0]);
            }
            _ => text.push(byte),
        }
    }

    fn hexadecimal(&mut self) -> Word<'a> {
        let start = self.at;
        self.at += 1;
        let digits = self.take_while(|byte| byte != b'>');
        self.at += 1;
        let digits: Vec<u8> = digits.iter().filter_map(|digit| hex(*digit)).collect();
        let text = digits.chunks(2).map(|pair| match pair {
            [high, low] => high << 4 | low,
            [high] => high << 4,
            _ => 0,
        });
        Word::Text(text.collect(), self.bytes.get(start..self.at.min(self.bytes.len())).unwrap_or_default())
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Word<'a>;

    fn next(&mut self) -> Option<Word<'a>> {
        self.take_while(is_space);
        let second = self.bytes.get(self.at + 1).copied();
        let single = |lexer: &mut Self, word, length| {
            lexer.at += length;
            Some(word)
        };
        match self.peek()? {
            b'/' => Some(self.name()),
            b'(' => Some(self.text()),
            b'<' if second == Some(b'<') => single(self, Word::Open, 2),
            b'<' => Some(self.hexadecimal()),
            b'>' if second == Some(b'>') => single(self, Word::Close, 2),
            b'[' => single(self, Word::List, 1),
            b']' => single(self, Word::EndOfList, 1),
            b'%' => Some(Word::Comment(self.take_while(|byte| byte != b'\r' && byte != b'\n'))),
            b'{' | b'}' | b')' | b'>' => single(self, Word::Other(b""), 1),
            _ => {
                let word = self.take_while(is_regular);
                let number = std::str::from_utf8(word).ok().and_then(|word| {
                    let whole = word.split('.').next().unwrap_or(word);
                    whole.parse().ok()
                });
                Some(number.map_or(Word::Other(word), Word::Number))
            }
        }
    }
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, 0 | b'\t' | b'\n' | 0x0c | b'\r' | b' ')
}

const fn is_regular(byte: u8) -> bool {
    !is_space(byte) && !matches!(byte, b'(' | b')' | b'<' | b'>' | b'[' | b']' | b'{' | b'}' | b'/' | b'%')
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_told_apart() {
        let words: Vec<_> =
            Lexer::new(b"<</Fl#61te[1 -2.5]>>(a(b)\\)\\051\\n)<48 6>stream% c\n7 0 R").collect();
        assert_eq!(
            words,
            [
                Word::Open,
                Word::Name(b"Flate".to_vec()),
                Word::List,
                Word::Number(1),
                Word::Number(-2),
                Word::EndOfList,
                Word::Close,
                Word::Text(b"a(b)))\n".to_vec(), b"(a(b)\\)\\051\\n)"),
                Word::Text(b"H`".to_vec(), b"<48 6>"),
                Word::Other(b"stream"),
                Word::Comment(b"% c"),
                Word::Number(7),
                Word::Number(0),
                Word::Other(b"R"),
            ]
        );
    }

    #[test]
    fn what_has_no_end_ends_with_the_bytes() {
        for bytes in [b"(abc\\".as_slice(), b"<", b"<48", b"(", b"/", b">", b"(\\7", b"%"] {
            assert!(Lexer::new(bytes).count() <= 1);
        }
    }
}
