use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use proptest::prelude::*;

use super::*;

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A file of the given objects, each with its number, its dictionary and perhaps its stream.
fn file(objects: &[(u32, &str, Option<&[u8]>)]) -> Vec<u8> {
    let mut file = b"%PDF-1.7\n".to_vec();
    for (number, dictionary, stream) in objects {
        file.extend(format!("{number} 0 obj\n{dictionary}\n").bytes());
        if let Some(stream) = stream {
            file.extend(b"stream\r\n");
            file.extend(*stream);
            file.extend(b"\nendstream\n");
        }
        file.extend(b"endobj\n");
    }
    file
}

const PAGES: (u32, &str, Option<&[u8]>) = (2, "<</Type/Pages/Kids[3 0 R]/Count 1>>", None);
const PAGE: (u32, &str, Option<&[u8]>) = (3, "<</Type /Page /Contents 4 0 R>>", None);

fn read(file: &[u8]) -> Option<Pdf> {
    super::read(file, &mut { MOST_INFLATED })
}

fn words(pdf: &Pdf) -> Vec<(&str, u64)> {
    pdf.texts.iter().map(|(text, times)| (text.trim(), *times)).collect()
}

#[test]
fn the_text_of_a_page_is_read_compressed_or_not() {
    let contents = b"BT /F1 24 Tf (Hello,) Tj [(W) 20 (or) -300 (ld)] TJ ET";
    let plain = read(&file(&[PAGES, PAGE, (4, "<</Length 54>>", Some(contents))])).unwrap();
    assert_eq!((plain.pages, plain.characters, words(&plain)), (1, 0, vec![("Hello, Wor ld", 1)]));
    for filter in ["/FlateDecode", "[/FlateDecode]", "/Fl", "/Fl#61teDecode"] {
        let dictionary = format!("<</Length 50 /Filter {filter}>>");
        let packed = read(&file(&[PAGES, PAGE, (4, &dictionary, Some(&deflate(contents)))]));
        assert_eq!(packed.as_ref(), Some(&plain), "{filter}");
    }
}

#[test]
fn characters_without_letters_are_counted() {
    let contents = b"<00360048005300460050> Tj (\\001\\002\\003) Tj";
    let pdf = read(&file(&[PAGES, PAGE, (4, "<<>>", Some(contents))])).unwrap();
    assert_eq!(pdf.characters, 5 + 3);
}

#[test]
fn pages_in_a_packed_stream_are_found() {
    let packed = deflate(b"3 0 2 33 <</Type /Page /Contents 4 0 R>> <</Type/Pages/Kids[3 0 R]>>");
    let pdf = read(&file(&[
        (5, "<</Type/ObjStm/N 2/First 9/Filter/FlateDecode>>", Some(&packed)),
        (4, "<</Filter/FlateDecode>>", Some(&deflate(b"(Hello) Tj"))),
    ]));
    assert_eq!(words(&pdf.unwrap()), [("Hello", 1)]);
}

#[test]
fn a_stream_counts_as_often_as_it_is_shown() {
    let text = deflate(b"(Hello) Tj");
    let shown_by_three = read(&file(&[
        (2, "<</Type/Pages/Kids[3 0 R 5 0 R]>>", None),
        (3, "<</Type/Page/Contents 4 0 R>>", None),
        (5, "<</Type/Page/Contents[4 0 R 4 0 R]>>", None),
        (4, "<</Filter/FlateDecode>>", Some(&text)),
    ]));
    let shown_by_three = shown_by_three.unwrap();
    assert_eq!((shown_by_three.pages, words(&shown_by_three)), (2, vec![("Hello", 3)]));
    let listed = read(&file(&[
        PAGES,
        (3, "<</Type/Page/Contents 6 0 R>>", None),
        (6, "[4 0 R 4 0 R]", None),
        (4, "<</Filter/FlateDecode>>", Some(&text)),
    ]));
    assert_eq!(words(&listed.unwrap()), [("Hello", 2)]);
    let painted = read(&file(&[
        PAGES,
        PAGE,
        (4, "<<>>", Some(b"/A Do /A Do /A Do")),
        (7, "<</Type/XObject/Subtype/Form/Filter/FlateDecode>>", Some(&text)),
    ]));
    assert_eq!(words(&painted.unwrap()), [("", 1), ("Hello", 3)]);
}

#[test]
fn forms_that_paint_each_other_multiply() {
    let form = "<</Type/XObject/Subtype/Form>>";
    let pdf = read(&file(&[
        PAGES,
        PAGE,
        (4, "<<>>", Some(b"/A Do")),
        (7, form, Some(b"/B Do /B Do")),
        (8, form, Some(b"/C Do /C Do")),
        (9, form, Some(b"(Hello) Tj")),
    ]));
    let times = pdf.unwrap().texts.last().unwrap().1;
    assert!(times >= 4, "{times}");
}

