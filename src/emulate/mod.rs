//! `pinpipe emulate`: users who post rows of the database through the gateway.

mod dead_letters;
mod order;
mod request;
mod run;
mod sender;
mod summary;

pub use order::RowList;
pub use run::{EmulateArguments, run};
