//! The lake: raw objects as the sink writes them, and Delta tables.

mod as_of;
mod decode;
mod delta;
mod maintain;
mod objects;
mod read;
mod row;
mod slices;
mod store;
mod taken;
mod writer;

pub use as_of::AsOf;
pub use decode::{Decoder, KEPT_REJECTS, Reject};
pub use delta::{Append, DeltaLocation};
pub use maintain::Maintained;
pub use objects::{Layout, Objects, RawObject, count_objects, list_objects};
pub use read::{Portion, PortionSize, Portions, interrupted, read_objects};
pub use slices::{Slice, unpack, unpack_record};
pub use store::Lake;
pub use taken::{Listing, Taken};
pub use writer::{Change, Replaces, RowGroupSize, TableWriter};
