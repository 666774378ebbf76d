//! The objects of a PDF: which streams it has, and who refers to them.

use std::collections::{HashMap, HashSet};

use super::lexer::{Lexer, Word};
use super::refer;

/// What is known of a file's objects.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// All streams but those that hold objects.
    pub(super) streams: Vec<Stream>,
    /// Streams that hold objects.
    pub(super) packed: Vec<Stream>,
    /// How often each object is named as what a page shows.
    pub(super) contents: HashMap<i64, u64>,
    /// Objects that map a font's characters to text.
    pub(super) maps: HashSet<i64>,
    pages: u64,
    kids: HashMap<i64, u64>,
}

/// A stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stream {
    pub(super) number: i64,
    /// Where its data begins.
    pub(super) start: usize,
    pub(super) has_filter: bool,
    /// Whether the filter is `FlateDecode` alone.
    pub(super) is_deflated: bool,
    /// Whether others can paint it.
    pub(super) is_form: bool,
}

/// The outermost dictionary of the object that is being read.
#[derive(Default)]
struct Dictionary {
    number: i64,
    filters: usize,
    is_deflated: bool,
    is_packed: bool,
    is_form: bool,
    /// A filter that is named elsewhere, or that predicts from earlier bytes.
    is_odd: bool,
}

/// What the words that follow belong to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Key {
    Contents,
    Kids,
    Map,
    Filter,
    Type,
    Subtype,
    Other,
}

impl Objects {
    /// Reads objects one after the other. `level` is how many streams they are within. Nothing where another reader, which
    /// finds objects by an index, might find others.
    pub(super) fn scan(&mut self, bytes: &[u8], level: u8) -> Option<()> {
        let mut words = Lexer::new(bytes);
        let mut dictionary = Dictionary::default();
        let (mut depth, mut lists, mut key) = (0_u32, 0_u32, Key::Other);
        let mut numbers = [0_i64; 2];
        let mut after_dictionary = false;
        while let Some(word) = words.next() {
            let follows_dictionary = std::mem::replace(&mut after_dictionary, word == Word::Close);
            match word {
                Word::Open => depth = depth.checked_add(1)?,
                Word::Close => {
                    depth = depth.saturating_sub(1);
                    key = Key::Other;
                }
                Word::List => lists = lists.checked_add(1)?,
                Word::EndOfList => lists = lists.saturating_sub(1),
                Word::Name(name) => key = self.name(&mut dictionary, depth, key, &name)?,
                Word::Number(number) => numbers = [numbers[1], number],
                Word::Text(_, written) | Word::Comment(written) => hides_nothing(written).then_some(())?,
                Word::Other(b"obj") => {
                    dictionary = Dictionary { number: numbers[0], ..Dictionary::default() };
                    (depth, lists, key) = (0, 0, Key::Other);
                }
                Word::Other(b"R") => {
                    self.reference(&mut dictionary, key, (depth, lists), numbers[0]);
                    self.is_small().then_some(())?;
                }
                Word::Other(b"stream") => {
                    (level == 0 && follows_dictionary).then_some(())?;
                    words.at = self.stream(bytes, words.at, &dictionary)?;
                }
                Word::Other(_) => {}
            }
        }
        Some(())
    }

    /// Whether what is remembered of a file is less than a book needs.
    fn is_small(&self) -> bool {
        [self.contents.len(), self.kids.len(), self.maps.len()].into_iter().all(|count| count <= MOST_OBJECTS)
    }

    fn name(&mut self, dictionary: &mut Dictionary, depth: u32, key: Key, name: &[u8]) -> Option<Key> {
        let is_value = match key {
            Key::Type => {
                self.pages = self.pages.saturating_add(u64::from(name == b"Page"));
                dictionary.is_packed |= name == b"ObjStm" && depth == 1;
                true
            }
            Key::Subtype => {
                dictionary.is_form |= name == b"Form" && depth == 1;
                true
            }
            Key::Filter if is_filter(name) => {
                dictionary.filters += usize::from(depth == 1);
                dictionary.is_deflated = matches!(name, b"FlateDecode" | b"Fl");
                return Some(Key::Filter);
            }
            Key::Contents | Key::Kids | Key::Map | Key::Filter | Key::Other => false,
        };
        if is_value {
            return Some(Key::Other);
        }
        Some(match name {
            b"Contents" => Key::Contents,
            b"Kids" => Key::Kids,
            b"ToUnicode" => Key::Map,
            b"Filter" | b"F" if depth == 1 => Key::Filter,
            b"Type" => Key::Type,
            b"Subtype" => Key::Subtype,
            b"Predictor" => {
                dictionary.is_odd = true;
                Key::Other
            }
            b"Encrypt" => return None,
            _ => Key::Other,
        })
    }

    fn reference(&mut self, dictionary: &mut Dictionary, key: Key, (depth, lists): (u32, u32), number: i64) {
        match key {
            Key::Contents => refer(&mut self.contents, number),
            Key::Kids => refer(&mut self.kids, number),
            Key::Map => {
                self.maps.insert(number);
            }
            Key::Filter => dictionary.is_odd = true,
            // A list that is an object of its own may be the contents of a page.
            Key::Type | Key::Subtype | Key::Other if depth == 0 && lists > 0 => {
                refer(&mut self.contents, number);
            }
            Key::Type | Key::Subtype | Key::Other => {}
        }
    }

    /// Notes a stream whose data begins at `start`; returns where it ends.
    fn stream(&mut self, bytes: &[u8], start: usize, dictionary: &Dictionary) -> Option<usize> {
        let rest = bytes.get(start..)?;
        let line_end = match rest {
            [b'\r', b'\n', ..] => 2,
            [b'\r' | b'\n', ..] => 1,
            _ => 0,
        };
        let length = memchr::memmem::find(rest, b"endstream")?;
        hides_nothing(rest.get(..length)?).then_some(())?;
        let stream = Stream {
            number: dictionary.number,
            start: start + line_end,
            has_filter: dictionary.filters > 0 || dictionary.is_odd,
            is_deflated: dictionary.is_deflated && dictionary.filters == 1 && !dictionary.is_odd,
            is_form: dictionary.is_form,
        };
        if dictionary.is_packed {
            self.packed.push(stream);
        } else {
            self.streams.push(stream);
        }
        (self.streams.len() + self.packed.len() <= MOST_OBJECTS).then_some(start + length)
    }

    /// How many pages there are; nothing where there is none.
    pub(super) fn pages(&self) -> Option<u64> {
        let kids = u64::try_from(self.kids.len()).ok()?;
        (self.pages > 0).then_some(self.pages.max(kids))
    }

    /// Whether every page is one page, and no streams hide in streams.
    pub(super) fn is_sound(&self) -> bool {
        self.packed.is_empty() && self.kids.values().all(|times| *times == 1)
    }
}

/// Whether bytes that are passed over hold no beginning of an object, to which an index could point.
fn hides_nothing(bytes: &[u8]) -> bool {
    memchr::memmem::find(bytes, b" obj").is_none() && memchr::memmem::find(bytes, b"endobj").is_none()
}

fn is_filter(name: &[u8]) -> bool {
    name.ends_with(b"Decode")
        || matches!(name, b"Fl" | b"LZW" | b"A85" | b"AHx" | b"RL" | b"CCF" | b"DCT" | b"Crypt")
}

/// As many as a book has.
const MOST_OBJECTS: usize = 1 << 16;
