//! The report of `batch`.

use serde::Serialize;

use crate::base::model::Kind;
use crate::base::output::Report;
use crate::base::output::table::{Table, thousands};
use crate::data::lake::decode::Reject;
use crate::data::lake::listing::SkippedObject;
use crate::data::tables::maintain::Maintained;
use crate::data::transform::quality::ColumnQuality;
use crate::stages::batch::answer::Answer;

/// Maximum number of rejected records that are printed one by one.
const SHOWN_REJECTS: usize = 10;

/// Counts of one record kind.
#[derive(Debug, Serialize)]
pub struct KindCounts {
    pub kind: Kind,
    pub objects_in_lake: u64,
    /// Objects read by this run; earlier runs had not ingested them.
    pub objects: u64,
    /// Objects that were not read: their names are not supported, or they are unreadable and
    /// `batch.on_unreadable` is `skip`.
    pub skipped: u64,
    /// Records read, including rejected ones.
    pub records: u64,
    /// Tombstones, which are not records. Not shown in the table.
    pub tombstones: u64,
    pub rejects: u64,
    pub duplicates: u64,
    /// Rows added by this run.
    pub new_rows: u64,
    /// Rows of the clean table after the run.
    pub rows: u64,
    /// Location of the Delta table.
    pub table: String,
    /// Delta version of the table.
    pub version: u64,
}

/// The report of `batch`.
#[derive(Debug, Serialize)]
pub struct BatchReport {
    pub lake: String,
    pub seconds: f64,
    pub inputs: Vec<KindCounts>,
    /// The first objects that were not read, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedObject>,
    /// Remarks on the ingest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// Data quality of the records read by this run.
    pub quality: Vec<ColumnQuality>,
    /// Location of the table of rejected records; empty if the run wrote no tables.
    pub rejects_table: String,
    /// The first rejected records of this run.
    pub rejects: Vec<Reject>,
    pub answers: Vec<Answer>,
    /// Descriptions of the files and tables that contain the answers.
    pub written: Vec<String>,
    /// Results of `--optimize`, one for each table.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub maintained: Vec<Maintained>,
}

impl KindCounts {
    /// Counts of a table before any record is read.
    pub fn of_table(kind: Kind, rows: u64, table: String, version: u64) -> Self {
        Self {
            kind,
            objects_in_lake: 0,
            objects: 0,
            skipped: 0,
            records: 0,
            tombstones: 0,
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
    /// Sets the number of objects of each record kind, all of which were read.
    pub fn of_objects(mut self, counts: &[u64]) -> Self {
        for (input, count) in self.inputs.iter_mut().zip(counts) {
            (input.objects_in_lake, input.objects) = (*count, *count);
        }
        self
    }

    /// Creates an empty report.
    pub fn new(lake: String) -> Self {
        Self {
            lake,
            seconds: 0.0,
            inputs: Vec::new(),
            skipped: Vec::new(),
            notes: Vec::new(),
            quality: Vec::new(),
            rejects_table: String::new(),
            rejects: Vec::new(),
            answers: Vec::new(),
            written: Vec::new(),
            maintained: Vec::new(),
        }
    }

    /// Returns one line for each of the first objects that were not read, and one with their total.
    pub fn skipped_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .skipped
            .iter()
            .map(|skipped| format!("did not read `{}`: {}", skipped.object, skipped.reason))
            .collect();
        let skipped: u64 = self.inputs.iter().map(|input| input.skipped).sum();
        if skipped > 0 {
            lines.push(format!("objects not read in total: {}", thousands(skipped)));
        }
        lines
    }

    /// Returns one line for each of the first rejected records, and one with their total.
    pub fn reject_lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .rejects
            .iter()
            .take(SHOWN_REJECTS)
            .map(|reject| {
                format!(
                    "rejected a record of `{}`, line {}: {}",
                    reject.origin, reject.line, reject.reason
                )
            })
            .collect();
        let rejected: u64 = self.inputs.iter().map(|input| input.rejects).sum();
        if rejected > 0 {
            let total = thousands(rejected);
            lines.push(if self.rejects_table.is_empty() {
                format!(
                    "rejected records in total: {total}; not stored: the embedded engine stores \
                     them without `--no-tables`"
                )
            } else {
                format!(
                    "rejected records in total: {total}; stored with their reasons in `{}`",
                    self.rejects_table
                )
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
        let mut footer: Vec<String> =
            self.written.iter().map(|written| format!("wrote {written}")).collect();
        footer.extend(self.maintained.iter().map(|maintained| {
            format!(
                "{}: compacted {} files into {}, deleted {} files of earlier versions",
                maintained.table,
                maintained.files_compacted,
                maintained.files_created,
                maintained.files_removed
            )
        }));
        footer.extend(self.notes.iter().cloned());
        footer.push(format!("answered from {} in {:.2} s", self.lake, self.seconds));
        parts.push(footer.join("\n"));
        parts.join("\n\n")
    }
}
