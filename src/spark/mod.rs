//! `pinpipe batch --engine spark`: the same definitions, run by Spark.

mod job;
mod submit;

pub use submit::run;
