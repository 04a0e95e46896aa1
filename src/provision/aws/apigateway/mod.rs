//! API Gateway: API with its routes, API key, usage plan.

pub mod api;
pub mod api_key;
pub mod routes;
pub mod tags;
pub mod usage_plan;
pub mod verify;
