//! Numbered fields in a row of bytes.
//!
//! A version byte, then of each field a tag (its number times two, plus one for a text) and its value. Tags, amounts and
//! the lengths of texts are LEB128 varints. An amount of zero is left out.

/// The first byte of a row that this version can read.
const VERSION: u8 = 1;

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::store) enum Field<'a> {
    Amount(u64),
    Text(&'a str),
}

/// Writes a row.
pub(in crate::store) struct Writer(Vec<u8>);

impl Writer {
    pub(in crate::store) fn new() -> Self {
        Self(vec![VERSION])
    }

    pub(in crate::store) fn amount(&mut self, number: u64, amount: u64) {
        if amount > 0 {
            self.varint(number << 1);
            self.varint(amount);
        }
    }

    pub(in crate::store) fn text(&mut self, number: u64, text: &str) {
        self.varint((number << 1) | 1);
        self.varint(text.len() as u64);
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(in crate::store) fn finish(self) -> Vec<u8> {
        self.0
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.0.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.0.push(low);
    }
}

/// The fields of a row with their numbers, in the order in which they were written. A field that cannot be read is `None`,
/// and the last.
pub(in crate::store) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// Nothing where another version has laid the row out.
    pub(in crate::store) fn of(row: &'a [u8]) -> Option<Self> {
        let (&VERSION, rest) = row.split_first()? else { return None };
        Some(Self { rest })
    }

    fn field(&mut self) -> Option<(u64, Field<'a>)> {
        let tag = self.varint()?;
        let value = self.varint()?;
        if tag & 1 == 0 {
            return Some((tag >> 1, Field::Amount(value)));
        }
        let (text, rest) = self.rest.split_at_checked(usize::try_from(value).ok()?)?;
        self.rest = rest;
        Some((tag >> 1, Field::Text(std::str::from_utf8(text).ok()?)))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has room for one bit.
            if shift == 63 && bits > 1 {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn fields_survive_their_bytes(
            amounts in prop::collection::vec((0_u64..1 << 62, 1_u64..), 0..20),
            text in "\\PC{0,40}",
        ) {
            let mut row = Writer::new();
            amounts.iter().for_each(|(number, amount)| row.amount(*number, *amount));
            row.text(9, &text);
            let row = row.finish();
            let read: Option<Vec<_>> = Fields::of(&row).unwrap().collect();
            let mut expected: Vec<_> =
                amounts.iter().map(|(number, amount)| (*number, Field::Amount(*amount))).collect();
            expected.push((9, Field::Text(&text)));
            prop_assert_eq!(read, Some(expected));
        }

        #[test]
        fn bytes_of_anything_end(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(fields) = Fields::of(&bytes) {
                prop_assert!(fields.count() <= bytes.len());
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_too_large_is_no_field() {
        for row in [&[1, 2][..], &[1, 2, 0x80], &[1, 3, 5, b'a'], &[1, 3, 1, 0xff]] {
            assert_eq!(Fields::of(row).unwrap().collect::<Vec<_>>(), [None], "{row:?}");
        }
        let too_large = [&[1, 2][..], &[0xff; 9], &[2]].concat();
        assert_eq!(Fields::of(&too_large).unwrap().last(), Some(None));
        let largest = [&[1, 2][..], &[0xff; 9], &[1]].concat();
        assert_eq!(Fields::of(&largest).unwrap().last(), Some(Some((1, Field::Amount(u64::MAX)))));
        assert!(Fields::of(&[]).is_none() && Fields::of(&[2, 2, 1]).is_none());
    }
}
