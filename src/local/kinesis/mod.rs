//! A Kinesis Data Streams endpoint that any AWS SDK connects to, kept in one SQLite file.
//!
//! Speaks the service's JSON protocol and both of its CBOR ones. Requests are not
//! authenticated and streams are not throttled; whatever is acknowledged has been
//! committed to the file first.

mod actions;
mod cbor;
mod fault;
mod iterator;
mod reads;
mod server;
mod shard;
mod store;

pub use server::router;
pub use store::Store;
