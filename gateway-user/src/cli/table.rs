//! Tables for people: columns as wide as their widest cell.

use std::io::{self, Write};

/// Writes `rows` under `heads`, columns two spaces apart.
pub(super) fn write<const N: usize>(
    out: &mut impl Write,
    heads: [&str; N],
    rows: &[[String; N]],
) -> io::Result<()> {
    let rows: Vec<_> = rows.iter().map(|row| row.to_vec()).collect();
    write_with_figures(out, &heads.map(str::to_owned), &rows, N)
}

/// Writes `rows` under `heads`, from the column `figures` on with the cells to the right.
pub(super) fn write_with_figures(
    out: &mut impl Write,
    heads: &[String],
    rows: &[Vec<String>],
    figures: usize,
) -> io::Result<()> {
    let all = || std::iter::once(heads).chain(rows.iter().map(Vec::as_slice));
    let width = |column: usize| {
        all().filter_map(|row| row.get(column)).map(|cell: &String| cell.chars().count()).max()
    };
    let widths: Vec<_> = (0..heads.len()).map(|column| width(column).unwrap_or_default()).collect();
    for row in all() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < figures { format!("{cell:width$}") } else { format!("{cell:>width$}") }
        });
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
