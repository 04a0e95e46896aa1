//! `pinpipe demo`: the whole pipeline in one process, through the code of the subcommands.

mod agree;
mod report;
mod run;

pub use run::{DemoArguments, run};
