//! A Kinesis Data Streams endpoint for any AWS SDK, stored in one SQLite file.
//!
//! Supports the JSON protocol and both CBOR protocols of the service. Requests are
//! not authenticated and streams are not throttled. A write is committed to the
//! file before it is acknowledged.

pub mod actions;
pub mod cbor;
pub mod error;
pub mod iterator;
pub mod parameters;
pub mod reads;
pub mod server;
pub mod shard;
pub mod store;
