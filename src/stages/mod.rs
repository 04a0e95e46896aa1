//! The stages of the pipeline, in the order of the data flow. Stages do not import each other.

pub mod batch;
pub mod emulate;
pub mod gateway;
pub mod sink;
pub mod source;
pub mod stream;
