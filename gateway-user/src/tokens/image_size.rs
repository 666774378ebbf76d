//! The size of an image in a data URL, read from its header. Of the base64 only the characters that hold the header are
//! decoded, wherever they are; the image itself is not.

use super::encoded::Base64;

/// Width and height in pixels, as the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Size {
    /// Both sides times a factor of at most one, to the nearest whole pixel; never nothing.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "no more than the side was")]
    pub(super) fn scaled(self, factor: f64) -> Self {
        let side = |pixels: u32| ((f64::from(pixels) * factor).round() as u32).max(1);
        Self { width: side(self.width), height: side(self.height) }
    }
}

/// The size of the image in a `data:` URL (RFC 2397) in base64. Nothing for other URLs, for formats that the API does not
/// take, and for headers that make no sense.
pub(super) fn of_data_url(url: &str) -> Option<Size> {
    let (scheme, rest) = url.split_at_checked("data:".len())?;
    if !scheme.eq_ignore_ascii_case("data:") {
        return None;
    }
    let comma = memchr::memchr(b',', rest.as_bytes().get(..MEDIA_TYPE_BYTES.min(rest.len()))?)?;
    let (media_type, data) = rest.split_at(comma);
    if !media_type.ends_with(";base64") {
        return None;
    }
    let image = Base64::new(data.get(1..)?);
    png(image).or_else(|| gif(image)).or_else(|| webp(image)).or_else(|| jpeg(image)).filter(is_sensible)
}

const fn is_sensible(size: &Size) -> bool {
    size.width > 0 && size.height > 0
}

/// PNG, third edition, 11.2.1: signature, then the `IHDR` chunk with width and height.
fn png(image: Base64<'_>) -> Option<Size> {
    let [head @ .., w0, w1, w2, w3, h0, h1, h2, h3] = image.read::<24>(0)?;
    (head == *b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR").then(|| Size {
        width: u32::from_be_bytes([w0, w1, w2, w3]),
        height: u32::from_be_bytes([h0, h1, h2, h3]),
    })
}

/// GIF, version 89a: the logical screen (section 18), which decoders enlarge for a picture beyond it, then the extensions
/// (sections 23 to 26) up to the first picture's descriptor (section 20).
fn gif(image: Base64<'_>) -> Option<Size> {
    let [head @ .., w0, w1, h0, h1, flags, _, _] = image.read::<13>(0)?;
    if head != *b"GIF87a" && head != *b"GIF89a" {
        return None;
    }
    let side = |low, high| u32::from(u16::from_le_bytes([low, high]));
    let colours = if flags & 0x80 == 0 { 0 } else { 3 << ((flags & 7) + 1) };
    let mut at = 13 + colours;
    for _ in 0..GIF_BLOCKS {
        match image.read::<2>(at)? {
            [0x2c, _] => {
                let [x0, x1, y0, y1, pw0, pw1, ph0, ph1] = image.read::<8>(at + 1)?;
                return Some(Size {
                    width: side(w0, w1).max(side(x0, x1) + side(pw0, pw1)),
                    height: side(h0, h1).max(side(y0, y1) + side(ph0, ph1)),
                });
            }
            [0x21, _] => at = after_sub_blocks(image, at + 2)?,
            _ => return None,
        }
    }
    None
}

/// Where the sub-blocks of a GIF end that begin at a place: behind the first empty one.
fn after_sub_blocks(image: Base64<'_>, mut at: usize) -> Option<usize> {
    for _ in 0..GIF_BLOCKS {
        let [length] = image.read::<1>(at)?;
        at += 1 + usize::from(length);
        if length == 0 {
            return Some(at);
        }
    }
    None
}

/// RFC 9649, section 2: a RIFF container whose first chunk is `VP8 `, `VP8L` or `VP8X`.
fn webp(image: Base64<'_>) -> Option<Size> {
    let riff = image.read::<16>(0)?;
    if !riff.starts_with(b"RIFF") || riff.get(8..12) != Some(b"WEBP") {
        return None;
    }
    match riff.get(12..16)? {
        b"VP8 " => {
            let [w0, w1, h0, h1] = image.read::<4>(26)?;
            Some(Size {
                width: u32::from(u16::from_le_bytes([w0, w1]) & 0x3fff),
                height: u32::from(u16::from_le_bytes([h0, h1]) & 0x3fff),
            })
        }
        b"VP8L" => {
            let bits = u32::from_le_bytes(image.read::<4>(21)?);
            Some(Size { width: (bits & 0x3fff) + 1, height: (bits >> 14 & 0x3fff) + 1 })
        }
        b"VP8X" => {
            let [w0, w1, w2, h0, h1, h2] = image.read::<6>(24)?;
            Some(Size {
                width: u32::from_le_bytes([w0, w1, w2, 0]) + 1,
                height: u32::from_le_bytes([h0, h1, h2, 0]) + 1,
            })
        }
        _ => None,
    }
}

