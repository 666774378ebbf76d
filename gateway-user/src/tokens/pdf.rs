//! How much text a PDF holds, and on how many pages, without laying any of it out (ISO 32000-1).
//!
//! Azure gives the model the text of a file's pages and pictures of them. A file of a kilobyte can hold a hundred thousand
//! tokens of text, compressed or shown many times over: the streams that are shown are inflated, within bounds. Whatever
//! could hide text from this reading, but not from another, makes a file unreadable, never small.

mod lexer;
mod objects;

use std::collections::HashMap;
use std::io::Read as _;

use flate2::bufread::ZlibDecoder;

use lexer::{Lexer, Word};
use objects::{Objects, Stream};

/// The text of a file, each part as often as it is shown.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pdf {
    pub(super) pages: u64,
    /// Texts, and how often each is shown.
    pub(super) texts: Vec<(String, u64)>,
    /// Characters of which only the numbers are known.
    pub(super) characters: u64,
}

/// Whether a file is one, as readers see it: they pass over what comes before.
pub(super) fn is_pdf(file: &[u8]) -> bool {
    let start = file.get(..HEADER_BYTES).unwrap_or(file);
    memchr::memmem::find(start, b"%PDF-").is_some()
}

/// Reads a file; nothing where its text has no bound, or is hidden by a cipher, an unusual filter, or a broken structure.
/// `budget` is how many bytes may be inflated, here and for all that follows.
pub(super) fn read(file: &[u8], budget: &mut usize) -> Option<Pdf> {
    let usual = file.len().saturating_mul(USUAL_RATIO).max(LEAST_INFLATED);
    let bytes = usual.min(*budget);
    let mut room = Room { bytes, streams: MOST_STREAMS };
    let pdf = read_within(file, &mut room);
    *budget -= bytes - room.bytes;
    pdf
}

fn read_within(file: &[u8], room: &mut Room) -> Option<Pdf> {
    let mut objects = Objects::default();
    objects.scan(file, 0)?;
    for stream in std::mem::take(&mut objects.packed) {
        let inner = stream.contents(file, room)?;
        objects.scan(&inner, 1)?;
    }
    objects.is_sound().then_some(())?;
    for stream in objects.streams.iter().filter(|stream| objects.maps.contains(&stream.number)) {
        let map = stream.contents(file, room)?;
        is_plain_map(&map).then_some(())?;
    }
    shown(file, &objects, room)
}

/// Adds up the streams that pages show: by themselves, and as forms that others paint.
fn shown(file: &[u8], objects: &Objects, room: &mut Room) -> Option<Pdf> {
    let mut pdf = Pdf { pages: objects.pages()?, ..Pdf::default() };
    let mut forms = Vec::new();
    let (mut painted, mut painted_by_forms, mut forms_that_paint): (u64, u64, u32) = (0, 0, 0);
    for stream in &objects.streams {
        let times = objects.contents.get(&stream.number).copied().unwrap_or(0);
        if times == 0 && !stream.is_form {
            continue;
        }
        let page = Page::read(&stream.contents(file, room)?);
        painted = painted.saturating_add(page.paints.saturating_mul(times));
        if stream.is_form {
            painted_by_forms = painted_by_forms.saturating_add(page.paints);
            forms_that_paint = forms_that_paint.saturating_add(u32::from(page.paints > 0));
        }
        if times > 0 {
            pdf.characters = pdf.characters.saturating_add(page.characters.saturating_mul(times));
            pdf.texts.push((page.text.clone(), times));
        }
        if stream.is_form && !(page.text.is_empty() && page.characters == 0) {
            forms.push(page);
        }
    }
    // Any form may be what is painted each time, and each that paints may paint any other.
    let times =
        painted.max(1).saturating_mul(painted_by_forms.saturating_add(1).saturating_pow(forms_that_paint));
    for form in forms {
        pdf.characters = pdf.characters.saturating_add(form.characters.saturating_mul(times));
        pdf.texts.push((form.text, times));
    }
    Some(pdf)
}

