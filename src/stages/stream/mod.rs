//! `pinpipe stream`: cleans records as they arrive and commits each exactly once to Delta tables.

pub mod checkpoint;
pub mod run;
pub mod source;
pub mod table;
