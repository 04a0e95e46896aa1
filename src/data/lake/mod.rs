//! The lake: raw objects that the sink connector writes.

pub mod boundary;
pub mod checkpoint;
pub mod compression;
pub mod decode;
pub mod format;
pub mod line_splitter;
pub mod listing;
pub mod objects;
pub mod row;
pub mod scan;
pub mod value;
