//! What `batch` found.

use std::path::PathBuf;

use serde::Serialize;

use super::answer::Answer;
use crate::lake::Reject;
use crate::output::{Report, Table, thousands};

/// Rejects that are named one by one.
const SHOWN_REJECTS: usize = 10;

/// Counts of one kind of record.
#[derive(Debug, Serialize)]
pub struct KindCounts {
    pub kind: crate::record::Kind,
    pub objects: u64,
    /// Records read, fitting or not.
    pub records: u64,
    pub rejects: u64,
    pub duplicates: u64,
    /// Rows of the clean table.
    pub rows: u64,
    /// The Delta table they went to.
    pub table: String,
}

/// The report of `batch`.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    pub lake: String,
    pub seconds: f64,
    pub inputs: Vec<KindCounts>,
    pub rejects: Vec<Reject>,
    pub answers: Vec<Answer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out: Option<PathBuf>,
}

impl BatchReport {
    /// The first rejects with their objects, and how many there are.
    pub fn reject_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .rejects
            .iter()
            .take(SHOWN_REJECTS)
            .map(|reject| format!("left out `{}`, line {}: {}", reject.origin, reject.line, reject.reason))
            .collect();
        let all: u64 = self.inputs.iter().map(|input| input.rejects).sum();
        if all > SHOWN_REJECTS as u64 {
            lines.push(format!("left out {} records in all", thousands(all)));
        }
        lines
    }
}

impl Report for BatchReport {
    fn text(&self) -> String {
        let mut table = Table::new(["kind", "objects", "records", "rejects", "duplicates", "rows", "table"]);
        for input in &self.inputs {
            table.row([
                input.kind.name().to_string(),
                thousands(input.objects),
                thousands(input.records),
                thousands(input.rejects),
                thousands(input.duplicates),
                thousands(input.rows),
                input.table.clone(),
            ]);
        }
        let mut parts: Vec<String> = self.answers.iter().map(Answer::text).collect();
        parts.push(table.render());
        let written =
            self.out.as_ref().map(|out| format!("; {} tables as CSV in {}", self.answers.len(), out.display())).unwrap_or_default();
        parts.push(format!("lake {} in {:.2} s{written}", self.lake, self.seconds));
        parts.join("\n\n")
    }
}