/// What one stream shows.
#[derive(Debug, Default)]
struct Page {
    text: String,
    characters: u64,
    /// How often it paints a form or a picture.
    paints: u64,
}

impl Page {
    fn read(contents: &[u8]) -> Self {
        let mut page = Self::default();
        for word in Lexer::new(contents) {
            match word {
                Word::Text(bytes, _) => page.show(&bytes),
                // A gap as wide as a blank, in thousandths.
                Word::Number(..-200) => page.text.push(' '),
                Word::Other(b"Do") => page.paints += 1,
                Word::Other(b"Tj" | b"TJ" | b"'" | b"\"" | b"T*" | b"ET") => page.text.push(' '),
                Word::Name(_)
                | Word::Number(_)
                | Word::Open
                | Word::Close
                | Word::List
                | Word::EndOfList
                | Word::Other(_)
                | Word::Comment(_) => {}
            }
        }
        page
    }

    /// Fonts number their characters as they like. Where the numbers are those of letters they are taken for letters,
    /// otherwise each pair of bytes, or each byte of an odd number, for a character that is a token.
    fn show(&mut self, bytes: &[u8]) {
        let printable = bytes.iter().filter(|byte| matches!(byte, b' '..=b'~' | 0xa0..)).count();
        if printable * 4 >= bytes.len() * 3 {
            self.text.extend(bytes.iter().map(|byte| char::from(*byte)));
        } else {
            let pairs =
                bytes.len().is_multiple_of(2) && bytes.chunks(2).all(|pair| pair.first() < Some(&0x20));
            let characters = if pairs { bytes.len() / 2 } else { bytes.len() };
            self.characters = self.characters.saturating_add(u64::try_from(characters).unwrap_or(u64::MAX));
        }
    }
}

impl Stream {
    /// The bytes of a stream as they were before its filter; nothing for a filter that is not known, and beyond the bounds.
    fn contents(&self, file: &[u8], room: &mut Room) -> Option<Vec<u8>> {
        let data = file.get(self.start..)?;
        room.streams = room.streams.checked_sub(1)?;
        if !self.has_filter {
            let raw = data.get(..memchr::memmem::find(data, b"endstream")?)?;
            room.bytes = room.bytes.checked_sub(raw.len())?;
            return Some(raw.to_vec());
        }
        if !self.is_deflated {
            return None;
        }
        let mut contents = Vec::new();
        // One byte more tells a stream that fits from one that does not.
        let most = u64::try_from(room.bytes).ok()?.checked_add(1)?;
        // What is broken shows what could be read, as readers do.
        let _until_here = ZlibDecoder::new(data).take(most).read_to_end(&mut contents).is_ok();
        if contents.is_empty() && !data.starts_with(b"\x78") {
            return None;
        }
        let fits = contents.len() <= room.bytes;
        room.bytes = room.bytes.saturating_sub(contents.len());
        fits.then_some(contents)
    }
}

/// How much may still be read.
struct Room {
    bytes: usize,
    streams: usize,
}

/// Whether a map from a font's characters to text gives each a few letters at most.
fn is_plain_map(map: &[u8]) -> bool {
    Lexer::new(map).all(|word| !matches!(word, Word::Text(bytes, _) if bytes.len() > LONGEST_CHARACTER))
}

/// Counts references by the number of the object.
fn refer(references: &mut HashMap<i64, u64>, number: i64) {
    let times = references.entry(number).or_default();
    *times = times.saturating_add(1);
}

/// Where readers look for a header.
const HEADER_BYTES: usize = 1024;
/// Text of pages is compressed to a fifth, and vector graphics further.
const USUAL_RATIO: usize = 64;
const LEAST_INFLATED: usize = 256 * 1024;
/// How many bytes are inflated for all the files of a request.
pub(super) const MOST_INFLATED: usize = 4 * 1024 * 1024;
const MOST_STREAMS: usize = 4096;
/// Bytes of UTF-16: ligatures have up to four letters.
const LONGEST_CHARACTER: usize = 8;

#[cfg(test)]
mod tests;
