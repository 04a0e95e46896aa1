//! `pinpipe batch`: reads the lake, cleans it, answers the eight questions.

mod answer;
mod engine;
mod input;
mod report;
mod run;

pub use answer::Answer;
pub use engine::{Engine, as_schema, distinct_from};
pub use run::{BatchArguments, HALF, run};
