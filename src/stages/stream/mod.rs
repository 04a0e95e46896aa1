//! `pinpipe stream`: records as they arrive, cleaned into Delta tables, each exactly once.

pub mod checkpoint;
pub mod run;
pub mod source;
pub mod table;
