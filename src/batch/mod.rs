//! `pinpipe batch`: reads the lake, cleans it, answers the eight questions.

mod answer;
mod clean;
mod distinct;
mod engine;
mod files;
mod fresh;
mod ingest;
mod keep;
mod limits;
mod page;
mod portion;
mod quality;
mod rejects;
mod report;
mod run;
mod spill;

pub use answer::Answer;
pub use clean::Cleaner;
pub use distinct::{Distinct, KeyMaker, distinct_from, kept, not_in_table};
pub use engine::{Engine, as_schema, cores};
pub use report::{BatchReport, KindCounts};
pub use run::{BatchArguments, BatchCommand, BatchCommandLine, HALF, run};
