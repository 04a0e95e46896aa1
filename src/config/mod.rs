//! The one typed configuration that every subcommand shares.
//!
//! Layers, the later the stronger: `config/local.toml` (built in), the user's
//! TOML file, `PINPIPE__SECTION__KEY` variables, flags.

mod check;
mod endpoints;
mod load;
mod outputs;
mod runtime;
mod secret;
mod size;
mod types;

pub use check::{has_topic_operations, is_id, is_location, is_rate};
pub use endpoints::lake_bucket;
pub use load::{Overrides, load};
pub use outputs::Outputs;
pub use runtime::{Addresses, Runtime};
pub use secret::redacted;
pub use size::memory_bytes;
pub use types::*;

/// The built-in default, and what `init --target local` writes.
pub const LOCAL_TOML: &str = include_str!("../../config/local.toml");
/// What `init --target aws` writes.
pub const AWS_TOML: &str = include_str!("../../config/aws.toml");
