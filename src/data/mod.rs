//! What the stages share: objects of the lake, tables, SQL, cleaning, the embedded engine.

pub mod engine;
pub mod lake;
pub mod sql;
pub mod storage;
pub mod tables;
pub mod transform;
