//! Counts and latencies of a run of `emulate`.

use std::path::PathBuf;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::base::output::Report;
use crate::base::output::table::{Table, thousands};

/// Maximum latency of the histogram, in microseconds. A longer latency is recorded as this value.
const MAX_LATENCY_US: u64 = 10 * 60 * 1_000_000;

/// Counters of a run in progress.
pub struct RunCounts {
    pub posts: u64,
    pub delivered: u64,
    pub failed: u64,
    pub retries: u64,
    /// Reason of the first failed record.
    pub first_reason: Option<String>,
    /// Records that failed permanently since the last delivered record.
    pub consecutive_failures: u64,
    latencies_us: Histogram<u64>,
}

impl RunCounts {
    pub fn new() -> Self {
        let latencies_us =
            Histogram::new_with_bounds(1, MAX_LATENCY_US, 3).expect("these bounds are valid");
        Self {
            posts: 0,
            delivered: 0,
            failed: 0,
            retries: 0,
            first_reason: None,
            consecutive_failures: 0,
            latencies_us,
        }
    }

    /// Adds the latency of a request that received a response.
    pub fn record_latency(&mut self, latency: std::time::Duration) {
        self.latencies_us
            .saturating_record(u64::try_from(latency.as_micros()).unwrap_or(MAX_LATENCY_US));
    }

    /// Returns the report of the run.
    pub fn summary(&self, seconds: f64, dead_letters: Option<PathBuf>) -> Summary {
        let percentile =
            |quantile: f64| self.latencies_us.value_at_quantile(quantile) as f64 / 1000.0;
        Summary {
            posts: self.posts,
            records: self.delivered + self.failed,
            delivered: self.delivered,
            errors: self.failed,
            retries: self.retries,
            first_reason: self.first_reason.clone(),
            seconds,
            records_per_second: if seconds > 0.0 { self.delivered as f64 / seconds } else { 0.0 },
            latency_p50_ms: percentile(0.50),
            latency_p95_ms: percentile(0.95),
            latency_p99_ms: percentile(0.99),
            dead_letters,
        }
    }
}

/// Report of `emulate`.
#[derive(Debug, Serialize)]
pub struct Summary {
    pub posts: u64,
    pub records: u64,
    pub delivered: u64,
    /// Failed records, which are in the dead-letter file.
    pub errors: u64,
    /// Reason of the first failed record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_reason: Option<String>,
    /// Records that were sent again, counted at each retry.
    pub retries: u64,
    pub seconds: f64,
    pub records_per_second: f64,
    pub latency_p50_ms: f64,
    pub latency_p95_ms: f64,
    pub latency_p99_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dead_letters: Option<PathBuf>,
}

impl Report for Summary {
    fn text(&self) -> String {
        let mut table = Table::new([
            "posts",
            "records",
            "errors",
            "retries",
            "seconds",
            "records/s",
            "p50 ms",
            "p95 ms",
            "p99 ms",
        ]);
        table.row([
            thousands(self.posts),
            thousands(self.records),
            thousands(self.errors),
            thousands(self.retries),
            format!("{:.2}", self.seconds),
            thousands(self.records_per_second as u64),
            format!("{:.1}", self.latency_p50_ms),
            format!("{:.1}", self.latency_p95_ms),
            format!("{:.1}", self.latency_p99_ms),
        ]);
        match &self.dead_letters {
            Some(path) => {
                format!(
                    "{}\n{} records were not delivered and are stored in {}",
                    table.render(),
                    thousands(self.errors),
                    path.display()
                )
            }
            None => table.render(),
        }
    }
}
