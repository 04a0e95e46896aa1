//! Report of the demo: the answers, the counts of each stage, and the checks of these counts.

use std::path::PathBuf;

use serde::Serialize;

use crate::base::output::Report;
use crate::base::output::table::{Table, thousands};
use crate::stages::batch::answer::Answer;

/// Records in, records out and duration of one stage.
#[derive(Debug, Serialize)]
pub struct Stage {
    pub name: &'static str,
    pub records_in: u64,
    pub records_out: u64,
    pub seconds: f64,
    pub remark: String,
}

/// A check that a count has its expected value.
#[derive(Debug, Serialize)]
pub struct Claim {
    pub claim: String,
    pub expected: u64,
    pub found: u64,
}

impl Claim {
    pub fn holds(&self) -> bool {
        self.expected == self.found
    }
}

/// Value of [`OutputLocation::what`] for the report page.
pub const REPORT_PAGE: &str = "report page";

/// Location of an output.
#[derive(Debug, Serialize)]
pub struct OutputLocation {
    pub what: &'static str,
    pub path: PathBuf,
}

/// Report of `pinpipe demo`.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    pub seconds: f64,
    pub stages: Vec<Stage>,
    pub claims: Vec<Claim>,
    pub places: Vec<OutputLocation>,
    pub answers: Vec<Answer>,
}

impl DemoReport {
    /// Commands to try next, and the file to open.
    fn next_steps(&self) -> String {
        let page = self.places.iter().find(|place| place.what == REPORT_PAGE);
        let mut lines: Vec<String> = page
            .map(|page| format!("open {} in a browser", page.path.display()))
            .into_iter()
            .collect();
        lines.extend(
            [
                "next:",
                "  pinpipe local &                       start the servers with this data",
                "  pinpipe emulate --posts 500           post more rows",
                "  pinpipe batch --out answers           answer the questions again",
                "  pinpipe destroy --data --yes          delete all local data",
            ]
            .map(String::from),
        );
        lines.join("\n")
    }

    /// Returns the number of counts that differ from the expected counts.
    pub fn mismatches(&self) -> usize {
        self.claims.iter().filter(|claim| !claim.holds()).count()
    }
}

impl Report for DemoReport {
    fn text(&self) -> String {
        let mut parts: Vec<String> = self.answers.iter().map(Answer::text).collect();
        let mut stages = Table::new(["stage", "records in", "records out", "seconds", ""]);
        for stage in &self.stages {
            stages.row([
                stage.name.to_string(),
                thousands(stage.records_in),
                thousands(stage.records_out),
                format!("{:.2}", stage.seconds),
                stage.remark.clone(),
            ]);
        }
        parts.push(stages.render());
        let claims = self.claims.iter().map(|claim| {
            if claim.holds() {
                format!("✔ {}: {}", claim.claim, thousands(claim.found))
            } else {
                format!(
                    "✖ {}: expected {}, got {}",
                    claim.claim,
                    thousands(claim.expected),
                    thousands(claim.found)
                )
            }
        });
        parts.push(claims.collect::<Vec<_>>().join("\n"));
        parts.push(
            self.places
                .iter()
                .map(|place| format!("{:18} {}", place.what, place.path.display()))
                .collect::<Vec<_>>()
                .join("\n"),
        );
        parts.push(format!("done in {:.1} s", self.seconds));
        parts.push(self.next_steps());
        parts.join("\n\n")
    }
}
