//! pinpipe provisions and runs Pinterest's data pipeline, on AWS or on one machine.
//!
//! Posts travel from a source database through the gateway into Kafka and Kinesis; the sink
//! writes the topics to the lake; batch cleans the lake and answers the questions; stream
//! cleans the same records as they arrive.
//!
//! Eight layers; each imports only from those below it (checked by `tests/architecture.rs`):
//!
//! - `cli`: arguments and help; one file per subcommand turns arguments into a call and prints
//!   what it returns
//! - `provision`: the resources of a pipeline, planned, applied and destroyed
//! - `spark`: batch on Spark, on this machine or on Databricks, at once or on a schedule
//! - `local`: the local stack: broker and Kinesis endpoint, connected to gateway and sink
//! - `stages`: the stages that move records: source, emulate, gateway, sink, batch, stream
//! - `data`: modules that the stages share: lake, tables, SQL, cleaning, engine
//! - `clients`: clients of other services
//! - `base`: configuration, errors, output, files, record kinds
//!
//! `docs/architecture.md` shows the flow of the data and where a change belongs.

mod base;
mod cli;
mod clients;
mod data;
mod local;
mod provision;
mod spark;
mod stages;

pub use cli::process::main as run;
