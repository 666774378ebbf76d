//! Tables for people: columns as wide as their widest cell.

use std::io::{self, Write};

/// Writes `rows` under `heads`, columns two spaces apart.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let widths: [usize; N] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heads[column].len()]).max().unwrap_or_default()
    });
    for row in std::iter::once(&heads.map(str::to_owned)).chain(rows) {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn columns_are_aligned_and_nothing_trails() {
        let mut out = Vec::new();
        let rows = [["acme".to_owned(), "x".to_owned()], ["wide-name".to_owned(), String::new()]];
        super::write(&mut out, ["NAME", "TIER"], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME       TIER\nacme       x\nwide-name\n");
    }
}
