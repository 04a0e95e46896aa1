//! Delta tables: location, writer, commit, time travel, maintenance, rejected records.

pub mod as_of;
pub mod delta;
pub mod maintain;
pub mod rejects;
pub mod writer;
