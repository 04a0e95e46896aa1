//! Data shared by the stages: lake objects, clean tables, SQL, cleaning, the embedded engine.

pub mod engine;
pub mod lake;
pub mod sql;
pub mod storage;
pub mod tables;
pub mod transform;
