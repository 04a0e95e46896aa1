//! Tables in text output.

use comfy_table::{CellAlignment, ContentArrangement, presets::UTF8_FULL_CONDENSED};

/// A table built row by row; columns that contain only numbers are right-aligned.
#[derive(Debug)]
pub struct Table {
    headers: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Creates a table with these headings.
    pub fn new<H: Into<String>>(headers: impl IntoIterator<Item = H>) -> Self {
        Self { headers: headers.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// Adds one row.
    pub fn row<C: Into<String>>(&mut self, cells: impl IntoIterator<Item = C>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// Returns the table as text, wrapped to the width of the terminal.
    pub fn render(&self) -> String {
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

/// Formats a number with thousands separators: `11154` as `11,154`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separates_thousands_by_commas() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(11_154), "11,154");
        assert_eq!(thousands(1_000_000), "1,000,000");
    }
}
