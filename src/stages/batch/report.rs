//! What `batch` found.

use serde::Serialize;

use crate::base::model::Kind;
use crate::base::output::Report;
use crate::base::output::table::{Table, thousands};
use crate::data::lake::decode::Reject;
use crate::data::tables::maintain::Maintained;
use crate::data::transform::quality::ColumnQuality;
use crate::stages::batch::answer::Answer;

/// Rejects that are named one by one.
const SHOWN_REJECTS: usize = 10;

/// Counts of one kind of record.
#[derive(Debug, Serialize)]
pub struct KindCounts {
    pub kind: Kind,
    pub objects_in_lake: u64,
    /// Objects read now: those that no earlier run took.
    pub objects: u64,
    /// Records read, fitting or not.
    pub records: u64,
    pub rejects: u64,
    pub duplicates: u64,
    /// Rows that this run added.
    pub new_rows: u64,
    /// Rows of the clean table.
    pub rows: u64,
    /// The Delta table they went to.
    pub table: String,
    /// The table's version in Delta.
    pub version: u64,
}

/// The report of `batch`.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    pub lake: String,
    pub seconds: f64,
    pub inputs: Vec<KindCounts>,
    /// What cleaning met in the records of this run.
    pub quality: Vec<ColumnQuality>,
    /// All records that did not fit, with their text.
    pub rejects_table: String,
    /// The first of those of this run.
    pub rejects: Vec<Reject>,
    pub answers: Vec<Answer>,
    /// Files and tables that hold the answers.
    pub written: Vec<String>,
    /// What `--optimize` did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintained: Vec<Maintained>,
}

impl KindCounts {
    /// A table from which nothing was read yet.
    pub fn of_table(kind: Kind, rows: u64, table: String, version: u64) -> Self {
        Self {
            kind,
            objects_in_lake: 0,
            objects: 0,
            records: 0,
            rejects: 0,
            duplicates: 0,
            new_rows: 0,
            rows,
            table,
            version,
        }
    }
}

impl BatchReport {
    /// With the number of objects of each kind, all of which were read.
    pub fn of_objects(mut self, counts: &[u64]) -> Self {
        for (input, count) in self.inputs.iter_mut().zip(counts) {
            (input.objects_in_lake, input.objects) = (*count, *count);
        }
        self
    }

    /// A report with nothing in it yet.
    pub fn new(lake: String) -> Self {
        Self {
            lake,
            seconds: 0.0,
            inputs: Vec::new(),
            quality: Vec::new(),
            rejects_table: String::new(),
            rejects: Vec::new(),
            answers: Vec::new(),
            written: Vec::new(),
            maintained: Vec::new(),
        }
    }

    /// The first rejects with their objects, and how many there are.
    pub fn reject_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .rejects
            .iter()
            .take(SHOWN_REJECTS)
            .map(|reject| {
                format!(
                    "left out `{}`, line {}: {}",
                    reject.origin, reject.line, reject.reason
                )
            })
            .collect();
        let all: u64 = self.inputs.iter().map(|input| input.rejects).sum();
        if all > 0 {
            let all = thousands(all);
            lines.push(if self.rejects_table.is_empty() {
                format!("left out {all} records in all; without `--no-tables` a table gets them with their reasons")
            } else {
                format!("left out {all} records in all; `{}` has them with their reasons", self.rejects_table)
            });
        }
        lines
    }
}

impl Report for BatchReport {
    fn text(&self) -> String {
        let mut table = Table::new([
            "kind",
            "objects",
            "new",
            "records",
            "rejects",
            "duplicates",
            "new rows",
            "rows",
            "table",
        ]);
        for input in &self.inputs {
            table.row([
                input.kind.name().to_string(),
                thousands(input.objects_in_lake),
                thousands(input.objects),
                thousands(input.records),
                thousands(input.rejects),
                thousands(input.duplicates),
                thousands(input.new_rows),
                thousands(input.rows),
                input.table.clone(),
            ]);
        }
        let mut parts: Vec<String> = self.answers.iter().map(Answer::text).collect();
        parts.push(table.render());
        let mut last: Vec<String> = self
            .written
            .iter()
            .map(|written| format!("wrote {written}"))
            .collect();
        last.extend(self.maintained.iter().map(|maintained| {
            format!(
                "{}: {} files became {}, {} of earlier states removed",
                maintained.table,
                maintained.files_compacted,
                maintained.files_made,
                maintained.files_removed
            )
        }));
        last.push(format!("lake {} in {:.2} s", self.lake, self.seconds));
        parts.push(last.join("\n"));
        parts.join("\n\n")
    }
}
