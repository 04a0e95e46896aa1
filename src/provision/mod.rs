//! `pinpipe provision`, `status` and `destroy`: the resources of the pipeline, and their state.

pub mod aws;
pub mod cost;
pub mod engine;
pub mod local;
pub mod resource;
pub mod state;
