//! Cleaning, deduplication and data quality of rows, for batch and stream.

pub mod clean;
pub mod deduplicator;
pub mod keys;
pub mod quality;
