//! The typed configuration, which all subcommands share.
//!
//! In ascending order of precedence, values come from `config/local.toml` (built in), the TOML
//! file of the user, `PINPIPE__SECTION__KEY` environment variables, and flags.

pub mod check;
pub mod data_dir;
pub mod endpoints;
pub mod load;
pub mod outputs;
pub mod renamed;
pub mod runtime;
pub mod schema;
pub mod secret;
pub mod size;

/// Built-in default, which `init --target local` also writes.
pub const LOCAL_TOML: &str = include_str!("../../../config/local.toml");
/// Configuration that `init --target aws` writes.
pub const AWS_TOML: &str = include_str!("../../../config/aws.toml");
