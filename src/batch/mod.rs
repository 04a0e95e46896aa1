//! `pinpipe batch`: reads the lake, cleans it, answers the eight questions.

mod answer;
mod clean;
mod distinct;
mod engine;
mod files;
mod ingest;
mod page;
mod quality;
mod rejects;
mod report;
mod run;

pub use answer::Answer;
pub use clean::Cleaner;
pub use distinct::{Distinct, distinct_from, kept, not_in_table};
pub use engine::{Engine, as_schema, cores};
pub use report::{BatchReport, KindCounts};
pub use run::{BatchArguments, BatchCommand, BatchCommandLine, HALF, run};
