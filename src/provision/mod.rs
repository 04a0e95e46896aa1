//! `pinpipe provision`, `status` and `destroy`: everything the pipeline needs, as one plan.

mod account;
mod apply;
mod asset;
mod checksum;
mod converge;
mod destroy;
mod graph;
mod ip_ranges;
mod listing;
mod local;
mod parameter;
mod plan;
mod price;
mod resource;
mod run_command;
mod selection;
mod stack;
mod state;
mod status;
mod steer;
mod topic_service;
mod topic_way;
mod verify;

pub use apply::{ProvisionArguments, apply, provision};
pub use checksum::sha256;
pub use destroy::{DestroyArguments, destroy};
pub use listing::{Listing, apis, connectors};
pub use selection::Selection;
pub use status::status;
pub use steer::{Steer, steer_connector};
pub use topic_service::TopicService;
pub use verify::verify_api;
