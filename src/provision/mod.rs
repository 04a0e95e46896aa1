//! `pinpipe provision`, `status` and `destroy`: everything the pipeline needs, as one plan.

pub mod aws;
pub mod cost;
pub mod engine;
pub mod local;
pub mod resource;
pub mod state;
