//! `pinpipe emulate`: users who post rows of the database through the gateway.

pub mod dead_letters;
pub mod order;
pub mod request;
pub mod run;
pub mod sender;
pub mod summary;
