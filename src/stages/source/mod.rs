//! The source database: generated or loaded posts.

pub mod generate;
pub mod load;
pub mod seed;
pub mod words;
