//! `pinpipe emulate`: posts rows of the source database through the gateway, as users do.

pub mod dead_letters;
pub mod order;
pub mod request;
pub mod run;
pub mod sender;
pub mod summary;
