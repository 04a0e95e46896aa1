//! A Kinesis Data Streams endpoint that any AWS SDK connects to, kept in one SQLite file.
//!
//! Speaks the service's JSON protocol and both of its CBOR ones. Requests are not
//! authenticated and streams are not throttled; whatever is acknowledged has been
//! committed to the file first.

pub mod actions;
pub mod cbor;
pub mod error;
pub mod iterator;
pub mod parameters;
pub mod reads;
pub mod server;
pub mod shard;
pub mod store;
