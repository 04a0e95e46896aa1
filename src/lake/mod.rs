//! The lake: raw objects as the sink writes them, and Delta tables.

mod decode;
mod delta;
mod read;
mod store;

pub use decode::{Decoder, Reject};
pub use delta::{Append, DeltaLocation};
pub use read::{Layout, RawObject, list_objects, read_object};
pub use store::Lake;
