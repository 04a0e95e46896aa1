//! The lake: raw objects as the sink writes them, and Delta tables.

mod decode;
mod delta;
mod read;
mod store;

pub use decode::{Decoder, KEPT_REJECTS, Reject};
pub use delta::{Append, DeltaLocation};
pub use read::{Layout, RawObject, list_objects, read_object, unpack};
pub use store::Lake;
