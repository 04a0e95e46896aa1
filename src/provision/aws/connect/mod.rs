//! MSK Connect: plugin, worker configuration and connector.

pub mod connector;
pub mod lookup;
pub mod operations;
pub mod plugin;
pub mod plugin_object;
pub mod worker_configuration;
