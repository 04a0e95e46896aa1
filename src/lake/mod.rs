//! The lake: raw objects as the sink writes them, and Delta tables.

mod as_of;
mod decode;
mod delta;
mod maintain;
mod objects;
mod row;
mod store;
mod writer;

pub use as_of::AsOf;
pub use decode::{Decoder, KEPT_REJECTS, Reject};
pub use delta::{Append, DeltaLocation};
pub use maintain::Maintained;
pub use objects::{Layout, RawObject, Taken, list_objects, read_objects, unpack};
pub use store::Lake;
pub use writer::{Change, Replaces, TableWriter};
