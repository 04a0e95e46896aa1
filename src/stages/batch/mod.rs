//! `pinpipe batch`: reads the lake, cleans its records, answers the questions.

pub mod answer;
pub mod answer_files;
pub mod chunk;
pub mod ingest;
pub mod page;
pub mod report;
pub mod row_cache;
pub mod run;
