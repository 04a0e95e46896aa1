//! Plan, reconcile, apply and destroy over the graph of resources.

pub mod apply;
pub mod change;
pub mod destroy;
pub mod graph;
pub mod plan;
pub mod reconcile;
pub mod selection;
pub mod session;
pub mod status;
