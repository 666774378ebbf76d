//! Files that a request holds.

use super::basis::{Basis, REFERENCE_TOKENS};
use super::count::Count;
use super::{encoded, pdf};
use crate::units::Tokens;

/// Adds a file in base64, or in a `data:` URL of it: the text that it holds, and the pictures of its pages. One of which
/// nobody can tell how much text it holds counts as one that is held upstream.
pub(super) fn add(count: &mut Count, data: &str) {
    let base64 = match data.split_once(";base64,") {
        Some((start, rest)) if start.starts_with("data:") => rest,
        _ => data,
    };
    let Some(file) = encoded::decode(base64) else { return unknown(count, data) };
    if pdf::is_pdf(&file) {
        return match pdf::read(&file, &mut count.inflated) {
            Some(pdf) => add_pdf(count, &pdf),
            None => unknown(count, data),
        };
    }
    match std::str::from_utf8(&file) {
        Ok(text) if !text.contains('\0') => count.text(text),
        _ => unknown(count, data),
    }
}

fn add_pdf(count: &mut Count, pdf: &pdf::Pdf) {
    for (text, times) in &pdf.texts {
        let before = count.total();
        count.text(text);
        let once = count.total().saturating_sub(before).get();
        count.add(Tokens::new(once.saturating_mul(times.saturating_sub(1))));
    }
    count.add(Tokens::new(pdf.characters));
    count.assumed(Tokens::new(pdf.pages.saturating_mul(PAGE)), Basis::Bound);
}

fn unknown(count: &mut Count, data: &str) {
    let pages = Tokens::from_bytes(data.len() / BYTES_A_TOKEN);
    count.assumed(pages.max(REFERENCE_TOKENS), Basis::Stored);
}

/// The picture of a page. Recorded answers count up to 320 tokens for a page with a few words.
const PAGE: u64 = 320;
/// About 2,000 tokens for some 30 KB in base64.
const BYTES_A_TOKEN: usize = 16;
