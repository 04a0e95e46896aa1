//! Tables in text output.

use comfy_table::{CellAlignment, ContentArrangement, presets::UTF8_FULL_CONDENSED};
use indicatif::HumanCount;

use crate::base::output::terminal::printable;

/// A table built row by row; columns that contain only numbers are right-aligned.
#[derive(Debug)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    pub fn new<H: Into<String>>(headers: impl IntoIterator<Item = H>) -> Self {
        Self { headers: headers.into_iter().map(printable_cell).collect(), rows: Vec::new() }
    }

    /// Adds one row.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        // Replaced here, so that the width of the column counts the replacements.
        self.rows.push(cells.into_iter().map(printable_cell).collect());
    }

    /// Returns the table as text, wrapped to the width of the terminal. A terminal that is too
    /// narrow for whole words gets one block of `heading: value` lines per row instead.
    pub fn render(&self) -> String {
        match comfy_table::Table::new().width() {
            Some(width) if usize::from(width) < self.min_width() => self.blocks(),
            _ => self.boxed(),
        }
    }

    /// Minimum width of the table at which no word is broken.
    fn min_width(&self) -> usize {
        let longest_word =
            |cell: &String| cell.split_whitespace().map(|word| word.chars().count()).max();
        let column_width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.chain(&self.headers[column..=column]).filter_map(longest_word).max().unwrap_or(0)
        };
        // A border and two spaces per column.
        (0..self.headers.len()).map(|column| column_width(column) + 3).sum::<usize>() + 1
    }

    fn blocks(&self) -> String {
        let width = self.headers.iter().map(|header| header.chars().count()).max().unwrap_or(0);
        let block = |row: &Vec<String>| {
            let cells = self.headers.iter().zip(row).filter(|(_, cell)| !cell.is_empty());
            cells
                .map(|(header, cell)| {
                    format!("{:width$}  {cell}", format!("{header}:"), width = width + 1)
                })
                .collect::<Vec<_>>()
                .join("\n")
        };
        self.rows.iter().map(block).collect::<Vec<_>>().join("\n\n")
    }

    fn boxed(&self) -> String {
        let mut table = comfy_table::Table::new();
        table.load_preset(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(&self.headers);
        for row in &self.rows {
            table.add_row(row);
        }
        for column in 0..self.headers.len() {
            let numeric = self.rows.iter().all(|row| {
                row.get(column).is_none_or(|cell| {
                    cell.chars().all(|c| c.is_ascii_digit() || ",.-".contains(c))
                })
            });
            if numeric
                && !self.rows.is_empty()
                && let Some(column) = table.column_mut(column)
            {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.to_string()
    }
}

fn printable_cell(cell: impl Into<String>) -> String {
    let cell: String = cell.into();
    printable(&cell)
}

/// Formats a number with thousands separators: `11154` as `11,154`.
pub fn thousands(number: u64) -> String {
    HumanCount(number).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_narrow_terminal_gets_blocks_instead_of_broken_words() {
        let mut table = Table::new(["topic", "records"]);
        table.row(["streaming-local-pin", "1,000"]);
        table.row(["local.geo", ""]);
        assert_eq!(table.min_width(), 19 + 7 + 2 * 3 + 1);
        assert_eq!(
            table.blocks(),
            "topic:    streaming-local-pin\nrecords:  1,000\n\ntopic:    local.geo"
        );
    }

    #[test]
    fn cells_and_headings_have_no_escape_sequences() {
        let mut table = Table::new(["na\x1b[31mme"]);
        table.row(["\x1b]0;title\x07"]);
        for text in [table.blocks(), table.boxed()] {
            assert!(!text.contains('\x1b') && text.contains("\u{fffd}]0;title\u{fffd}"), "{text}");
        }
    }

    #[test]
    fn separates_thousands_by_commas() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(11_154), "11,154");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }
}
