//! The embedded engine: DataFusion sessions, the memory budget, spilling to disk.

pub mod memory_budget;
pub mod session;
pub mod spill;