/// ITU T.81, annex B: segments up to the frame header, which holds height and width.
fn jpeg(image: Base64<'_>) -> Option<Size> {
    if image.read::<2>(0)? != [0xff, 0xd8] {
        return None;
    }
    let mut at = 2;
    for _ in 0..JPEG_SEGMENTS {
        let [ff, marker, l0, l1] = image.read::<4>(at)?;
        match (ff, marker) {
            // Fill bytes may come before a marker.
            (0xff, 0xff) => at += 1,
            // Every kind of frame; the numbers between are tables and arithmetic conditioning.
            (0xff, 0xc0..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf) => {
                let [h0, h1, w0, w1] = image.read::<4>(at + 5)?;
                return Some(Size {
                    width: u32::from(u16::from_be_bytes([w0, w1])),
                    height: u32::from(u16::from_be_bytes([h0, h1])),
                });
            }
            // Markers without a segment.
            (0xff, 0x01 | 0xd0..=0xd7) => at += 2,
            // The end, or the scan, before any frame.
            (0xff, 0xd9 | 0xda) => return None,
            // Tables, comments and applications' own. Of all else decoders make what they like.
            (0xff, 0xc4 | 0xc8 | 0xcc | 0xdb..=0xfe) => at += 2 + usize::from(u16::from_be_bytes([l0, l1])),
            _ => return None,
        }
    }
    None
}

/// More than any media type with its parameters.
const MEDIA_TYPE_BYTES: usize = 256;
/// Metadata of 16 KiB are as many sub-blocks.
const GIF_BLOCKS: usize = 64;
/// A 16 MiB JPEG has fewer segments before its frame.
const JPEG_SEGMENTS: usize = 1024;

#[cfg(test)]
pub(super) mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    /// A data URL with nothing but a PNG's header.
    pub(in crate::tokens) fn png_url(width: u32, height: u32) -> String {
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR".to_vec();
        png.extend(width.to_be_bytes());
        png.extend(height.to_be_bytes());
        png.extend([8, 6, 0, 0, 0]);
        data_url("image/png", &png)
    }

    fn data_url(media_type: &str, bytes: &[u8]) -> String {
        format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
    }

    const SIZE: Size = Size { width: 640, height: 480 };

    #[test]
    fn sizes_are_read_from_headers() {
        assert_eq!(of_data_url(&png_url(640, 480)), Some(SIZE));
        let gif = b"GIF89a\x80\x02\xe0\x01\x70\0\0\x2c\0\0\0\0\x80\x02\xe0\x01\0";
        assert_eq!(of_data_url(&data_url("image/gif", gif)), Some(SIZE));
        let lossy = b"RIFF\0\0\0\0WEBPVP8 \0\0\0\0\0\0\0\x9d\x01\x2a\x80\x02\xe0\x01";
        assert_eq!(of_data_url(&data_url("image/webp", lossy)), Some(SIZE));
        let bits = (639_u32 | 479 << 14).to_le_bytes();
        let lossless = [b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f", bits.as_slice()].concat();
        assert_eq!(of_data_url(&data_url("image/webp", &lossless)), Some(SIZE));
        let extended = b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x7f\x02\0\xdf\x01\0";
        assert_eq!(of_data_url(&data_url("image/webp", extended)), Some(SIZE));
    }

    #[test]
    fn a_gif_is_as_large_as_its_picture_whatever_the_screen() {
        // A screen of one pixel with two colours, a comment, a control, and a picture beside it.
        let mut gif = b"GIF89a\x01\0\x01\0\x80\0\0".to_vec();
        gif.extend([0; 6]);
        gif.extend(b"\x21\xfe\x02hi\x01!\0\x21\xf9\x04\0\0\0\0\0\x2c\x10\0\x10\0\x70\x02\xd0\x01\0");
        assert_eq!(of_data_url(&data_url("image/gif", &gif)), Some(SIZE));
        for cut in 0..gif.len() - 1 {
            assert_eq!(of_data_url(&data_url("image/gif", &gif[..cut])), None, "{cut}");
        }
    }

    #[test]
    fn what_a_decoder_skips_hides_no_jpeg_frame() {
        // Decoders pass over a stuffed zero, and read on right behind it; a second start they refuse.
        for marker in [0x00, 0xd8, 0x02] {
            let mut jpeg = vec![0xff, 0xd8, 0xff, marker, 0, 19];
            jpeg.extend([0xff, 0xc0, 0, 17, 8, 0x20, 0, 0x20, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
            jpeg.extend([0xff, 0xc0, 0, 17, 8, 0, 1, 0, 1, 3]);
            assert_eq!(of_data_url(&data_url("image/jpeg", &jpeg)), None, "{marker}");
        }
    }

    #[test]
    fn a_jpeg_is_read_past_its_metadata() {
        let mut jpeg = vec![0xff, 0xd8];
        for _ in 0..3 {
            jpeg.extend([0xff, 0xe1, 0xff, 0xff]);
            jpeg.extend(vec![0xc0; 65_533]);
        }
        jpeg.extend([0xff, 0xff, 0xc2, 0, 17, 8, 0x01, 0xe0, 0x02, 0x80, 3]);
        assert_eq!(of_data_url(&data_url("image/jpeg", &jpeg)), Some(SIZE));
        let cut = &jpeg[..jpeg.len() - 4];
        assert_eq!(of_data_url(&data_url("image/jpeg", cut)), None);
    }

    #[test]
    fn what_holds_no_image_has_no_size() {
        for url in [
            "",
            "data:",
            "https://example.org/a.png",
            "data:image/png,abc",
            "data:image/png;base64,",
            "data:image/png;base64,????",
            "data:;base64,AAAA",
        ] {
            assert_eq!(of_data_url(url), None, "{url}");
        }
        assert_eq!(of_data_url(&png_url(0, 480)), None);
    }

    proptest! {
        #[test]
        fn no_header_panics(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..4) {
            let starts: [&[u8]; 4] = [b"\xff\xd8", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"RIFF\0\0\0\0WEBPVP8", b"GIF89a"];
            let image = [starts[kind], &bytes].concat();
            if let Some(size) = of_data_url(&data_url("image/x", &image)) {
                prop_assert!(is_sensible(&size));
            }
        }
    }
}
