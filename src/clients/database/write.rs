//! Replaces the three source tables.

use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AssertSqlSafe, QueryBuilder};

use crate::base::error::Result;
use crate::base::model::{ColumnType, Kind};
use crate::base::output::progress::Progress;
use crate::clients::database::connect::{Database, explain, on_pool};
use crate::clients::database::{Cell, Rows};

/// Rows of one INSERT. With 12 columns, its parameters stay below the limit of every database.
const INSERT_ROWS: usize = 500;

impl Database {
    /// Replaces the three tables by new ones that contain these rows. The existing tables are
    /// unchanged until all rows are written, even after an error, a kill or a dropped future.
    /// `is_committing` is set directly before the new tables become visible.
    ///
    /// # Errors
    /// The database rejects a statement.
    pub async fn replace_tables(
        &self,
        tables: &[Rows],
        progress: &Progress,
        is_committing: &AtomicBool,
    ) -> Result<()> {
        let definitions: Vec<String> = Kind::ALL
            .into_iter()
            .flat_map(|kind| {
                let table = self.target_table(kind);
                [format!("DROP TABLE IF EXISTS {table}"), self.create_table(kind, &table)]
            })
            .collect();
        // MySQL commits implicitly at each of these statements, so they run before the transaction.
        let (before, inside) =
            definitions.split_at(if self.uses_staging_tables() { definitions.len() } else { 0 });
        self.execute_all(before).await?;
        let result = on_pool!(self, pool => {
            async {
                let mut transaction = pool.begin().await?;
                for statement in inside {
                    sqlx::query(AssertSqlSafe(statement.as_str())).execute(&mut *transaction).await?;
                }
                for table in tables {
                    let columns: Vec<String> = table.kind.columns().iter().map(|(name, _)| self.quoted(name)).collect();
                    let start = format!("INSERT INTO {} ({}) ", self.target_table(table.kind), columns.join(", "));
                    for chunk in table.rows.chunks(INSERT_ROWS) {
                        let mut insert = QueryBuilder::new(start.as_str());
                        insert.push_values(chunk, |mut row, cells| {
                            for (cell, (_, column_type)) in cells.iter().zip(table.kind.columns()) {
                                match (cell, column_type) {
                                    (Cell::Integer(number), _) => row.push_bind(*number),
                                    (Cell::Float(number), _) => row.push_bind(*number),
                                    (Cell::Text(text), _) => row.push_bind(text.as_str()),
                                    (Cell::DateTime(time), _) => row.push_bind(*time),
                                    // PostgreSQL requires the type of a null.
                                    (Cell::Null, ColumnType::Integer) => row.push_bind(None::<i64>),
                                    (Cell::Null, ColumnType::Float) => row.push_bind(None::<f64>),
                                    (Cell::Null, ColumnType::Text) => row.push_bind(None::<String>),
                                    (Cell::Null, ColumnType::DateTime) => row.push_bind(None::<chrono::NaiveDateTime>),
                                };
                            }
                        });
                        insert.build().persistent(false).execute(&mut *transaction).await?;
                        progress.add(chunk.len() as u64);
                    }
                }
                is_committing.store(true, Ordering::Relaxed);
                transaction.commit().await
            }.await
        });
        result.map_err(|error: sqlx::Error| explain("cannot fill the tables", &error))?;
        if self.uses_staging_tables() { self.rename_staging_tables().await } else { Ok(()) }
    }

    /// Whether the new rows are written to staging tables, which are renamed afterwards, because
    /// CREATE TABLE and DROP TABLE cannot be part of a transaction.
    fn uses_staging_tables(&self) -> bool {
        matches!(self, Self::MySql(_))
    }

    /// Table to which the new rows of a source table are written.
    fn target_table(&self, kind: Kind) -> String {
        let table = kind.source_table();
        if self.uses_staging_tables() { format!("pinpipe_new_{table}") } else { table.to_string() }
    }

    /// Replaces the source tables by the staging tables, in one atomic statement.
    async fn rename_staging_tables(&self) -> Result<()> {
        let replaced = |kind: Kind| format!("pinpipe_old_{}", kind.source_table());
        let mut renames = Vec::new();
        for kind in Kind::ALL {
            let table = kind.source_table();
            if self.row_count(kind).await?.is_some() {
                renames.push(format!("{table} TO {}", replaced(kind)));
            }
            renames.push(format!("{} TO {table}", self.target_table(kind)));
        }
        let drop_replaced =
            Kind::ALL.map(|kind| format!("DROP TABLE IF EXISTS {}", replaced(kind)));
        // A run that was killed between the last two statements left the replaced tables behind.
        self.execute_all(&drop_replaced).await?;
        self.execute_all(&[format!("RENAME TABLE {}", renames.join(", "))]).await?;
        self.execute_all(&drop_replaced).await
    }

    async fn execute_all(&self, statements: &[String]) -> Result<()> {
        for statement in statements {
            on_pool!(self, pool => sqlx::query(AssertSqlSafe(statement.as_str())).execute(pool).await.map(|_| ()))
                .map_err(|error| explain("cannot replace the tables", &error))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(numbers: &[i64]) -> Rows {
        let row = |number: &i64| {
            vec![
                Cell::Integer(*number),
                Cell::Text("Ada".into()),
                Cell::Null,
                Cell::Integer(36),
                Cell::Null,
            ]
        };
        Rows { kind: Kind::User, rows: numbers.iter().map(row).collect() }
    }

    #[tokio::test]
    async fn rows_are_kept_if_new_ones_cannot_be_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let options = sqlx::sqlite::SqliteConnectOptions::new()
            .filename(folder.path().join("source.db"))
            .create_if_missing(true);
        let database = Database::Sqlite(sqlx::SqlitePool::connect_lazy_with(options));
        let progress = Progress::start("filling", None, false);
        let is_committing = AtomicBool::new(false);
        database
            .replace_tables(&[users(&[1, 2, 3])], &progress, &is_committing)
            .await
            .expect("fills the tables");
        assert!(is_committing.load(Ordering::Relaxed));
        let is_committing = AtomicBool::new(false);
        let duplicate = users(&[4, 5, 5]);
        database
            .replace_tables(&[duplicate], &progress, &is_committing)
            .await
            .expect_err("row numbers are unique");
        assert!(!is_committing.load(Ordering::Relaxed));
        assert_eq!(database.row_count(Kind::User).await.expect("counts"), Some(3));
    }
}
