//! `pinpipe provision`, `status` and `destroy`: everything the pipeline needs, as one plan.

mod destroy;
mod plan;
mod resource;
mod status;

pub use destroy::{DestroyArguments, destroy};
pub use plan::{ProvisionArguments, apply, provision};
pub use status::status;
