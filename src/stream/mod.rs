//! `pinpipe stream`: records as they arrive, cleaned into Delta tables, each exactly once.

mod checkpoint;
mod kafka_source;
mod kinesis_source;
mod run;
mod source;
mod table;

pub use run::{Bounds, StreamArguments, StreamReport, run, run_until};
pub use table::TableCounts;
