//! Modules that the rest of the program uses: configuration, errors, output, files, record kinds.

pub mod checksum;
pub mod config;
pub mod error;
pub mod fs;
pub mod model;
pub mod output;
pub mod shutdown;
