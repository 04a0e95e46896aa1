//! The one typed configuration that every subcommand shares.
//!
//! Layers, the later the stronger: `config/local.toml` (built in), the user's
//! TOML file, `PINPIPE__SECTION__KEY` variables, flags.

pub mod check;
pub mod endpoints;
pub mod load;
pub mod outputs;
pub mod runtime;
pub mod schema;
pub mod secret;
pub mod size;

/// The built-in default, and what `init --target local` writes.
pub const LOCAL_TOML: &str = include_str!("../../../config/local.toml");
/// What `init --target aws` writes.
pub const AWS_TOML: &str = include_str!("../../../config/aws.toml");
