//! The lake: raw objects as the sink writes them.

pub mod checkpoint;
pub mod decode;
pub mod line_splitter;
pub mod objects;
pub mod row;
pub mod scan;
