//! API Gateway: the API with its routes, the API key and the usage plan.

pub mod api;
pub mod api_key;
pub mod routes;
pub mod tags;
pub mod usage_plan;
pub mod verify;
