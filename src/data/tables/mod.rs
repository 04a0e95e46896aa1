//! Tables: the interface of clean tables, and Delta tables with time travel, maintenance and
//! rejected records.

pub mod as_of;
pub mod clean_table;
pub mod delta;
pub mod delta_clean_table;
pub mod maintain;
pub mod rejects;
pub mod writer;

use crate::base::config::schema::Config;
use crate::base::error::Result;
use crate::base::model::Kind;
use crate::data::tables::clean_table::{CleanTable, TableNamespace};
use crate::data::tables::delta_clean_table::DeltaCleanTable;

/// Opens the clean table of a record kind in the configured destination.
///
/// # Errors
/// The location is invalid, or cannot be reached.
pub async fn open_clean_table(
    config: &Config,
    namespace: TableNamespace,
    kind: Kind,
) -> Result<Box<dyn CleanTable>> {
    Ok(Box::new(DeltaCleanTable::open(config, namespace, kind).await?))
}
