//! pinpipe provisions and runs Pinterest's data pipeline, on AWS or on one machine.
//!
//! Posts travel from a source database through the gateway into Kafka and Kinesis; the sink
//! writes the topics to the lake; batch cleans the lake and answers the questions; stream
//! cleans the same records as they arrive.
//!
//! Eight layers; each imports only from those below it (`tests/architecture.rs` holds that):
//!
//! - `cli`: arguments and help; one file per subcommand turns arguments into a call and prints
//!   what it returns
//! - `provision`: the resources of a pipeline, planned, applied and destroyed
//! - `spark`: batch on Spark, here or on Databricks, now or on a schedule
//! - `local`: the local stack, that is, broker and Kinesis endpoint wired to gateway and sink
//! - `stages`: what moves records: source, emulate, gateway, sink, batch, stream
//! - `data`: what the stages share: lake, tables, SQL, cleaning, engine
//! - `clients`: clients of other services
//! - `base`: configuration, errors, output, files, record kinds
//!
//! `docs/architecture.md` shows the way of the data and where to make a change.

mod base;
mod cli;
mod clients;
mod data;
mod local;
mod provision;
mod spark;
mod stages;

pub use cli::process::main as run;
