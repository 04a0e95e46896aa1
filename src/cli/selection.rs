//! `--only` and `--skip`, shared by `provision`, `status` and `destroy`.

use clap::Args;

use crate::provision::engine::selection::Selection;

/// Flags that select resources.
#[derive(Debug, Clone, Args, Default)]
pub struct SelectionArguments {
    /// Select only these resources, by key or type (repeat, or separate by commas)
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    pub only: Vec<String>,
    /// Select all resources except these, by key or type
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    pub skip: Vec<String>,
}

impl From<SelectionArguments> for Selection {
    fn from(SelectionArguments { only, skip }: SelectionArguments) -> Self {
        Self { only, skip }
    }
}