#[test]
fn pictures_and_fonts_are_not_text() {
    let noise: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    let pdf = read(&file(&[
        PAGES,
        PAGE,
        (4, "<<>>", Some(b"(Hello) Tj /I Do")),
        (8, "<</Type/XObject/Subtype/Image/Filter/FlateDecode>>", Some(&deflate(&noise))),
        (9, "<</Length1 9/Filter[/ASCII85Decode/FlateDecode]>>", Some(b"(font")),
        (10, "<</Subtype/Image/Filter/DCTDecode>>", Some(&noise)),
    ]));
    assert_eq!(words(&pdf.unwrap()), [("Hello", 1)]);
}

#[test]
fn what_could_hide_text_makes_a_file_unreadable() {
    let text = deflate(b"(Hello) Tj");
    let bomb = deflate(&b"(Hello) Tj ".repeat(40_000));
    let flate = "<</Filter/FlateDecode>>";
    for (why, objects) in [
        ("too much text", vec![PAGES, PAGE, (4, flate, Some(bomb.as_slice()))]),
        ("a cipher", vec![PAGES, PAGE, (4, flate, Some(&text)), (9, "<</Encrypt 8 0 R>>", None)]),
        ("another filter", vec![PAGES, PAGE, (4, "<</Filter/LZWDecode>>", Some(&text))]),
        ("two filters", vec![PAGES, PAGE, (4, "<</Filter[/ASCII85Decode/FlateDecode]>>", Some(&text))]),
        ("a filter elsewhere", vec![PAGES, PAGE, (4, "<</Filter 9 0 R>>", Some(&text))]),
        (
            "a predictor",
            vec![PAGES, PAGE, (4, "<</Filter/FlateDecode/DecodeParms<</Predictor 12>>>>", Some(&text))],
        ),
        ("no pages", vec![(4, flate, Some(&text))]),
        (
            "a page many times",
            vec![(2, "<</Type/Pages/Kids[3 0 R 3 0 R]>>", None), PAGE, (4, flate, Some(&text))],
        ),
        (
            "an object in a text",
            vec![PAGES, PAGE, (9, "(\n4 0 obj <<>> stream (Hello) Tj endstream endobj\n)", None)],
        ),
        (
            "an object in a comment",
            vec![PAGES, PAGE, (9, "% 4 0 obj <<>> stream", None), (4, flate, Some(&text))],
        ),
        ("an object in a stream", vec![PAGES, PAGE, (9, "<<>>", Some(b"4 0 obj <</Filter/FlateDecode>>"))]),
        (
            "a letter that is many",
            vec![
                PAGES,
                PAGE,
                (4, flate, Some(&text)),
                (8, "<</ToUnicode 9 0 R>>", None),
                (9, "<<>>", Some(b"1 beginbfchar <48> <0048004800480048004800480048> endbfchar")),
            ],
        ),
    ] {
        assert_eq!(read(&file(&objects)), None, "{why}");
    }
    let usual = b"2 beginbfchar <48> <0048> <ae> <00660066006C> endbfchar";
    let with_map = [
        PAGES,
        PAGE,
        (4, flate, Some(text.as_slice())),
        (8, "<</ToUnicode 9 0 R>>", None),
        (9, "<<>>", Some(usual)),
    ];
    assert!(read(&file(&with_map)).is_some());
}

#[test]
fn a_file_is_known_by_its_header() {
    assert!(is_pdf(b"%PDF-1.4"));
    assert!(is_pdf(b"\n junk %PDF-1.4"));
    assert!(!is_pdf(b"# A report"));
    assert!(!is_pdf(&[b" ".repeat(2000), b"%PDF-".to_vec()].concat()));
}

proptest! {
    #[test]
    fn no_file_panics(parts in prop::collection::vec(prop_oneof![
        prop::sample::select(vec![
            "1 0 obj", "endobj", "<<", ">>", "/Type/Page", "/Kids[3 0 R]", "/Contents 1 0 R", "stream\n", "endstream",
            "/Filter/FlateDecode", "/Subtype/Form", "(a\\", "<4", "[", "]", "Do", "R", "/Predictor", "/ToUnicode 1 0 R",
            "/Type/ObjStm", "#", "%", "x\u{9c}",
        ]).prop_map(|word| word.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>(), 0..20),
    ], 0..60)) {
        let file = [b"%PDF-1.7\n".to_vec(), parts.join(b" ".as_slice())].concat();
        if let Some(pdf) = read(&file) {
            prop_assert!(pdf.pages > 0);
            prop_assert!(pdf.texts.iter().map(|(text, _)| text.len()).sum::<usize>() <= 2 * MOST_INFLATED);
        }
    }
}
