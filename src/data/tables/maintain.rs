//! Maintenance of Delta tables: compacts small files and deletes files of old versions.

use serde::Serialize;

use crate::base::config::schema::Config;
use crate::base::error::{ErrorContext, Result};
use crate::base::model::Kind;
use crate::data::tables::clean_table::TableNamespace;
use crate::data::tables::delta::DeltaLocation;
use crate::data::tables::rejects;

/// Result of the maintenance of one table.
#[derive(Debug, Clone, Serialize)]
pub struct Maintained {
    pub table: String,
    pub files_compacted: u64,
    pub files_created: u64,
    /// Files of earlier versions that are older than the retention time.
    pub files_removed: u64,
}

/// Compacts the clean tables and the rejects table of batch, and deletes their files of expired
/// versions.
///
/// # Errors
/// A table cannot be read or written.
pub async fn maintain_tables(config: &Config) -> Result<Vec<Maintained>> {
    let mut maintained = Vec::new();
    let clean_tables = Kind::ALL.map(|kind| kind.clean_table(&config.id));
    for table in clean_tables.into_iter().chain([rejects::table(config)]) {
        let location = DeltaLocation::open(config, TableNamespace::Batch, &table).await?;
        maintained.extend(location.maintain(config.batch.retention_hours).await?);
    }
    Ok(maintained)
}

impl DeltaLocation {
    /// Compacts the table, then deletes files of earlier versions that are older than
    /// `retention_hours`. `--as-of` can read versions up to that age. Returns `None` if the table
    /// does not exist.
    ///
    /// # Errors
    /// The table cannot be read or written.
    async fn maintain(&self, retention_hours: u32) -> Result<Option<Maintained>> {
        let Some(table) = self.load().await? else {
            return Ok(None);
        };
        let (table, compacted) =
            table.optimize().await.context(|| self.error_context("compact"))?;
        let vacuum = table
            .vacuum()
            .with_retention_period(chrono::Duration::hours(retention_hours.into()))
            .with_enforce_retention_duration(false);
        let (_, vacuumed) = vacuum.await.context(|| self.error_context("vacuum"))?;
        Ok(Some(Maintained {
            table: self.name.clone(),
            files_compacted: compacted.num_files_removed,
            files_created: compacted.num_files_added,
            files_removed: vacuumed.files_deleted.len() as u64,
        }))
    }
}
