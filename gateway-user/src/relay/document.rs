//! An answer that is one JSON document, read for its usage as it passes.

use crate::billing::Metered;
use crate::meter::inflate::Inflater;
use crate::meter::json::UsageScanner;

/// Reads an answer in pieces of any size, compressed or plain.
#[derive(Debug)]
pub(crate) struct Document {
    scanner: UsageScanner,
    inflater: Option<Inflater>,
}

impl Document {
    /// An answer before its first byte.
    pub(crate) fn new(inflater: Option<Inflater>) -> Self {
        Self { scanner: UsageScanner::new(), inflater }
    }

    /// Reads the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        match &mut self.inflater {
            Some(inflater) => inflater.push(bytes, |bytes| self.scanner.push(bytes)),
            None => self.scanner.push(bytes),
        }
    }

    /// Whether its bytes are compressed.
    pub(crate) const fn is_compressed(&self) -> bool {
        self.inflater.is_some()
    }

    /// What was seen so far. The text itself is not counted: it comes with its usage, or is cut off.
    pub(crate) fn metered(&self) -> Metered {
        Metered { usage: self.scanner.usage(), unread: true, answered: true, ..Metered::default() }
    }
}
