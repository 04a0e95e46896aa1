//! `--only` and `--skip`, shared by `provision`, `status` and `destroy`.

use clap::Args;

use crate::provision::engine::selection::Selection;

/// Flags that select resources.
#[derive(Debug, Clone, Args, Default)]
pub struct SelectionArguments {
    /// Only these resources, by key or type (repeat, or separate by commas)
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    pub only: Vec<String>,
    /// All resources except these
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    pub skip: Vec<String>,
}

impl From<SelectionArguments> for Selection {
    fn from(SelectionArguments { only, skip }: SelectionArguments) -> Self {
        Self { only, skip }
    }
}
